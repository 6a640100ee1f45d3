"""OpenDSS's tap ratios as it adds them up, rounding and all, because PowerGym cuts them off to whole taps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.physics.controls import settle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.state import GridState

LOWEST_TAP, HIGHEST_TAP = 0.9, 1.1
TAP_STEP = (HIGHEST_TAP - LOWEST_TAP) / 32
"""One tap, pu: 0.00625 and the last bit that the original's arithmetic gives it."""
MAX_CONTROL_ITERATIONS = 100


def tap_numbers(ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return tap numbers 0..32 as the original reads them: cut off, so that rounding can take one away."""
    return np.trunc((ratios - LOWEST_TAP) / TAP_STEP)


def settle_step_by_step(
    grid: CompiledFeeder, state: GridState, ratios: NDArray[np.float64], *, tolerance: float
) -> tuple[GridState, NDArray[np.float64]]:
    """Let the utility's controls settle and add every move of a tap to its ratio as OpenDSS's floats do.

    Moves are followed one by one where no capacitor control would lose its dead time between them.

    Args:
        grid: the feeder.
        state: its environments.
        ratios: taps as OpenDSS holds them, pu, [num_taps, num_envs].
        tolerance: of the solutions, pu.

    Returns:
        The settled state and the new ratios.
    """
    moves_at_once = MAX_CONTROL_ITERATIONS if len(grid.capacitor_sensing.capacitor) else 1
    for _ in range(MAX_CONTROL_ITERATIONS):
        before = state.taps
        state = settle(
            grid, state._replace(taps=before.copy()), tolerance=tolerance, max_control_iterations=moves_at_once
        )
        moved = np.rint((state.taps - before) / TAP_STEP)
        ratios = np.clip(ratios + moved * TAP_STEP, LOWEST_TAP, HIGHEST_TAP)
        if moves_at_once > 1 or not moved.any():
            break
    return state, ratios
