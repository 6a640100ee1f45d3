"""Where a task puts its PV and battery inverters on a published feeder, which has none."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from gridray.errors import ConfigError
from gridray.feeders.components import Generator

if TYPE_CHECKING:
    from collections.abc import Collection

    from gridray.feeders.feeder import Feeder
    from gridray.tasks.twin_config import InverterConfig

INVERTER_OVERSIZE = 1.1
"""kVA over kW, so that 0.44 pu of reactive power is left at full active power."""


def site_inverters(feeder: Feeder, config: InverterConfig) -> tuple[tuple[Generator, ...], tuple[Generator, ...]]:
    """Return PV and battery inverters, each kind of equal size, at three-phase buses spread along the feeder.

    Sites depend on the feeder alone, so that utilities with the same feeder have the same devices in other sizes:
    buses are ordered by distance from the source and taken at equal quantiles, batteries from the far end.

    Raises:
        ConfigError: the feeder has fewer three-phase buses than inverters.
    """
    nominal_kw = config.load_scale * sum(load.kw for load in feeder.loads)
    num_pv, num_batteries = config.num_pv, config.num_batteries
    pv_kw = config.pv_share * nominal_kw / max(num_pv, 1)
    battery_kw = config.battery_share * nominal_kw / max(num_batteries, 1)
    buses = three_phase_buses(feeder)
    if num_pv + num_batteries > len(buses):
        raise ConfigError(
            f"num_pv + num_batteries is {num_pv + num_batteries}, but feeder '{feeder.name}' has {len(buses)} "
            f"three-phase buses for them: give at most {len(buses)}."
        )
    picked = [buses[i] for i in np.linspace(len(buses) - 1, 0, num_pv + num_batteries).round().astype(int)]
    batteries, pv = picked[:num_batteries], picked[num_batteries:]
    kv = _bus_kv(feeder)

    def inverter(kind: str, bus: str, kw: float, hours: float) -> Generator:
        size = max(kw, 1e-3)
        return Generator(
            name=f"{kind}{bus}",
            kind="pv" if kind == "pv" else "battery",
            bus=bus,
            phases=(1, 2, 3),
            kv=kv[bus],
            kva=INVERTER_OVERSIZE * size,
            kw=size,
            kwh=hours * size,
        )

    return (
        tuple(inverter("pv", bus, pv_kw, 0.0) for bus in pv),
        tuple(inverter("battery", bus, battery_kw, config.battery_hours) for bus in batteries),
    )


def spread_buses(feeder: Feeder, num: int, taken: Collection[str] = ()) -> list[str]:
    """Return three-phase buses at equal quantiles of the way along the feeder, far end first, none of `taken`.

    Raises:
        ConfigError: the feeder has fewer that are free.
    """
    buses = [bus for bus in three_phase_buses(feeder) if bus not in set(taken)]
    if num > len(buses):
        raise ConfigError(
            f"{num} devices need a three-phase bus each, but feeder '{feeder.name}' has {len(buses)} that are free: "
            "ask for fewer."
        )
    return [buses[i] for i in np.linspace(len(buses) - 1, 0, num).round().astype(int)]


def site_item(feeder: Feeder, kind: str, bus: str, kva: float, *, kw: float = 0.0) -> Generator:
    """Return a three-phase item for a device that a fleet drives, named by kind and bus; at rest it injects kw."""
    return Generator(
        name=f"{kind}{bus}",
        kind="generator",
        bus=bus,
        phases=(1, 2, 3),
        kv=_bus_kv(feeder)[bus],
        kva=max(kva, 1e-3),
        kw=kw,
    )


def main_buses(feeder: Feeder) -> list[str]:
    """Return the buses at the voltage that most of the feeder has."""
    kv = _bus_kv(feeder)
    main_kv = Counter(kv.values()).most_common(1)[0][0]
    return [bus for bus, own in kv.items() if own == main_kv]


def three_phase_buses(feeder: Feeder) -> list[str]:
    """Return medium-voltage three-phase buses behind the first regulator or line, nearest to the source first."""
    distance = bus_distances_km(feeder)
    phases: dict[str, set[int]] = {}
    for line in feeder.lines:
        if not line.is_open:
            for bus in (line.from_bus, line.to_bus):
                phases.setdefault(bus, set()).update(line.phases)
    kv = _bus_kv(feeder)
    main_kv = Counter(kv.values()).most_common(1)[0][0]
    fed = {line.to_bus for line in feeder.lines if not line.is_switch and line.length_km > 0.0}
    candidates = [bus for bus, has in phases.items() if len(has) == 3 and bus in fed and kv.get(bus) == main_kv]
    return sorted(candidates, key=lambda bus: (distance[bus], bus))


def bus_distances_km(feeder: Feeder) -> dict[str, float]:
    """Return the length of line between the source and each bus, km."""
    graph = nx.Graph()
    graph.add_node(feeder.source.bus)
    graph.add_weighted_edges_from((ln.from_bus, ln.to_bus, ln.length_km) for ln in feeder.lines if not ln.is_open)
    for transformer in feeder.transformers:
        first, second = transformer.windings
        graph.add_edge(first.bus, second.bus, weight=0.0)
    return dict(nx.single_source_dijkstra_path_length(graph, feeder.source.bus))


def _bus_kv(feeder: Feeder) -> dict[str, float]:
    """Return each bus's line-to-line base, by walking from the source over lines and transformers."""
    graph = nx.Graph()
    for line in feeder.lines:
        if not line.is_open:
            graph.add_edge(line.from_bus, line.to_bus)
    for transformer in feeder.transformers:
        first, second = transformer.windings
        graph.add_edge(first.bus, second.bus, ratio=(first.bus, second.kv / first.kv))
    kv = {feeder.source.bus: feeder.source.kv}
    for near, far in nx.bfs_edges(graph, feeder.source.bus):
        ratio = graph.edges[near, far].get("ratio")
        factor = 1.0 if ratio is None else ratio[1] if ratio[0] == near else 1.0 / ratio[1]
        kv[far] = min(feeder.base_kv, key=lambda base, v=kv[near] * factor: abs(base - v))  # type: ignore[misc]
    return kv
