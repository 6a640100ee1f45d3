"""The feeder's own regulators under their time delays, where a step is not much longer than these."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.devices.regulator import TapTimer, TapTiming, timed_taps
from gridray.physics.controls import settle, tap_changes, tap_steps
from gridray.physics.measure import control_voltages
from gridray.physics.solver import solve_state

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.state import GridState

ALL = 1e6
"""More steps than a regulator has."""
LEAST_S = 1e-3
"""What a tap takes whose control gives it no time."""


def tap_timing(feeder: Feeder, grid: CompiledFeeder, scale: float) -> TapTiming:
    """Return the delays of the feeder's regulators in the order of grid.tap_names, times `scale`, [num_taps, 1]."""
    by_transformer = {control.transformer: control for control in feeder.regulators}
    controls = [by_transformer[name] for name in grid.tap_names]
    delay_s = scale * np.array([[control.delay_s] for control in controls]).reshape(-1, 1)
    tap_delay_s = scale * np.array([[control.tap_delay_s] for control in controls]).reshape(-1, 1)
    return TapTiming(delay_s, np.maximum(tap_delay_s, LEAST_S))


def settle_in_time(
    grid: CompiledFeeder, state: GridState, timing: TapTiming, timer: TapTimer, passed_s: float, *, tolerance: float
) -> tuple[GridState, TapTimer]:
    """Return the state at the end of passed_s seconds under the loads of `state`, and the regulators' timers.

    As `settle`, but no regulator makes more taps than are due by then; without time only capacitors act. One that
    leaves its band because others moved is taken to have left it at the beginning, so that with delays far below
    passed_s all is as `settle` leaves it.
    """
    if passed_s == 0.0:
        return settle(grid, state, tolerance=tolerance, most_steps=np.zeros_like(state.taps)), timer
    state = solve_state(grid, state, tolerance=tolerance)
    steps = tap_steps(grid.sensing, state.taps)
    side = np.sign(_wanted(grid, state))
    timer = TapTimer(*(np.where(side == 0.0, 0.0, array) for array in timer))
    due, _ = timed_taps(timing, timer, np.where(side == 0.0, ALL, side * ALL), passed_s)
    state = settle(grid, state, tolerance=tolerance, most_steps=np.abs(due))
    made = tap_steps(grid.sensing, state.taps) - steps
    return state, timed_taps(timing, timer, made + _wanted(grid, state), passed_s)[1]


def _wanted(grid: CompiledFeeder, state: GridState) -> NDArray[np.float64]:
    return tap_changes(grid.sensing, control_voltages(grid, state), tap_steps(grid.sensing, state.taps))
