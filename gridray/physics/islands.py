"""Which nodes the source reaches, for every environment's switches at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.network import Network


class Connectivity(NamedTuple):
    """The feeder's parts with all switches open, and the switches that join them.

    part: int64 [N], part of each node, elimination order; source_part: int64 [S].
    is_real: bool [num_parts], whether it has anything but switches.
    switch, part_a, part_b: int64 [J], number of the switch and the two parts that one of its conductors joins.
    """

    part: NDArray[np.int64]
    source_part: NDArray[np.int64]
    is_real: NDArray[np.bool_]
    switch: NDArray[np.int64]
    part_a: NDArray[np.int64]
    part_b: NDArray[np.int64]


def connectivity(net: Network, num_taps: int, source_place: NDArray[np.int64]) -> Connectivity:
    """Find the parts: nodes joined by any admittance that is not a switch's, or by a load between them."""
    n = len(net.start) - 1
    is_constant = (net.y_g != 0.0) | (net.y_b != 0.0)
    is_tap = net.term_control < num_taps
    two = net.branch_to >= 0
    rows = [net.y_row[is_constant], net.y_row[net.term_entry[is_tap]], net.branch_from[two]]
    columns = [net.y_column[is_constant], net.y_column[net.term_entry[is_tap]], net.branch_to[two]]
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = sparse.coo_matrix((np.ones(len(row), dtype=np.int8), (row, column)), shape=(n, n))
    part = connected_components(graph, directed=False)[1].astype(np.int64)
    entry = net.term_entry[~is_tap]
    joints = np.stack((net.term_control[~is_tap] - num_taps, part[net.y_row[entry]], part[net.y_column[entry]]))
    joints = np.unique(joints[:, joints[1] < joints[2]], axis=1).astype(np.int64)
    is_real = np.zeros(int(part.max(initial=-1)) + 1, dtype=np.bool_)
    is_real[part[np.concatenate((row, net.branch_from))]] = True
    return Connectivity(part, np.unique(part[source_place]), is_real, *(line.copy() for line in joints))


def reached(linked: Connectivity, closed: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the nodes connected to the source, bool [N, E], elimination order; closed: [num_switches, E]."""
    found: NDArray[np.bool_] = _reached_parts(linked, closed)[linked.part]
    return found


def is_part_dead(linked: Connectivity, closed: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether anything but the bare end of an open switch is cut off, bool [E]."""
    return np.asarray((~_reached_parts(linked, closed) & linked.is_real[:, None]).any(axis=0))


def _reached_parts(linked: Connectivity, closed: NDArray[np.float64]) -> NDArray[np.bool_]:
    alive = np.zeros((len(linked.is_real), closed.shape[1]), dtype=np.bool_)
    alive[linked.source_part] = True
    is_joined = closed[linked.switch] != 0.0
    before = -1
    while (count := int(alive.sum())) != before:
        before = count
        for joint in range(len(linked.switch)):
            a, b = linked.part_a[joint], linked.part_b[joint]
            energised = (alive[a] | alive[b]) & is_joined[joint]
            alive[a] |= energised
            alive[b] |= energised
    return alive
