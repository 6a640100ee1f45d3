"""Storage with perfect foresight of prices and load: a day of charging as a linear programme."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.policies.optimal.programme import BestDay, Programme
from gridray.tasks.base import scaled_actions
from gridray.tasks.fleets.batteries import EFFICIENCY, FIRST_SOC

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.storage import Storage

NUM_EXPANSIONS = 3
SHIFT_SHARE = 0.1
"""Power over a battery's rating by which the import's slope is taken."""


def best_storage_day(task: Storage, number: int, seed: int = 0) -> BestDay:  # noqa: ARG001  # nothing is drawn
    """Return bound and plan of a day.

    The programme leaves voltages out, which can only lower a return, and takes the import as straight about the plan
    found before. The bound is its optimum, raised by as much as it and the twin differ on that plan.
    """
    names = task.batteries.names
    slope = _import_slope(task, number)
    plan = np.zeros((task.num_steps, len(names)))
    import_kw = _import(task, number, plan[:, None])[:, 0]
    for _ in range(NUM_EXPANSIONS):
        level = import_kw - (slope * plan).sum(axis=1)
        plan, value = _solve(task, number, level, slope)
        expected, import_kw = level + (slope * plan).sum(axis=1), _import(task, number, plan[:, None])[:, 0]
    off_kwh = np.abs(expected - import_kw).sum() * task.twin.step_h
    allowance = float(off_kwh) * task.config.peak_eur_per_kwh / task.unit_eur
    return BestDay(value + allowance, {f"battery.{name}.kw": plan[:, i] for i, name in enumerate(names)})


def _import(task: Storage, number: int, plans: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the twin imports under plans [T, R, N], kW, [T, R]."""
    num_rows = plans.shape[1]
    state = task.new_state(num_rows)
    task.reset(state, np.arange(num_rows), np.full(num_rows, number), np.zeros(num_rows, dtype=np.uint64))
    imported = []
    for rows in plans:
        own = {f"battery.{name}.kw": rows[:, i] for i, name in enumerate(task.batteries.names)}
        imported.append(task.step(state, scaled_actions(task.action_channels, own)).indicators["import_kw"])
    return np.stack(imported)


def _import_slope(task: Storage, number: int) -> NDArray[np.float64]:
    """Return how the import follows a little more of each battery, [T, N]; a step up and down keeps them half full."""
    width = SHIFT_SHARE * task.batteries.battery.discharge_kw.ravel()
    shifts = np.concatenate((np.diag(width), -np.diag(width)))
    turns = np.where(np.arange(task.num_steps) % 2, 1.0, -1.0)
    imported = _import(task, number, turns[:, None, None] * shifts)
    up, down = imported[:, : len(width)], imported[:, len(width) :]
    slope: NDArray[np.float64] = turns[:, None] * (up - down) / (2.0 * width)
    return slope


def _solve(
    task: Storage, number: int, level_kw: NDArray[np.float64], slope: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Return plan [T, N] and return of the best day whose import is level_kw [T] + slope [T, N] @ plan."""
    config, step_h, battery = task.config, task.twin.step_h, task.batteries.battery
    price = task.prices_eur_per_kwh(number)
    shape, programme = slope.shape, Programme()
    kwh = battery.kwh.ravel()
    unit, wear = task.unit_eur, config.wear_eur_per_kwh
    sell, buy = (-price[:, None] + wear) * step_h / unit, (price[:, None] + wear) * step_h / unit
    discharge = programme.variables(shape, 0.0, battery.discharge_kw.ravel(), cost=sell)
    charge = programme.variables(shape, 0.0, battery.charge_kw.ravel(), cost=buy)
    worth = np.zeros(shape)
    worth[-1] = -EFFICIENCY * task.mean_eur_per_kwh / unit * kwh
    soc = programme.variables(shape, 0.0, 1.0, cost=worth)
    gain, loss = (np.broadcast_to(f * step_h / kwh, shape) for f in (EFFICIENCY, 1.0 / EFFICIENCY))
    programme.rows([(1.0, soc[0]), (-gain[0], charge[0]), (loss[0], discharge[0])], FIRST_SOC, FIRST_SOC)
    flows = [(-gain[1:].ravel(), charge[1:].ravel()), (loss[1:].ravel(), discharge[1:].ravel())]
    programme.rows([(1.0, soc[1:].ravel()), (-1.0, soc[:-1].ravel()), *flows], 0.0, 0.0)
    over = programme.variables(shape[:1], 0.0, cost=config.peak_eur_per_kwh * step_h / unit)
    limit = level_kw - task.import_limit_kw
    programme.rows([(1.0, over), (-slope, discharge), (slope, charge)], limit)
    solution = programme.solve()
    held = EFFICIENCY * task.mean_eur_per_kwh / unit * FIRST_SOC * kwh.sum()
    return solution.x[discharge] - solution.x[charge], -solution.bound - held
