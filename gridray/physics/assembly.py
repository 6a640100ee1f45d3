"""From elements to the nodal matrix: nodes, voltage bases, stored admittances."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu

from gridray.physics.admittance import Primitive, source_phasors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.components import Capacitor, Generator, Load
    from gridray.feeders.feeder import Feeder
    from gridray.physics.admittance import Node

BASE_VA = 1e6
"""Power base of one phase."""
SQRT3 = 3.0**0.5
FLOATING_SHUNT = 1e-9
"""Shunt, relative to a node's own admittance, that lets the search for bases survive floating parts."""

NEUTRAL_SHUNT = 1e-13
"""Shunt at a neutral, S: what floats has a voltage without load too, and what it carries does not count."""


class StoredAdmittances(NamedTuple):
    """Nodal matrix as a list of entries, per unit, nodes in field order; controlled terms add to entries.

    row, column: int64 [E]; constant: complex128 [E];
    term_entry, term_control, term_exponent: int64 [C]; term: complex128 [C].
    """

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    constant: NDArray[np.complex128]
    term_entry: NDArray[np.int64]
    term_control: NDArray[np.int64]
    term_exponent: NDArray[np.int64]
    term: NDArray[np.complex128]


def list_nodes(feeder: Feeder, primitives: tuple[Primitive, ...]) -> list[Node]:
    """Return every (bus, node) of the feeder, in the order of its elements."""
    nodes = dict.fromkeys(node for primitive in primitives for node in primitive.nodes)
    for line in feeder.lines:
        far = line.phases if line.to_phases is None else line.to_phases
        ends = [(line.from_bus, phase) for phase in line.phases] + [(line.to_bus, phase) for phase in far]
        nodes |= dict.fromkeys(ends)
    items: list[Load | Generator] = [*feeder.loads, *feeder.generators]
    for item in items:
        nodes |= dict.fromkeys((item.bus, node) for node in (*item.phases, item.neutral))
    return [node for node in nodes if node[1] != 0]


def neutral_shunts(feeder: Feeder) -> tuple[Primitive, ...]:
    """Return a shunt at every neutral of a load, generator or capacitor, which perhaps nothing else holds."""
    items: list[Load | Generator | Capacitor] = [*feeder.loads, *feeder.generators, *feeder.capacitors]
    neutrals = dict.fromkeys((item.bus, item.neutral) for item in items if item.connection == "wye" and item.neutral)
    y = np.array([NEUTRAL_SHUNT, 0.0, 0.0], dtype=np.complex128).reshape(3, 1, 1)
    return tuple(Primitive(f"neutral.{bus}.{node}", ((bus, node),), y) for bus, node in neutrals)


def base_voltages(feeder: Feeder, primitives: tuple[Primitive, ...], index: dict[Node, int]) -> NDArray[np.float64]:
    """Give every bus the listed base nearest to its no-load voltage (or that voltage), line to neutral, V.

    All switches are taken as closed, so that a dead part has a base too.
    """
    n = len(index)
    rows, columns, values, _ = entries(primitives, index)
    y = sparse.csc_matrix((values[0] + values[1] + values[2], (rows, columns)), shape=(n, n))
    diagonal = np.abs(y.diagonal())
    y += sparse.diags(np.where(diagonal > 0.0, FLOATING_SHUNT * diagonal, 1.0))
    injected = np.zeros(n, dtype=np.complex128)
    for source, primitive in zip(feeder.sources, primitives, strict=False):
        nodes = [index[node] for node in primitive.nodes]
        injected[nodes] += primitive.at() @ source_phasors(source)
    voltage = np.abs(splu(y.tocsc()).solve(injected))
    bases = [kv * 1e3 / SQRT3 for kv in sorted(feeder.base_kv)]
    by_bus: dict[str, list[float]] = {}
    for (bus, _), volts in zip(index, voltage.tolist(), strict=True):
        by_bus.setdefault(bus, []).append(volts)
    bus_base = {bus: _nearest(bases, values) for bus, values in by_bus.items()}
    return np.array([bus_base[bus] for bus, _ in index])


def _nearest(bases: list[float], voltages: list[float]) -> float:
    """Return the base nearest to a bus's voltage; neutrals among its nodes do not count."""
    highest = max(voltages)
    typical = median(value for value in voltages if value >= 0.1 * highest)
    if not bases:
        return typical if typical > 0.0 else 1.0
    return min(bases, key=lambda base: abs(base - typical))


def entries(
    primitives: tuple[Primitive, ...], index: dict[Node, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.complex128], NDArray[np.int64]]:
    """Return row, column [M], coefficients of u**0, u**1, u**2 [3, M] in S, and primitive [M] of all entries.

    Primitives of one size are taken together.
    """
    by_size: dict[int, list[int]] = {}
    for number, primitive in enumerate(primitives):
        by_size.setdefault(len(primitive.nodes), []).append(number)
    rows, columns, owners = ([np.empty(0, dtype=np.int64)] for _ in range(3))
    values = [np.empty((3, 0), dtype=np.complex128)]
    for n, numbers in by_size.items():
        own = np.array([[index[node] for node in primitives[k].nodes] for k in numbers], dtype=np.int64)
        rows.append(np.repeat(own, n, axis=1).ravel())
        columns.append(np.tile(own, (1, n)).ravel())
        owners.append(np.repeat(np.array(numbers, dtype=np.int64), n * n))
        stacked = np.array([primitives[k].y_siemens for k in numbers])
        values.append(stacked.transpose(1, 0, 2, 3).reshape(3, -1))
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(values, axis=1), np.concatenate(owners)


def stored_admittances(
    primitives: tuple[Primitive, ...],
    index: dict[Node, int],
    base_v: NDArray[np.float64],
    control_index: dict[str, int],
) -> StoredAdmittances:
    """Sum the primitives into one list of entries; capacitors are branches and not among them."""
    rows, columns, values, owner = entries(primitives, index)
    values = values * (base_v[rows] * base_v[columns] / BASE_VA)
    control = np.array([control_index.get(p.control or "", -1) for p in primitives], dtype=np.int64)[owner]
    is_used = (values != 0.0).any(axis=0)
    keys, entry = np.unique(rows[is_used] * len(index) + columns[is_used], return_inverse=True)
    constant = np.zeros(len(keys), dtype=np.complex128)
    np.add.at(constant, entry, values[0, is_used])
    terms = []
    for exponent in (1, 2):
        (at,) = np.nonzero(values[exponent, is_used])
        terms.append((entry[at], control[is_used][at], np.full(len(at), exponent), values[exponent, is_used][at]))
    term_entry, term_control, term_exponent, term = (np.concatenate(part) for part in zip(*terms, strict=True))
    return StoredAdmittances(
        keys // len(index), keys % len(index), constant, term_entry, term_control, term_exponent, term
    )
