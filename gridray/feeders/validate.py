"""Rules that a feeder must keep; all breaches are reported together."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from gridray.errors import FeederError
from gridray.feeders.components import Load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridray.feeders.components import Generator, Winding
    from gridray.feeders.feeder import Feeder

LOAD_MODELS = (1, 2, 3, 4, 5, 6, 7, 8)
KV_TOLERANCE = 0.15
SQRT3 = 3.0**0.5
ELEMENT_KINDS = (
    "line_codes",
    "lines",
    "transformers",
    "regulators",
    "capacitors",
    "capacitor_controls",
    "reactors",
    "loads",
    "generators",
)


def validate(feeder: Feeder) -> None:
    """Check the feeder.

    Raises:
        FeederError: the message lists every problem with the element, the value, the rule and the remedy.
    """
    problems = [*_names(feeder), *_voltages(feeder), *_codes(feeder), *_lines(feeder), *_transformers(feeder)]
    problems += [*_regulators(feeder), *_shunts(feeder)]
    if not problems:
        problems += _connection(feeder)
    _report(feeder, problems)


def check_solvable(feeder: Feeder) -> None:
    """Check what must hold of any feeder that is to be solved: names, references, sizes, possible numbers.

    Utilities' models have islands, further node numbers, voltages off their base and two-phase deltas; they pass.

    Raises:
        FeederError: the message lists every problem with the element, the value, the rule and the remedy.
    """
    problems = [*_names(feeder), *_numbers(feeder), *_codes(feeder), *_line_shapes(feeder)]
    problems += [*_windings(feeder), *_regulators(feeder), *_items(feeder), *_models(feeder)]
    _report(feeder, problems)


def check_addition(added: Load | Generator, others: Sequence[Load | Generator]) -> None:
    """Check a load or generator that is put beside others.

    Raises:
        FeederError: its name is taken, or its voltage, power, connection or model makes no sense.
    """
    what = f"{type(added).__name__} '{added.name}'"
    if any(other.name == added.name for other in others):
        raise FeederError(f"{what} is there already: give it a name of its own.")
    if not (added.kv > 0.0 and math.isfinite(added.kv)):
        raise FeederError(f"{what} has kv {added.kv}: give its rated voltage, above 0.")
    if not all(math.isfinite(value) for value in (added.kw, added.kvar)):
        raise FeederError(f"{what} has {added.kw} kW and {added.kvar} kvar: give finite numbers.")
    if not isinstance(added, Load) and not (added.kva > 0.0 and added.kwh >= 0.0):
        raise FeederError(f"{what} has {added.kva} kva and {added.kwh} kwh: give a rating above 0, and 0 kwh or more.")
    if len(set(added.phases)) < len(added.phases):
        raise FeederError(f"{what} has a node twice, {added.phases}: give different ones.")
    if added.connection not in {"wye", "delta"}:
        raise FeederError(f"{what} has connection '{added.connection}': give wye or delta.")
    if isinstance(added, Load) and (added.model not in LOAD_MODELS or (added.model == 8 and len(added.zipv) != 7)):
        raise FeederError(f"{what} has model {added.model}: give 1 to 8, and for 8 the seven numbers of zipv.")


def _report(feeder: Feeder, problems: list[str]) -> None:
    if problems:
        raise FeederError(f"Feeder '{feeder.name}' has {len(problems)} problem(s):\n  " + "\n  ".join(problems))


def _names(feeder: Feeder) -> Iterator[str]:
    for kind in ("sources", *ELEMENT_KINDS):
        what = kind.replace("_", " ")
        for name, count in Counter(item.name for item in getattr(feeder, kind)).items():
            if count > 1:
                yield f"{count} of the {what} are called '{name}': give each a name of its own."
    if not feeder.base_kv:
        yield "base_kv is empty: list the line-to-line voltage bases in kV."


def _voltages(feeder: Feeder) -> Iterator[str]:
    source = feeder.source
    if complex(source.r1_ohm, source.x1_ohm) == 0.0 or complex(source.r0_ohm, source.x0_ohm) == 0.0:
        yield f"The source at bus '{source.bus}' has no impedance: give r1_ohm, x1_ohm, r0_ohm and x0_ohm not all 0."
    rated = [("The source", source.kv)]
    for transformer in feeder.transformers:
        for number, winding in enumerate(transformer.windings, 1):
            is_to_ground = winding.connection == "wye" and len(winding.phases) == 1
            rated.append(
                (f"Winding {number} of transformer '{transformer.name}'", winding.kv * (SQRT3 if is_to_ground else 1.0))
            )
    for kind, items in (("Load", feeder.loads), ("Capacitor", feeder.capacitors)):
        for item in items:
            is_to_ground = item.connection == "wye" and len(item.phases) == 1
            rated.append((f"{kind} '{item.name}'", item.kv * (SQRT3 if is_to_ground else 1.0)))
    for what, kv in rated:
        if not any(abs(kv - base) <= KV_TOLERANCE * base for base in feeder.base_kv):
            yield (
                f"{what} is rated {kv:.4g} kV line to line, which is within {KV_TOLERANCE:.0%} of none of base_kv "
                f"{list(feeder.base_kv)}: correct kv or list its base."
            )


def _codes(feeder: Feeder) -> Iterator[str]:
    for code in feeder.line_codes:
        sizes = {len(code.r_ohm_per_km), len(code.x_ohm_per_km), len(code.c_nf_per_km)}
        values = [v for m in (code.r_ohm_per_km, code.x_ohm_per_km, code.c_nf_per_km) for row in m for v in row]
        if len(sizes) != 1 or not all(math.isfinite(v) for v in values):
            yield f"Line code '{code.name}' has r, x, b of unlike size: give lower triangles of 1, 2 or 3 rows."
        elif np.linalg.matrix_rank(np.array(code.r_ohm_per_km) + 1j * np.array(code.x_ohm_per_km)) < max(sizes):
            yield f"Line code '{code.name}' has an impedance that cannot be inverted: give each phase r or x above 0."


def _lines(feeder: Feeder) -> Iterator[str]:
    codes = {code.name: code for code in feeder.line_codes}
    for line in feeder.lines:
        yield from _phases(f"Line '{line.name}'", line.phases)
        if not 0.0 < line.length_km < math.inf:
            yield f"Line '{line.name}' is {line.length_km} km long: give a length above 0."
        if line.from_bus == line.to_bus:
            yield f"Line '{line.name}' joins bus '{line.from_bus}' to itself: give two buses."
        line_code = codes.get(line.line_code)
        if line_code is None:
            yield f"Line '{line.name}' has line code '{line.line_code}', which is not defined: add it or name another."
        elif len(line_code.r_ohm_per_km) != len(line.phases):
            yield (
                f"Line '{line.name}' has {len(line.phases)} phases but its line code '{line.line_code}' "
                f"{len(line_code.r_ohm_per_km)}: give it a code of as many."
            )


def _transformers(feeder: Feeder) -> Iterator[str]:
    for transformer in feeder.transformers:
        first = transformer.windings[0]
        for number, winding in enumerate(transformer.windings, 1):
            yield from _phases(f"Winding {number} of transformer '{transformer.name}'", winding.phases)
            if winding.connection == "delta" and len(winding.phases) != 3:
                yield (
                    f"Winding {number} of transformer '{transformer.name}' is a delta on {len(winding.phases)} "
                    "phases: give three."
                )
        for second in transformer.windings[1:]:
            if len(first.phases) != len(second.phases):
                yield (
                    f"Transformer '{transformer.name}' has {len(first.phases)} phases on one side and "
                    f"{len(second.phases)} on the other: give as many."
                )


def _regulators(feeder: Feeder) -> Iterator[str]:
    windings = {transformer.name: len(transformer.windings) for transformer in feeder.transformers}
    buses = connected_buses(feeder)
    for transformer, count in Counter(control.transformer for control in feeder.regulators).items():
        if count > 1:
            yield f"{count} regulators control transformer '{transformer}': leave one."
    for control in feeder.regulators:
        if control.transformer not in windings:
            yield (
                f"Regulator '{control.name}' controls transformer '{control.transformer}', which is not defined: "
                "name another."
            )
        elif not 1 <= control.winding <= windings[control.transformer]:
            yield (
                f"Regulator '{control.name}' watches winding {control.winding} of transformer '{control.transformer}', "
                f"which has {windings[control.transformer]}: correct it."
            )
        if control.bus is not None and control.bus.partition(".")[0] not in buses:
            yield f"Regulator '{control.name}' watches bus '{control.bus}', which nothing connects: correct it."
        if control.max_tap_change < 1:
            yield f"Regulator '{control.name}' has max_tap_change {control.max_tap_change}: give at least 1."


def _numbers(feeder: Feeder) -> Iterator[str]:
    if not (feeder.frequency_hz > 0.0 and math.isfinite(feeder.frequency_hz)):
        yield f"The frequency is {feeder.frequency_hz} Hz: give 50 or 60."
    for source in feeder.sources:
        what = f"The source at bus '{source.bus}'"
        for name in ("kv", "pu"):
            if not 0.0 < getattr(source, name) < math.inf:
                yield f"{what} has {name} {getattr(source, name)}: give a number above 0."
        zeros = (source.r0_ohm, source.x0_ohm) if len(source.phases) > 1 else (1.0,)
        if not any((source.r1_ohm, source.x1_ohm)) or not any(zeros):
            yield f"{what} has no impedance: give r1_ohm, x1_ohm, r0_ohm and x0_ohm not all 0."


def _line_shapes(feeder: Feeder) -> Iterator[str]:
    sizes = {code.name: len(code.r_ohm_per_km) for code in feeder.line_codes}
    for line in feeder.lines:
        what, n = f"Line '{line.name}'", len(line.phases)
        if not 0.0 < line.length_km < math.inf:
            yield f"{what} is {line.length_km} km long: give a length above 0."
        if line.line_code not in sizes:
            yield f"{what} has line code '{line.line_code}', which is not defined: add it or name another."
        elif sizes[line.line_code] != n:
            yield (
                f"{what} has {n} phases but its line code '{line.line_code}' {sizes[line.line_code]}: "
                "give it a code of as many."
            )
        if line.to_phases is not None and len(line.to_phases) != n:
            yield f"{what} has {n} phases and {len(line.to_phases)} to_phases: give as many."
        if any(end not in {1, 2} or not 1 <= conductor <= n for end, conductor in line.open_ends):
            yield f"{what} has open_ends {line.open_ends}: give (end 1 or 2, conductor 1 to {n})."


def _windings(feeder: Feeder) -> Iterator[str]:
    for transformer in feeder.transformers:
        what, windings = f"Transformer '{transformer.name}'", transformer.windings
        if len(windings) < 2:
            yield f"{what} has {len(windings)} winding(s): give two or more."
            continue
        if len({_num_coils(winding) for winding in windings}) > 1:
            yield f"{what} has windings of {[len(w.phases) for w in windings]} phases: give all as many."
        for number, winding in enumerate(windings, 1):
            if not (0.0 < winding.kv < math.inf and 0.0 < winding.kva < math.inf and winding.tap > 0.0):
                yield (
                    f"Winding {number} of transformer '{transformer.name}' has kv {winding.kv}, kva {winding.kva} and "
                    f"tap {winding.tap}: give numbers above 0."
                )
            if winding.neutral != 0 and winding.neutral_r_ohm == 0.0 and winding.neutral_x_ohm == 0.0:
                yield f"Winding {number} of transformer '{transformer.name}' has a neutral of 0 ohm: write neutral=0."
        if transformer.xhl_percent == 0.0 and windings[0].r_percent + windings[1].r_percent == 0.0:
            yield f"{what} has no impedance between its windings: give xhl_percent or r_percent."


def _num_coils(winding: Winding) -> int:
    return 1 if winding.connection == "delta" and len(winding.phases) == 2 else len(winding.phases)


def _items(feeder: Feeder) -> Iterator[str]:
    buses = connected_buses(feeder)
    for kind in ("loads", "generators", "capacitors"):
        for item in getattr(feeder, kind):
            what = f"{kind[:-1].capitalize()} '{item.name}'"
            if item.bus not in buses:
                yield f"{what} is at bus '{item.bus}', which nothing connects: correct the bus or connect it."
            if not item.phases or (item.connection == "delta" and len(item.phases) < 2):
                yield f"{what} is a {item.connection} on phases {list(item.phases)}: give one, of a delta two or three."
            if item.connection not in {"wye", "delta"}:
                yield f"{what} has connection '{item.connection}': give wye or delta."
            if not 0.0 < item.kv < math.inf or not math.isfinite(item.kvar + getattr(item, "kw", 0.0)):
                yield f"{what} has kv {item.kv}, kvar {item.kvar}: give finite numbers, kv above 0."


def _models(feeder: Feeder) -> Iterator[str]:
    for load in feeder.loads:
        if load.model not in LOAD_MODELS or (load.model == 8 and len(load.zipv) != 7):
            yield f"Load '{load.name}' has model {load.model}: give 1 to 8, and for 8 the seven numbers of zipv."
    for generator in feeder.generators:
        if generator.model not in {1, 2}:
            yield f"Generator '{generator.name}' has model {generator.model}: give 1 or 2."
    for reactor in feeder.reactors:
        sizes = {len(reactor.r_matrix_ohm), len(reactor.x_matrix_ohm)}
        if sizes == {0}:
            if reactor.r_ohm == 0.0 and reactor.x_ohm == 0.0:
                yield f"Reactor '{reactor.name}' has neither r_ohm nor x_ohm: give one."
        elif sizes != {len(reactor.phases)}:
            yield f"Reactor '{reactor.name}' has matrices of {sorted(sizes)} rows: give one a phase."


def connected_buses(feeder: Feeder) -> set[str]:
    """Return the buses that the source, a line, a transformer or a reactor reaches."""
    buses = {source.bus for source in feeder.sources}
    buses.update(bus for line in feeder.lines for bus in (line.from_bus, line.to_bus))
    buses.update(winding.bus for transformer in feeder.transformers for winding in transformer.windings)
    buses.update(bus for reactor in feeder.reactors for bus in (reactor.bus, reactor.to_bus) if bus is not None)
    return buses


def _shunts(feeder: Feeder) -> Iterator[str]:
    nodes = _nodes(feeder)
    for kind in ("capacitors", "loads", "generators"):
        for item in getattr(feeder, kind):
            what = f"{kind[:-1].capitalize()} '{item.name}'"
            yield from _phases(what, item.phases)
            missing = [phase for phase in item.phases if (item.bus, phase) not in nodes]
            if missing:
                yield f"{what} is at bus '{item.bus}', which has no phase {missing}: give it phases that bus has."
            if getattr(item, "connection", "wye") == "delta" and len(item.phases) < 2:
                yield f"{what} is a delta on one phase: give two or three phases."
    buses = {bus for bus, _ in nodes}
    for bus in sorted({bus for bus, _, _ in feeder.bus_xy} - buses):
        yield f"bus_xy places bus '{bus}', which nothing connects: leave it out."
    for load in feeder.loads:
        if load.model not in LOAD_MODELS:
            yield f"Load '{load.name}' has model {load.model}: give one of {LOAD_MODELS}."
        if not load.vmin_pu < load.vmax_pu:
            yield f"Load '{load.name}' has vmin_pu {load.vmin_pu} >= vmax_pu {load.vmax_pu}: give vmin_pu < vmax_pu."


def _connection(feeder: Feeder) -> Iterator[str]:
    graph = nx.Graph()
    graph.add_nodes_from(_nodes(feeder))
    source = [(feeder.source.bus, phase) for phase in (1, 2, 3)]
    nx.add_path(graph, source)
    for line in feeder.lines:
        if not line.is_open:
            graph.add_edges_from(((line.from_bus, p), (line.to_bus, p)) for p in line.phases)
    for transformer in feeder.transformers:
        nx.add_path(graph, [(w.bus, p) for w in transformer.windings for p in w.phases])
    for bus, phase in sorted(set(graph) - nx.node_connected_component(graph, source[0])):
        yield f"Node '{bus}.{phase}' has no path to the source '{feeder.source.bus}': connect it or leave it out."


def _nodes(feeder: Feeder) -> set[tuple[str, int]]:
    nodes = {(feeder.source.bus, phase) for phase in (1, 2, 3)}
    nodes |= {(bus, p) for ln in feeder.lines if not ln.is_open for bus in (ln.from_bus, ln.to_bus) for p in ln.phases}
    nodes |= {(w.bus, p) for transformer in feeder.transformers for w in transformer.windings for p in w.phases}
    return nodes


def _phases(what: str, phases: tuple[int, ...]) -> Iterator[str]:
    if not phases or set(phases) - {1, 2, 3} or len(set(phases)) != len(phases):
        yield f"{what} has phases {list(phases)}: give some of 1, 2, 3, each once."
