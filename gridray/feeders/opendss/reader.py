"""Read an OpenDSS model as a feeder."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gridray.errors import FeederError
from gridray.feeders.feeder import Feeder
from gridray.feeders.opendss import controls, lines, loads, machines, shapes, shunts, sources, switching, transformers
from gridray.feeders.opendss.files import Folder
from gridray.feeders.opendss.model import Model
from gridray.feeders.opendss.properties import HARMLESS, UNSUPPORTED
from gridray.feeders.opendss.script import MAX_PROBLEMS, Script
from gridray.feeders.validate import check_solvable, connected_buses

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gridray.feeders.components import Winding

_MACHINES = ("generator", "pvsystem", "storage")
_BRANCHES = ("line", "transformer", "autotrans", "reactor", "capacitor")


def read_opendss(path: Path, commands: Sequence[str] = ()) -> Feeder:
    """Return the feeder that an OpenDSS script describes at its first solve, after further commands.

    Raises:
        FeederError: the script is damaged or says what GridRay cannot represent; the message lists it all.
    """
    model = Model()
    script = Script(model, Folder(path))
    script.run_line(f'redirect "{path.name}"', str(path))
    script.is_solved = False
    for number, command in enumerate(commands, 1):
        script.run_line(command, f"commands:{number}")
    feeder = None if model.problems else _feeder(model)
    if model.problems or feeder is None:
        shown = model.problems[:MAX_PROBLEMS]
        more = len(model.problems) - len(shown)
        raise FeederError(
            f"{path} has {len(model.problems)} problem(s):\n  "
            + "\n  ".join(shown)
            + (f"\n  and {more} more" if more else "")
        )
    check_solvable(feeder)
    return feeder


def _feeder(model: Model) -> Feeder | None:
    if not model.has_circuit:
        model.problems.append("there is no circuit: start with New Circuit.name")
        return None
    if model.other_mode:
        model.problems.append(
            f"{model.other_mode} is not the snapshot that GridRay reads: give the command 'set mode=snapshot' "
            "(hours of load shapes: gridray.profiles.shapes.load_series)"
        )
    _other_classes(model)
    switching.settle(model)
    all_sources = sources.convert(model)
    all_lines, codes = lines.convert(model)
    all_transformers = transformers.convert(model)
    regulators, capacitor_controls = controls.convert(model)
    capacitors, reactors = shunts.convert(model)
    all_loads, neutrals = loads.convert(model)
    generators = machines.convert(model)
    named = [(item.daily, item.yearly) for item in all_loads] + [(item.daily, item.yearly) for item in generators]
    used = {name for pair in named for name in pair if name}
    all_shapes = shapes.convert(model, used)
    if not all_sources or model.problems:
        return None
    return _with_places(
        model,
        _connected(
            model,
            Feeder(
                name=model.name,
                frequency_hz=model.frequency_hz,
                base_kv=model.base_kv
                or _rated_kv(all_sources[0].kv, [w for t in all_transformers for w in t.windings]),
                source=all_sources[0],
                more_sources=tuple(all_sources[1:]),
                line_codes=tuple(codes),
                lines=tuple(all_lines),
                transformers=tuple(all_transformers),
                regulators=tuple(regulators),
                capacitors=tuple(capacitors),
                loads=tuple(all_loads),
                generators=tuple(generators),
                reactors=(*reactors, *neutrals),
                capacitor_controls=tuple(capacitor_controls),
                shapes=tuple(all_shapes),
            ),
        ),
    )


def _connected(model: Model, feeder: Feeder) -> Feeder:
    """Leave out what only disabled elements reach; another bus that nothing reaches is a problem."""
    buses, disabled = connected_buses(feeder), _buses_of_disabled(model)
    kept: dict[str, Any] = {}
    for kind, classes in (("loads", ("load",)), ("generators", _MACHINES), ("capacitors", ("capacitor",))):
        kept[kind] = tuple(item for item in getattr(feeder, kind) if item.bus in buses)
        for item in getattr(feeder, kind):
            if item.bus in buses:
                continue
            found = (model.elements.get(cls, {}).get(item.name) for cls in classes)
            where = next((element.where for element in found if element is not None), "the script")
            if item.bus in disabled:
                model.leave_out(f"{kind[:-1]} at a bus that only disabled elements reach is left out", where)
            else:
                model.problems.append(
                    f"{where}: {kind[:-1]} '{item.name}' is at bus '{item.bus}', which nothing connects: correct it"
                )
    return replace(feeder, **kept)


def _buses_of_disabled(model: Model) -> set[str]:
    items = [item for cls in _BRANCHES for item in model.elements.get(cls, {}).values()]
    named = [str(item.v.get(end, "")) for item in items for end in ("bus1", "bus2")]
    named += [winding["bus"] for item in items for winding in item.v.get("windings_", ())]
    return {bus.split(".")[0] for bus in named if bus}


def _with_places(model: Model, feeder: Feeder) -> Feeder:
    buses = {source.bus for source in feeder.sources}
    for line in feeder.lines:
        buses |= {line.from_bus, line.to_bus}
    for transformer in feeder.transformers:
        buses |= {winding.bus for winding in transformer.windings}
    buses |= {reactor.to_bus or reactor.bus for reactor in feeder.reactors}
    unknown = [bus for bus in model.bus_xy if bus not in buses]
    if unknown:
        model.notes.append(f"coordinates of {len(unknown)} buses that nothing connects are left out ({unknown[0]} ...)")
    bus_xy = tuple((bus, *xy) for bus, xy in model.bus_xy.items() if bus in buses)
    return replace(feeder, bus_xy=bus_xy, notes=model.all_notes())


def _other_classes(model: Model) -> None:
    for cls in HARMLESS:
        for item in model.of(cls):
            model.leave_out(f"{cls} is left out", item.where)
    for cls in UNSUPPORTED:
        for item in model.of(cls):
            model.problems.append(f"{item.where}: {item.title}: GridRay has no {cls}: take it out or disable it")
    for cls, items in model.elements.items():
        disabled = [item for item in items.values() if not item.v.get("enabled", True)]
        if disabled and cls not in {*HARMLESS, *switching.PROTECTION}:
            model.notes.append(f"{disabled[0].where}: {len(disabled)} disabled {cls} left out ({disabled[0].name} ...)")


def _rated_kv(source_kv: float, windings: list[Winding]) -> tuple[float, ...]:
    """Return the distinct line-to-line voltages of the source and the windings, where the script lists none."""
    bases = [source_kv]
    for winding in windings:
        kv = winding.kv * (3.0**0.5 if winding.connection == "wye" and len(winding.phases) == 1 else 1.0)
        if not any(abs(kv - base) < 0.05 * base for base in bases):
            bases.append(kv)
    return tuple(sorted(bases, reverse=True))
