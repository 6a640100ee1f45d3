"""Where a policy stands between the floor and the ceiling of its task."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray  # noqa: TC002  # NamedTuple fields

from gridray.evaluation.rollout import day_seeds
from gridray.evaluation.statistics import (
    Estimate,
    interquartile_mean,
    seasons,
    share_better,
    stratified_interval,
)
from gridray.policies.optimal.plan import PLANNERS, PerfectPlan, has_bound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gridray.evaluation.rollout import EpisodeTable
    from gridray.tasks.base import Task

FLOOR, TODAY = "random", "utility_controls"
BEST_FOUND = "best return found by any policy here: no bound, a better policy may exceed 100"


class Ceiling(NamedTuple):
    """day: int64 [D], days it is known for; returns: float64 [D]; kind: what it is, in words."""

    day: NDArray[np.int64]
    returns: NDArray[np.float64]
    kind: str


class Score(NamedTuple):
    """A policy's return, on all days, and its place between floor and ceiling, on the ceiling's days.

    returns_iqm: interquartile mean of the days' returns; worst, worst_day: lowest return and its day; normalised: 100
    x (mean - random) / (ceiling - random), as D4RL; gap_share: (mean - utility controls) / (ceiling - utility
    controls); improvement: share of days above utility controls, ties half.
    """

    returns_mean: Estimate
    returns_iqm: Estimate
    worst: float
    worst_day: int
    normalised: Estimate
    gap_share: Estimate
    improvement: Estimate


def find_ceiling(
    task: Task,
    tables: Mapping[str, EpisodeTable],
    *,
    num_days: int,
    seed: int = 0,
    planner: PerfectPlan | None = None,
    on_day: Callable[[], None] | None = None,
) -> Ceiling:
    """Return the optimisation bound of up to num_days of the evaluated days, or the best that was found.

    Args:
        task: the task.
        tables: policy -> episodes, all on the same days.
        num_days: days to optimise, spread evenly over the evaluated ones.
        seed: that policies were evaluated with.
        planner: where days were planned already.
        on_day: called after each day.
    """
    day = next(iter(tables.values())).day
    if not has_bound(task):
        return Ceiling(day, np.max([table.returns for table in tables.values()], axis=0), BEST_FOUND)
    picked = day[np.unique(np.linspace(0, len(day) - 1, min(num_days, len(day))).round().astype(np.int64))]
    planner = PerfectPlan(task) if planner is None else planner
    bounds = []
    for one, drawn in zip(picked.tolist(), day_seeds(picked, seed).tolist(), strict=True):
        bounds.append(planner.best(one, drawn).bound)
        if on_day is not None:
            on_day()
    return Ceiling(picked, np.array(bounds), PLANNERS[task.name].kind)


def score(table: EpisodeTable, tables: Mapping[str, EpisodeTable], ceiling: Ceiling) -> Score:
    """Return where a policy stands; `tables` has the floor and today's controls on the same days."""
    strata = seasons(table.day)
    on = np.isin(table.day, ceiling.day)
    mine, floor, today = (one.returns[on] for one in (table, tables[FLOOR], tables[TODAY]))
    worst = int(table.returns.argmin())
    return Score(
        returns_mean=stratified_interval(_mean, (table.returns,), strata),
        returns_iqm=stratified_interval(interquartile_mean, (table.returns,), strata),
        worst=float(table.returns[worst]),
        worst_day=int(table.day[worst]),
        normalised=stratified_interval(_percent_of, (mine, floor, ceiling.returns), strata[on]),
        gap_share=stratified_interval(_share_of, (mine, today, ceiling.returns), strata[on]),
        improvement=stratified_interval(share_better, (table.returns, tables[TODAY].returns), strata),
    )


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(values.mean(axis=-1))


def _share_of(mine: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far mine is from low to high, of the means along the last axis; NaN where there is no gap."""
    gap = (high - low).mean(axis=-1)
    return np.asarray((mine - low).mean(axis=-1) / np.where(gap > 0.0, gap, np.nan))


def _percent_of(mine: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    return 100.0 * _share_of(mine, low, high)
