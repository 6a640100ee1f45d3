"""How voltages, loadings and losses of solved intervals follow powers and taps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.physics.controls import TAP_STEP
from gridray.physics.flows import loadings
from gridray.physics.measure import control_voltages, power_balance, voltage_magnitudes
from gridray.physics.solver import solve_state
from gridray.physics.state import GridState

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.twin_task import TwinTask

TOLERANCE = 1e-9
"""Voltage tolerance, pu: differences are taken."""
STEP_SHARE = 0.005
"""Power over the feeder's nominal load by which derivatives are taken."""


class Controls(NamedTuple):
    """C powers of the grid's items that a programme chooses, as drawn.

    item: int64 [C]; is_kvar: bool [C], whether it is reactive power; kvar_per_kw: float64 [T, C], what goes along with
    active power.
    """

    item: NDArray[np.int64]
    is_kvar: NDArray[np.bool_]
    kvar_per_kw: NDArray[np.float64]


class Measured(NamedTuple):
    """Of T intervals: vmag_pu [T, N]; loading [T, L], over ratings; losses_kw [T]; control_v [T, R], V on 120 V."""

    vmag_pu: NDArray[np.float64]
    loading: NDArray[np.float64]
    losses_kw: NDArray[np.float64]
    control_v: NDArray[np.float64]


class Expansion(NamedTuple):
    """First-order expansion about controls and taps `at` [T, C + R]: C powers, then the taps of R regulators, steps.

    Slopes: of voltages [T, N, C + R], loadings [T, L, C + R], losses [T, C + R] and what regulators measure
    [T, R, C + R]. Banks and switches are as they are.
    """

    at: NDArray[np.float64]
    flow: Measured
    vmag_slope: NDArray[np.float64]
    loading_slope: NDArray[np.float64]
    losses_slope: NDArray[np.float64]
    control_slope: NDArray[np.float64]


def measured(task: TwinTask, grid: GridState) -> Measured:
    """Return what solved intervals, one a column, come to."""
    losses_kw = power_balance(task.grid, grid).losses.real
    return Measured(
        voltage_magnitudes(task.grid, grid).T,
        loadings(task.twin.constraints.flows, grid).T,
        losses_kw,
        control_voltages(task.grid, grid).T,
    )


def with_controls(task: TwinTask, grid: GridState, controls: Controls, x: NDArray[np.float64]) -> GridState:
    """Return the intervals with controls and taps x [T, C + R] instead, solved."""
    kw, kvar = grid.items_kw.copy(), grid.items_kvar.copy()
    num = len(controls.item)
    for c, item in enumerate(controls.item):
        if controls.is_kvar[c]:
            kvar[item] = x[:, c]
        else:
            kvar[item] += controls.kvar_per_kw[:, c] * (x[:, c] - kw[item])
            kw[item] = x[:, c]
    taps = np.ascontiguousarray(1.0 + TAP_STEP * x[:, num:].T)
    return solve_state(task.grid, grid._replace(items_kw=kw, items_kvar=kvar, taps=taps), tolerance=TOLERANCE)


def expand(task: TwinTask, grid: GridState, controls: Controls) -> Expansion:
    """Return the expansion about solved intervals, by central differences of the batched power flow."""
    powers = np.where(controls.is_kvar, grid.items_kvar[controls.item].T, grid.items_kw[controls.item].T)
    at = np.concatenate((powers, (grid.taps.T - 1.0) / TAP_STEP), axis=1)
    num_steps, num = at.shape
    width = np.full(num, STEP_SHARE * task.twin.nominal_kw)
    width[len(controls.item) :] = 1.0
    shifts = np.concatenate((np.zeros((1, num)), np.diag(width), -np.diag(width)))
    tiled = GridState._make(np.tile(array, len(shifts)) for array in grid)
    alike = controls._replace(kvar_per_kw=np.tile(controls.kvar_per_kw, (len(shifts), 1)))
    solved = with_controls(task, tiled, alike, (shifts[:, None] + at).reshape(-1, num))
    parts = [array.reshape(len(shifts), num_steps, *array.shape[1:]) for array in measured(task, solved)]
    slopes = [np.moveaxis(part[1 : num + 1] - part[num + 1 :], 0, -1) / (2.0 * width) for part in parts]
    return Expansion(at, Measured(*(part[0] for part in parts)), *slopes)
