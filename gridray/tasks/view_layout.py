"""Which observation stands where in a device's local view."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import networkx as nx
import numpy as np

from gridray.errors import ConfigError
from gridray.tasks.observations import LOAD_CHANNEL, bus_of
from gridray.tasks.siting import bus_distances_km

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.tasks.base import ObservationChannel
    from gridray.tasks.twin import Twin

KINDS = (
    "regulator",
    "capacitor",
    "switch",
    "pv",
    "wind",
    "battery",
    "ev",
    "heat_pump",
    "flexible_load",
    "zone",
    "other",
)
"""Kinds of devices that a view tells apart; part of the contract, new ones take the place of "other"."""
OWN = 8
"""Readings of its own that a device may have."""
MAX_ACTIONS = 2
"""Set-points that a device may have."""
PHASES = (1, 2, 3)
AGGREGATES = ("min", "mean", "max")
FEATURES = (
    *(f"kind.{kind}" for kind in KINDS),
    *(f"own.{i}" for i in range(OWN)),
    *(f"bus.vmag.{phase}" for phase in PHASES),
    *(f"bus.is_metered.{phase}" for phase in PHASES),
    *(f"{group}.vmag.{name}" for group in ("upstream", "neighbours", "below", "feeder") for name in AGGREGATES),
    *(f"{group}.is_metered" for group in ("upstream", "neighbours", "below")),
    "feeder.p_kw",
    "feeder.q_kvar",
    "time.sin_day",
    "time.cos_day",
    "price.now",
    *(f"price.ahead.{name}" for name in AGGREGATES),
    *(f"load.ahead.{name}" for name in AGGREGATES),
    "static.rating",
    "static.distance",
    "static.load_below",
    *(f"static.phase.{phase}" for phase in PHASES),
)
"""Names of what stands in a view, in order: scaled as the observations are; 0 where there is nothing.

upstream: the next bus towards the source; neighbours: all adjacent buses; below: the device's bus and all that is fed
through it. static: rating over the feeder's nominal load; distance from the source over the largest; share of the
nominal load that is fed through the bus; 1 for each phase that the device is on.
"""
WIDTH = len(FEATURES)


class Layout(NamedTuple):
    """Where the features of D devices come from.

    A row of observations is followed by (min, mean, max) of each group of its columns.
    source: int64 [D, WIDTH], place in that row, -1 if static; static: float32 [D, WIDTH];
    group_start: int64 [num_groups + 1], first of a group's columns in group_column, int64.
    """

    source: NDArray[np.int64]
    static: NDArray[np.float32]
    group_start: NDArray[np.int64]
    group_column: NDArray[np.int64]


def lay_out(
    twin: Twin,
    channels: Sequence[ObservationChannel],
    devices: Sequence[str],
    buses: Sequence[str],
    kind_index: NDArray[np.int64],
) -> Layout:
    """Return the layout of the views of these devices, at these buses, in observations of these channels."""
    places = _Places([channel.name for channel in channels])
    source = np.full((len(devices), WIDTH), -1, dtype=np.int64)
    static = np.zeros((len(devices), WIDTH), dtype=np.float32)
    static[np.arange(len(devices)), kind_index] = 1.0
    tree = fed_tree(twin.feeder)
    shared = _shared(twin, places)
    ratings, phases, distances = _ratings(twin), _phases(twin), bus_distances_km(twin.feeder)
    farthest = max(distances.values()) or 1.0
    load_at = dict.fromkeys(tree, 0.0)
    for load in twin.feeder.loads:
        load_at[load.bus] = load_at.get(load.bus, 0.0) + load.kw
    total_kw = sum(load_at.values()) or 1.0
    for row, (device, bus) in enumerate(zip(devices, buses, strict=True)):
        below = {bus, *nx.descendants(tree, bus)} if bus in tree else {bus}
        above = list(tree.predecessors(bus)) if bus in tree else []
        found = dict(shared)
        found |= {f"own.{i}": place for i, place in enumerate(places.own(device, devices))}
        found |= {f"bus.vmag.{phase}": at for phase, at in places.phases(bus).items()}
        near = {
            "upstream": above,
            "neighbours": [*above, *(tree.successors(bus) if bus in tree else ())],
            "below": below,
        }
        for name, members in near.items():
            found |= places.group(f"{name}.vmag", places.voltages(members))
            static[row, FEATURES.index(f"{name}.is_metered")] = float(bool(places.voltages(members)))
        for name, place in found.items():
            source[row, FEATURES.index(name)] = place
        values = {f"bus.is_metered.{phase}": 1.0 for phase in places.phases(bus)}
        values["static.rating"] = ratings.get(device, 0.0) / max(twin.nominal_kw, 1e-9)
        values["static.distance"] = distances.get(bus, farthest) / farthest
        values["static.load_below"] = sum(load_at.get(name, 0.0) for name in below) / total_kw
        values |= {f"static.phase.{phase}": 1.0 for phase in phases.get(device, PHASES) if phase in PHASES}
        for name, value in values.items():
            static[row, FEATURES.index(name)] = value
    return Layout(source, static, *places.groups())


def fed_tree(feeder: Feeder) -> nx.DiGraph:
    """Return the buses that the source feeds over closed lines and transformers, edges away from the source."""
    graph = nx.Graph()
    graph.add_node(feeder.source.bus)
    graph.add_edges_from((line.from_bus, line.to_bus) for line in feeder.lines if not line.is_open)
    for transformer in feeder.transformers:
        first, *others = transformer.windings
        graph.add_edges_from((first.bus, other.bus) for other in others)
    return nx.bfs_tree(graph, feeder.source.bus)


class _Places:
    """Columns of observations by what they show, and the groups asked for so far."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.column = {name: i for i, name in enumerate(names)}
        self._by_bus: dict[str, dict[int, int]] = {}
        for i, name in enumerate(names):
            if name.startswith("vmag_pu."):
                self._by_bus.setdefault(bus_of(name), {})[int(name.rpartition(".")[2])] = i
        self._groups: dict[tuple[int, ...], int] = {}

    def phases(self, bus: str) -> dict[int, int]:
        """Return the columns of a bus's phase voltages."""
        return {phase: at for phase, at in self._by_bus.get(bus, {}).items() if phase in PHASES}

    def voltages(self, buses: Iterable[str]) -> list[int]:
        """Return the columns of all phase voltages of these buses."""
        return sorted(at for bus in set(buses) for at in self.phases(bus).values())

    def own(self, device: str, devices: Sequence[str]) -> list[int]:
        """Return the columns of a device's own readings; of two names that fit a channel the longer one owns it."""
        longer = tuple(f"{other}." for other in devices if other.startswith(f"{device}.") and other != device)
        found = [
            i
            for i, name in enumerate(self.names)
            if name.startswith(f"{device}.") and not (longer and name.startswith(longer))
        ]
        if len(found) > OWN:
            raise ConfigError(f"Device '{device}' has {len(found)} readings: a local view holds {OWN}.")
        return found

    def group(self, prefix: str, columns: Sequence[int]) -> dict[str, int]:
        """Return the places of min, mean and max of these columns; of none if there are none."""
        if not columns:
            return {}
        number = self._groups.setdefault(tuple(columns), len(self._groups))
        return {f"{prefix}.{name}": len(self.names) + 3 * number + i for i, name in enumerate(AGGREGATES)}

    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where each group starts, and the columns of all."""
        sizes = [len(group) for group in self._groups]
        columns = [column for group in self._groups for column in group]
        return np.concatenate(([0], np.cumsum(sizes))).astype(np.int64), np.array(columns, dtype=np.int64)


def _shared(twin: Twin, places: _Places) -> dict[str, int]:
    """Return the places of what all devices see."""
    names = ("feeder.p_kw", "feeder.q_kvar", "time.sin_day", "time.cos_day")
    found = {name: places.column[name] for name in names}
    found |= places.group("feeder.vmag", [i for i, name in enumerate(places.names) if name.startswith("vmag_pu.")])
    for signal in twin.signals:
        if signal.channel.name.startswith("price"):
            found["price.now"] = places.column[signal.channel.name]
            found |= places.group("price.ahead", _ahead(places, signal.channel.name))
        if signal.channel.name.startswith("load"):
            found |= places.group("load.ahead", _ahead(places, signal.channel.name))
    return found | places.group("load.ahead", _ahead(places, LOAD_CHANNEL.name))


def _ahead(places: _Places, name: str) -> list[int]:
    return [i for i, other in enumerate(places.names) if other.startswith(f"{name}.ahead_")]


def _ratings(twin: Twin) -> dict[str, float]:
    """Return each device's size, kW or kvar (kVA of a transformer)."""
    sizes = {f"capacitor.{capacitor.name}": capacitor.kvar for capacitor in twin.feeder.capacitors}
    sizes |= {f"regulator.{unit.name}": unit.windings[0].kva for unit in twin.feeder.transformers}
    for channel in twin.action_channels:
        if channel.unit in {"kW", "kvar"}:
            device = channel.name.rpartition(".")[0]
            sizes[device] = max(sizes.get(device, 0.0), abs(channel.low), abs(channel.high))
    return sizes


def _phases(twin: Twin) -> dict[str, tuple[int, ...]]:
    """Return the phases of devices that the feeder has; others are on all of their bus."""
    feeder = twin.feeder
    phases = {f"capacitor.{capacitor.name}": capacitor.phases for capacitor in feeder.capacitors}
    phases |= {f"regulator.{unit.name}": unit.windings[1].phases for unit in feeder.transformers}
    phases |= {f"switch.{line.name}": line.phases for line in feeder.lines if line.is_switch}
    for fleet in twin.fleets:
        at = {generator.name: generator.phases for generator in feeder.generators}
        phases |= {f"{fleet.kind}.{name}": at[name] for name in fleet.names if name in at}
    return phases
