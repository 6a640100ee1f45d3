"""From a feeder to the arrays that kernels read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.physics.admittance import primitive_admittances
from gridray.physics.network import Network
from gridray.physics.newton import newton
from gridray.physics.ordering import EliminationPattern, eliminate

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gridray.feeders.components import Generator, Load, RegulatorControl
    from gridray.feeders.feeder import Feeder
    from gridray.physics.admittance import Primitive

BASE_VA = 1e6
"""Power base of one phase."""
SQRT3 = 3.0**0.5
TAP_STEP = 0.00625
"""Tap of a 32-step +-10 % regulator."""
LOAD_EXPONENTS = {1: (0, 0), 2: (2, 2), 4: (1, 2), 5: (1, 1)}
"""Exponents of P and Q against voltage of OpenDSS's load models."""


class Sensing(NamedTuple):
    """What regulator controls measure and how they act; R regulators of at most W conductors, voltages pu.

    node: int64 [R], node whose voltage is measured (first phase of winding 2).
    conductor: int64 [R, W], nodes of the transformer's terminals.
    y: complex128 [R, W], row of its admittance at u = 1, pu.
    exponent: int64 [R, W], power of u = 1/tap that scales it.
    y_fixed: complex128 [R, W], part that does not depend on the tap, pu.
    volts_per_pu: float64 [R], control volts (120 V base) of 1 pu.
    amps_per_pu: float64 [R], primary amperes of 1 pu current over the CT's rating.
    drop: complex128 [R], line-drop compensator R + jX, V at rated CT current.
    vreg_v, band_v: float64 [R], set-point and bandwidth, V.
    step_v: float64 [R], control volts of one tap step.
    delay_s: float64 [R], delay before acting.
    max_tap_change: int64 [R], most steps in one action.
    """

    node: NDArray[np.int64]
    conductor: NDArray[np.int64]
    y: NDArray[np.complex128]
    exponent: NDArray[np.int64]
    y_fixed: NDArray[np.complex128]
    volts_per_pu: NDArray[np.float64]
    amps_per_pu: NDArray[np.float64]
    drop: NDArray[np.complex128]
    vreg_v: NDArray[np.float64]
    band_v: NDArray[np.float64]
    step_v: NDArray[np.float64]
    delay_s: NDArray[np.float64]
    max_tap_change: NDArray[np.int64]


class CompiledFeeder(NamedTuple):
    """A feeder as read-only arrays; arrays by node follow node_names unless said otherwise.

    place: int64 [N], elimination place of each node (kernels' order).
    node_base_v: float64 [N], line-to-neutral base, V.
    source_node: int64 [S], source nodes; source_y: complex128 [S, S], its admittance, pu;
    source_e: complex128 [S], its inner voltage, pu.
    capacitor_branch: (place [K], place or -1 [K], admittance pu complex128 [K], capacitor index [K]).
    no_load_v: float64 [N, 2], voltages without loads, in elimination order, pu.
    Loads and generators: nominal power in kW, kvar, in the order of their names; generator_kva ratings.
    """

    name: str
    network: Network
    place: NDArray[np.int64]
    node_names: tuple[str, ...]
    node_base_v: NDArray[np.float64]
    tap_names: tuple[str, ...]
    nominal_taps: NDArray[np.float64]
    capacitor_names: tuple[str, ...]
    nominal_capacitor_states: NDArray[np.float64]
    load_names: tuple[str, ...]
    load_kw: NDArray[np.float64]
    load_kvar: NDArray[np.float64]
    generator_names: tuple[str, ...]
    generator_kva: NDArray[np.float64]
    sensing: Sensing
    source_node: NDArray[np.int64]
    source_y: NDArray[np.complex128]
    source_e: NDArray[np.complex128]
    capacitor_term: NDArray[np.int64]
    no_load_v: NDArray[np.float64]

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.node_names)


def compile_feeder(feeder: Feeder) -> CompiledFeeder:
    """Return the feeder's arrays; it must be valid (`gridray.feeders.validate`)."""
    primitives = primitive_admittances(feeder)
    nodes = list(dict.fromkeys(node for primitive in primitives for node in primitive.nodes))
    index = {node: i for i, node in enumerate(nodes)}
    base_v = _base_voltages(feeder, primitives, index)
    branches = _branches(feeder, index, base_v)
    pairs = [(index[a], index[b]) for primitive in primitives for a in primitive.nodes for b in primitive.nodes]
    pairs += [(int(i), int(j)) for i, j in zip(branches["from"], branches["to"], strict=True) if j >= 0]
    pattern = eliminate(len(nodes), pairs)
    place = np.empty(len(nodes), dtype=np.int64)
    place[pattern.order] = np.arange(len(nodes))
    regulated = {control.transformer for control in feeder.regulators}
    taps = [t for t in feeder.transformers if t.name in regulated]
    control_index = {t.name: c for c, t in enumerate(taps)}
    control_index |= {c.name: len(taps) + k for k, c in enumerate(feeder.capacitors)}
    entries = _stored_admittances(primitives, index, place, base_v, control_index)
    source = next(p for p in primitives if p.name.startswith("vsource."))
    source_node = np.array([index[node] for node in source.nodes])
    source_y = source.y_siemens * np.outer(base_v[source_node], base_v[source_node]) / BASE_VA
    angle = np.deg2rad(feeder.source.angle_deg - 120.0 * (np.array([phase for _, phase in source.nodes]) - 1))
    source_e = feeder.source.pu * feeder.source.kv * 1e3 / SQRT3 / base_v[source_node] * np.exp(1j * angle)
    injected = np.zeros(len(nodes), dtype=np.complex128)
    injected[place[source_node]] = source_y @ source_e
    network = _network(pattern, place, entries, injected, branches)
    tap_values = np.array([t.windings[1].tap for t in taps])
    states = np.array([float(c.is_closed) for c in feeder.capacitors])
    compiled = CompiledFeeder(
        name=feeder.name,
        network=network,
        place=place,
        node_names=tuple(f"{bus}.{phase}" for bus, phase in nodes),
        node_base_v=base_v,
        tap_names=tuple(t.name for t in taps),
        nominal_taps=tap_values,
        capacitor_names=tuple(c.name for c in feeder.capacitors),
        nominal_capacitor_states=states,
        load_names=tuple(load.name for load in feeder.loads),
        load_kw=np.array([load.kw for load in feeder.loads]),
        load_kvar=np.array([load.kvar for load in feeder.loads]),
        generator_names=tuple(generator.name for generator in feeder.generators),
        generator_kva=np.array([generator.kva for generator in feeder.generators]),
        sensing=_sensing(feeder, [t.name for t in taps], primitives, index, base_v),
        source_node=source_node,
        source_y=source_y,
        source_e=source_e,
        capacitor_term=np.flatnonzero(network.term_control >= len(taps)),
        no_load_v=np.zeros((len(nodes), 2)),
    )
    return _frozen(compiled._replace(no_load_v=_no_load_voltages(compiled)))


def _base_voltages(
    feeder: Feeder, primitives: tuple[Primitive, ...], index: dict[tuple[str, int], int]
) -> NDArray[np.float64]:
    """Give every node the listed base nearest to its no-load voltage, line to neutral, V."""
    y = np.zeros((len(index), len(index)), dtype=np.complex128)
    injected = np.zeros(len(index), dtype=np.complex128)
    for primitive in primitives:
        rows = np.array([index[node] for node in primitive.nodes])
        y[np.ix_(rows, rows)] += primitive.y_siemens + primitive.y_fixed_siemens
        if primitive.name.startswith("vsource."):
            phases = np.array([phase for _, phase in primitive.nodes])
            angle = np.deg2rad(feeder.source.angle_deg - 120.0 * (phases - 1))
            injected[rows] = primitive.y_siemens @ (
                feeder.source.pu * feeder.source.kv * 1e3 / SQRT3 * np.exp(1j * angle)
            )
    voltage = np.abs(np.linalg.solve(y, injected))
    bases = np.sort(np.array(feeder.base_kv)) * 1e3 / SQRT3
    by_bus: dict[str, list[float]] = {}
    for (bus, _), i in index.items():
        by_bus.setdefault(bus, []).append(voltage[i])
    bus_base = {bus: bases[np.argmin(np.abs(bases - np.median(values)))] for bus, values in by_bus.items()}
    return np.array([bus_base[bus] for bus, _ in index])


def _branches(feeder: Feeder, index: dict[tuple[str, int], int], base_v: NDArray[np.float64]) -> dict[str, list[float]]:
    """List the two-node branches of loads, then generators, nodes in field order."""
    columns: dict[str, list[float]] = {
        key: [] for key in ("from", "to", "item", "share", "base", "exponent_p", "exponent_q", "vmin", "vmax")
    }
    items: list[Load | Generator] = [*feeder.loads, *feeder.generators]
    for item_index, item in enumerate(items):
        terminals = [index[item.bus, phase] for phase in item.phases]
        ends, rated_v = _branch_ends(item, terminals)
        model = getattr(item, "model", 1)
        exponents = LOAD_EXPONENTS[model]
        vmin, vmax = getattr(item, "vmin_pu", 0.5), getattr(item, "vmax_pu", 1.5)
        for start, end in ends:
            columns["from"].append(start)
            columns["to"].append(end)
            columns["item"].append(item_index)
            columns["share"].append(1.0 / len(ends))
            columns["base"].append(rated_v / base_v[start])
            columns["exponent_p"].append(exponents[0])
            columns["exponent_q"].append(exponents[1])
            columns["vmin"].append(0.0 if model == 2 else vmin)
            columns["vmax"].append(np.inf if model == 2 else vmax)
    return columns


def _branch_ends(item: Load | Generator, terminals: list[int]) -> tuple[list[tuple[int, int]], float]:
    """Return the (from, to) nodes of an item's branches, to = -1 for ground, and their rated voltage in V."""
    is_delta = getattr(item, "connection", "wye") == "delta"
    if not is_delta:
        return [(t, -1) for t in terminals], item.kv * 1e3 / (SQRT3 if len(terminals) > 1 else 1.0)
    if len(terminals) == 2:
        return [(terminals[0], terminals[1])], item.kv * 1e3
    following = [*terminals[1:], terminals[0]]
    return list(zip(terminals, following, strict=True)), item.kv * 1e3


class _Stored(NamedTuple):
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    constant: NDArray[np.complex128]
    terms: list[tuple[int, int, int, complex]]


def _stored_admittances(
    primitives: tuple[Primitive, ...],
    index: dict[tuple[str, int], int],
    place: NDArray[np.int64],
    base_v: NDArray[np.float64],
    control_index: dict[str, int],
) -> _Stored:
    """Sum primitive admittances into one list of entries (per unit, elimination places) and controlled terms."""
    entry_of: dict[tuple[int, int], int] = {}
    constant: list[complex] = []
    terms: list[tuple[int, int, int, complex]] = []
    for primitive in primitives:
        rows = [index[node] for node in primitive.nodes]
        for a, i in enumerate(rows):
            for b, j in enumerate(rows):
                scale = base_v[i] * base_v[j] / BASE_VA
                value, fixed = primitive.y_siemens[a, b] * scale, primitive.y_fixed_siemens[a, b] * scale
                if value == 0.0 and fixed == 0.0:
                    continue
                entry = entry_of.setdefault((int(place[i]), int(place[j])), len(entry_of))
                if entry == len(constant):
                    constant.append(0j)
                exponent = int(primitive.exponent[a, b]) if primitive.control is not None else 0
                constant[entry] += fixed if exponent else value + fixed
                if exponent and primitive.control is not None:
                    terms.append((entry, control_index[primitive.control], exponent, value))
    keys = np.array(list(entry_of), dtype=np.int64)
    return _Stored(keys[:, 0], keys[:, 1], np.array(constant), terms)


def _network(
    pattern: EliminationPattern,
    place: NDArray[np.int64],
    stored: _Stored,
    injected: NDArray[np.complex128],
    branches: dict[str, list[float]],
) -> Network:
    block_of = _block_finder(pattern)
    start = place[np.array(branches["from"], dtype=np.int64)]
    to = np.array(branches["to"], dtype=np.int64)
    end = np.where(to >= 0, place[to], -1)
    blocks = np.full((len(start), 3), -1, dtype=np.int64)
    for m, (i, j) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        if j >= 0:
            blocks[m] = (j, block_of(i, j), block_of(j, i))
    term_columns = list(zip(*stored.terms, strict=True)) if stored.terms else [(), (), (), ()]
    term_y = np.array(term_columns[3], dtype=np.complex128)
    return Network(
        start=pattern.start,
        column=pattern.column,
        target=pattern.target,
        y_row=stored.row.copy(),
        y_column=stored.column.copy(),
        y_block=np.array([block_of(i, j) for i, j in zip(stored.row, stored.column, strict=True)], dtype=np.int64),
        y_g=stored.constant.real.copy(),
        y_b=stored.constant.imag.copy(),
        term_entry=np.array(term_columns[0], dtype=np.int64),
        term_control=np.array(term_columns[1], dtype=np.int64),
        term_exponent=np.array(term_columns[2], dtype=np.int64),
        term_g=term_y.real.copy(),
        term_b=term_y.imag.copy(),
        source_re=injected.real.copy(),
        source_im=injected.imag.copy(),
        branch_from=start,
        branch_to=end,
        branch_blocks=blocks,
        branch_item=np.array(branches["item"], dtype=np.int64),
        branch_share=np.array(branches["share"]),
        branch_base=np.array(branches["base"]),
        branch_exponent_p=np.array(branches["exponent_p"], dtype=np.int64),
        branch_exponent_q=np.array(branches["exponent_q"], dtype=np.int64),
        branch_vmin=np.array(branches["vmin"]),
        branch_vmax=np.array(branches["vmax"]),
    )


def _block_finder(pattern: EliminationPattern) -> Callable[[int, int], int]:
    """Return a function (row place, column place) -> block of the factorisation."""
    num_rows, num_entries = len(pattern.order), len(pattern.column)
    owner = np.repeat(np.arange(num_rows), np.diff(pattern.start))
    entry_of = {(int(k), int(j)): q for q, (k, j) in enumerate(zip(owner, pattern.column, strict=True))}

    def block_of(i: int, j: int) -> int:
        if i == j:
            return int(i)
        if i < j:
            return num_rows + entry_of[int(i), int(j)]
        return num_rows + num_entries + entry_of[int(j), int(i)]

    return block_of


def _sensing(
    feeder: Feeder,
    tap_names: list[str],
    primitives: tuple[Primitive, ...],
    index: dict[tuple[str, int], int],
    base_v: NDArray[np.float64],
) -> Sensing:
    by_transformer: dict[str, RegulatorControl] = {control.transformer: control for control in feeder.regulators}
    transformers = {t.name: t for t in feeder.transformers}
    primitive_of = {p.name: p for p in primitives}
    width = max((len(primitive_of[f"transformer.{name}"].nodes) for name in tap_names), default=1)
    num = len(tap_names)
    conductor = np.zeros((num, width), dtype=np.int64)
    y, y_fixed = np.zeros((num, width), dtype=np.complex128), np.zeros((num, width), dtype=np.complex128)
    exponent = np.zeros((num, width), dtype=np.int64)
    node, volts, amps, step_v = np.zeros(num, dtype=np.int64), np.zeros(num), np.zeros(num), np.zeros(num)
    controls = [by_transformer[name] for name in tap_names]
    for r, (name, control) in enumerate(zip(tap_names, controls, strict=True)):
        primitive, winding = primitive_of[f"transformer.{name}"], transformers[name].windings[1]
        row = primitive.nodes.index((winding.bus, winding.phases[0]))
        rows = np.array([index[n] for n in primitive.nodes])
        node[r] = rows[row]
        conductor[r, : len(rows)] = rows
        scale = base_v[node[r]] * base_v[rows] / BASE_VA
        y[r, : len(rows)] = primitive.y_siemens[row] * scale
        y_fixed[r, : len(rows)] = primitive.y_fixed_siemens[row] * scale
        exponent[r, : len(rows)] = primitive.exponent[row]
        volts[r] = base_v[node[r]] / control.pt_ratio
        amps[r] = BASE_VA / base_v[node[r]] / control.ct_primary_a
        winding_v = winding.kv * 1e3 / (SQRT3 if len(winding.phases) > 1 else 1.0)
        step_v[r] = TAP_STEP * winding_v / control.pt_ratio
    return Sensing(
        node=node,
        conductor=conductor,
        y=y,
        exponent=exponent,
        y_fixed=y_fixed,
        volts_per_pu=volts,
        amps_per_pu=amps,
        drop=np.array([complex(c.r_v, c.x_v) for c in controls], dtype=np.complex128),
        vreg_v=np.array([c.vreg_v for c in controls]),
        band_v=np.array([c.band_v for c in controls]),
        step_v=step_v,
        delay_s=np.array([c.delay_s for c in controls]),
        max_tap_change=np.array([c.max_tap_change for c in controls], dtype=np.int64),
    )


def _no_load_voltages(grid: CompiledFeeder) -> NDArray[np.float64]:
    """Solve the network without loads: a linear problem, exact after one iteration from anywhere."""
    v = np.zeros((grid.num_nodes, 2, 1))
    v[:, 0] = 1.0
    zero = np.zeros((len(grid.load_names) + len(grid.generator_names), 1))
    u = np.concatenate((1.0 / grid.nominal_taps, grid.nominal_capacitor_states))[:, None]
    newton(grid.network, zero, zero, u, v, 1e-9, 5)
    return v[:, :, 0].copy()


def _frozen(grid: CompiledFeeder) -> CompiledFeeder:
    """Mark every array read-only, so that workers that map it and the driver share one compiled kernel."""
    for value in [*grid, *grid.sensing, *grid.network]:
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return grid
