"""Voltages read off the solver's arrays once, in one pass, and how far they are outside a band."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gridray.physics.compiled import KW_PER_PU
from gridray.physics.loads import branch_currents, total_powers
from gridray.physics.measure import PowerBalance, source_power

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder
    from gridray.physics.state import GridState


class Excursion(NamedTuple):
    """How far voltages are outside a band, float64 [E]; depths in pu.

    total: sum over nodes; mean: over nodes; deepest: of the worst node; share: of nodes outside, 0..1.
    """

    total: NDArray[np.float64]
    mean: NDArray[np.float64]
    deepest: NDArray[np.float64]
    share: NDArray[np.float64]


def node_voltages(grid: CompiledFeeder, state: GridState) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
    """Return node voltages and their magnitudes, pu, both [num_nodes, E], in the order of node_names."""
    shape = (grid.num_nodes, state.v.shape[2])
    v, magnitude = np.empty(shape, dtype=np.complex128), np.empty(shape)
    _read(state.v, grid.place, v, magnitude)
    return v, magnitude


def balance(grid: CompiledFeeder, state: GridState, v: NDArray[np.complex128]) -> PowerBalance:
    """Return what `power_balance` does, from voltages already read (`node_voltages`)."""
    capacitors = -grid.capacitor_kvar[:, None] * state.capacitor_states
    p = np.concatenate((state.items_kw, np.zeros_like(capacitors))) / KW_PER_PU
    q = np.concatenate((state.items_kvar, capacitors)) / KW_PER_PU
    current = branch_currents(grid.network, p, q, state.v)
    items, rest = total_powers(grid.network, current, state.v, len(state.items_kw))
    source = source_power(grid, v, state.source_pu)
    return PowerBalance(source, items * KW_PER_PU, source - (items + rest) * KW_PER_PU)


def excursion(magnitude: NDArray[np.float64], low: float, high: float) -> Excursion:
    """Return how far magnitudes [num_nodes, E] are outside low..high, pu."""
    num_nodes, num_envs = magnitude.shape
    total, deepest, share = np.zeros(num_envs), np.zeros(num_envs), np.zeros(num_envs)
    _excursion(magnitude, low, high, total, deepest, share)
    return Excursion(total, total / num_nodes, deepest, share / num_nodes)


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
def _excursion(
    magnitude: NDArray[np.float64],
    low: float,
    high: float,
    total: NDArray[np.float64],
    deepest: NDArray[np.float64],
    count: NDArray[np.float64],
) -> None:
    """Add up depths outside low..high; a voltage that is no number counts as none."""
    for node in range(magnitude.shape[0]):
        for env in range(magnitude.shape[1]):
            depth = max(low - magnitude[node, env], magnitude[node, env] - high, 0.0)
            total[env] += depth
            deepest[env] = max(deepest[env], depth)
            count[env] += 1.0 if depth > 0.0 else 0.0
