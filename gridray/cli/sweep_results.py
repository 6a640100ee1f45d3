"""A sweep's trials as files: a table, and a plot of the score over each setting that was drawn."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gridray.datasets.partial import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from gridray.sweeps import TrialResult

BLUE, RED = "#0072B2", "#D55E00"
PANEL_IN = 2.6
"""Width of a panel, inches."""


def write_table(file: Path, trials: Sequence[TrialResult]) -> None:
    """Write one row a trial, best first, as CSV; a trial without a score has an empty cell."""
    names = list(trials[0].settings)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["score", "num_updates", "num_evaluations", "is_done", *names, "error"])
    for trial in trials:
        settings = [trial.settings[name] for name in names]
        counts = [trial.num_updates, trial.num_evaluations, trial.is_done]
        writer.writerow([trial.score, *counts, *settings, trial.error])
    write_file(file, stream.getvalue())


def write_plot(file: Path, trials: Sequence[TrialResult]) -> None:
    """Draw the scores over each setting that is not the same in all trials, the best trial in red, as SVG."""
    scored = [trial for trial in trials if trial.score is not None]
    drawn = [name for name in scored[0].settings if len({str(trial.settings[name]) for trial in trials}) > 1]
    figure = Figure(figsize=(1.0 + PANEL_IN * max(len(drawn), 1), 3.2), layout="constrained")
    panels = figure.subplots(1, max(len(drawn), 1), sharey=True, squeeze=False)[0]
    panels[0].set_ylabel("mean return of a validation day")
    if not drawn:
        _scatter(panels[0], list(range(1, len(scored) + 1)), scored, "trial, best first")
    for panel, name in zip(panels, drawn, strict=False):
        _scatter(panel, [trial.settings[name] for trial in scored], scored, name)
    stream = io.StringIO()
    FigureCanvasSVG(figure).print_svg(stream)  # type: ignore[no-untyped-call]
    write_file(file, stream.getvalue())


def _scatter(panel: Axes, values: Sequence[object], scored: Sequence[TrialResult], label: str) -> None:
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    is_number = len(numbers) == len(values)
    x = numbers if is_number else [str(value) for value in values]
    colours = [RED, *[BLUE] * (len(scored) - 1)]
    panel.scatter(x, [trial.score or 0.0 for trial in scored], c=colours, s=18)
    # Over a factor of ten and more, settings are drawn by their logarithm.
    if is_number and min(numbers) > 0 and max(numbers) >= 10 * min(numbers):
        panel.set_xscale("log")
    panel.set_xlabel(label)
