"""A page that shows what policies do: a verdict in words, tables with intervals, and plots."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jinja2 import Environment
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray  # noqa: TC002  # NamedTuple fields

from gridray.evaluation.columns import Column, columns
from gridray.evaluation.rollout import EpisodeTable
from gridray.evaluation.scores import Score
from gridray.evaluation.statistics import Estimate, mean_interval
from gridray.evaluation.template import PAGE

if TYPE_CHECKING:
    from pathlib import Path


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444", "#8C6D31")
"""Okabe and Ito's palette, told apart by colour-blind readers too."""


class VoltageProfile(NamedTuple):
    """One moment of a feeder: distance_km [N], phase [N], and vmag_pu [N] by policy."""

    title: str
    distance_km: NDArray[np.float64]
    phase: NDArray[np.int64]
    vmag_pu: dict[str, NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """What the page shows.

    verdict: sentences; tables: utility -> policy -> episodes; curves: utility -> label -> (updates, return) points;
    profiles: one or more moments; facts: what a reader needs to do it again; scores: utility -> policy -> place between
    floor and ceiling; notes: what the scores mean.
    """

    title: str
    verdict: Sequence[str]
    tables: Mapping[str, Mapping[str, EpisodeTable]]
    curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
    profiles: Sequence[VoltageProfile]
    facts: Mapping[str, str]
    scores: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    notes: Sequence[str] = ()


def write_report(folder: Path, data: ReportData) -> Path:
    """Write folder/index.html, whole or not at all, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    html = page.render(
        data=data,
        tables={utility: _rows(policies) for utility, policies in data.tables.items()},
        scores={utility: _score_rows(scores) for utility, scores in data.scores.items()},
        plots=_plots(data),
    )
    target = folder / "index.html"
    aside = folder / f".index.html.{os.getpid()}"
    aside.write_text(html, encoding="utf-8")
    aside.replace(target)
    return target


def _rows(policies: Mapping[str, EpisodeTable]) -> tuple[list[str], list[tuple[str, list[tuple[str, str]]]]]:
    """Return headings, and the cells of each policy: mean and interval."""
    shown = columns(policies.values())
    rows = []
    for policy, table in policies.items():
        estimates = {column.name: mean_interval(table[column.name]) for column in shown}
        rows.append((policy, [_cell(estimates[column.name], column) for column in shown]))
    return [column.heading for column in shown], rows


def _score_rows(scores: Mapping[str, Score]) -> list[tuple[str, list[tuple[str, str]]]]:
    shown = (
        Column("normalised", "", 1.0, 1),
        Column("gap_share", "", 100.0, 1),
        Column("returns_mean", "", 1.0, 2),
        Column("returns_iqm", "", 1.0, 2),
        Column("improvement", "", 100.0, 0),
    )
    rows = []
    for policy, score in scores.items():
        cells = [_cell(getattr(score, column.name), column) for column in shown]
        rows.append((policy, [*cells, (f"{score.worst:.2f}", f"day {score.worst_day}")]))
    return rows


def _cell(e: Estimate, column: Column) -> tuple[str, str]:
    if not np.isfinite(e.mean):
        return "-", "no gap"
    return column.text(e.mean), f"{column.text(e.low)} to {column.text(e.high)}"


def _plots(data: ReportData) -> list[tuple[str, str]]:
    plots = [(f"Voltage along the feeder: {p.title}", _profile_plot(p)) for p in data.profiles]
    if data.scores:
        plots.append(("Scores: 0 is random, 100 the ceiling", _score_plot(data.scores)))
        plots.append(("Return of each day, worst first", _day_plot(data.tables)))
    if data.curves:
        plots.append(("Learning: return on held-out days", _curve_plot(data.curves)))
    if all("tap_operations" in table.names for policies in data.tables.values() for table in policies.values()):
        plots.append(("Voltage violations against wear", _trade_off_plot(data.tables)))
    return plots


def _score_plot(scores: Mapping[str, Mapping[str, Score]]) -> str:
    figure = Figure(figsize=(7.0, 0.6 + 0.42 * sum(map(len, scores.values()))), layout="constrained")
    axes = np.atleast_1d(figure.subplots(len(scores), 1, sharex=True))
    for ax, (utility, policies) in zip(axes, scores.items(), strict=True):
        names = sorted(policies, key=lambda name: policies[name].normalised.mean)
        for row, name in enumerate(names):
            e = policies[name].normalised
            if np.isfinite(e.mean):
                ax.plot([e.low, e.high], [row, row], color=COLOURS[0], lw=6, alpha=0.35, solid_capstyle="butt")
                ax.plot([e.mean], [row], "o", color=COLOURS[0])
        ax.set(title=utility, yticks=range(len(names)), yticklabels=names)
        ax.axvline(100.0, color=COLOURS[1], ls="--", lw=1.0)
    axes[-1].set_xlabel("normalised score")
    return _svg(figure)


def _day_plot(tables: Mapping[str, Mapping[str, EpisodeTable]]) -> str:
    figure = Figure(figsize=(max(4.2 * len(tables), 6.0), 3.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(tables)))
    for ax, (utility, policies) in zip(axes, tables.items(), strict=True):
        for (policy, table), colour in zip(policies.items(), COLOURS, strict=False):
            ax.plot(np.arange(1, len(table.day) + 1), np.sort(table.returns), color=colour, lw=1.6, label=policy)
        ax.set(title=utility, xlabel="days, worst first")
        ax.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("return of the day")
    return _svg(figure)


def _profile_plot(profile: VoltageProfile) -> str:
    figure = Figure(figsize=(4.2 * len(profile.vmag_pu), 3.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(profile.vmag_pu), sharey=True))
    for ax, (policy, vmag) in zip(axes, profile.vmag_pu.items(), strict=True):
        for phase, marker in ((1, "o"), (2, "s"), (3, "^")):
            rows = profile.phase == phase
            ax.scatter(
                profile.distance_km[rows],
                vmag[rows],
                s=14,
                marker=marker,
                color=COLOURS[phase - 1],
                label="abc"[phase - 1],
            )
        ax.axhspan(0.95, 1.05, color="#009E73", alpha=0.08, lw=0)
        ax.set(title=policy, xlabel="distance from the source, km")
    axes[0].set_ylabel("voltage, pu")
    axes[0].legend(title="phase", frameon=False)
    return _svg(figure)


def _curve_plot(curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> str:
    figure = Figure(figsize=(4.2 * len(curves), 3.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(curves)))
    for ax, (utility, lines) in zip(axes, curves.items(), strict=True):
        for (label, points), colour in zip(lines.items(), COLOURS, strict=False):
            is_level = len(points) == 1
            if is_level:
                ax.axhline(points[0][1], color=colour, ls="--", lw=1.2, label=label)
            else:
                ax.plot(*zip(*points, strict=True), color=colour, marker="o", ms=4, label=label)
        ax.set(title=utility, xlabel="gradient updates")
        ax.legend(frameon=False, fontsize=8)
    axes[0].set_ylabel("return per day")
    return _svg(figure)


def _trade_off_plot(tables: Mapping[str, Mapping[str, EpisodeTable]]) -> str:
    figure = Figure(figsize=(4.2 * len(tables), 3.6), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(tables)))
    for ax, (utility, policies) in zip(axes, tables.items(), strict=True):
        shown = {policy: table for policy, table in policies.items() if policy != "random"}
        for (policy, table), colour in zip(shown.items(), COLOURS, strict=False):
            x, y = mean_interval(table["tap_operations"]), mean_interval(table["violation_share"] * 100.0)
            ax.errorbar(
                x.mean,
                y.mean,
                xerr=[[x.mean - x.low], [x.high - x.mean]],
                yerr=[[y.mean - y.low], [y.high - y.mean]],
                fmt="o",
                color=colour,
                capsize=3,
                label=policy,
            )
        ax.set(title=utility, xlabel="tap steps per day", ylabel="node-steps in violation, %")
        ax.set_ylim(bottom=0.0)
        ax.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _svg(figure: Any) -> str:  # noqa: ANN401
    """Return the figure as an SVG element to put into a page."""
    for ax in figure.axes:
        ax.spines[["top", "right"]].set_visible(b=False)
        ax.grid(visible=True, alpha=0.25, lw=0.5)
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return text.getvalue()[text.getvalue().index("<svg") :]
