"""Where reconfiguration puts sectionalisers and ties on a feeder that has too few."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import networkx as nx

from gridray.errors import ConfigError
from gridray.feeders.components import Line
from gridray.tasks.siting import main_buses

if TYPE_CHECKING:
    from gridray.feeders.feeder import Feeder

TIE_SHARE = 0.5
"""Length of a tie over the way along the feeder between its ends: ties cut corners."""
LEAST_TIE_KM = 0.1
SAME_LOAD = 0.03
"""Two sectionalisers with loads behind them that differ by less, as a share of all, are one too many."""


def with_switchgear(feeder: Feeder, num_sectionalisers: int, num_ties: int) -> Feeder:
    """Return the feeder with a switch at its head, and with as many sectionalisers and ties at least.

    Its own three-phase switches count. Sectionalisers are made of three-phase lines behind which lie about equal steps
    of load; ties are new lines between three-phase ends of the feeder, or its head, that are far apart along it.

    Raises:
        ConfigError: the feeder is meshed, or has no line that can be switched.
    """
    tree = _tree(feeder)
    head = _head_lines(feeder, tree)
    if not head:
        raise ConfigError(f"Feeder '{feeder.name}' has no three-phase line at its head: give one that has.")
    closed = [line for line in feeder.lines if line.is_switch and not line.is_open and len(line.phases) == 3]
    wanted = num_sectionalisers - len([line for line in closed if line.name not in head])
    chosen = head | _sectionalisers(feeder, tree, head | {line.name for line in closed}, wanted)
    switched = tuple(replace(line, is_switch=True) if line.name in chosen else line for line in feeder.lines)
    all_switched = {line.name for line in switched if line.is_switch}
    own_ties = sum(line.is_switch and line.is_open and len(line.phases) == 3 for line in feeder.lines)
    return replace(feeder, lines=(*switched, *_ties(feeder, tree, all_switched, num_ties - own_ties)))


def _tree(feeder: Feeder) -> nx.Graph:
    graph = nx.Graph()
    graph.add_node(feeder.source.bus)
    for line in feeder.lines:
        if not line.is_open:
            graph.add_edge(line.from_bus, line.to_bus, weight=line.length_km, line=line)
    for transformer in feeder.transformers:
        for winding in transformer.windings[1:]:
            graph.add_edge(transformer.windings[0].bus, winding.bus, weight=0.0, line=None)
    graph = graph.subgraph(nx.node_connected_component(graph, feeder.source.bus))
    if graph.number_of_edges() != graph.number_of_nodes() - 1:
        raise ConfigError(f"Feeder '{feeder.name}' is meshed: reconfiguration keeps radial feeders radial.")
    return graph


def _head_lines(feeder: Feeder, tree: nx.Graph) -> set[str]:
    """Return the lines that leave the source's bus or the substation's transformers and regulators."""
    near, found = {feeder.source.bus}, set()
    waiting = [feeder.source.bus]
    while waiting:
        bus = waiting.pop()
        for other, edge in tree[bus].items():
            if edge["line"] is not None:
                found.add(edge["line"].name)
            elif other not in near:
                near.add(other)
                waiting.append(other)
    return found


def _sectionalisers(feeder: Feeder, tree: nx.Graph, taken: set[str], num: int) -> set[str]:
    """Choose lines behind which lie about 1/(num + 1), 2/(num + 1), ... of the load."""
    behind = dict.fromkeys(tree, 0.0)
    for load in feeder.loads:
        if load.bus in behind:
            behind[load.bus] += load.kw
    main = set(main_buses(feeder))
    total_kw = max(sum(behind.values()), 1e-9)
    candidates: dict[str, float] = {}
    for parent, bus in reversed(list(nx.bfs_edges(tree, feeder.source.bus))):
        behind[parent] += behind[bus]
        line = tree.edges[parent, bus]["line"]
        if line is not None and len(line.phases) == 3 and {parent, bus} <= main:
            candidates[line.name] = behind[bus] / total_kw
    kept = [share for name, share in candidates.items() if name in taken]
    chosen: set[str] = set()
    for k in range(1, num + 1):
        free = {
            name: share
            for name, share in candidates.items()
            if name not in taken and all(abs(share - other) > SAME_LOAD for other in kept)
        }
        if free:
            target = k / (num + 1)
            name = min(free, key=lambda name, target=target, free=free: (abs(free[name] - target), name))  # type: ignore[misc]
            chosen.add(name)
            kept.append(free[name])
    return chosen


def _ties(feeder: Feeder, tree: nx.Graph, switched: set[str], num: int) -> tuple[Line, ...]:
    """Choose pairs of ends in different zones that are farthest apart along the feeder, each with an end of its own."""
    if num <= 0:
        return ()
    edges = [(a, b, edge["line"]) for a, b, edge in tree.edges(data=True)]
    three = tree.edge_subgraph([(a, b) for a, b, line in edges if line is not None and len(line.phases) == 3])
    between = tree.edge_subgraph([(a, b) for a, b, line in edges if line is None or line.name not in switched])
    zone = {bus: number for number, part in enumerate(nx.connected_components(between)) for bus in part}
    ends = [bus for bus in main_buses(feeder) if bus in three and three.degree(bus) == 1]
    pairs = []
    for i, a in enumerate(ends):
        away = nx.single_source_dijkstra_path_length(tree, a)
        pairs += [(away[b], a, b) for b in ends[i + 1 :] if zone.get(a, a) != zone.get(b, b)]
    ties: list[Line] = []
    used: set[str] = set()
    for km, a, b in sorted(pairs, reverse=True):
        if len(ties) < num and not {a, b} <= used:
            used |= {a, b}
            ties.append(
                _tie(f"tie{len(ties) + 1}", a, b, km, [edge["line"] for _, _, edge in three.edges(b, data=True)])
            )
    return tuple(ties)


def _tie(name: str, from_bus: str, to_bus: str, km: float, beside: list[Line]) -> Line:
    """Return an open tie of the strongest line at its end."""
    like = max(beside, key=lambda line: (line.rating_a or 0.0, line.name))
    return Line(
        name=name,
        from_bus=from_bus,
        to_bus=to_bus,
        phases=(1, 2, 3),
        line_code=like.line_code,
        length_km=max(TIE_SHARE * km, LEAST_TIE_KM),
        is_switch=True,
        is_open=True,
        rating_a=like.rating_a,
    )
