"""A distribution feeder: what people write, read and diff."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any

from gridray.errors import FeederError
from gridray.feeders.components import (
    Capacitor,
    CapacitorControl,
    Generator,
    Line,
    LineCode,
    Load,
    LoadShape,
    Reactor,
    RegulatorControl,
    Source,
    Transformer,
)
from gridray.feeders.validate import check_addition


@dataclass(frozen=True, kw_only=True)
class Feeder:
    """An unbalanced distribution feeder; base_kv lists the line-to-line voltage bases in kV.

    more_sources: further ones than the one at the head, such as other substations'.
    notes: what the file it was read from says that does not change the solution and was left out, one line each.
    """

    name: str
    frequency_hz: float
    base_kv: tuple[float, ...]
    source: Source
    line_codes: tuple[LineCode, ...]
    lines: tuple[Line, ...]
    transformers: tuple[Transformer, ...]
    regulators: tuple[RegulatorControl, ...]
    capacitors: tuple[Capacitor, ...]
    loads: tuple[Load, ...]
    generators: tuple[Generator, ...] = ()
    reactors: tuple[Reactor, ...] = ()
    capacitor_controls: tuple[CapacitorControl, ...] = ()
    shapes: tuple[LoadShape, ...] = ()
    more_sources: tuple[Source, ...] = ()
    bus_xy: tuple[tuple[str, float, float], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[Source, ...]:
        """All sources, the head's first."""
        return (self.source, *self.more_sources)

    def with_generators(self, generators: tuple[Generator, ...]) -> Feeder:
        """Return the feeder with these generators in place of its own."""
        return replace(self, generators=generators)

    def with_generator(
        self, *, name: str, bus: str, phases: int, kv: float, kw: float, kvar: float = 0.0, **more: Any
    ) -> Feeder:
        """Return a copy with one generator more at bus "645.2" (its nodes after the dot, else 1 to `phases`).

        kva, if not given, is the apparent power of kw and kvar; `more` are further fields of a Generator.

        Raises:
            FeederError: there is no such bus or node, the name is taken, or a value makes no sense.
        """
        more = {"kind": "generator", "kva": abs(complex(kw, kvar)) or 1.0, **more}
        bus, nodes = self._place(bus, phases)
        added = Generator(name=name, bus=bus, phases=nodes, kv=kv, kw=kw, kvar=kvar, **more)
        check_addition(added, self.generators)
        return replace(self, generators=(*self.generators, added))

    def with_pv(self, *, name: str, bus: str, phases: int, kv: float, kw: float, **more: Any) -> Feeder:
        """Return a copy with one PV inverter more; its kva is 1.1 times kw if not given."""
        return self.with_generator(
            name=name, bus=bus, phases=phases, kv=kv, kw=kw, **{"kind": "pv", "kva": 1.1 * kw, **more}
        )

    def with_battery(
        self, *, name: str, bus: str, phases: int, kv: float, kw: float, kwh: float, **more: Any
    ) -> Feeder:
        """Return a copy with one battery more, at rest; its kva is kw if not given."""
        return self.with_generator(
            name=name, bus=bus, phases=phases, kv=kv, kw=kw, **{"kind": "battery", "kva": kw, "kwh": kwh, **more}
        )

    def with_load(
        self, *, name: str, bus: str, phases: int, kv: float, kw: float, kvar: float = 0.0, **more: Any
    ) -> Feeder:
        """Return a copy with one load more at bus "645.2"; wye and constant power unless `more` says otherwise.

        Raises:
            FeederError: there is no such bus or node, the name is taken, or a value makes no sense.
        """
        more = {"connection": "wye", "model": 1, **more}
        bus, nodes = self._place(bus, phases)
        added = Load(name=name, bus=bus, phases=nodes, kv=kv, kw=kw, kvar=kvar, **more)
        check_addition(added, self.loads)
        return replace(self, loads=(*self.loads, added))

    def content_hash(self) -> str:
        """Return the SHA-256 of the feeder's content, the same whatever file it came from."""
        content = asdict(self)
        del content["notes"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _place(self, bus: str, phases: int) -> tuple[str, tuple[int, ...]]:
        """Return bus and nodes of "645.2" or, without nodes, 1 to phases; names may differ in case."""
        name, *numbers = bus.split(".")
        has: dict[str, set[int]] = {}
        for line in self.lines:
            for end in (line.from_bus, line.to_bus):
                has.setdefault(end, set()).update(line.phases)
        for transformer in self.transformers:
            for winding in transformer.windings:
                has.setdefault(winding.bus, set()).update(winding.phases)
        for source in self.sources:
            has.setdefault(source.bus, set()).update(source.phases)
        found = name if name in has else {own.lower(): own for own in has}.get(name.lower())
        if found is None:
            near = get_close_matches(name, has, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"its first ones are {', '.join(list(has)[:5])}"
            raise FeederError(f"Feeder '{self.name}' has no bus '{name}': {hint}.")
        if not all(number.isdigit() for number in numbers):
            raise FeederError(f"Bus '{bus}' is not a name and node numbers: give for example '{found}.1'.")
        nodes = tuple(int(number) for number in numbers) or tuple(range(1, phases + 1))
        if missing := set(nodes) - has[found] - {0}:
            raise FeederError(
                f"Bus '{found}' has no node {min(missing)}: it has {', '.join(map(str, sorted(has[found])))}."
            )
        if not phases <= len(nodes) <= phases + 1:
            raise FeederError(f"Bus '{bus}' names {len(nodes)} node(s) for phases={phases}: give as many as phases.")
        return found, nodes
