"""The best of a day on a network: its devices' programme under voltages, loadings and losses of the power flow."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from gridray.physics.controls import TAP_STEP
from gridray.physics.state import GridState
from gridray.policies.optimal.following import following
from gridray.policies.optimal.programme import BestDay, Programme
from gridray.policies.optimal.sensitivities import Controls, expand, measured, with_controls
from gridray.tasks.base import set_points
from gridray.tasks.constraints import RANGE_A_PU

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gridray.policies.optimal.sensitivities import Expansion, Measured
    from gridray.tasks.twin_task import TwinTask

NUM_EXPANSIONS = 6
"""Times that a day is expanded about the optimum found before."""


class Followed(NamedTuple):
    """What the twin did in the T intervals of a day.

    rewards: float64 [T]; grid: solved intervals, one a column; fleets: state of each kind by interval.
    """

    rewards: NDArray[np.float64]
    grid: GridState
    fleets: tuple[dict[str, Any], ...]


class Weights(NamedTuple):
    """Penalty per pu of mean depth outside range A, per pu of summed overload, and per kW lost."""

    voltage: float
    overload: float
    losses: float


class DayModel(Protocol):
    """What a task adds to the network: its devices' variables, and set-points from a solution."""

    task: Any
    weights: Weights

    def controls(self, followed: Followed) -> Controls:
        """Return what may be chosen."""
        ...

    def write(self, programme: Programme) -> tuple[NDArray[np.int64], float]:
        """Add the devices; return the variables of the controls, int64 [T, C], and the penalty that is not in them."""
        ...

    def set_points(self, x: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return the plan by channel, float64 [T], of a solution."""
        ...


def best_network_day(model: DayModel, number: int) -> BestDay:
    """Return bound and plan of a day of a task whose rewards are at most 0.

    Regulators' taps are real numbers that keep what they measure within their bands; voltages are as straight as the
    expansion about the optimum found before, loadings and losses curve upward and are touched from below about every
    optimum. The bound is the programme's optimum, raised by as much as it and the power flow differ there. A day with a
    step at the reward's floor is worth the floor at most. The plan is that of the best return on the twin of those
    found on the way: regulators follow in steps, and as they find the voltage.
    """
    start = follow(model.task, number, {})
    controls, grid = model.controls(start), start.grid
    tried: list[tuple[float, dict[str, NDArray[np.float64]]]] = [(float(start.rewards.sum()), {})]
    about: list[Expansion] = []
    bound = 0.0
    for _ in range(NUM_EXPANSIONS):
        about.append(expand(model.task, grid, controls))
        programme = Programme()
        variables, constant = model.write(programme)
        network = _Network(programme, variables, about, model)
        solution = programme.solve()
        plan = model.set_points(solution.x)
        tried.append((float(follow(model.task, number, plan).rewards.sum()), plan))
        solved = with_controls(model.task, grid, controls, solution.x[network.variables])
        differ = np.abs(network.penalties(solution.x) - network_penalties(model.weights, measured(model.task, solved)))
        bound = -solution.bound - constant + float(differ[solved.converged].sum())
        # Where the optimum has no power flow the last expansion stands.
        fields = ((getattr(solved, name), getattr(grid, name)) for name in GridState._fields)
        grid = GridState._make(np.where(solved.converged, new, old) for new, old in fields)
    floor = float(model.task.config.reward_floor)
    return BestDay(min(max(bound, floor), 0.0), max(tried, key=itemgetter(0))[1])


def follow(task: TwinTask, number: int, plan: Mapping[str, NDArray[np.float64]], *, seed: int = 0) -> Followed:
    """Return what the twin does on a day under set-points by channel, each [T]; the others are neutral."""
    state = task.new_state(1)
    task.reset(state, np.arange(1), np.array([number]), np.array([seed], dtype=np.uint64))
    rewards, grids, fleets = [], [], []
    for _ in range(task.num_steps):
        interval = task.twin.interval(state, set_points(task.action_channels, following(task, state, [plan])).T)
        rewards.append(task.score(state, interval).rewards[0])
        grids.append(GridState._make(array.copy() for array in state.grid))
        fleets.append(dict(state.fleets))
        task.twin.move_on(state)
    columns = (np.concatenate(arrays, axis=-1) for arrays in zip(*grids, strict=True))
    return Followed(np.array(rewards), GridState._make(columns), tuple(fleets))


def network_penalties(weights: Weights, flow: Measured) -> NDArray[np.float64]:
    """Return what voltages, loadings and losses of T intervals are penalised, float64 [T]; a dead node is not."""
    depth = np.maximum(np.maximum(RANGE_A_PU[0] - flow.vmag_pu, flow.vmag_pu - RANGE_A_PU[1]), 0.0)
    depth[flow.vmag_pu == 0.0] = 0.0
    over = np.maximum(flow.loading - 1.0, 0.0)
    total: NDArray[np.float64] = (
        weights.voltage * depth.mean(axis=1) + weights.overload * over.sum(axis=1) + weights.losses * flow.losses_kw
    )
    return total


class _Network:
    """Taps, depths outside range A, overloads and losses of a programme, and their penalties.

    variables: int64 [T, C + R], the controls' and the taps.
    """

    def __init__(
        self,
        programme: Programme,
        controls: NDArray[np.int64],
        about: Sequence[Expansion],
        model: DayModel,
    ) -> None:
        """Add everything."""
        self._programme, self._num_steps = programme, len(controls)
        self._entries: list[tuple[NDArray[np.int64], NDArray[np.int64], float]] = []
        last = about[-1]
        self._taps(controls, about, model)
        self._low, self._high = programme.limits(self.variables)
        weights = model.weights
        self._voltages(last, weights.voltage / last.flow.vmag_pu.shape[1])
        over = programme.variables(last.flow.loading.shape, 0.0, cost=weights.overload)
        lost = programme.variables((self._num_steps,), 0.0, cost=weights.losses)
        steps = np.arange(self._num_steps)
        self._entries.append((over, np.broadcast_to(steps[:, None], over.shape), weights.overload))
        self._entries.append((lost, steps, weights.losses))
        for one in about:
            self._touch(one, over, lost)

    def penalties(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what a solution is penalised for the network in each step, float64 [T]."""
        total = np.zeros(self._num_steps)
        for variables, time, cost in self._entries:
            np.add.at(total, time, cost * x[variables])
        return total

    def _taps(self, controls: NDArray[np.int64], about: Sequence[Expansion], model: DayModel) -> None:
        """Add taps, and rows that keep what regulators measure within the bands.

        One that was at an end of its range is free in that step, in later expansions, too: freed it leaves the end, but
        the feeder still asks for more than it has.
        """
        last = about[-1]
        sensing = model.task.grid.sensing
        least, most = ((end - 1.0) / TAP_STEP for end in (sensing.min_tap, sensing.max_tap))
        at = np.stack([one.at[:, controls.shape[1] :] for one in about])
        is_free = ((at <= least) | (at >= most)).any(axis=0)
        taps = self._programme.variables(is_free.shape, least, most)
        self.variables = np.concatenate((controls, taps), axis=1)
        half = np.where(is_free, np.inf, sensing.band_v / 2.0)
        for r in range(is_free.shape[1]):
            slope = last.control_slope[:, r]
            middle = sensing.vreg_v[r] - (last.flow.control_v[:, r] - (slope * last.at).sum(axis=1))
            self._programme.rows([(slope, self.variables)], middle - half[:, r], middle + half[:, r])

    def _voltages(self, last: Expansion, cost: float) -> None:
        v, (lowest, highest) = last.flow.vmag_pu, RANGE_A_PU
        reach = np.einsum("tnc,tc->tn", np.abs(last.vmag_slope), np.maximum(last.at - self._low, self._high - last.at))
        time, node = np.nonzero((v - reach < lowest) | (v + reach > highest))
        deep = self._programme.variables((len(time),), 0.0, cost=cost)
        self._entries.append((deep, time, cost))
        slope = last.vmag_slope[time, node]
        rest = v[time, node] - (slope * last.at[time]).sum(axis=1)
        variables = self.variables[time]
        self._programme.rows([(1.0, deep), (slope, variables)], lowest - rest)
        self._programme.rows([(1.0, deep), (-slope, variables)], rest - highest)

    def _touch(self, one: Expansion, over: NDArray[np.int64], lost: NDArray[np.int64]) -> None:
        """Add the tangents of loadings, where they may pass the rating, and of losses."""
        slope = one.loading_slope
        level = one.flow.loading - np.einsum("tlc,tc->tl", slope, one.at)
        highest = level + np.maximum(slope * self._low[:, None], slope * self._high[:, None]).sum(axis=-1)
        time, element = np.nonzero(highest > 1.0)
        of = self.variables[time]
        self._programme.rows([(1.0, over[time, element]), (-slope[time, element], of)], level[time, element] - 1.0)
        level = one.flow.losses_kw - (one.losses_slope * one.at).sum(axis=1)
        self._programme.rows([(1.0, lost), (-one.losses_slope, self.variables)], level)
