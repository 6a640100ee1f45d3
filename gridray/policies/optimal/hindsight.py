"""The best volt-var day in hindsight: expand, solve, expand about the solution; then whole positions and taps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.policies.optimal.day import Day
from gridray.policies.optimal.programme import BestDay
from gridray.policies.optimal.volt_var import bound_day, plan_day
from gridray.tasks.constraints import RANGE_A_PU
from gridray.tasks.fleets.regulators import MAX_TAP_CHANGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.policies.optimal.day import Expansion
    from gridray.tasks.volt_var import VoltVar

NUM_EXPANSIONS = 3
"""Times that a day is expanded about the plan found before; the third changes the bound by less than one percent."""
CLEARLY = 0.75
"""Steps between a whole tap and the relaxed one above which the whole one follows."""


def best_volt_var_day(task: VoltVar, number: int, seed: int = 0) -> BestDay:  # noqa: ARG001  # nothing is drawn
    """Return bound and plan of a day.

    The bound is the optimum of the relaxed day, raised by as much as the expansion and the power flow differ there.
    """
    day = Day(task, number)
    about = day.expand(day.start())
    for _ in range(NUM_EXPANSIONS - 1):
        about = _towards(day, about.at, plan_day(task, day, about).plan)
    relaxed = plan_day(task, day, about)
    floor = -task.config.reward_floor
    twin = np.minimum(penalties(task, day, relaxed.plan), floor)
    allowance = float(np.abs(twin - np.minimum(relaxed.penalty, floor)).sum())
    bound = min(bound_day(task, day, about) + allowance, 0.0)
    fixed = np.full_like(relaxed.plan, np.nan)
    for part, first, most in (
        (day.capacitors, day.first_capacitors, 1.0),
        (day.taps, day.first_taps, float(MAX_TAP_CHANGE)),
    ):
        fixed[:, part] = _whole(plan_day(task, day, about, fixed=fixed).plan[:, part], first, most)
    about = _towards(day, about.at, plan_day(task, day, about, fixed=fixed).plan)
    return BestDay(bound, _by_channel(day, plan_day(task, day, about, fixed=fixed).plan))


def penalties(task: VoltVar, day: Day, plan: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the task's penalty of each step of a plan [T, C] by the power flow, whole taps or not; float64 [T]."""
    config, percent = task.config, 100.0 / task.twin.nominal_kw
    flow = day.flow(plan, np.arange(day.num_steps))
    depth = np.maximum(np.maximum(RANGE_A_PU[0] - flow.vmag_pu, flow.vmag_pu - RANGE_A_PU[1]), 0.0)
    moves = [
        np.abs(np.diff(np.vstack((first, plan[:, part])), axis=0)).sum(axis=1)
        for part, first in ((day.taps, day.first_taps), (day.capacitors, day.first_capacitors))
    ]
    kw = plan[:, day.kw]
    curtailed = (day.available_kw - kw)[:, ~day.is_battery].sum(axis=1)
    total: NDArray[np.float64] = (
        config.voltage_weight * 100.0 * depth.mean(axis=1)
        + config.loss_weight * flow.losses_kw * percent
        + config.tap_weight * moves[0]
        + config.capacitor_weight * moves[1]
        + config.curtailment_weight * curtailed * percent
        + config.cycling_weight * np.abs(kw[:, day.is_battery]).sum(axis=1) * percent
    )
    return total


def _towards(day: Day, before: NDArray[np.float64], plan: NDArray[np.float64]) -> Expansion:
    """Expand about the plan, or half way to it in the steps where it has no power flow."""
    about = day.expand(plan)
    if about.converged.all():
        return about
    return day.expand(np.where(about.converged[:, None], plan, (before + plan) / 2.0))


def _whole(relaxed: NDArray[np.float64], first: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """Return whole numbers [T, N] that follow the relaxed ones where these have clearly moved, `most` at a time."""
    at, rows = first.copy(), []
    for row in relaxed:
        is_away = np.abs(row - at) > (CLEARLY if most > 1.0 else 0.5)
        at = np.where(is_away, at + np.clip(np.rint(row) - at, -most, most), at)
        rows.append(at)
    return np.stack(rows)


def _by_channel(day: Day, plan: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    grid = day.twin.grid
    values = {f"regulator.{name}.tap": plan[:, column] for column, name in enumerate(grid.tap_names)}
    for column, name in enumerate(grid.capacitor_names, day.capacitors.start):
        values[f"capacitor.{name}.state"] = plan[:, column]
    for number, generator in enumerate(day.generators):
        values[f"{generator.kind}.{generator.name}.kw"] = plan[:, day.kw.start + number]
        values[f"{generator.kind}.{generator.name}.kvar"] = plan[:, day.kvar.start + number]
    return values
