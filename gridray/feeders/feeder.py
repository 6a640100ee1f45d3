"""A distribution feeder: what people write, read and diff."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

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


@dataclass(frozen=True, kw_only=True)
class Feeder:
    """An unbalanced distribution feeder; base_kv lists the line-to-line voltage bases in kV.

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
    bus_xy: tuple[tuple[str, float, float], ...] = ()
    notes: tuple[str, ...] = ()

    def with_generators(self, generators: tuple[Generator, ...]) -> Feeder:
        """Return the feeder with these generators in place of its own."""
        return replace(self, generators=generators)

    def with_generator(
        self, *, name: str, bus: str, phases: int, kv: float, kw: float, kvar: float = 0.0, **more: Any
    ) -> Feeder:
        """Return a copy with one generator more at bus "645.2" (its nodes after the dot, else 1 to `phases`).

        kva, if not given, is the apparent power of kw and kvar; `more` are further fields of a Generator.
        """
        more = {"kind": "generator", "kva": abs(complex(kw, kvar)) or 1.0, **more}
        bus, nodes = _split(bus, phases)
        added = Generator(name=name, bus=bus, phases=nodes, kv=kv, kw=kw, kvar=kvar, **more)
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
        """Return a copy with one load more at bus "645.2"; wye and constant power unless `more` says otherwise."""
        more = {"connection": "wye", "model": 1, **more}
        bus, nodes = _split(bus, phases)
        return replace(
            self, loads=(*self.loads, Load(name=name, bus=bus, phases=nodes, kv=kv, kw=kw, kvar=kvar, **more))
        )

    def content_hash(self) -> str:
        """Return the SHA-256 of the feeder's content, the same whatever file it came from."""
        content = asdict(self)
        del content["notes"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _split(bus: str, phases: int) -> tuple[str, tuple[int, ...]]:
    """Return bus and nodes of "645.2" or, without nodes, 1 to phases."""
    name, *nodes = bus.split(".")
    return name, tuple(int(node) for node in nodes) or tuple(range(1, phases + 1))
