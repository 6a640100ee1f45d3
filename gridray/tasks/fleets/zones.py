"""Parts of a feeder between its switches: which of them a fault takes out, and which switchings keep it radial."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import networkx as nx
import numpy as np
from numba import njit

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.components import Line
    from gridray.feeders.feeder import Feeder


class Zones(NamedTuple):
    """Z zones and the J switches between them; zone 0 is the source's.

    names: bus of each zone nearest to the source; bus_zone: zone of each bus; switches: names of the switches;
    ends: int64 [J, 2], zones that each joins; line_km: float64 [Z], length of line of each, switched lines counting
    for the zone that they feed; num_transformers: float64 [Z].
    """

    names: tuple[str, ...]
    bus_zone: dict[str, int]
    switches: tuple[str, ...]
    ends: NDArray[np.int64]
    line_km: NDArray[np.float64]
    num_transformers: NDArray[np.float64]


def find_zones(feeder: Feeder) -> Zones:
    """Return the zones of a feeder and the switches that join two of them with all their phases.

    A switch to a bare bus, or of fewer phases than the zones that it joins, is none of them: it stays as it is.

    Raises:
        ConfigError: the feeder with its switches as they are is not radial, or zones have no supply.
    """
    graph = nx.Graph()
    graph.add_nodes_from(bus for line in feeder.lines for bus in (line.from_bus, line.to_bus))
    graph.add_edges_from(
        (line.from_bus, line.to_bus) for line in feeder.lines if not line.is_switch and not line.is_open
    )
    graph.add_edges_from((t.windings[0].bus, w.bus) for t in feeder.transformers for w in t.windings[1:])
    graph.add_edges_from((r.bus, r.to_bus) for r in feeder.reactors if r.to_bus is not None)
    graph.add_node(feeder.source.bus)
    parts = list(nx.connected_components(graph))
    part_of = {bus: number for number, part in enumerate(parts) for bus in part}
    switches = [line for line in feeder.lines if line.is_switch and _joins_whole(feeder, line, parts, part_of)]
    joined = nx.Graph([(part_of[s.from_bus], part_of[s.to_bus]) for s in switches if not s.is_open])
    source = part_of[feeder.source.bus]
    joined.add_node(source)
    order = list(nx.bfs_tree(joined, source))
    num_closed = sum(not s.is_open for s in switches)
    if len(order) != num_closed + 1 or len(joined) != len(order):
        raise ConfigError(
            f"Feeder '{feeder.name}' is not radial: {num_closed} closed switches join {len(joined)} zones, of which "
            f"{len(order)} have supply; open or close switches in its file."
        )
    number = {part: zone for zone, part in enumerate(order)}
    ends = np.array([[number.get(part_of[b], -1) for b in (s.from_bus, s.to_bus)] for s in switches], dtype=np.int64)
    kept = np.flatnonzero((ends.reshape(-1, 2) >= 0).all(axis=1))
    switches = [switches[j] for j in kept]
    bus_zone = {bus: number[part] for bus, part in part_of.items() if part in number}
    return Zones(
        tuple(_first_bus(feeder, parts[part], switches) for part in order),
        bus_zone,
        tuple(s.name for s in switches),
        ends.reshape(-1, 2)[kept],
        _line_km(feeder, bus_zone, len(order)),
        np.bincount([bus_zone[t.windings[0].bus] for t in feeder.transformers], minlength=len(order)).astype(
            np.float64
        ),
    )


def _joins_whole(feeder: Feeder, switch: Line, parts: list[set[str]], part_of: dict[str, int]) -> bool:
    """Tell whether a switch joins two parts that hold more than a bus, with all the phases that they have."""
    ends = [part_of[switch.from_bus], part_of[switch.to_bus]]
    if ends[0] == ends[1]:
        return False
    with_load = {part_of[load.bus] for load in feeder.loads if load.bus in part_of}
    sizes = [len(parts[end]) > 1 or end in with_load or end == part_of[feeder.source.bus] for end in ends]
    num_switches = [
        sum(line.is_switch and end in {part_of[line.from_bus], part_of[line.to_bus]} for line in feeder.lines)
        for end in ends
    ]
    has_more = all(size or count > 1 for size, count in zip(sizes, num_switches, strict=True))
    phases = {p for line in feeder.lines if part_of[line.from_bus] in ends and not line.is_switch for p in line.phases}
    return has_more and phases <= set(switch.phases)


def _first_bus(feeder: Feeder, part: set[str], switches: list[Line]) -> str:
    """Return the source's bus, or the one at which a closed switch feeds the part."""
    if feeder.source.bus in part:
        return feeder.source.bus
    ends = [bus for s in switches if not s.is_open for bus in (s.to_bus, s.from_bus) if bus in part]
    return ends[0] if ends else min(part)


def _line_km(feeder: Feeder, bus_zone: dict[str, int], num_zones: int) -> NDArray[np.float64]:
    km = np.zeros(num_zones)
    for line in feeder.lines:
        if not line.is_open and line.from_bus in bus_zone:
            km[max(bus_zone[line.from_bus], bus_zone.get(line.to_bus, 0))] += line.length_km
    return km


@njit(cache=True, nogil=True)
def protect(ends: NDArray[np.int64], faulted: NDArray[np.bool_], closed: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Open the switches that feed a fault from the source, in `closed`, and return the zones with supply, [Z, E].

    The switch next to the fault on its way from the source trips, and what lies behind it loses its supply.

    Args:
        ends: zones that each switch joins, [J, 2].
        faulted: zones with a fault, [Z, E]; the source's has none.
        closed: 1 closed, 0 open, [J, E]; overwritten.
    """
    num_zones, num_envs = faulted.shape
    supplied = np.zeros((num_zones, num_envs), dtype=np.bool_)
    for env in range(num_envs):
        supplied[0, env] = True
        is_changed = True
        while is_changed:
            is_changed = False
            for j in range(ends.shape[0]):
                a, b = ends[j, 0], ends[j, 1]
                if closed[j, env] == 0.0 or supplied[a, env] == supplied[b, env]:
                    continue
                behind = b if supplied[a, env] else a
                if faulted[behind, env]:
                    closed[j, env] = 0.0
                else:
                    supplied[behind, env] = True
                    is_changed = True
    return supplied


@njit(cache=True, nogil=True)
def switch_over(
    ends: NDArray[np.int64],
    faulted: NDArray[np.bool_],
    ready: NDArray[np.bool_],
    wanted: NDArray[np.float64],
    closed: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Make the switchings that are allowed, in `closed`, and return how many were refused, float64 [E].

    Openings come first, then closings in the order of the switches. Refused are those of switches that are not ready,
    closings that would make a loop, and closings that would feed a fault.

    Args:
        ends: zones that each switch joins, [J, 2].
        faulted: zones with a fault, [Z, E].
        ready: switches that may operate, [J, E].
        wanted: 1 close, 0 open, NaN keep, [J, E].
        closed: 1 closed, 0 open, [J, E]; overwritten.
    """
    num_zones, num_envs = faulted.shape
    refused = np.zeros(num_envs)
    part = np.empty(num_zones, dtype=np.int64)
    for env in range(num_envs):
        num_closings = 0
        for j in range(ends.shape[0]):
            if wanted[j, env] == 0.0 and closed[j, env] == 1.0:
                if ready[j, env]:
                    closed[j, env] = 0.0
                else:
                    refused[env] += 1.0
            elif wanted[j, env] == 1.0 and closed[j, env] == 0.0:
                num_closings += 1
        if num_closings == 0:
            continue
        _find_parts(ends, closed[:, env], part)
        for j in range(ends.shape[0]):
            if wanted[j, env] != 1.0 or closed[j, env] == 1.0:
                continue
            if ready[j, env] and _may_join(part, part[ends[j, 0]], part[ends[j, 1]], faulted[:, env]):
                closed[j, env] = 1.0
                _find_parts(ends, closed[:, env], part)
            else:
                refused[env] += 1.0
    return refused


@njit(cache=True, nogil=True)
def _find_parts(ends: NDArray[np.int64], closed: NDArray[np.float64], part: NDArray[np.int64]) -> None:
    """Number the zones that closed switches join alike, by the lowest of their zones."""
    for zone in range(part.size):
        part[zone] = zone
    is_changed = True
    while is_changed:
        is_changed = False
        for j in range(ends.shape[0]):
            a, b = part[ends[j, 0]], part[ends[j, 1]]
            if closed[j] == 1.0 and a != b:
                part[ends[j, 0]] = part[ends[j, 1]] = min(a, b)
                is_changed = True


@njit(cache=True, nogil=True)
def _may_join(part: NDArray[np.int64], a: int, b: int, faulted: NDArray[np.bool_]) -> bool:
    """Tell whether two parts may be joined: no loop, and no fault where the source's part, 0, is one of them."""
    if a == b:
        return False
    if a != 0 and b != 0:
        return True
    for zone in range(part.size):  # noqa: SIM110 -- numba takes no generator here
        if faulted[zone] and (part[zone] == a or part[zone] == b):
            return False
    return True
