"""Voltage magnitudes by bus, straight from the solver's arrays into rows of observations."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from gridray.errors import ConfigError
from gridray.physics.lanes import (
    LANE,
    empty_lanes,
    empty_short_lanes,
    fill,
    lane_of,
    plus_product,
    select,
    square_root,
    store,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder

TILE = 64
"""Nodes whose magnitudes are turned from rows into columns at once, so that they stay in the first cache."""


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
    magnitude = empty_short_lanes(num_nodes)
    depths = empty_lanes(1)
    low, high = band
    for start in range(0, num_envs, LANE):
        size = min(LANE, num_envs - start)
        total = fill(0.0)
        for bus in range(len(first) - 1):
            lowest, highest = fill(np.inf), fill(0.0)
            for k in range(first[bus], first[bus + 1]):
                re, im = lane_of(v[row[k], 0], start), lane_of(v[row[k], 1], start)
                m = square_root(plus_product(re * re, im, im))
                store(magnitude, k, m)
                lowest, highest = select(lowest > m, m, lowest), select(m > highest, m, highest)
            above, below = highest - high, low - lowest
            total = total + select(above > 0.0, above, 0.0) + select(below > 0.0, below, 0.0)
        store(depths, 0, total)
        depth[start : start + size] = depths[0, :size]
        for tile in range(0, num_nodes, TILE):
            for e in range(size):
                for k in range(tile, min(tile + TILE, num_nodes)):
                    observations[start + e, k] = magnitude[k, e]
