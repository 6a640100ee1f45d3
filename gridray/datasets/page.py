"""A page that shows a dataset: its card, what it covers, and plots; one file without anything from elsewhere."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gridray.datasets.coverage import ACTION_EDGES, LIMITS_PU, VOLTAGE_EDGES
from gridray.datasets.partial import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from gridray.datasets.card import DatasetCard
    from gridray.datasets.coverage import Coverage

BLUE, RED = "#0072B2", "#D55E00"
ROW_IN = 0.16
"""Height of a row of a heat map, inches."""
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2733; background: #f5f7f9; margin: 0; }
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem; } h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; }
section { background: #fff; border: 1px solid #dbe2e8; border-radius: 10px; padding: 1rem 1.3rem; margin: 1rem 0; }
.wide { overflow-x: auto; } svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid #dbe2e8; }
th { color: #5b6876; } th:first-child, td:first-child { text-align: left; } td { overflow-wrap: anywhere; }
</style></head><body><main>
<h1>{{ title }}</h1>
{% for heading, columns, rows in tables %}
<section><h2>{{ heading }}</h2><div class="wide"><table>
{% if columns %}<thead><tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr></thead>{% endif %}
<tbody>{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody>
</table></div></section>
{% endfor %}
{% for heading, svg in plots %}
<section><h2>{{ heading }}</h2><div class="wide">{{ svg | safe }}</div></section>
{% endfor %}
</main></body></html>
"""


def write_page(file: Path, card: DatasetCard, coverage: Coverage) -> None:
    """Write the page, whole or not at all."""
    tables = [
        ("Card", (), card.summary()),
        (
            "Costs, totals of an episode",
            ("cost", "mean", "deviation", "5 %", "median", "95 %", "most"),
            card.cost_table(),
        ),
        (
            "Actions",
            ("action", "mean", "deviation", "share of bins with rows", "share of rows in an end bin"),
            [(name, *(f"{value:.3g}" for value in row)) for name, *row in coverage.action_table()],
        ),
    ]
    if coverage.voltage_names:
        rows = [(name, *(f"{value:.4%}" for value in row)) for name, *row in coverage.voltage_table()]
        tables.append(("Voltages, worst first", ("node", f"below {LIMITS_PU[0]} pu", f"above {LIMITS_PU[1]} pu"), rows))
    title = f"{card.task} on {card.feeder}, {card.policy}: {card.num_transitions} transitions"
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_file(file, page.render(title=title, tables=tables, plots=_plots(coverage)))


def _plots(coverage: Coverage) -> list[tuple[str, str]]:
    plots = [("Coverage of actions", _heat_map(coverage.actions, coverage.action_names, ACTION_EDGES, "action"))]
    if coverage.voltage_names:
        figure = Figure(figsize=(9.0, 3.0), layout="constrained")
        axes = figure.subplots()
        axes.stairs(coverage.voltages.sum(axis=0), VOLTAGE_EDGES, fill=True, color=BLUE)
        for limit in LIMITS_PU:
            axes.axvline(limit, color=RED, linestyle="--")
        axes.set(xlabel="voltage, pu", ylabel="samples", yscale="log")
        plots.append(("Voltages of all metered nodes", _svg(figure)))
        names = tuple(name.removeprefix("vmag_pu.") for name in coverage.voltage_names)
        plots.append(("Voltage by node", _heat_map(coverage.voltages, names, VOLTAGE_EDGES, "voltage, pu")))
    if coverage.hours.any():
        figure = Figure(figsize=(9.0, 2.2), layout="constrained")
        axes = figure.subplots()
        axes.bar(np.arange(24), coverage.hours, color=BLUE)
        axes.set(xlabel="hour of the timestamp", ylabel="transitions")
        plots.append(("Hours", _svg(figure)))
    return plots


def _heat_map(counts: np.ndarray, names: tuple[str, ...], edges: np.ndarray, label: str) -> str:
    """Draw the share of each bin in its row."""
    figure = Figure(figsize=(9.0, 1.0 + ROW_IN * max(len(names), 4)), layout="constrained")
    axes: Axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(
        share, aspect="auto", cmap="viridis", extent=(edges[0], edges[-1], len(names), 0), interpolation="nearest"
    )
    axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=7)
    axes.set_xlabel(label)
    figure.colorbar(image, label="share of rows")
    return _svg(figure)


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    FigureCanvasSVG(figure).print_svg(stream)  # type: ignore[no-untyped-call]
    text = stream.getvalue()
    return text[text.index("<svg") :]
