"""Voltages and generators' powers read off the solver's arrays, each in one pass."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from gridray.physics.lanes import LANE
from gridray.physics.loads import relative_admittance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.network import Network
    from gridray.physics.state import GridState


def node_voltages(grid: CompiledFeeder, state: GridState) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """Return node voltages and their magnitudes, pu, both [num_nodes, E], in the order of node_names."""
    shape = (grid.num_nodes, state.v.shape[2])
    v, magnitude = np.empty(shape, dtype=np.complex128), np.empty(shape)
    _read(state.v, grid.place, v, magnitude)
    return v, magnitude


def generators_kw(grid: CompiledFeeder, state: GridState) -> NDArray[np.float64]:
    """Return the power that each generator draws at the solved voltages, negative where it feeds in, kW, [., E]."""
    first = len(grid.load_names)
    kw = np.zeros((len(state.items_kw) - first, state.v.shape[2]))
    _generate(grid.network, state.items_kw[first:], first, state.v, kw)
    return kw


@njit(cache=True, nogil=True, error_model="numpy")
def load_columns(array: NDArray[np.float64], first: int, width: int, lane: NDArray[np.float64]) -> None:
    """Copy `width` columns; what is beyond them is a copy of the first, so that it is a number."""
    if width == LANE:
        for i in range(array.shape[0]):
            for e in range(LANE):
                lane[i, e] = array[i, first + e]
    else:
        for i in range(array.shape[0]):
            for e in range(LANE):
                lane[i, e] = array[i, first + e if e < width else first]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _read(
    solved: NDArray[np.float64], place: NDArray[np.int64], v: NDArray[np.complex128], magnitude: NDArray[np.float64]
) -> None:
    """Write voltages and magnitudes [num_nodes, E] from the solver's [num_nodes, 2, E]."""
    for node in range(len(place)):
        row = place[node]
        for env in range(solved.shape[2]):
            re, im = solved[row, 0, env], solved[row, 1, env]
            v[node, env] = complex(re, im)
            magnitude[node, env] = np.sqrt(re * re + im * im)


@njit(cache=True, nogil=True, error_model="numpy")
def _generate(
    net: Network,
    p: NDArray[np.float64],
    first: int,
    v: NDArray[np.float64],
    kw: NDArray[np.float64],
) -> None:
    """Add up the powers of the branches of items first..first + len(p) - 1, [num_generators, E]."""
    for m in range(net.branch_from.size):
        row = net.branch_item[m] - first
        if row < 0 or row >= len(p):
            continue
        near, far, curve = net.branch_from[m], net.branch_to[m], net.branch_curve[m]
        for env in range(kw.shape[1]):
            re, im = v[near, 0, env], v[near, 1, env]
            if far >= 0:
                re -= v[far, 0, env]
                im -= v[far, 1, env]
            square = (re * re + im * im) * curve[0]
            kw[row, env] += (
                p[row, env] * net.branch_share[m] * relative_admittance(curve, 5, np.sqrt(square))[0] * square
            )
