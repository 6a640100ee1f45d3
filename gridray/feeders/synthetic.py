"""Synthetic 12.47 kV feeders of any size from a seed.

A 115 kV source feeds substation transformers, each with up to four feeders of at most 5000 nodes. A feeder has a
three-phase trunk with regulators, switches and capacitors, laterals of three, two and one phases, and service
transformers. Conductors carry their downstream load; section lengths are such that the lowest voltage is about
0.93 to 0.95 pu before any regulator acts. Line codes come from Carson's equations (`gridray.feeders.conductors`) for
standard ACSR conductors on Kersting's pole and for 15 kV concentric-neutral cables.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.errors import FeederError
from gridray.feeders.components import (
    Capacitor,
    Line,
    LineCode,
    Load,
    RegulatorControl,
    Source,
    Transformer,
    Winding,
)
from gridray.feeders.conductors import Cable, Wire, cable_line_code, overhead_line_code
from gridray.feeders.feeder import Feeder
from gridray.feeders.synthetic_tree import (
    ALL_PHASES,
    Impedances,
    downstream,
    fit_lengths,
    grow,
    place_capacitors,
    spread_load,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator

    from gridray.feeders.synthetic_tree import Tree

KV, KV_LN, KV_SOURCE = 12.47, 7.2, 115.0
KV_SERVICE_LN, KV_SERVICE_LL = 0.24, 0.208
MIN_NODES, MAX_NODES = 20, 1_000_000
FEEDER_NODES = 5000
FEEDERS_PER_STATION = 4
SERVICE_R_PERCENT, SERVICE_X_PERCENT = 1.2, 1.8
SERVICE_KVA = (10.0, 15.0, 25.0, 37.5, 50.0, 75.0, 100.0, 167.0, 250.0, 333.0, 500.0)
STATION_R_PERCENT, STATION_X_PERCENT, STATION_MARGIN = 0.5, 8.0, 1.25
LOADING = 0.6
"""Share of a conductor's ampacity that its load may take."""
NAME = re.compile(r"synthetic-(\d{1,7})-(\d{1,18})(-meshed)?")

STRAND = Wire(name="14", r_ohm_per_mile=14.8722, gmr_ft=0.00208, diameter_in=0.0641, ampacity_a=20.0)
WIRES = (
    Wire(name="2", r_ohm_per_mile=1.69, gmr_ft=0.00418, diameter_in=0.316, ampacity_a=180.0),
    Wire(name="1_0", r_ohm_per_mile=1.12, gmr_ft=0.00446, diameter_in=0.398, ampacity_a=230.0),
    Wire(name="4_0", r_ohm_per_mile=0.592, gmr_ft=0.00814, diameter_in=0.563, ampacity_a=340.0),
    Wire(name="336", r_ohm_per_mile=0.306, gmr_ft=0.0244, diameter_in=0.721, ampacity_a=530.0),
    Wire(name="556", r_ohm_per_mile=0.1859, gmr_ft=0.0313, diameter_in=0.927, ampacity_a=730.0),
)
CABLES = (
    Cable(
        name="1_0",
        core=Wire(name="1_0aa", r_ohm_per_mile=0.97, gmr_ft=0.0111, diameter_in=0.368, ampacity_a=175.0),
        diameter_in=1.02,
        strand=STRAND,
        num_strands=6,
    ),
    Cable(
        name="250",
        core=Wire(name="250aa", r_ohm_per_mile=0.41, gmr_ft=0.0171, diameter_in=0.567, ampacity_a=260.0),
        diameter_in=1.29,
        strand=STRAND,
        num_strands=13,
    ),
    Cable(
        name="500",
        core=Wire(name="500aa", r_ohm_per_mile=0.206, gmr_ft=0.026, diameter_in=0.813, ampacity_a=385.0),
        diameter_in=1.56,
        strand=STRAND,
        num_strands=16,
    ),
)
POLE_FT = {1: ((0.0, 29.0),), 2: ((0.0, 28.0), (7.0, 28.0)), 3: ((0.0, 28.0), (2.5, 28.0), (7.0, 28.0))}
NEUTRAL_FT = (4.0, 24.0)


class _Parts(NamedTuple):
    lines: list[Line]
    transformers: list[Transformer]
    regulators: list[RegulatorControl]
    capacitors: list[Capacitor]
    loads: list[Load]
    bus_xy: list[tuple[str, float, float]]


def synthetic_feeder(num_nodes: int, *, seed: int, meshed: bool = False) -> Feeder:
    """Return a feeder of about num_nodes nodes (phases of buses), the same for the same arguments.

    Args:
        num_nodes: 20 to 1,000,000; the feeder has within 10 of it.
        seed: of the random generator, 0 or more.
        meshed: close a few loops between three-phase buses of each feeder, else it is radial.

    Raises:
        FeederError: num_nodes or seed is out of range.
    """
    if not MIN_NODES <= num_nodes <= MAX_NODES or seed < 0:
        raise FeederError(
            f"A synthetic feeder of {num_nodes} nodes from seed {seed}: "
            f"give {MIN_NODES} to {MAX_NODES} nodes and a seed of 0 or more."
        )
    rng = np.random.default_rng(seed)
    num_feeders = math.ceil(num_nodes / FEEDER_NODES)
    num_stations = math.ceil(num_feeders / FEEDERS_PER_STATION)
    budget = num_nodes - 3 - 3 * num_stations
    parts = _Parts([], [], [], [], [], [("source", 0.0, 0.0)])
    station_kva = [0.0] * num_stations
    for k in range(num_feeders):
        nodes = budget // num_feeders + (k < budget % num_feeders)
        station = k * num_stations // num_feeders
        tree = _tree(nodes, 2.0 * math.pi * k / num_feeders, rng)
        station_kva[station] += math.hypot(sum(tree.kw), sum(tree.kvar))
        _Assembly(tree, f"f{k + 1}_", f"station{station + 1}", parts).add(meshed=meshed, rng=rng)
    for station, kva in enumerate(station_kva, 1):
        parts.transformers.append(_substation(f"station{station}", kva))
        parts.bus_xy.append((f"station{station}", 0.0, 0.0))
    codes = {line.line_code for line in parts.lines}
    return Feeder(
        name=f"synthetic-{num_nodes}-{seed}{'-meshed' if meshed else ''}",
        frequency_hz=60.0,
        base_kv=(KV_SOURCE, KV, KV_SERVICE_LN * 3.0**0.5, KV_SERVICE_LL),
        source=_source(sum(station_kva)),
        line_codes=tuple(code for name, code in _line_codes().items() if name in codes),
        lines=tuple(parts.lines),
        transformers=tuple(parts.transformers),
        regulators=tuple(parts.regulators),
        capacitors=tuple(parts.capacitors),
        loads=tuple(parts.loads),
        bus_xy=tuple(parts.bus_xy),
    )


def parse_synthetic_name(name: str) -> Feeder | None:
    """Return the feeder called "synthetic-NODES-SEED" or "synthetic-NODES-SEED-meshed"; None for other names."""
    match = NAME.fullmatch(name)
    if match is None:
        return None
    return synthetic_feeder(int(match[1]), seed=int(match[2]), meshed=match[3] is not None)


def _tree(num_nodes: int, heading: float, rng: Generator) -> Tree:
    """Grow a feeder, load it, and draw it so large that its voltages span a realistic range."""
    tree = grow(num_nodes, heading, rng)
    spread_load(tree, 3500.0 * (num_nodes / 280.0) ** 0.3, rng)
    place_capacitors(tree)
    matrices = _impedances()
    z_line = [None if code is None else matrices[code] for code in _codes_of(tree)]
    kv2 = KV_LN**2 * 1e3
    z_service = complex(SERVICE_R_PERCENT, SERVICE_X_PERCENT) / 100.0 * kv2
    kva = STATION_MARGIN * math.hypot(sum(tree.kw), sum(tree.kvar)) / 3.0
    z_station = complex(STATION_R_PERCENT, STATION_X_PERCENT) / 100.0 * kv2 / kva
    z = [
        z_service * len(phases) / _service_kva(tree, bus) if kind == "service" else 0j
        for bus, (kind, phases) in enumerate(zip(tree.kind, tree.phases, strict=True))
    ]
    fit_lengths(tree, Impedances(z_line, z, z_station, KV_LN))
    return tree


def _service_kva(tree: Tree, bus: int) -> float:
    """Return the rating of a service transformer that carries 1.25 times its load."""
    need = 1.25 * math.hypot(tree.kw[bus], tree.kvar[bus]) / len(tree.phases[bus])
    unit = next((kva for kva in SERVICE_KVA if kva >= need), 100.0 * math.ceil(need / 100.0))
    return unit * len(tree.phases[bus])


def _codes_of(tree: Tree) -> list[str | None]:
    """Return the line code of each bus's section: the smallest conductor that carries what lies behind it."""
    kw, kvar = downstream(tree, tree.kw), downstream(tree, tree.kvar)
    codes: list[str | None] = [None]
    for bus in range(1, len(tree.parent)):
        kva = max(math.hypot(p, q) for p, q in zip(kw[bus], kvar[bus], strict=True))
        need, num = kva / KV_LN / LOADING, len(tree.phases[bus])
        if tree.kind[bus] == "line":
            wire = next((w for w in WIRES if w.ampacity_a >= need), WIRES[-1])
            codes.append(f"oh{num}_{wire.name}")
        elif tree.kind[bus] == "cable":
            cable = next((c for c in CABLES if c.core.ampacity_a >= need), CABLES[-1])
            codes.append(f"ug{num}_{cable.name}")
        else:
            codes.append("switch3" if tree.kind[bus] == "switch" else None)
    return codes


@cache
def _line_codes() -> dict[str, LineCode]:
    zero = ((0.0,) * 3,) * 3
    r = tuple(tuple(0.1 if i == j else 0.0 for j in range(3)) for i in range(3))
    codes = [LineCode(name="switch3", r_ohm_per_km=r, x_ohm_per_km=r, c_nf_per_km=zero)]
    for num, places in POLE_FT.items():
        for wire in WIRES:
            neutral = WIRES[min(WIRES.index(wire), 2)]
            codes.append(overhead_line_code(f"oh{num}_{wire.name}", wire, neutral, places, NEUTRAL_FT))
    for num in (1, 3):
        codes += [cable_line_code(f"ug{num}_{c.name}", c, tuple(0.5 * i for i in range(num))) for c in CABLES]
    return {code.name: code for code in codes}


@cache
def _impedances() -> dict[str, list[list[complex]]]:
    return {
        name: (np.array(code.r_ohm_per_km) + 1j * np.array(code.x_ohm_per_km)).tolist()
        for name, code in _line_codes().items()
    }


def _source(kva: float) -> Source:
    """Return a source of 50 times the load's kVA, at least 1000 MVA, X1/R1 10, at short circuit."""
    x = KV_SOURCE**2 / max(1000.0, kva * 0.05)
    return Source(
        bus="source", kv=KV_SOURCE, pu=1.03, angle_deg=30.0, r1_ohm=0.1 * x, x1_ohm=x, r0_ohm=0.3 * x, x0_ohm=1.5 * x
    )


def _substation(bus: str, load_kva: float) -> Transformer:
    kva = 500.0 * math.ceil(STATION_MARGIN * load_kva / 500.0)
    high = Winding(
        bus="source", phases=ALL_PHASES, connection="delta", kv=KV_SOURCE, kva=kva, r_percent=STATION_R_PERCENT / 2.0
    )
    low = Winding(bus=bus, phases=ALL_PHASES, connection="wye", kv=KV, kva=kva, r_percent=STATION_R_PERCENT / 2.0)
    return Transformer(name=bus, windings=(high, low), xhl_percent=STATION_X_PERCENT)


class _Assembly:
    """Turns one tree into components, appended to the parts."""

    def __init__(self, tree: Tree, prefix: str, station: str, parts: _Parts) -> None:
        self.tree, self.parts, self.prefix = tree, parts, prefix
        self.names = [f"{prefix}{bus}" for bus in range(len(tree.parent))]
        self.names[0] = station

    def add(self, *, meshed: bool, rng: Generator) -> None:
        """Append sections, loads, capacitors and ties."""
        tree, parts = self.tree, self.parts
        codes = _codes_of(tree)
        for bus in range(1, len(tree.parent)):
            kind, code, above, name = tree.kind[bus], codes[bus], self.names[tree.parent[bus]], self.names[bus]
            if kind == "regulator":
                self._add_regulators(above, name)
            elif kind == "service":
                parts.transformers.append(self._service(bus, above, name))
            elif code is not None:
                parts.lines.append(
                    Line(
                        name=name,
                        from_bus=above,
                        to_bus=name,
                        phases=tree.phases[bus],
                        line_code=code,
                        length_km=tree.length_km[bus],
                        is_switch=kind == "switch",
                    )
                )
            parts.bus_xy.append((name, tree.x_km[bus], tree.y_km[bus]))
        self._add_loads(rng)
        self._add_capacitors()
        self._add_ties(meshed=meshed, rng=rng)

    def _add_regulators(self, above: str, name: str) -> None:
        kva = 2500.0
        for phase in ALL_PHASES:
            unit = f"{name}.{phase}"
            windings = [
                Winding(bus=bus, phases=(phase,), connection="wye", kv=KV_LN, kva=kva, r_percent=0.01)
                for bus in (above, name)
            ]
            self.parts.transformers.append(
                Transformer(name=unit, windings=(windings[0], windings[1]), xhl_percent=0.02)
            )
            self.parts.regulators.append(
                RegulatorControl(
                    name=unit,
                    transformer=unit,
                    vreg_v=123.0,
                    band_v=2.0,
                    pt_ratio=60.0,
                    ct_primary_a=400.0,
                    r_v=0.0,
                    x_v=0.0,
                    delay_s=15.0 if above.startswith("station") else 30.0,
                )
            )

    def _service(self, bus: int, above: str, name: str) -> Transformer:
        phases, kva = self.tree.phases[bus], _service_kva(self.tree, bus)
        high_kv, low_kv = (KV_LN, KV_SERVICE_LN) if len(phases) == 1 else (KV, KV_SERVICE_LL)
        windings = [
            Winding(bus=at, phases=phases, connection="wye", kv=kv, kva=kva, r_percent=SERVICE_R_PERCENT / 2.0)
            for at, kv in ((above, high_kv), (name, low_kv))
        ]
        return Transformer(name=name, windings=(windings[0], windings[1]), xhl_percent=SERVICE_X_PERCENT)

    def _add_loads(self, rng: Generator) -> None:
        tree = self.tree
        draws = rng.random((len(tree.parent), 2)).tolist()
        for bus, (draw_model, draw_delta) in enumerate(draws):
            if tree.kw[bus] == 0.0:
                continue
            phases, is_service = tree.phases[bus], tree.kind[bus] == "service"
            is_delta = not is_service and (len(phases) == 2 or (len(phases) == 3 and draw_delta < 0.4))
            kv_ln, kv_ll = (KV_SERVICE_LN, KV_SERVICE_LL) if is_service else (KV_LN, KV)
            self.parts.loads.append(
                Load(
                    name=self.names[bus],
                    bus=self.names[bus],
                    phases=phases,
                    connection="delta" if is_delta else "wye",
                    model=next(m for m, bound in ((1, 0.6), (2, 0.75), (5, 0.9), (4, 1.0)) if draw_model < bound),
                    kv=kv_ln if len(phases) == 1 else kv_ll,
                    kw=tree.kw[bus],
                    kvar=tree.kvar[bus],
                    vmin_pu=0.85,
                    vmax_pu=1.15,
                )
            )

    def _add_capacitors(self) -> None:
        for bus in self.tree.trunk:
            kvar, name = self.tree.capacitor_kvar[bus], self.names[bus]
            if kvar:
                self.parts.capacitors.append(
                    Capacitor(name=name, bus=name, phases=ALL_PHASES, connection="wye", kv=KV, kvar=kvar)
                )

    def _add_ties(self, *, meshed: bool, rng: Generator) -> None:
        """Add one open tie switch and, if meshed, a few closed ones, each between two buses near each other."""
        tree = self.tree
        num_closed = 2 + len(tree.parent) // 1000 if meshed else 0
        for tie, (start, end) in enumerate(_tie_ends(tree, num_closed + 1, rng)):
            apart = math.dist((tree.x_km[start], tree.y_km[start]), (tree.x_km[end], tree.y_km[end]))
            self.parts.lines.append(
                Line(
                    name=f"{self.prefix}tie{tie}",
                    from_bus=self.names[start],
                    to_bus=self.names[end],
                    phases=ALL_PHASES,
                    line_code="oh3_4_0",
                    length_km=max(1.1 * apart, 0.01),
                    is_switch=True,
                    is_open=tie == 0,
                )
            )


def _tie_ends(tree: Tree, num: int, rng: Generator) -> Iterator[tuple[int, int]]:
    """Draw pairs of three-phase buses behind the same regulator that no section joins."""
    zone = [0] * len(tree.parent)
    by_zone: dict[int, list[int]] = {}
    for bus in range(1, len(tree.parent)):
        zone[bus] = bus if tree.kind[bus] == "regulator" else zone[tree.parent[bus]]
        if len(tree.phases[bus]) == 3 and tree.kind[bus] != "service":
            by_zone.setdefault(zone[bus], []).append(bus)
    zones = [buses for buses in by_zone.values() if len(buses) >= 4]
    taken: set[tuple[int, int]] = set()
    for _ in range(num):
        buses = zones[int(rng.random() * len(zones))]
        start = buses[int(rng.random() * len(buses))]
        near = [buses[int(draw * len(buses))] for draw in rng.random(16)]
        near = [b for b in near if b != start and start != tree.parent[b] and b != tree.parent[start]]
        near = [b for b in near if (min(b, start), max(b, start)) not in taken]
        if near:
            end = min(near, key=lambda b: math.dist((tree.x_km[start], tree.y_km[start]), (tree.x_km[b], tree.y_km[b])))
            taken.add((min(end, start), max(end, start)))
            yield start, end
