"""Parts of a feeder that one controller looks after: areas between regulators, or buses near one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import networkx as nx

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from gridray.feeders.feeder import Feeder


def regulator_areas(feeder: Feeder) -> dict[str, int]:
    """Return the area of each bus: what is joined without passing a regulator; 0 is the source's.

    A regulator's own bus, behind it, is in the area that it feeds.
    """
    graph = _graph(feeder)
    regulated = {control.transformer for control in feeder.regulators}
    for transformer in feeder.transformers:
        if transformer.name in regulated:
            first, *others = transformer.windings
            graph.remove_edges_from(
                [(first.bus, other.bus) for other in others if graph.has_edge(first.bus, other.bus)]
            )
    return _numbered(feeder, [set(part) for part in nx.connected_components(graph)])


def distance_zones(feeder: Feeder, num_zones: int) -> dict[str, int]:
    """Return the zone of each bus, of num_zones that each are connected; 0 is the source's.

    Centres are the source and then, one by one, the bus farthest (in km of line) from all centres so far; each bus
    belongs to the nearest one (Gonzalez 1985, Clustering to minimize the maximum intercluster distance).

    Raises:
        ConfigError: there are fewer buses than zones.
    """
    graph = _graph(feeder)
    fed = graph.subgraph(nx.node_connected_component(graph, feeder.source.bus))
    if not 1 <= num_zones <= len(fed):
        raise ConfigError(f"num_zones is {num_zones}: give 1 to {len(fed)}, the buses of feeder '{feeder.name}'.")
    centres = [feeder.source.bus]
    while len(centres) < num_zones:
        distance = nx.multi_source_dijkstra_path_length(fed, set(centres))
        left = [bus for bus in distance if bus not in centres]
        centres.append(max(left, key=lambda bus: (distance[bus], bus)))
    return _numbered(feeder, [set(cell) for cell in nx.voronoi_cells(fed, set(centres)).values()])


def _numbered(feeder: Feeder, parts: list[set[str]]) -> dict[str, int]:
    """Return each bus's number, parts counted from the source outwards; a bus that nothing feeds is in part 0."""
    distance = nx.single_source_dijkstra_path_length(_graph(feeder), feeder.source.bus)
    parts = [part for part in parts if part & distance.keys()]
    parts.sort(key=lambda part: min((distance[bus], bus) for bus in part & distance.keys()))
    zones = dict.fromkeys(_graph(feeder), 0)
    return zones | {bus: number for number, part in enumerate(parts) for bus in part}


def _graph(feeder: Feeder) -> nx.Graph:
    graph = nx.Graph()
    graph.add_node(feeder.source.bus)
    for line in feeder.lines:
        if line.is_open:
            graph.add_nodes_from((line.from_bus, line.to_bus))
        else:
            graph.add_edge(line.from_bus, line.to_bus, weight=line.length_km)
    for transformer in feeder.transformers:
        first, *others = transformer.windings
        graph.add_edges_from(((first.bus, other.bus) for other in others), weight=0.0)
    return graph
