"""pandapower nets as feeders: every bus has three phases and is called by its index.

A line without zero-sequence data gets z0 = z1, so its phases are decoupled and balanced loads give pandapower's
`runpp`; with r0, x0 and c0 on the lines and vk0, vkr0, mag0 and si0 on the transformers it is the net of
`runpp_3ph`. Transformers are pandapower's T equivalent (its default), tap and all. The external grid is a source
behind SWITCH_PU (1e-8 pu on 1 MVA), as a closed bus-bus switch without impedance is; its zero-sequence impedance is
that of s_sc_max_mva, rx_max, x0x_max and r0x0_max if given. runpp_3ph gives its negative sequence an impedance that
its positive sequence has not; here both have none. Of a bus with voltage-dependent loads pandapower averages the
shares and applies them to all power at the bus; here each load keeps its own, and a note says where that differs.

Neither pandapower nor pandas is imported: a net comes as the caller's own object, a file is read as plain JSON.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import networkx as nx

from gridray.errors import FeederError
from gridray.feeders.components import Capacitor, Generator, Load, Reactor, Source
from gridray.feeders.feeder import Feeder
from gridray.feeders.pandapower_branches import PHASES, SWITCH_PU, Branches, read_branches, shunt_reactors
from gridray.feeders.pandapower_tables import Element, Net, net_of_tables, read_net
from gridray.feeders.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

READ_TABLES = frozenset(
    {
        "bus", "ext_grid", "line", "switch", "trafo", "load", "sgen", "storage", "shunt", "ward",
        "asymmetric_load", "asymmetric_sgen",
    }
)  # fmt: skip
IGNORED_TABLES = frozenset(
    {
        "bus_geodata", "line_geodata", "measurement", "poly_cost", "pwl_cost", "controller", "group", "characteristic",
        "trafo_characteristic_table", "trafo_characteristic_spline", "shunt_characteristic_table",
        "shunt_characteristic_spline", "q_capability_curve_table", "q_capability_characteristic", "loadcases",
        "substation", "studycases", "nodes",
    }
)  # fmt: skip
"""Tables that runpp does not read, or only through columns that are refused here."""
REMEDIES = {
    "gen": "make it an sgen with its q_mvar, or the ext_grid",
    "trafo3w": "give two two-winding trafos",
    "impedance": "give it as a line",
    "xward": "give it as a ward",
    "motor": "give it as a load",
}
Item = TypeVar("Item", Load, Generator)
Kinds = Literal["generator", "pv", "battery"]
LOW_PU, MIN_PU, MAX_PU = 0.05, 0.1, 10.0
"""Loads of pandapower keep their law at any voltage: the limits lie out of reach."""


def from_pandapower(net: Mapping[str, Any]) -> Feeder:
    """Return the feeder of a pandapowerNet; what does not change its solution and was left out is in its notes.

    Raises:
        FeederError: something in the net cannot be represented or is not valid; the message lists all of it.
    """
    return _feeder(net_of_tables(net))


def load_pandapower(path: str | Path) -> Feeder:
    """Return the feeder in a file that pandapower's to_json wrote, read as data: nothing is imported, pickles refused.

    Raises:
        FeederError: the file cannot be read, or as for from_pandapower.
    """
    return _feeder(read_net(Path(path)))


def _feeder(net: Net) -> Feeder:
    _check_tables(net)
    kv = {str(bus.index): bus.positive("vn_kv") for bus in net.in_service("bus")}
    source = _source(net, kv)
    branches = read_branches(net, kv)
    loads = [*_loads(net), *_asymmetric(net, "asymmetric_load")]
    generators = [*_generators(net), *_asymmetric_generators(net)]
    capacitors, reactors = _shunts(net)
    reactors += branches.reactors
    if net.problems or source is None:
        raise FeederError(f"Net '{net.name}' has {len(net.problems)} problem(s):\n  " + "\n  ".join(net.problems))
    _note_mixed_buses(net, loads, generators)
    live = _live_buses(source, branches)
    feeder = Feeder(
        name=net.name,
        frequency_hz=net.f_hz,
        base_kv=tuple(sorted({kv[bus] for bus in live & set(kv)})),
        source=source,
        line_codes=tuple(replace(code, name=name) for code, name in branches.line_codes.items()),
        lines=tuple(line for line in branches.lines if {line.from_bus, line.to_bus} <= live),
        transformers=tuple(t for t in branches.transformers if t.windings[0].bus in live),
        regulators=(),
        capacitors=tuple(item for item in capacitors if item.bus in live),
        loads=tuple(item for item in (_rated(load, kv) for load in loads) if item.bus in live),
        generators=tuple(item for item in (_rated(generator, kv) for generator in generators) if item.bus in live),
        reactors=tuple(item for item in reactors if item.bus in live),
        notes=(*net.notes, *(f"bus {bus} has no path to the ext_grid: left out." for bus in sorted(set(kv) - live))),
    )
    validate(feeder)
    return feeder


def _check_tables(net: Net) -> None:
    """Refuse what the net has in tables that are not read here."""
    for table in net.rows:
        if table in READ_TABLES or table in IGNORED_TABLES:
            continue
        for element in net.elements(table):
            if element.flag("in_service", default=True):
                element.refuse("it cannot be represented", REMEDIES.get(table, "leave it out or model it otherwise"))
    if net.rows.get("controller"):
        net.notes.append("The controllers were left out: taps and powers are those in the tables.")


def _source(net: Net, kv: dict[str, float]) -> Source | None:
    grids = list(net.in_service("ext_grid"))
    if len(grids) != 1:
        net.problems.append(f"ext_grid: {len(grids)} are in service: leave exactly one.")
        return None
    grid = grids[0]
    if grid.bus() not in kv:
        grid.refuse(f"bus {grid.bus()} is out of service", "put it in service")
        return None
    stiff = SWITCH_PU * kv[grid.bus()] ** 2
    r0, x0 = 0.0, stiff
    if all(grid.has(key) for key in ("s_sc_max_mva", "rx_max", "x0x_max", "r0x0_max")):
        z = 1.1 * kv[grid.bus()] ** 2 / grid.positive("s_sc_max_mva")
        x0 = grid.number("x0x_max") * z / math.hypot(grid.number("rx_max"), 1.0)
        r0 = grid.number("r0x0_max") * x0
    return Source(
        bus=grid.bus(),
        kv=kv[grid.bus()],
        pu=grid.positive("vm_pu", 1.0),
        angle_deg=grid.number("va_degree", 0.0),
        r1_ohm=0.0,
        x1_ohm=stiff,
        r0_ohm=r0,
        x0_ohm=x0,
    )


def _live_buses(source: Source, branches: Branches) -> set[str]:
    graph = nx.Graph([(line.from_bus, line.to_bus) for line in branches.lines if not line.is_open])
    graph.add_edges_from((t.windings[0].bus, t.windings[1].bus) for t in branches.transformers)
    graph.add_node(source.bus)
    return set(nx.node_connected_component(graph, source.bus))


def _rated(item: Item, kv: dict[str, float]) -> Item:
    """Give an item its bus's voltage; the bus's own is line to line."""
    base = kv.get(item.bus, 1.0)
    return replace(item, kv=base if len(item.phases) > 1 else base / 3.0**0.5)


def _loads(net: Net) -> Iterator[Load]:
    for row in net.in_service("load"):
        scaling = row.number("scaling", 1.0) * 1e3
        yield _load(row, row.name, PHASES, row.number("p_mw") * scaling, row.number("q_mvar", 0.0) * scaling)
    for row in net.in_service("ward"):
        yield _load(row, row.name, PHASES, row.number("ps_mw") * 1e3, row.number("qs_mvar") * 1e3)


def _load(row: Element, name: str, phases: tuple[int, ...], kw: float, kvar: float) -> Load:
    zipv = _zip_shares(row)
    return Load(
        name=name,
        bus=row.bus(),
        phases=phases,
        connection="delta" if row.text("type") == "delta" else "wye",
        model=8 if zipv else 1,
        kv=1.0,
        kw=kw,
        kvar=kvar,
        vmin_pu=MIN_PU,
        vmax_pu=MAX_PU,
        vlow_pu=LOW_PU,
        zipv=zipv,
    )


def _zip_shares(row: Element) -> tuple[float, ...]:
    """Return OpenDSS's ZIP shares of a load's percentages, empty if it is all constant power."""
    shares = []
    for power in ("p", "q"):
        z = row.number(f"const_z_{power}_percent", row.number("const_z_percent", 0.0)) / 100.0
        i = row.number(f"const_i_{power}_percent", row.number("const_i_percent", 0.0)) / 100.0
        shares += [z, i, 1.0 - z - i]
    return () if shares == [0.0, 0.0, 1.0] * 2 else (*shares, 0.0)


def _note_mixed_buses(net: Net, loads: list[Load], generators: list[Generator]) -> None:
    num_items = Counter([load.bus for load in loads] + [generator.bus for generator in generators])
    for bus in sorted({load.bus for load in loads if load.zipv and num_items[load.bus] > 1}):
        net.notes.append(f"bus {bus}: its loads keep their own voltage dependence, which pandapower averages.")


def _asymmetric(net: Net, table: str) -> Iterator[Load]:
    """Yield a load for each phase; those of a delta lie between a and b, b and c, c and a."""
    for row in net.in_service(table):
        scaling = row.number("scaling", 1.0) * 1e3
        for number, letter in enumerate("abc", 1):
            phases = (number, number % 3 + 1) if row.text("type") == "delta" else (number,)
            kw, kvar = row.number(f"p_{letter}_mw", 0.0) * scaling, row.number(f"q_{letter}_mvar", 0.0) * scaling
            if kw or kvar:
                yield _load(row, f"{row.name}_{letter}", phases, kw, kvar)
    if net.rows.get(table) and not all(
        "r0_ohm_per_km" in line.row and "x0_ohm_per_km" in line.row for line in net.elements("line")
    ):
        net.problems.append(f"{table}: the lines have no zero-sequence data: give r0_ohm_per_km and x0_ohm_per_km.")


def _asymmetric_generators(net: Net) -> Iterator[Generator]:
    for load in _asymmetric(net, "asymmetric_sgen"):
        yield _generator("pv", load.name, load.bus, load.phases, complex(load.kw, load.kvar), 0.0)


def _generators(net: Net) -> Iterator[Generator]:
    """Yield sgens, which inject, and storages, which charge when their power is above zero."""
    for table, sign in (("sgen", 1e3), ("storage", -1e3)):
        for row in net.in_service(table):
            scaling = row.number("scaling", 1.0) * sign
            kva = complex(row.number("p_mw"), row.number("q_mvar", 0.0)) * scaling
            kind: Kinds = "battery" if table == "storage" else "pv" if row.text("type").upper() == "PV" else "generator"
            rating = row.number("sn_mva", 0.0) * 1e3
            generator = _generator(kind, row.name, row.bus(), PHASES, kva, rating)
            if kind == "battery":
                generator = replace(generator, kw=abs(generator.kw), dispatch_kw=generator.kw)
            yield replace(generator, kwh=row.number("max_e_mwh", 0.0) * 1e3)


def _generator(kind: Kinds, name: str, bus: str, phases: tuple[int, ...], kva: complex, rating_kva: float) -> Generator:
    return Generator(
        name=name,
        kind=kind,
        bus=bus,
        phases=phases,
        kv=1.0,
        kva=max(rating_kva, abs(kva)) or 1.0,
        kw=kva.real,
        kvar=kva.imag,
        connection="wye" if len(phases) != 2 else "delta",
        vmin_pu=MIN_PU,
        vmax_pu=MAX_PU,
    )


def _shunts(net: Net) -> tuple[list[Capacitor], list[Reactor]]:
    """Return shunts and the impedances of wards: a capacitor where one takes kvar only, else reactors."""
    capacitors: list[Capacitor] = []
    reactors: list[Reactor] = []
    kv = {str(bus.index): bus.number("vn_kv") for bus in net.elements("bus")}
    for row in net.in_service("shunt"):
        if row.flag("step_dependency_table", default=False):
            row.refuse("it has a step_dependency_table", "give p_mw and q_mvar of its step")
        step, rated = row.number("step", 1.0), row.positive("vn_kv", kv.get(row.bus()))
        _add_shunt(row, complex(row.number("p_mw"), row.number("q_mvar")) * step, rated, capacitors, reactors)
    for row in net.in_service("ward"):
        mva = complex(row.number("pz_mw"), row.number("qz_mvar"))
        _add_shunt(row, mva, kv.get(row.bus(), 1.0), capacitors, reactors)
    return capacitors, reactors


def _add_shunt(row: Element, mva: complex, kv: float, capacitors: list[Capacitor], reactors: list[Reactor]) -> None:
    if mva.imag < 0.0:
        capacitors.append(
            Capacitor(name=row.name, bus=row.bus(), phases=PHASES, connection="wye", kv=kv, kvar=-mva.imag * 1e3)
        )
        mva = complex(mva.real, 0.0)
    y = mva.conjugate() / kv**2
    reactors += shunt_reactors(row.name, row.bus(), y, y)
