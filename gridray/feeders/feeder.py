"""A distribution feeder: what people write, read and diff."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from gridray.feeders.components import (
    Capacitor,
    Inverter,
    Line,
    LineCode,
    Load,
    RegulatorControl,
    Source,
    Transformer,
)


@dataclass(frozen=True, kw_only=True)
class Feeder:
    """An unbalanced distribution feeder; base_kv lists the line-to-line voltage bases in kV."""

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
    inverters: tuple[Inverter, ...] = ()
    bus_xy: tuple[tuple[str, float, float], ...] = ()

    def with_inverters(self, inverters: tuple[Inverter, ...]) -> Feeder:
        """Return the feeder with these inverters in place of its own."""
        return replace(self, inverters=inverters)

    def content_hash(self) -> str:
        """Return the SHA-256 of the feeder's content, the same whatever file it came from."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()
