"""Feeder files: strict YAML in the units of the field, one feeder a file."""

from __future__ import annotations

import difflib
import math
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from gridray.config import parse_yaml
from gridray.errors import FeederError
from gridray.feeders.components import (
    Capacitor,
    Connection,
    Line,
    LineCode,
    Load,
    Matrix,
    RegulatorControl,
    Source,
    Transformer,
    Winding,
)
from gridray.feeders.feeder import Feeder
from gridray.feeders.opendss import read_opendss
from gridray.feeders.pandapower import load_pandapower
from gridray.feeders.synthetic import parse_synthetic_name
from gridray.feeders.validate import validate

if TYPE_CHECKING:
    from collections.abc import Sequence

KM_PER_MILE = 1.609344
KM_PER_FOOT = 0.0003048
MAX_FILE_BYTES = 64 * 2**20


def feeder_names() -> tuple[str, ...]:
    """Return the names of the feeders that come with the package."""
    folder = resources.files("gridray.feeders") / "data"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_feeder(name_or_path: str | Path, *, commands: Sequence[str] = ()) -> Feeder:
    """Return a feeder of the package by name, a synthetic one, or the one in a file.

    A name such as "synthetic-1000-7" makes a feeder of 1000 nodes from seed 7 ("-meshed" may follow). A path ends in
    .dss (OpenDSS), .json (pandapower) or .yaml (our own).

    commands: OpenDSS commands given after the script's own, before its first solve.

    Raises:
        FeederError: no such feeder, or its file is damaged or not valid; the message lists every problem.
    """
    if str(name_or_path).lower().endswith(".dss"):
        return read_opendss(_existing(name_or_path), commands)
    if commands:
        raise FeederError(f"'{name_or_path}' takes no commands: give the path of an OpenDSS script (.dss)")
    if str(name_or_path).lower().endswith(".json"):
        return load_pandapower(_existing(name_or_path))
    if (synthetic := parse_synthetic_name(str(name_or_path).lower())) is not None:
        return synthetic
    text, where = _read(name_or_path)
    try:
        data = parse_yaml(text)
    except yaml.YAMLError as error:
        raise FeederError(f"{where} is not YAML: {error}") from error
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        raise FeederError(_explain(where, error)) from error
    feeder = _feeder(file)
    validate(feeder)
    return feeder


def _read(name_or_path: str | Path) -> tuple[str, str]:
    name = str(name_or_path)
    if name.lower() in feeder_names():
        name = name.lower()
        return (resources.files("gridray.feeders") / "data" / f"{name}.yaml").read_text("utf-8"), f"Feeder '{name}'"
    path = _existing(name)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise FeederError(f"{path} has {path.stat().st_size} bytes: a feeder file has at most {MAX_FILE_BYTES}.")
    try:
        return path.read_text("utf-8"), str(path)
    except UnicodeDecodeError as error:
        raise FeederError(f"{path} is not UTF-8 text (byte {error.start}): give a YAML feeder file.") from error


def _existing(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if not path.is_file():
        name = str(name_or_path)
        near = difflib.get_close_matches(name, feeder_names(), 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise FeederError(
            f"There is no feeder or file '{name}': give one of {', '.join(feeder_names())} or a path.{hint}"
        )
    return path


def _explain(where: str, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "the file"
        known = _known_keys(problem["loc"])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, 1) if problem["loc"] else []
        hint = f" (did you mean '{near[0]}'?)" if near and problem["type"] == "extra_forbidden" else ""
        lines.append(f"  {place}: {problem['msg']}{hint}, got {str(problem['input'])[:80]!r}")
    return f"{where} has {len(lines)} problem(s):\n" + "\n".join(lines)


def _known_keys(loc: tuple[int | str, ...]) -> list[str]:
    model: Any = _SECTIONS.get(str(loc[0]), _File) if len(loc) > 1 else _File
    return [field.alias or name for name, field in model.model_fields.items()]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=False)


def _check_triangle(rows: Matrix) -> Matrix:
    if [len(row) for row in rows] != list(range(1, len(rows) + 1)):
        raise ValueError(f"rows of {[len(row) for row in rows]} values: give a lower triangle, one value more a row")
    return rows


Phases = Annotated[tuple[int, ...], Field(min_length=1, max_length=3)]
Triangle = Annotated[tuple[tuple[float, ...], ...], Field(min_length=1, max_length=3), AfterValidator(_check_triangle)]
Positive = Annotated[float, Field(gt=0.0)]


class _SourceRow(_Row):
    bus: str
    kv: Positive
    pu: Positive
    angle_deg: float
    r1_ohm: float
    x1_ohm: float
    r0_ohm: float
    x0_ohm: float


class _CodeRow(_Row):
    r: Triangle
    x: Triangle
    b: Triangle
    rating_a: Positive | None = None


class _LineRow(_Row):
    name: str
    from_bus: str = Field(alias="from")
    to_bus: str = Field(alias="to")
    phases: Phases
    code: str
    length_ft: Positive
    switch: bool = False
    open: bool = False


class _WindingRow(_Row):
    bus: str
    phases: Phases
    connection: Connection
    kv: Positive
    kva: Positive
    r_percent: float
    tap: Positive = 1.0


class _TransformerRow(_Row):
    name: str
    xhl_percent: Positive
    antifloat_ppm: float = 1.0
    windings: tuple[_WindingRow, _WindingRow]


class _RegulatorRow(_Row):
    name: str
    transformer: str
    vreg_v: Positive
    band_v: Positive
    pt_ratio: Positive
    ct_primary_a: Positive
    r_v: float
    x_v: float
    delay_s: float = 15.0
    max_tap_change: int = 16


class _CapacitorRow(_Row):
    name: str
    bus: str
    phases: Phases
    connection: Connection
    kv: Positive
    kvar: Positive
    closed: bool = True


class _LoadRow(_Row):
    name: str
    bus: str
    phases: Phases
    connection: Connection
    model: int
    kv: Positive
    kw: float
    kvar: float
    vmin_pu: Positive = 0.95
    vmax_pu: Positive = 1.05


class _File(_Row):
    name: str
    frequency_hz: Positive
    base_kv: tuple[Positive, ...]
    source: _SourceRow
    line_codes: dict[str, _CodeRow]
    lines: tuple[_LineRow, ...]
    transformers: tuple[_TransformerRow, ...] = ()
    regulators: tuple[_RegulatorRow, ...] = ()
    capacitors: tuple[_CapacitorRow, ...] = ()
    loads: tuple[_LoadRow, ...] = ()
    bus_xy: dict[str, tuple[float, float]] = {}


_SECTIONS: dict[str, type[_Row]] = {
    "source": _SourceRow,
    "line_codes": _CodeRow,
    "lines": _LineRow,
    "transformers": _TransformerRow,
    "regulators": _RegulatorRow,
    "capacitors": _CapacitorRow,
    "loads": _LoadRow,
}


def _feeder(file: _File) -> Feeder:
    nf_per_us = 1e3 / (2.0 * math.pi * file.frequency_hz)
    return Feeder(
        name=file.name,
        frequency_hz=file.frequency_hz,
        base_kv=file.base_kv,
        source=Source(**file.source.model_dump()),
        line_codes=tuple(
            LineCode(
                name=name,
                r_ohm_per_km=_matrix(code.r, 1.0 / KM_PER_MILE),
                x_ohm_per_km=_matrix(code.x, 1.0 / KM_PER_MILE),
                c_nf_per_km=_matrix(code.b, nf_per_us / KM_PER_MILE),
            )
            for name, code in file.line_codes.items()
        ),
        lines=tuple(
            Line(
                name=row.name,
                from_bus=row.from_bus,
                to_bus=row.to_bus,
                phases=row.phases,
                line_code=row.code,
                length_km=row.length_ft * KM_PER_FOOT,
                is_switch=row.switch,
                is_open=row.open,
                rating_a=file.line_codes[row.code].rating_a if row.code in file.line_codes else None,
            )
            for row in file.lines
        ),
        transformers=tuple(
            Transformer(
                name=row.name,
                windings=(Winding(**row.windings[0].model_dump()), Winding(**row.windings[1].model_dump())),
                xhl_percent=row.xhl_percent,
                antifloat_ppm=row.antifloat_ppm,
            )
            for row in file.transformers
        ),
        regulators=tuple(RegulatorControl(**row.model_dump()) for row in file.regulators),
        capacitors=tuple(
            Capacitor(**row.model_dump(exclude={"closed"}), is_closed=row.closed) for row in file.capacitors
        ),
        loads=tuple(Load(**row.model_dump()) for row in file.loads),
        bus_xy=tuple((bus, *xy) for bus, xy in file.bus_xy.items()),
    )


def _matrix(triangle: tuple[tuple[float, ...], ...], factor: float) -> Matrix:
    """Return the full symmetric matrix of a lower triangle."""
    n = len(triangle)
    return tuple(tuple(triangle[max(i, j)][min(i, j)] * factor for j in range(n)) for i in range(n))
