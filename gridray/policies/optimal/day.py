"""One day of a twin with its set-points free: power flow at any of them, and its derivatives."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.physics.controls import MAX_STEP, TAP_STEP
from gridray.physics.measure import power_balance, voltage_magnitudes
from gridray.physics.solver import solve_state
from gridray.physics.state import nominal_state

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.components import Generator
    from gridray.tasks.twin import Twin
    from gridray.tasks.twin_task import TwinTask

TOLERANCE = 1e-9
"""Voltage tolerance, pu: second differences of the losses are taken."""
STEP_SHARE = 0.02
"""Power over the feeder's nominal load by which derivatives are taken."""


class Flow(NamedTuple):
    """Power flow of R rows: vmag_pu [R, num_nodes]; losses_kw [R]; converged bool [R]."""

    vmag_pu: NDArray[np.float64]
    losses_kw: NDArray[np.float64]
    converged: NDArray[np.bool_]


class Expansion(NamedTuple):
    """Second-order expansion about a plan `at` [T, C].

    vmag_pu [T, N] and its slope [T, N, C]; losses_kw [T], slope [T, C], curvature [T, C, C]; converged bool
    [T].
    """

    at: NDArray[np.float64]
    vmag_pu: NDArray[np.float64]
    vmag_slope: NDArray[np.float64]
    losses_kw: NDArray[np.float64]
    losses_slope: NDArray[np.float64]
    losses_curvature: NDArray[np.float64]
    converged: NDArray[np.bool_]


class Day:
    """Loads and weather of one day; a set-point row is taps (steps), capacitors (0..1), generators' kW, their kvar.

    taps, capacitors, kw, kvar: slices of a row; available_kw: float64 [T, num_generators], what the weather offers, the
    rating of a battery; first_taps, first_capacitors: positions before the first interval; low, high: float64 [T, C].
    """

    def __init__(self, task: TwinTask, day: int) -> None:
        """Take the task's day."""
        self.twin: Twin = task.twin
        grid = self.twin.grid
        generators = {generator.name: generator for generator in self.twin.feeder.generators}
        self.generators = tuple(generators[name] for name in grid.generator_names)
        self._series = _series(self.twin, day)
        self.num_steps = self.twin.num_steps
        sizes = np.cumsum([0, len(grid.tap_names), len(grid.capacitor_names)] + [len(self.generators)] * 2)
        self.taps, self.capacitors, self.kw, self.kvar = (slice(*pair) for pair in pairwise(sizes))
        self.num_set_points = int(sizes[-1])
        self.available_kw = _available(self.twin, self.generators, day)
        state = task.new_state(1)
        task.reset(state, np.arange(1), np.array([day]), np.zeros(1, dtype=np.uint64))
        self.first_taps = np.rint((state.grid.taps[:, 0] - 1.0) / TAP_STEP)
        self.first_capacitors = state.grid.capacitor_states[:, 0].copy()
        self.low, self.high = self._limits(task)

    def start(self) -> NDArray[np.float64]:
        """Return the plan of doing nothing: positions as they are, all that the weather offers, batteries idle."""
        plan = np.zeros((self.num_steps, self.num_set_points))
        plan[:, self.taps], plan[:, self.capacitors] = self.first_taps, self.first_capacitors
        plan[:, self.kw] = np.where(self.is_battery, 0.0, self.available_kw)
        return plan

    @property
    def is_battery(self) -> NDArray[np.bool_]:
        """Whether each generator is a battery, bool [num_generators]."""
        return np.array([generator.kind == "battery" for generator in self.generators], dtype=np.bool_)

    def flow(self, rows: NDArray[np.float64], steps: NDArray[np.int64]) -> Flow:
        """Solve set-points [R, C], each in its step of the day, int64 [R]."""
        grid = self.twin.grid
        state = nominal_state(grid, len(rows))
        load_kw, load_kvar = (series[:, steps] for series in self._series)
        state = state._replace(
            items_kw=np.concatenate((load_kw, -rows[:, self.kw].T)),
            items_kvar=np.concatenate((load_kvar, -rows[:, self.kvar].T)),
            taps=np.ascontiguousarray(1.0 + TAP_STEP * rows[:, self.taps].T),
            capacitor_states=np.ascontiguousarray(rows[:, self.capacitors].T),
        )
        state = solve_state(grid, state, tolerance=TOLERANCE)
        vmag_pu = voltage_magnitudes(grid, state).T
        return Flow(vmag_pu, power_balance(grid, state).losses.real, state.converged)

    def expand(self, plan: NDArray[np.float64]) -> Expansion:
        """Return the expansion about a plan [T, C], by central differences of the batched power flow."""
        num_steps, num = plan.shape
        width = np.full(num, STEP_SHARE * self.twin.nominal_kw)
        width[self.taps], width[self.capacitors] = 1.0, 0.5
        first, second = np.triu_indices(num, 1)
        shifts = np.concatenate(
            (np.zeros((1, num)), np.diag(width), -np.diag(width), np.diag(width)[first] + np.diag(width)[second])
        )
        rows = (plan + shifts[:, None]).reshape(-1, num)
        flow = self.flow(rows, np.tile(np.arange(num_steps), len(shifts)))
        v, losses, converged = (part.reshape(len(shifts), num_steps, *part.shape[1:]) for part in flow)
        is_solved: NDArray[np.bool_] = np.asarray(converged.all(axis=0))
        # What has no power flow about it is taken to cost nothing: too good, as a bound may be.
        v[:, ~is_solved], losses[:, ~is_solved] = 1.0, 0.0
        up, down = slice(1, num + 1), slice(num + 1, 2 * num + 1)
        curvature = np.zeros((num_steps, num, num))
        curvature[:, np.arange(num), np.arange(num)] = (losses[up] + losses[down] - 2.0 * losses[0]).T / width**2
        mixed = losses[2 * num + 1 :] - losses[up][first] - losses[up][second] + losses[0]
        curvature[:, first, second] = curvature[:, second, first] = mixed.T / (width[first] * width[second])
        return Expansion(
            at=plan,
            vmag_pu=v[0],
            vmag_slope=np.moveaxis(v[up] - v[down], 0, -1) / (2.0 * width),
            losses_kw=losses[0],
            losses_slope=(losses[up] - losses[down]).T / (2.0 * width),
            losses_curvature=curvature,
            converged=is_solved,
        )

    def _limits(self, task: TwinTask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the set-points' limits; a device that the task does not command stays as it is."""
        low, high = self.start(), self.start()
        commanded = {channel.name: channel for channel in task.action_channels}
        grid = self.twin.grid
        for column, name in enumerate(grid.tap_names):
            if f"regulator.{name}.tap_change" in commanded:
                low[:, column], high[:, column] = -MAX_STEP, MAX_STEP
        for column, name in enumerate(grid.capacitor_names, self.capacitors.start):
            if f"capacitor.{name}.state" in commanded:
                low[:, column], high[:, column] = 0.0, 1.0
        for number, generator in enumerate(self.generators):
            for quantity, first in (("kw", self.kw.start), ("kvar", self.kvar.start)):
                channel = commanded.get(f"{generator.kind}.{generator.name}.{quantity}")
                if channel is not None:
                    low[:, first + number], high[:, first + number] = channel.low, channel.high
        high[:, self.kw] = np.minimum(high[:, self.kw], self.available_kw)
        return low, high


def _series(twin: Twin, day: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the loads' kW and kvar of the day, each [num_loads, T]."""
    steps = (day * twin.num_steps + np.arange(twin.num_steps)) % len(twin.loads.series_pu)
    pu = twin.loads.series_pu[steps].T
    return twin.loads.kw[:, None] * pu, twin.loads.kvar[:, None] * pu


def _available(twin: Twin, generators: tuple[Generator, ...], day: int) -> NDArray[np.float64]:
    """Return what the weather offers every generator in every step, its rating for a battery, [T, num_generators]."""
    state = twin.new_state(twin.num_steps)
    state.day[:], state.t[:] = day, np.arange(twin.num_steps)
    step = (state.day * twin.num_steps + state.t) % len(twin.loads.series_pu)
    available = {generator.name: np.full(twin.num_steps, generator.kw) for generator in generators}
    for fleet in twin.fleets:
        own = fleet.begin(state, step)
        available |= dict(zip(fleet.names, getattr(own, "available_kw", ()), strict=False))
    return np.stack([available[generator.name] for generator in generators], axis=1)
