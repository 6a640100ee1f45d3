"""Voltages and powers read off the solver's arrays, each in one pass."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gridray.physics.compiled import KW_PER_PU
from gridray.physics.lanes import LANE, empty_lanes, load, plus_product, store
from gridray.physics.loads import lane_current
from gridray.physics.measure import PowerBalance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.network import Network
    from gridray.physics.state import GridState


class PowersDrawn(NamedTuple):
    """Powers of E environments, kW and kvar.

    items: complex128 [E], drawn by loads and generators; capacitors: complex128 [E];
    generators_kw: float64 [num_generators, E], drawn by each, negative where it feeds in.
    """

    items: NDArray[np.complex128]
    capacitors: NDArray[np.complex128]
    generators_kw: NDArray[np.float64]


def node_voltages(grid: CompiledFeeder, state: GridState) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """Return node voltages and their magnitudes, pu, both [num_nodes, E], in the order of node_names."""
    shape = (grid.num_nodes, state.v.shape[2])
    v, magnitude = np.empty(shape, dtype=np.complex128), np.empty(shape)
    _read(state.v, grid.place, v, magnitude)
    return v, magnitude


def balance(grid: CompiledFeeder, state: GridState) -> PowerBalance:
    """Return what `gridray.physics.measure.power_balance` does."""
    source = source_kva(grid, state)
    drawn = powers_drawn(grid, state)
    return PowerBalance(source, drawn.items, source - drawn.items - drawn.capacitors)


def source_kva(grid: CompiledFeeder, state: GridState) -> NDArray[np.complex128]:
    """Return the power that the source feeds in, kW + j kvar, complex128 [E]."""
    power = np.empty(state.v.shape[2], dtype=np.complex128)
    _feed(state.v, grid.place[grid.source_node], grid.source_y * KW_PER_PU, grid.source_e, state.source_pu, power)
    return power


def powers_drawn(grid: CompiledFeeder, state: GridState) -> PowersDrawn:
    """Return the powers of loads, generators and capacitors at the solved voltages."""
    num_envs, num_loads = state.v.shape[2], len(grid.load_names)
    total = np.empty((4, num_envs))
    generators_kw = np.empty((len(state.items_kw) - num_loads, num_envs))
    _draw(grid.network, state, grid.capacitor_kvar, num_loads, total, generators_kw)
    return PowersDrawn(total[0] + 1j * total[1], total[2] + 1j * total[3], generators_kw)


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


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _feed(
    v: NDArray[np.float64],
    rows: NDArray[np.int64],
    y: NDArray[np.complex128],
    e: NDArray[np.complex128],
    source_pu: NDArray[np.float64],
    power: NDArray[np.complex128],
) -> None:
    """Write V conj(Y (E - V)) summed over the source's terminals, [num_envs]."""
    for env in range(len(power)):
        total = 0.0j
        for i in range(len(rows)):
            current = 0.0j
            for j in range(len(rows)):
                current += y[i, j] * (e[j] * source_pu[env] - complex(v[rows[j], 0, env], v[rows[j], 1, env]))
            total += complex(v[rows[i], 0, env], v[rows[i], 1, env]) * current.conjugate()
        power[env] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _draw(
    net: Network,
    state: GridState,
    capacitor_kvar: NDArray[np.float64],
    num_loads: int,
    total: NDArray[np.float64],
    generators_kw: NDArray[np.float64],
) -> None:
    """Write kW and kvar of items and of capacitors, [4, E], and kW of each generator."""
    num_items, num_envs = state.items_kw.shape[0], state.v.shape[2]
    p, q = empty_lanes(num_items + len(capacitor_kvar)), empty_lanes(num_items + len(capacitor_kvar))
    across, sums, by_generator = empty_lanes(2), empty_lanes(4), empty_lanes(max(num_items - num_loads, 1))
    for first in range(0, num_envs, LANE):
        width = min(LANE, num_envs - first)
        sums[:] = 0.0
        by_generator[:] = 0.0
        load_columns(state.items_kw, first, width, p[:num_items])
        load_columns(state.items_kvar, first, width, q[:num_items])
        load_columns(state.capacitor_states, first, width, q[num_items:])
        for c in range(len(capacitor_kvar)):
            store(p, num_items + c, 0.0)
            store(q, num_items + c, load(q, num_items + c) * -capacitor_kvar[c])
        for m in range(net.branch_from.size):
            near, far, item = net.branch_from[m], net.branch_to[m], net.branch_item[m]
            load_columns(state.v[near], first, width, across)
            if far >= 0:
                for c in range(2):
                    for e in range(width):
                        across[c, e] -= state.v[far, c, first + e]
            scale = net.branch_curve[m, 0]
            weight = net.branch_share[m] * scale
            vr, vi = load(across, 0), load(across, 1)
            re, im = lane_current(net.branch_curve, m, scale, load(p, item) * weight, load(q, item) * weight, vr, vi)
            kw, kvar = plus_product(vr * re, vi, im), plus_product(vi * re, -1.0 * vr, im)
            row = 0 if item < num_items else 2
            store(sums, row, load(sums, row) + kw)
            store(sums, row + 1, load(sums, row + 1) + kvar)
            if num_loads <= item < num_items:
                store(by_generator, item - num_loads, load(by_generator, item - num_loads) + kw)
        total[:, first : first + width] = sums[:, :width]
        generators_kw[:, first : first + width] = by_generator[: len(generators_kw), :width]
