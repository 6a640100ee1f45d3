"""From a feeder to the arrays that kernels read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from scipy.linalg import block_diag

from gridray.feeders.validate import check_solvable
from gridray.physics.admittance import primitive_admittances, source_phasors
from gridray.physics.assembly import BASE_VA, base_voltages, entries, list_nodes, neutral_shunts, stored_admittances
from gridray.physics.branches import load_branches
from gridray.physics.capacitor_controls import CapacitorSensing, capacitor_sensing
from gridray.physics.islands import Connectivity, connectivity, is_part_dead, reached
from gridray.physics.linearisation import linearisation
from gridray.physics.network import Chord, Network
from gridray.physics.newton import newton
from gridray.physics.ordering import EliminationPattern, eliminate
from gridray.physics.sensing import Sensing, sensing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.physics.admittance import Node, Primitive
    from gridray.physics.assembly import StoredAdmittances
    from gridray.physics.branches import Branches

KW_PER_PU = BASE_VA / 1e3
TYPICAL_LOAD = 0.8
"""Share of the nominal loads at which the shared Jacobian is taken: feeders are mostly below their peak."""
Group = TypeVar("Group", bound="tuple[Any, ...]")


class CompiledFeeder(NamedTuple):
    """A feeder as read-only arrays; arrays by node follow node_names unless said otherwise.

    place: int64 [N], elimination place of each node (kernels' order).
    node_base_v: float64 [N], line-to-neutral base, V.
    connectivity: which nodes hang together, elimination order.
    nominal_alive: bool [N, 1], nodes connected to the source, elimination order; nominal_dead: bool [1], whether
    anything is cut off; both with the switches as they are.
    source_node: int64 [S], nodes of all sources, one after another; source_y: complex128 [S, S], its admittance, pu;
    source_e: complex128 [S], its inner voltage, pu.
    shunt_row, shunt_column: int64 [R], elimination order, and shunt_y: complex128 [R], pu: admittances of the shunt
    reactors, whose power is no loss.
    no_load_v, nominal_v: float64 [N, 2], voltages without loads and with all at nominal, elimination order, pu.
    Loads, generators and capacitors: nominal power in kW, kvar, in the order of their names; generator_kva ratings.
    """

    name: str
    network: Network
    chord: Chord
    connectivity: Connectivity
    nominal_alive: NDArray[np.bool_]
    nominal_dead: NDArray[np.bool_]
    place: NDArray[np.int64]
    node_names: tuple[str, ...]
    node_base_v: NDArray[np.float64]
    tap_names: tuple[str, ...]
    nominal_taps: NDArray[np.float64]
    capacitor_names: tuple[str, ...]
    capacitor_kvar: NDArray[np.float64]
    nominal_capacitor_states: NDArray[np.float64]
    switch_names: tuple[str, ...]
    nominal_switch_closed: NDArray[np.float64]
    load_names: tuple[str, ...]
    load_kw: NDArray[np.float64]
    load_kvar: NDArray[np.float64]
    generator_names: tuple[str, ...]
    generator_kw: NDArray[np.float64]
    generator_kvar: NDArray[np.float64]
    generator_kva: NDArray[np.float64]
    sensing: Sensing
    capacitor_sensing: CapacitorSensing
    source_node: NDArray[np.int64]
    source_y: NDArray[np.complex128]
    source_e: NDArray[np.complex128]
    shunt_row: NDArray[np.int64]
    shunt_column: NDArray[np.int64]
    shunt_y: NDArray[np.complex128]
    no_load_v: NDArray[np.float64]
    nominal_v: NDArray[np.float64]

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.node_names)


def compile_feeder(feeder: Feeder) -> CompiledFeeder:
    """Return the feeder's arrays.

    Raises:
        FeederError: the feeder, made by hand, names what it lacks or has sizes or numbers that no circuit has; the
            message lists it all.
    """
    check_solvable(feeder)
    primitives = primitive_admittances(feeder)
    nodes = list_nodes(feeder, primitives)
    index = {node: i for i, node in enumerate(nodes)}
    base_v = base_voltages(feeder, primitives, index)
    branches = load_branches(feeder, index, base_v)
    regulated = {control.transformer: control.winding - 1 for control in feeder.regulators}
    taps = [t for t in feeder.transformers if t.name in regulated]
    switches = [line for line in feeder.lines if line.is_switch]
    control_index = {item.name: c for c, item in enumerate(taps)}
    control_index |= {f"line.{item.name}": len(taps) + s for s, item in enumerate(switches)}
    matrices = (*(p for p in primitives if not p.name.startswith("capacitor.")), *neutral_shunts(feeder))
    stored = stored_admittances(matrices, index, base_v, control_index)
    pattern = _pattern(len(nodes), stored, branches, len(taps))
    place = np.argsort(pattern.order)
    source_node, source_y, source_e = _sources(feeder, primitives, index, base_v)
    shunt_row, shunt_column, shunt_y = _shunts(feeder, primitives, index, base_v)
    injected = np.zeros(len(nodes), dtype=np.complex128)
    np.add.at(injected, place[source_node], source_y @ source_e)
    network = _read_only(_network(pattern, place, stored, injected, branches))
    tap_values = np.array([t.windings[regulated[t.name]].tap for t in taps])
    closed = np.array([float(not line.is_open) for line in switches])
    states = np.array([float(c.is_closed) for c in feeder.capacitors])
    kw, kvar = _nominal_powers(feeder)
    linked = connectivity(network, len(taps), place[source_node])
    alive = reached(linked, closed[:, None])
    items = [array[:, None] / KW_PER_PU for array in (kw, kvar)]
    items[1][len(kvar) - len(states) :, 0] *= states
    controls = np.concatenate((1.0 / tap_values, closed))[:, None]
    no_load_v = _settled(network, [np.zeros_like(a) for a in items], controls, alive, None)
    nominal_v = _settled(network, items, controls, alive, no_load_v)
    num_loads, generators = len(feeder.loads), slice(len(feeder.loads), len(kw) - len(states))
    switch_values = np.concatenate((np.full(len(taps), np.nan), closed))
    typical = [np.concatenate((array[:num_loads] * TYPICAL_LOAD, array[num_loads:])) for array in items]
    typical_v = _settled(network, typical, controls, alive, nominal_v)
    p, q = (array[:, 0] for array in typical)
    chord = linearisation(network, pattern, p, q, switch_values, alive[:, 0], typical_v)
    return _read_only(
        CompiledFeeder(
            name=feeder.name,
            network=network,
            chord=_read_only(chord),
            connectivity=_read_only(linked),
            nominal_alive=alive,
            nominal_dead=is_part_dead(linked, closed[:, None]),
            place=place,
            node_names=tuple(f"{bus}.{phase}" for bus, phase in nodes),
            node_base_v=base_v,
            tap_names=tuple(t.name for t in taps),
            nominal_taps=tap_values,
            capacitor_names=tuple(c.name for c in feeder.capacitors),
            capacitor_kvar=-kvar[len(kw) - len(states) :],
            nominal_capacitor_states=states,
            switch_names=tuple(line.name for line in switches),
            nominal_switch_closed=closed,
            load_names=tuple(load.name for load in feeder.loads),
            load_kw=kw[:num_loads],
            load_kvar=kvar[:num_loads],
            generator_names=tuple(g.name for g in feeder.generators),
            generator_kw=-kw[generators],
            generator_kvar=-kvar[generators],
            generator_kva=np.array([g.kva for g in feeder.generators]),
            sensing=_read_only(sensing(feeder, primitives, index, base_v)),
            capacitor_sensing=_read_only(capacitor_sensing(feeder, primitives, index, base_v)),
            source_node=source_node,
            source_y=source_y,
            source_e=source_e,
            shunt_row=place[shunt_row],
            shunt_column=place[shunt_column],
            shunt_y=shunt_y,
            no_load_v=no_load_v,
            nominal_v=nominal_v,
        )
    )


def _nominal_powers(feeder: Feeder) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return kW and kvar drawn by loads, generators (batteries as dispatched) and closed capacitors."""
    powers = [(load.kw, load.kvar) for load in feeder.loads]
    powers += [(-g.dispatch_kw if g.kind == "battery" else -g.kw, -g.kvar) for g in feeder.generators]
    powers += [(0.0, -c.kvar) for c in feeder.capacitors]
    kw, kvar = np.array(powers, dtype=np.float64).reshape(-1, 2).T
    return kw.copy(), kvar.copy()


def _sources(
    feeder: Feeder, primitives: tuple[Primitive, ...], index: dict[Node, int], base_v: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.complex128], NDArray[np.complex128]]:
    """Return the nodes of all sources, their admittances and inner voltages, pu."""
    sources = primitives[: len(feeder.sources)]
    node = np.array([index[node] for source in sources for node in source.nodes])
    base = base_v[node]
    y = block_diag(*(source.at() for source in sources)) * np.outer(base, base) / BASE_VA
    return node, y, np.concatenate([source_phasors(source) for source in feeder.sources]) / base


def _shunts(
    feeder: Feeder, primitives: tuple[Primitive, ...], index: dict[Node, int], base_v: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.complex128]]:
    """Return row, column and value, pu, of the admittances of reactors that lie at one bus."""
    names = {f"reactor.{r.name}" for r in feeder.reactors if r.to_bus is None or r.to_bus == r.bus}
    row, column, values, _ = entries(tuple(p for p in primitives if p.name in names), index)
    return row, column, values[0] * (base_v[row] * base_v[column] / BASE_VA)


def _pattern(num_nodes: int, stored: StoredAdmittances, branches: Branches, num_taps: int) -> EliminationPattern:
    """Order the nodes: those without loads first, the regulators' terminals last."""
    two = branches.end >= 0
    rows = np.concatenate((stored.row, branches.start[two]))
    columns = np.concatenate((stored.column, branches.end[two]))
    scaled = stored.term_entry[stored.term_control < num_taps]
    return eliminate(
        num_nodes,
        zip(rows.tolist(), columns.tolist(), strict=True),
        active=np.concatenate((branches.start, branches.end[two])).tolist(),
        tail=np.concatenate((stored.row[scaled], stored.column[scaled])).tolist(),
    )


def _network(
    pattern: EliminationPattern,
    place: NDArray[np.int64],
    stored: StoredAdmittances,
    injected: NDArray[np.complex128],
    branches: Branches,
) -> Network:
    row, column = place[stored.row], place[stored.column]
    start = place[branches.start]
    end = np.where(branches.end >= 0, place[branches.end], -1)
    two = end >= 0
    blocks = np.full((len(start), 2), -1, dtype=np.int64)
    blocks[two, 0] = pattern.blocks(start[two], end[two])
    blocks[two, 1] = pattern.blocks(end[two], start[two])
    return Network(
        start=pattern.start,
        column=pattern.column,
        target=pattern.target,
        y_row=row,
        y_column=column,
        y_block=pattern.blocks(row, column),
        y_g=stored.constant.real.copy(),
        y_b=stored.constant.imag.copy(),
        term_entry=stored.term_entry.astype(np.int64),
        term_control=stored.term_control,
        term_exponent=stored.term_exponent.astype(np.int64),
        term_g=stored.term.real.copy(),
        term_b=stored.term.imag.copy(),
        source_re=injected.real.copy(),
        source_im=injected.imag.copy(),
        branch_from=start,
        branch_to=end,
        branch_blocks=blocks,
        branch_item=branches.item,
        branch_share=branches.share,
        branch_curve=branches.curve,
    )


def _settled(
    network: Network,
    items: list[NDArray[np.float64]],
    controls: NDArray[np.float64],
    alive: NDArray[np.bool_],
    start_v: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """Solve one state by Newton's method; where it fails the start, the best there is, is returned."""
    n = len(alive)
    v = np.zeros((n, 2, 1))
    v[:, 0] = 1.0
    if start_v is not None:
        v[:, :, 0] = start_v
    _, converged = newton(network, network, items[0], items[1], controls, np.ones(1), alive, v, 1e-9, 50)
    if start_v is not None and not converged.all():
        return start_v
    return v[:, :, 0].copy()


def _read_only(group: Group) -> Group:
    """Mark every array read-only, so that workers that map it and the driver share one compiled kernel."""
    for value in group:
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    return group
