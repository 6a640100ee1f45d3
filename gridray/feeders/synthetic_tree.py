"""Grow the tree of a synthetic feeder: trunk, laterals of fewer phases, service drops; then size its conductors."""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

Kind = Literal["line", "cable", "switch", "regulator", "service"]
ALL_PHASES = (1, 2, 3)
REGULATED_NODES = 100
"""A feeder of this many nodes has regulators at its head; one of ten times as many has more along its trunk."""
TRUNK_KM, LATERAL_KM = 0.3, 0.15
TURN = 0.25
NO_LOAD_PU, LOWEST_PU, HIGHEST_PU = 1.025, 0.93, 1.035
"""Voltages that a feeder is drawn for: at its station without load, and the extremes along it under load."""
ROUNDS = 6
ROTATION = (0j, *(cmath.exp(-2j * math.pi * step / 3.0) for step in range(3)))


@dataclass(kw_only=True)
class Tree:
    """One feeder under construction; item b describes bus b and the section from its parent, parents come first.

    parent: index of the bus above (-1 for bus 0, the station's).
    phases: the bus's phases.
    kind: what joins it to its parent.
    x_km, y_km: place; length_km: of its section.
    trunk: indices of the trunk's buses.
    kw, kvar: each bus's own load; capacitor_kvar: its capacitor's.
    """

    parent: list[int] = field(default_factory=list)
    phases: list[tuple[int, ...]] = field(default_factory=list)
    kind: list[Kind] = field(default_factory=list)
    x_km: list[float] = field(default_factory=list)
    y_km: list[float] = field(default_factory=list)
    length_km: list[float] = field(default_factory=list)
    trunk: list[int] = field(default_factory=list)
    kw: list[float] = field(default_factory=list)
    kvar: list[float] = field(default_factory=list)
    capacitor_kvar: list[float] = field(default_factory=list)

    def add(self, parent: int, phases: tuple[int, ...], kind: Kind, length_km: float, heading: float) -> int:
        """Append a bus and return its index."""
        self.parent.append(parent)
        self.phases.append(phases)
        self.kind.append(kind)
        start = (self.x_km[parent], self.y_km[parent]) if parent >= 0 else (0.0, 0.0)
        self.x_km.append(start[0] + length_km * math.cos(heading))
        self.y_km.append(start[1] + length_km * math.sin(heading))
        self.length_km.append(length_km)
        self.kw.append(0.0)
        self.kvar.append(0.0)
        self.capacitor_kvar.append(0.0)
        return len(self.parent) - 1

    def scale_lengths(self, factor: float) -> None:
        """Draw the feeder larger or smaller."""
        for values in (self.x_km, self.y_km, self.length_km):
            values[:] = [value * factor for value in values]


class Impedances(NamedTuple):
    """What carries a feeder's currents: matrices of line sections, service transformers, the station's share."""

    line_ohm_per_km: list[list[list[complex]] | None]
    service_ohm: list[complex]
    station_ohm: complex
    kv_ln: float


def grow(num_nodes: int, heading: float, rng: Generator) -> Tree:
    """Return a feeder of about num_nodes nodes that leaves its station in this direction."""
    tree = Tree()
    tree.add(-1, ALL_PHASES, "line", 0.0, heading)
    head: Kind = "regulator" if num_nodes >= REGULATED_NODES else "switch"
    tree.trunk.append(tree.add(0, ALL_PHASES, head, 0.001, heading))
    left = num_nodes - 3
    num_trunk = max(3, round(0.6 * num_nodes**0.5))
    regulated = {num_trunk // 2} if num_nodes >= 10 * REGULATED_NODES else set()
    switched = {num_trunk // 3, 2 * num_trunk // 3} if num_nodes >= REGULATED_NODES else {num_trunk // 2}
    for step in range(num_trunk):
        heading += TURN * rng.standard_normal()
        tree.trunk.append(tree.add(tree.trunk[-1], ALL_PHASES, "line", TRUNK_KM * (0.5 + rng.random()), heading))
        left -= 3
        kind: Kind = "regulator" if step in regulated else "switch"
        if step in regulated | switched and left >= 12:
            tree.trunk.append(tree.add(tree.trunk[-1], ALL_PHASES, kind, 0.001, heading))
            left -= 3
    _add_laterals(tree, [bus for bus in tree.trunk if bus > 1], left, 2.0 + num_nodes**0.3, rng)
    return tree


def _add_laterals(tree: Tree, trunk: list[int], left: int, mean_buses: float, rng: Generator) -> None:
    """Add laterals until no node is left, half of them to three-phase buses, the others to any."""
    three_phase, parents, share = list(trunk), list(trunk), np.zeros(4)
    while left > 0:
        roots = three_phase if rng.random() < 0.5 else parents
        root = roots[int(rng.random() * len(roots))]
        phases = _lateral_phases(tree.phases[root], left, share, rng)
        kind: Kind = "cable" if rng.random() < 0.2 and len(phases) != 2 else "line"
        heading = 2.0 * math.pi * rng.random()
        bus = root
        for _ in range(1 + int(rng.exponential(mean_buses))):
            if left < len(phases):
                break
            heading += TURN * rng.standard_normal()
            bus = tree.add(bus, phases, kind, LATERAL_KM * (0.5 + rng.random()), heading)
            left -= len(phases)
            for phase in phases:
                share[phase] += 1.0
            parents.append(bus)
            if len(phases) == 3:
                three_phase.append(bus)
            if len(phases) != 2 and left > len(phases) and rng.random() < 0.3:
                tree.add(bus, phases, "service", 0.02, heading + math.pi / 2.0)
                left -= len(phases)


def _lateral_phases(
    available: tuple[int, ...], left: int, share: NDArray[np.float64], rng: Generator
) -> tuple[int, ...]:
    """Draw one, two or three of the phases there are, the less used first."""
    draw = rng.random()
    num = min(len(available), left, 3 if draw < 0.2 else 2 if draw < 0.35 else 1)
    spread = 1.0 + share.max()
    ranked = sorted(available, key=lambda phase: share[phase] + 0.1 * spread * rng.random())
    return tuple(sorted(ranked[:num]))


def spread_load(tree: Tree, kw: float, rng: Generator) -> None:
    """Give the buses loads of kw together: every service drop, most other buses, all of a small feeder's trunk."""
    num = len(tree.parent)
    weight = rng.lognormal(0.0, 0.6, num)
    power_factor = 0.86 + 0.11 * rng.random(num)
    is_loaded = rng.random(num) < 0.6
    has_service = {b for b, kind in zip(tree.parent, tree.kind, strict=True) if kind == "service"}
    if num < REGULATED_NODES:
        is_loaded[tree.trunk] = True
    for bus in range(num):
        weight[bus] *= len(tree.phases[bus])
        is_loaded[bus] |= tree.kind[bus] == "service"
        is_loaded[bus] &= bus > 1 and bus not in has_service and tree.kind[bus] not in ("regulator", "switch")
    if not is_loaded.any():
        is_loaded[-1] = True
    weight *= is_loaded
    _balance(tree, weight)
    weight *= kw / weight.sum()
    tree.kw = weight.tolist()
    tree.kvar = (weight * np.tan(np.arccos(power_factor))).tolist()


def _balance(tree: Tree, weight: NDArray[np.float64]) -> None:
    """Bring the three phases nearer to each other by scaling the one-phase loads of each."""
    total, single = np.zeros(4), np.zeros(4)
    for phases, w in zip(tree.phases, weight.tolist(), strict=True):
        for phase in phases:
            total[phase] += w / len(phases)
        if len(phases) == 1:
            single[phases[0]] += w
    factor = np.clip((total[1:].mean() - (total - single)) / np.maximum(single, 1e-9), 0.4, 2.5)
    for bus, phases in enumerate(tree.phases):
        if len(phases) == 1:
            weight[bus] *= factor[phases[0]]


def place_capacitors(tree: Tree) -> None:
    """Compensate about half the reactive load in equal banks along the outer two thirds of the trunk."""
    num_buses = len(tree.parent)
    num = 1 if num_buses < 300 else 2 if num_buses < 1500 else 3
    kvar = max(150.0, 150.0 * round(0.5 * sum(tree.kvar) / num / 150.0))
    for bank in range(num):
        tree.capacitor_kvar[tree.trunk[-1 - bank * len(tree.trunk) * 2 // 3 // num]] = kvar


def downstream(tree: Tree, own: list[float]) -> list[list[float]]:
    """Sum what hangs off each bus, itself included, by phase (index 0 unused)."""
    total = [[0.0] * 4 for _ in own]
    for bus in range(len(own) - 1, -1, -1):
        phases, mine = tree.phases[bus], total[bus]
        for phase in phases:
            mine[phase] += own[bus] / len(phases)
        if bus:
            above = total[tree.parent[bus]]
            for phase in ALL_PHASES:
                above[phase] += mine[phase]
    return total


def fit_lengths(tree: Tree, impedances: Impedances) -> None:
    """Scale the sections' lengths so that some node comes to LOWEST_PU or HIGHEST_PU under full load.

    Each round is one backward-forward sweep (Shirmohammadi et al., 1988) with constant-power loads, then a scaling.
    """
    voltages = [[NO_LOAD_PU * factor for factor in ROTATION] for _ in tree.parent]
    for _ in range(ROUNDS):
        _step_outwards(tree, impedances, _currents(tree, voltages), voltages)
        low, high = _extremes(tree, voltages[:1])
        lowest, highest = _extremes(tree, voltages)
        room_below = (low - min(LOWEST_PU, low - 0.01)) / (low - lowest + 1e-9)
        room_above = (max(HIGHEST_PU, high + 0.01) - high) / (highest - high + 1e-9)
        tree.scale_lengths(min(max(min(room_below, room_above), 0.2), 5.0))


def _currents(tree: Tree, voltages: list[list[complex]]) -> list[list[complex]]:
    """Sum currents towards the station, kVA per pu of voltage."""
    current = [[0j] * 4 for _ in tree.parent]
    for bus in range(len(tree.parent) - 1, 0, -1):
        mine, v, phases = current[bus], voltages[bus], tree.phases[bus]
        kva = complex(tree.kw[bus], tree.kvar[bus] - tree.capacitor_kvar[bus])
        if kva and len(phases) == 2:
            a, b = phases
            between = (kva / (v[a] - v[b])).conjugate()
            mine[a] += between
            mine[b] -= between
        elif kva:
            for p in phases:
                mine[p] += (kva / len(phases) / v[p]).conjugate()
        above = current[tree.parent[bus]]
        for p in phases:
            above[p] += mine[p]
    return current


def _step_outwards(
    tree: Tree, impedances: Impedances, current: list[list[complex]], voltages: list[list[complex]]
) -> None:
    """Set every bus's voltage from that above it, pu."""
    per_ohm = 1e-3 / impedances.kv_ln**2
    for p in ALL_PHASES:
        voltages[0][p] = NO_LOAD_PU * ROTATION[p] - impedances.station_ohm * current[0][p] * per_ohm
    for bus in range(1, len(tree.parent)):
        mine, v, above, phases = current[bus], voltages[bus], voltages[tree.parent[bus]], tree.phases[bus]
        z, z_service, length_km = impedances.line_ohm_per_km[bus], impedances.service_ohm[bus], tree.length_km[bus]
        for row, p in enumerate(phases):
            fall = z_service * mine[p]
            if z is not None:
                fall += sum(z[row][column] * mine[q] for column, q in enumerate(phases)) * length_km
            v[p] = above[p] - fall * per_ohm


def _extremes(tree: Tree, voltages: list[list[complex]]) -> tuple[float, float]:
    magnitudes = [abs(v[p]) for v, phases in zip(voltages, tree.phases, strict=False) for p in phases]
    return min(magnitudes), max(magnitudes)
