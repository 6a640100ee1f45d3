"""Regulator controls as utilities run them, and the loop that lets them settle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.physics.compiled import TAP_STEP
from gridray.physics.measure import control_voltages, voltages
from gridray.physics.powerflow import solve_state

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder, Sensing
    from gridray.physics.powerflow import GridState

MAX_STEP = 16
"""Steps of a regulator up or down."""


def tap_changes(sensing: Sensing, control_v: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the steps by which each regulator's control wants to move, whole numbers [num_taps, E].

    Outside its band a control moves by the rounded number of steps to its set-point, at least one and at most
    max_tap_change, within the regulator's range (RegControl.pas, DSS C-API 0.14).

    Args:
        sensing: the regulators.
        control_v: voltages the controls see, V on the 120 V base, [num_taps, E].
        steps: present steps, -16..16, [num_taps, E].
    """
    missing = sensing.vreg_v[:, None] - control_v
    wanted = np.rint(missing / sensing.step_v[:, None])
    wanted = np.where(wanted == 0.0, np.sign(missing), wanted)
    limit = sensing.max_tap_change[:, None]
    wanted = np.where(np.abs(missing) > sensing.band_v[:, None] / 2.0, np.clip(wanted, -limit, limit), 0.0)
    changes: NDArray[np.float64] = np.clip(steps + wanted, -MAX_STEP, MAX_STEP) - steps
    return changes


def settle(
    grid: CompiledFeeder, state: GridState, *, tolerance: float = 1e-8, max_control_iterations: int = 100
) -> GridState:
    """Solve, let the controls with the shortest delay act, and repeat until none wants to move.

    Iterations of all solutions are summed. An environment whose controls do not come to rest is returned as
    not converged.
    """
    state = solve_state(grid, state, tolerance=tolerance)
    for _ in range(max_control_iterations):
        seen = control_voltages(grid, state, voltages(grid, state))
        changes = tap_changes(grid.sensing, seen, np.rint((state.taps - 1.0) / TAP_STEP))
        if not changes.any():
            return state
        delay = np.where(changes != 0.0, grid.sensing.delay_s[:, None], np.inf)
        changes = np.where(delay == delay.min(axis=0), changes, 0.0)
        total = state.iterations
        state = solve_state(grid, state._replace(taps=state.taps + changes * TAP_STEP), tolerance=tolerance)
        state = state._replace(iterations=state.iterations + total)
    moving = changes.any(axis=0)
    return state._replace(converged=state.converged & ~moving)
