"""Write a feeder as a file that `load_feeder` reads: strict YAML in the units of the field."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import yaml

from gridray.errors import FeederError
from gridray.feeders.library import KM_PER_FOOT, KM_PER_MILE, load_feeder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gridray.feeders.components import Line, LineCode, Matrix, Transformer
    from gridray.feeders.feeder import Feeder

SOURCE = ("bus", "kv", "pu", "angle_deg", "r1_ohm", "x1_ohm", "r0_ohm", "x0_ohm")
WINDING = ("bus", "phases", "connection", "kv", "kva", "r_percent", "tap")
REGULATOR = (
    *("name", "transformer", "vreg_v", "band_v", "pt_ratio", "ct_primary_a", "r_v", "x_v", "delay_s"),
    "max_tap_change",
)
CAPACITOR = ("name", "bus", "phases", "connection", "kv", "kvar")
LOAD = ("name", "bus", "phases", "connection", "model", "kv", "kw", "kvar", "vmin_pu", "vmax_pu")
RELATIVE_TOLERANCE = 1e-12
"""Between a number and what it is after its unit was changed and changed back."""


def write_feeder(feeder: Feeder, file: Path) -> Feeder:
    """Write a feeder, whole or not at all, and return it as it is read.

    Raises:
        FeederError: the feeder has something that the file format cannot say; what it is is named.
    """
    text = yaml.safe_dump(_content(feeder), sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    aside = file.with_name(f".{file.stem}.{os.getpid()}.yaml")
    aside.write_text(text, encoding="utf-8")
    try:
        read = load_feeder(aside)
        _check_same("", asdict(feeder) | {"notes": ()}, asdict(read))
        aside.replace(file)
    finally:
        aside.unlink(missing_ok=True)
    return read


def _content(feeder: Feeder) -> dict[str, Any]:
    ratings = defaultdict(set)
    for line in feeder.lines:
        ratings[line.line_code].add(line.rating_a)
    return {
        "name": feeder.name,
        "frequency_hz": feeder.frequency_hz,
        "base_kv": list(feeder.base_kv),
        "source": _fields(feeder.source, SOURCE),
        "line_codes": {code.name: _code(code, ratings[code.name], feeder.frequency_hz) for code in feeder.line_codes},
        "lines": [_line(line) for line in feeder.lines],
        "transformers": [_transformer(transformer) for transformer in feeder.transformers],
        "regulators": [_fields(regulator, REGULATOR) for regulator in feeder.regulators],
        "capacitors": [_fields(bank, CAPACITOR) | {"closed": bank.is_closed} for bank in feeder.capacitors],
        "loads": [_fields(load, LOAD) for load in feeder.loads],
        "bus_xy": {bus: [x, y] for bus, x, y in feeder.bus_xy},
    }


def _fields(part: object, names: Iterable[str]) -> dict[str, Any]:
    values = {name: getattr(part, name) for name in names}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _code(code: LineCode, ratings: set[float | None], frequency_hz: float) -> dict[str, Any]:
    us_per_nf = 2.0 * math.pi * frequency_hz / 1e3
    rows: dict[str, Any] = {
        "r": _triangle(code.r_ohm_per_km, KM_PER_MILE),
        "x": _triangle(code.x_ohm_per_km, KM_PER_MILE),
        "b": _triangle(code.c_nf_per_km, KM_PER_MILE * us_per_nf),
    }
    rating = next(iter(ratings), None)
    return rows if rating is None else rows | {"rating_a": rating}


def _triangle(matrix: Matrix, factor: float) -> list[list[float]]:
    return [[value * factor for value in row[: number + 1]] for number, row in enumerate(matrix)]


def _line(line: Line) -> dict[str, Any]:
    row: dict[str, Any] = {"name": line.name, "from": line.from_bus, "to": line.to_bus, "phases": list(line.phases)}
    row |= {"code": line.line_code, "length_ft": line.length_km / KM_PER_FOOT}
    return row | {key: True for key, is_so in (("switch", line.is_switch), ("open", line.is_open)) if is_so}


def _transformer(transformer: Transformer) -> dict[str, Any]:
    windings = [_fields(winding, WINDING) for winding in transformer.windings]
    return _fields(transformer, ("name", "xhl_percent", "antifloat_ppm")) | {"windings": windings}


def _check_same(place: str, ours: Any, read: Any) -> None:  # noqa: ANN401  # any plain values
    """Refuse a feeder that is another one after it was read back, and name the first difference."""
    if isinstance(ours, dict) and isinstance(read, dict):
        for name, value in ours.items():
            _check_same(f"{place}.{name}" if place else name, value, read.get(name))
    elif isinstance(ours, (tuple, list)) and isinstance(read, (tuple, list)) and len(ours) == len(read):
        for number, (one, other) in enumerate(zip(ours, read, strict=True)):
            _check_same(f"{place}[{number}]", one, other)
    elif isinstance(ours, float) and isinstance(read, float):
        if not math.isclose(ours, read, rel_tol=RELATIVE_TOLERANCE):
            _refuse(place, ours, read)
    elif ours != read:
        _refuse(place, ours, read)


def _refuse(place: str, ours: object, read: object) -> None:
    raise FeederError(
        f"A feeder file cannot say this feeder: {place} is {str(ours)[:80]}, the file would give {str(read)[:80]}; "
        "keep the file that the feeder came from"
    )
