"""Regulator controls as utilities run them, and the loop that lets them settle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.physics.capacitor_controls import capacitor_changes
from gridray.physics.measure import control_voltages, node_voltages
from gridray.physics.solver import solve_state
from gridray.physics.state import STATUSES, put, take

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.sensing import Sensing
    from gridray.physics.state import GridState

TAP_STEP = 0.00625
"""Tap of a 32-step +-10 % regulator, pu."""
SHARE_OF_CHANGE = 0.7
"""Share of the steps it wants that a regulator moves at once in a snapshot (measured on DSS C-API 0.14.5)."""
MAX_STEP = 16
"""Steps of a regulator up or down."""


def tap_changes(sensing: Sensing, control_v: NDArray[np.float64], steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the steps of one control iteration of a snapshot, whole numbers [num_taps, E].

    Outside its band a control moves by 0.7 of the rounded number of steps to its set-point, at least one and at most
    max_tap_change, within the regulator's range (RegControl.pas, DSS C-API 0.14).

    Args:
        sensing: the regulators.
        control_v: voltages the controls see, V on the 120 V base, [num_taps, E].
        steps: present steps of the regulator's own size from the neutral tap, [num_taps, E].
    """
    missing = sensing.vreg_v[:, None] - control_v
    wanted = np.rint(missing / sensing.step_v[:, None])
    step_pu = sensing.step_pu[:, None]
    # OpenDSS's order of operations, whose rounding counts.
    most = np.trunc(SHARE_OF_CHANGE * (np.abs(wanted) * step_pu) / step_pu)
    size = np.clip(most, 1.0, sensing.max_tap_change[:, None]) * (wanted != 0.0)
    lowest, highest = (np.round((tap[:, None] - 1.0) / step_pu, 9) for tap in (sensing.min_tap, sensing.max_tap))
    # Move only outside the band and within the range; a control without voltage has no supply itself.
    is_live = missing < sensing.vreg_v[:, None]
    is_outside = is_live & (np.abs(missing) > sensing.band_v[:, None] / 2.0)
    moved = np.clip(steps + np.where(is_outside, np.sign(missing) * size, 0.0), lowest, highest)
    changes: NDArray[np.float64] = moved - steps
    return changes


def tap_steps(sensing: Sensing, taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the steps of each regulator's own size from its neutral tap, [num_taps, E], at these taps, pu."""
    steps: NDArray[np.float64] = np.round((taps - 1.0) / sensing.step_pu[:, None], 9)
    return steps


def settle(  # noqa: PLR0913
    grid: CompiledFeeder,
    state: GridState,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 50,
    num_threads: int = 1,
    max_control_iterations: int = 100,
    most_steps: NDArray[np.float64] | None = None,
) -> GridState:
    """Solve, let the controls with the shortest delay act, and repeat until none wants to move.

    Iterations of all solutions are summed. An environment whose controls do not come to rest is returned as
    not converged, with the status "controls hunt". With most_steps, whole numbers [num_taps, E], no regulator ends
    further than so many steps from where it is.
    """
    settings: Any = {"tolerance": tolerance, "max_iterations": max_iterations, "num_threads": num_threads}
    state = solve_state(grid, state, **settings)
    rows = np.arange(state.v.shape[2])
    has_opened = np.zeros(state.capacitor_states.shape, dtype=np.bool_)
    first_steps = tap_steps(grid.sensing, state.taps)
    for _ in range(max_control_iterations):
        part = take(state, rows)
        v = node_voltages(grid, part)
        steps = tap_steps(grid.sensing, part.taps)
        taps = tap_changes(grid.sensing, control_voltages(grid, part), steps)
        if most_steps is not None:
            moved_steps, most = steps - first_steps[:, rows], most_steps[:, rows]
            taps = np.clip(moved_steps + taps, -most, most) - moved_steps
        banks, bank_delay = capacitor_changes(grid, part.capacitor_states, has_opened[:, rows], v)
        # What has no solution shows the controls nothing to act on.
        is_moving = (taps.any(axis=0) | banks.any(axis=0)) & part.converged
        if not is_moving.any():
            return state
        tap_delay = np.where(taps != 0.0, grid.sensing.delay_s[:, None], np.inf)
        first = np.concatenate((tap_delay, bank_delay)).min(axis=0)
        taps, banks = np.where(tap_delay == first, taps, 0.0), np.where(bank_delay == first, banks, 0.0)
        has_opened[:, rows] |= banks < 0.0
        moved = part._replace(
            taps=np.round(part.taps + taps * grid.sensing.step_pu[:, None], 12),
            capacitor_states=part.capacitor_states + banks,
        )
        rows, moved = rows[is_moving], take(moved, np.flatnonzero(is_moving))
        solved = solve_state(grid, moved, **settings)
        put(state, rows, solved._replace(iterations=moved.iterations + solved.iterations))
    state.converged[rows] = False
    state.status[rows] = STATUSES.index("controls hunt")
    return state
