"""Voltage magnitudes by bus, straight from the solver's arrays into rows of observations."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder

BLOCK = 64
"""Environments whose magnitudes are held at once, so that turning rows into columns stays in cache."""


def nodes_by_bus(grid: CompiledFeeder, buses: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the grid's node numbers bus by bus, nodes ascending, and where each bus starts ([num_buses + 1]).

    Raises:
        ConfigError: the buses are not those of the grid.
    """
    members: dict[str, list[tuple[int, int]]] = {bus: [] for bus in buses}
    for number, name in enumerate(grid.node_names):
        bus, _, node = name.rpartition(".")
        if bus not in members:
            raise ConfigError(f"Bus '{bus}' of '{grid.name}' is not in the list of buses: name all of them.")
        members[bus].append((int(node), number))
    order = [number for nodes in members.values() for _, number in sorted(nodes)]
    sizes = [len(nodes) for nodes in members.values()]
    return np.array(order, dtype=np.int64), np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def read_bus_voltages(
    v: NDArray[np.float64],
    row: NDArray[np.int64],
    first: NDArray[np.int64],
    band: tuple[float, float],
    observations: NDArray[np.float32],
    depth: NDArray[np.float64],
) -> None:
    """Write |V| to the first columns of the observations and each environment's depth outside the band.

    The depth of a bus is that of its highest phase above plus that of its lowest below, pu, summed over buses
    (PowerGym's voltage reward, negative).

    Args:
        v: the solver's voltages, pu, [num_nodes, 2, num_envs].
        row: row of v of each observed node, [num_nodes].
        first: where each bus starts in `row`, [num_buses + 1].
        band: lowest and highest voltage allowed, pu.
        observations: float32 [num_envs, at least num_nodes], written.
        depth: float64 [num_envs], written.
    """
    num_nodes, num_envs = len(row), v.shape[2]
    magnitude = np.empty((num_nodes, BLOCK), dtype=np.float32)
    lowest, highest, total = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    low, high = band
    for start in range(0, num_envs, BLOCK):
        size = min(BLOCK, num_envs - start)
        total[:] = 0.0
        for bus in range(len(first) - 1):
            lowest[:] = np.inf
            highest[:] = 0.0
            for k in range(first[bus], first[bus + 1]):
                n = row[k]
                for e in range(size):
                    re, im = v[n, 0, start + e], v[n, 1, start + e]
                    m = np.sqrt(re * re + im * im)
                    magnitude[k, e] = m
                    lowest[e] = min(lowest[e], m)
                    highest[e] = max(highest[e], m)
            for e in range(size):
                total[e] += max(highest[e] - high, 0.0) + max(low - lowest[e], 0.0)
        for e in range(size):
            depth[start + e] = total[e]
            for k in range(num_nodes):
                observations[start + e, k] = magnitude[k, e]
