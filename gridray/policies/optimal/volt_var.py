"""Volt-var control with perfect foresight: a day as a linear programme about the best plan found so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.policies.optimal.programme import Programme
from gridray.tasks.constraints import RANGE_A_PU
from gridray.tasks.fleets.batteries import EFFICIENCY, FIRST_SOC
from gridray.tasks.fleets.regulators import MAX_TAP_CHANGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.policies.optimal.day import Day, Expansion
    from gridray.tasks.volt_var import VoltVar

    Entries = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]

TANGENTS = (0.0, 0.01, 0.03, 0.08, 0.2, 0.5)
"""Where the losses' curvature is touched, as a share of the range of a direction, either way."""
SMALLEST_CURVATURE = 1e-3
"""Directions whose curvature is less than this share of the largest count as straight, which underestimates losses."""
FLOOR_MARGIN = 0.5
"""Steps whose penalty is above this share of the floor may be given up: they get a whole number to say so."""

GIVEN_UP_RANGE = 2.0
"""What a step that is given up may be penalised at most, over its penalty where it is not, plus the floor."""
TIME_LIMIT_S = 10.0
"""For a day with steps to give up; what HiGHS has proven by then is the bound."""
NEAR_PU = 1e-4
"""How far inside the band a voltage gets its row."""


class DayPlan(NamedTuple):
    """plan: float64 [T, C], set-points of `Day`; bound: highest return under the expansion; penalty: float64 [T]."""

    plan: NDArray[np.float64]
    bound: float
    penalty: NDArray[np.float64]


def plan_day(task: VoltVar, day: Day, about: Expansion, *, fixed: NDArray[np.float64] | None = None) -> DayPlan:
    """Return the plan of the least penalty under an expansion of the day; its bound leaves the reward's floor out.

    Whole taps and positions are relaxed, losses are touched from below, and voltages are as straight as the expansion.

    Args:
        task: the task, whose weights count.
        day: its day.
        about: expansion about any plan.
        fixed: set-points that are given, float64 [T, C]; NaN where free.
    """
    found, _ = _solved(task, day, about, _Limits.of(day, fixed), is_coupled=True)
    return found


def bound_day(task: VoltVar, day: Day, about: Expansion) -> float:
    """Return the highest return under an expansion of the day; steps may be given up for the reward's floor."""
    limits = _Limits.of(day, None)
    found, kept = _solved(task, day, about, limits, is_coupled=True)
    given_up = np.flatnonzero(found.penalty > FLOOR_MARGIN * -task.config.reward_floor)
    if not len(given_up):
        return found.bound
    least, _ = _solved(task, day, about, limits, is_coupled=False)
    programme = _DayProgramme(task, day, about, limits)
    programme.add_voltages(*np.nonzero(kept))
    programme.give_up(given_up, found.penalty[given_up], least.penalty[given_up])
    return programme.solve().bound


def _solved(
    task: VoltVar, day: Day, about: Expansion, limits: _Limits, *, is_coupled: bool
) -> tuple[DayPlan, NDArray[np.bool_]]:
    """Solve with the voltages that matter, found by and by; return these too, bool [T, N]."""
    kept = _outside(about.vmag_pu)
    while True:
        programme = _DayProgramme(task, day, about, limits, is_coupled=is_coupled)
        programme.add_voltages(*np.nonzero(kept))
        found = programme.solve()
        v = about.vmag_pu + np.einsum("tnc,tc->tn", about.vmag_slope, found.plan - about.at)
        new = _outside(v) & ~kept
        if not new.any():
            return found, kept
        kept |= new


class _Limits(NamedTuple):
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, day: Day, fixed: NDArray[np.float64] | None) -> _Limits:
        if fixed is None:
            return cls(day.low, day.high)
        is_free = np.isnan(fixed)
        return cls(np.where(is_free, day.low, fixed), np.where(is_free, day.high, fixed))


class _DayProgramme:
    """Variables: set-points [T, C]; moves of taps and banks; batteries' charge, discharge, energy; losses; depths."""

    def __init__(self, task: VoltVar, day: Day, about: Expansion, limits: _Limits, *, is_coupled: bool = True) -> None:
        """Write all but the voltages; not is_coupled: every step for itself, moves and energy free."""
        self.task, self.day, self.about = task, day, about
        self.programme = Programme()
        config, self.percent = task.config, 100.0 / task.twin.nominal_kw
        self.set_points = self.programme.variables(limits.low.shape, limits.low, limits.high)
        self.penalty: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
        self.constant = np.zeros(day.num_steps)
        if is_coupled:
            self._moves(day.taps, day.first_taps, config.tap_weight, MAX_TAP_CHANGE)
            self._moves(day.capacitors, day.first_capacitors, config.capacitor_weight, 1.0)
            self._batteries(config.cycling_weight * self.percent)
        self._curtailment(config.curtailment_weight * self.percent)
        self._losses(config.loss_weight * self.percent)
        self._depths: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        self._paid = self.programme.variables((day.num_steps,), 0.0, cost=1.0)
        self._given_up: list[Entries] = []

    def add_voltages(self, time: NDArray[np.int64], node: NDArray[np.int64]) -> None:
        """Let the nodes of these steps pay for their depth outside the band."""
        about = self.about
        slope = about.vmag_slope[time, node]
        rest = about.vmag_pu[time, node] - (slope * about.at[time]).sum(axis=1)
        depth = self.programme.variables((len(time),), 0.0)
        variables = self.set_points[time]
        self.programme.rows([(1.0, depth), (slope, variables)], RANGE_A_PU[0] - rest)
        self.programme.rows([(1.0, depth), (-slope, variables)], rest - RANGE_A_PU[1])
        self._depths = (time, depth)

    def give_up(self, steps: NDArray[np.int64], penalty: NDArray[np.float64], least: NDArray[np.float64]) -> None:
        """Let these steps cost the floor at most; penalty: what they cost about, least: what they cost at least."""
        floor = -self.task.config.reward_floor
        must = np.where(least >= floor, 1.0, 0.0)
        is_up = self.programme.variables((len(steps),), must, 1.0, cost=floor, is_whole=True)
        self._given_up.append((is_up, steps, GIVEN_UP_RANGE * (penalty + floor)))
        # What a step costs at least holds for either choice, and saves the search from believing in halves of it.
        self.programme.rows([(1.0, self._paid[steps]), (floor, is_up)], np.minimum(least, floor))

    def solve(self) -> DayPlan:
        """Return the best plan."""
        steps = np.arange(self.day.num_steps)
        entries: list[Entries] = []
        for weights, variables in self.penalty:
            time = np.broadcast_to(steps[:, None], variables.shape).ravel()
            entries.append((variables.ravel(), time, np.broadcast_to(weights, variables.shape).ravel()))
        if self._depths is not None:
            time, depth = self._depths
            weight = self.task.config.voltage_weight * 100.0 / self.about.vmag_pu.shape[1]
            entries.append((depth, time, np.full(len(depth), weight)))
        paid: Entries = (self._paid, steps, np.ones(len(steps)))
        owed = [(variables, time, -value) for variables, time, value in entries]
        self.programme.columns([paid, *self._given_up, *owed], len(steps), low=self.constant)
        solution = self.programme.solve(time_limit_s=TIME_LIMIT_S)
        total = self.constant.copy()
        for variables, time, value in entries:
            np.add.at(total, time, value * solution.x[variables])
        return DayPlan(solution.x[self.set_points], -solution.bound, total)

    def _moves(self, part: slice, first: NDArray[np.float64], weight: float, most: float) -> None:
        at = self.set_points[:, part]
        if not at.size:
            return
        move = self.programme.variables(at.shape, 0.0, most)
        for sign in (1.0, -1.0):
            self.programme.rows([(1.0, move[0]), (-sign, at[0])], -sign * first)
            self.programme.rows([(1.0, move[1:].ravel()), (-sign, at[1:].ravel()), (sign, at[:-1].ravel())], 0.0)
        self.penalty.append((np.array(weight), move))

    def _curtailment(self, weight: float) -> None:
        sun = ~self.day.is_battery
        at = self.set_points[:, self.day.kw][:, sun]
        self.penalty.append((np.array(-weight), at))
        self.constant += weight * self.day.available_kw[:, sun].sum(axis=1)

    def _batteries(self, weight: float) -> None:
        is_battery = self.day.is_battery
        batteries = [g for g in self.day.generators if g.kind == "battery"]
        if not batteries:
            return
        at = self.set_points[:, self.day.kw][:, is_battery]
        kw, kwh = (np.array([getattr(g, name) for g in batteries]) for name in ("kw", "kwh"))
        charge, discharge = (self.programme.variables(at.shape, 0.0, kw) for _ in range(2))
        self.programme.rows([(1.0, at.ravel()), (-1.0, discharge.ravel()), (1.0, charge.ravel())], 0.0, 0.0)
        soc = self.programme.variables(at.shape, 0.0, 1.0)
        step_h = self.task.twin.step_h
        gain, loss = (np.broadcast_to(f * step_h / kwh, at.shape) for f in (EFFICIENCY, 1.0 / EFFICIENCY))
        self.programme.rows([(1.0, soc[0]), (-gain[0], charge[0]), (loss[0], discharge[0])], FIRST_SOC, FIRST_SOC)
        after, before = soc[1:].ravel(), soc[:-1].ravel()
        flows = [(-gain[1:].ravel(), charge[1:].ravel()), (loss[1:].ravel(), discharge[1:].ravel())]
        self.programme.rows([(1.0, after), (-1.0, before), *flows], 0.0, 0.0)
        self.penalty += [(np.array(weight), charge), (np.array(weight), discharge)]

    def _losses(self, weight: float) -> None:
        """Losses as their tangent plane plus the squares of the directions in which they curve, touched from below."""
        about, day = self.about, self.day
        half = np.maximum((day.high - day.low).max(axis=0) / 2.0, 1e-9)
        curvature = about.losses_curvature * half[:, None] * half
        value, vector = np.linalg.eigh(curvature)
        is_kept = value > SMALLEST_CURVATURE * value.max(axis=1, keepdims=True)
        number = int(is_kept.sum(axis=1).max(initial=0))
        value, vector = value[:, -number:], vector[:, :, -number:] / half[:, None]
        value = np.where(value > 0.0, value, 0.0)
        y = self.programme.variables((day.num_steps, number))
        square = self.programme.variables((day.num_steps, number), 0.0)
        rest = np.einsum("tck,tc->tk", vector, about.at)
        for k in range(number):
            self.programme.rows([(1.0, y[:, k]), (-vector[:, :, k], self.set_points)], -rest[:, k], -rest[:, k])
        reach = np.abs(vector * half[:, None]).sum(axis=1)
        for share in sorted({sign * share for share in TANGENTS for sign in (1.0, -1.0)}):
            a = share * 2.0 * reach
            for k in range(number):
                slope = value[:, k] * a[:, k]
                self.programme.rows([(1.0, square[:, k]), (-slope, y[:, k])], -0.5 * value[:, k] * a[:, k] ** 2)
        losses = self.programme.variables((day.num_steps,), 0.0)
        level = about.losses_kw - (about.losses_slope * about.at).sum(axis=1)
        self.programme.rows([(1.0, losses), (-about.losses_slope, self.set_points), (-1.0, square)], level)
        self.penalty.append((np.array(weight), losses[:, None]))


def _outside(v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which voltages are outside the band, or so near its ends that a plan may put them there."""
    outside: NDArray[np.bool_] = (v < RANGE_A_PU[0] + NEAR_PU) | (v > RANGE_A_PU[1] - NEAR_PU)
    return outside
