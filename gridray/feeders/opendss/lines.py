"""Lines and line codes."""

from __future__ import annotations

import math
from typing import Any

from gridray.feeders.components import Line, LineCode, Matrix
from gridray.feeders.opendss import geometry
from gridray.feeders.opendss.lexer import ScriptError
from gridray.feeders.opendss.model import METRES, Element, Model, bus_and_nodes, convert_units, unit

Values = dict[str, Any]

SEQUENCE = ("r1", "x1", "r0", "x0", "c1", "c0")
MATRICES = {"rmatrix": "r", "xmatrix": "x", "cmatrix": "c"}
DEFAULT_RHO = 100.0
_GEOMETRY = ("geometry", "spacing", "wires", "cncables", "tscables")
MAX_CODE_PHASES = 20


def code_defaults(model: Model) -> Values:
    """Return OpenDSS's default line code."""
    values: Values = {
        "nphases": 3,
        **dict(zip(SEQUENCE, (0.058, 0.1206, 0.1784, 0.4047, 3.4, 1.6), strict=True)),
        "units": "none",
        "rg": 0.01805,
        "xg": 0.155081,
        "rho": DEFAULT_RHO,
        "basefreq": model.frequency_hz,
        "c_freq": model.frequency_hz,
        "is_sequence": True,
    }
    values.update(_sequence_matrices(values, 3))
    return values


def defaults(model: Model) -> Values:
    """Return OpenDSS's default line."""
    values = code_defaults(model)
    values["phases"] = values.pop("nphases")
    return values | {
        "bus1": "",
        "bus2": "",
        "length": 1.0,
        "conversion": 1.0,
        "code_units": "none",
        "code": None,
        "switch": False,
        "open_ends": frozenset(),
        "own_earth_model": model.earth_model,
        "enabled": True,
        "c_default": True,
    }


def after_code(_: Model, code: Element, prop: str) -> None:
    """Follow up a property of a line code."""
    values = code.v
    if prop == "units":
        values["units"] = unit(values["units"])
    elif prop == "nphases":
        if values["nphases"] > MAX_CODE_PHASES:
            raise ScriptError(f"a line code of {values['nphases']} phases: give at most {MAX_CODE_PHASES}")
        values.update(_sequence_matrices(values, values["nphases"]))
        values["neutral"] = values["nphases"]
    else:
        _after_impedance(values, prop, values["nphases"])
    if prop == "kron" and values["kron"]:
        finish_code(_, code)
        _reduce(values, values.get("neutral", values["nphases"]))


def finish_code(_: Model, code: Element) -> None:
    """Work out the matrices of sequence values."""
    if code.v["is_sequence"]:
        code.v.update(_sequence_matrices(code.v, code.v["nphases"]))


def after(model: Model, line: Element, prop: str) -> None:
    """Follow up a property of a line."""
    values = line.v
    if prop == "linecode":
        _fetch_code(model, values)
    elif prop == "units":
        old, new = values.get("old_units", "none"), unit(values["units"])
        values["conversion"] = (
            convert_units(values["code_units"], new)
            if values["code"]
            else values["conversion"] * convert_units(old, new)
        )
        values["units"] = values["old_units"] = new
    elif prop == "switch" and values["switch"]:
        values.update(r1=1.0, x1=1.0, r0=1.0, x0=1.0, c1=1.1, c0=1.0, length=0.001, is_sequence=True, c_default=True)
        _forget_code(values)
    elif prop in SEQUENCE or prop in MATRICES or prop in {"b1", "b0"}:
        _after_impedance(values, prop, values["phases"])
        _forget_code(values)
        if prop[0] in "bc":
            values["c_default"] = False
    elif prop == "phases" and values["phases"] != len(values["r"]):
        if values["phases"] > MAX_CODE_PHASES:
            raise ScriptError(f"a line of {values['phases']} phases: give at most {MAX_CODE_PHASES}")
        values.update(_line_matrices(values))
    elif prop in _GEOMETRY:
        values["has_geometry"] = True
        geometry.attach(model, line, prop)
    elif prop == "earthmodel":
        values["own_earth_model"] = values["earthmodel"]


def convert(model: Model) -> tuple[list[Line], list[LineCode]]:
    """Return the lines and the codes that they use; lines of equal impedance share one."""
    lines: list[Line] = []
    codes: dict[Any, LineCode] = {}
    names: dict[str, int] = {}
    for item in model.of("line"):
        try:
            lines.append(_line(model, item, codes, names))
        except ScriptError as error:
            model.problems.append(f"{item.where}: {item.title}: {error}")
    return lines, list(codes.values())


def _line(model: Model, item: Element, codes: dict[Any, LineCode], names: dict[str, int]) -> Line:
    values = item.v
    r, x, c = geometry.matrices(model, item) if values.get("has_geometry") else _at_frequency(model, values)
    n = len(r)
    from_bus, phases = bus_and_nodes(values["bus1"], n, n)
    to_bus, to_phases = bus_and_nodes(values["bus2"], n, n)
    if not from_bus or not to_bus:
        raise ScriptError("it lacks a bus: give bus1 and bus2")
    if values.get("shape_name") and values["rho"] != DEFAULT_RHO:
        model.leave_out("rho is its line's alone; OpenDSS gives it to all lines of the geometry", item.where)
    length_km, per_km = _length(values)
    open_ends = {(terminal, conductor) for terminal, conductor in values["open_ends"] if conductor <= n}
    is_open = any(sum(end[0] == terminal for end in open_ends) == n for terminal in (1, 2))
    key = (values["code"], per_km, r, x, c)
    if key not in codes:
        wanted = values["code"] or item.name
        names[wanted] = names.get(wanted, 0) + 1
        name = wanted if names[wanted] == 1 else f"{wanted}~{names[wanted]}"
        codes[key] = LineCode(
            name=name, r_ohm_per_km=_scaled(r, per_km), x_ohm_per_km=_scaled(x, per_km), c_nf_per_km=_scaled(c, per_km)
        )
    return Line(
        name=item.name,
        from_bus=from_bus,
        to_bus=to_bus,
        phases=phases,
        to_phases=None if to_phases == phases else to_phases,
        line_code=codes[key].name,
        length_km=length_km,
        is_switch=values["switch"],
        is_open=is_open,
        open_ends=() if is_open and values["switch"] else tuple(sorted(open_ends)),
        rating_a=values.get("normamps") or None,
    )


def _length(values: Values) -> tuple[float, float]:
    """Return the length in km, and what turns the matrices' unit into that per km."""
    if values.get("has_geometry"):
        return values["length"] * METRES.get(values["units"], 1.0) / 1e3, 1.0
    length_unit = values["units"] if values["units"] != "none" else values["code_units"]
    if length_unit == "none":
        length_unit = "km"
    per_km = 1e3 / METRES[length_unit] / values["conversion"]
    length_km = values["length"] * METRES[length_unit] / 1e3
    if not length_km > 0.0:
        raise ScriptError(f"it is {values['length']:g} long: give a length above 0")
    return length_km, per_km


def _fetch_code(model: Model, values: Values) -> None:
    code = model.find("linecode", values["linecode"])
    values.update({prop: code.v[prop] for prop in (*SEQUENCE, "rg", "xg", "rho", "basefreq", "c_freq", "is_sequence")})
    values.update({part: code.v[part] for part in "rxc"})
    values.update(phases=len(code.v["r"]), code=code.name, code_units=code.v["units"], has_geometry=False)
    values["normamps"] = code.v.get("normamps")
    values["c_default"] = False
    if values["is_sequence"] and values["phases"] == 1:
        values.update(_line_matrices(values))
    values["conversion"] = convert_units(code.v["units"], values["units"])


def _forget_code(values: Values) -> None:
    values.update(code=None, units="none", old_units="none", code_units="none", conversion=1.0, has_geometry=False)
    if values["is_sequence"]:
        values.update(_line_matrices(values))


def _line_matrices(values: Values) -> Values:
    """Return r, x, c of a line from its sequence values; a line of one phase has only the positive ones."""
    if values["phases"] > 1:
        return _sequence_matrices(values, values["phases"])
    return _sequence_matrices({**values, "r0": values["r1"], "x0": values["x1"], "c0": values["c1"]}, 1)


def _after_impedance(values: Values, prop: str, n: int) -> None:
    if prop in MATRICES:
        rows = values[prop]
        if len(rows) != n:
            raise ScriptError(f"{prop} has {len(rows)} rows for {n} phases: give one a phase")
        values[MATRICES[prop]] = rows
        if prop == "cmatrix":
            values["c_freq"] = values["basefreq"]
        values["is_sequence"] = False
    elif prop in {"b1", "b0"}:
        values["c" + prop[1]] = values[prop] * 1e3 / (2.0 * math.pi * values["basefreq"])
        values["is_sequence"] = True
    elif prop in SEQUENCE:
        values["is_sequence"] = True


def _sequence_matrices(values: Values, n: int) -> Values:
    """Return r, x, c from sequence values."""
    return {
        part: _circulant(
            (2.0 * values[part + "1"] + values[part + "0"]) / 3.0, (values[part + "0"] - values[part + "1"]) / 3.0, n
        )
        for part in "rxc"
    }


def _circulant(own: float, mutual: float, n: int) -> Matrix:
    return tuple(tuple(own if i == j else mutual for j in range(n)) for i in range(n))


def _reduce(values: Values, neutral: int) -> None:
    """Take the neutral out of a line code, grounded along the line (Kron)."""
    n = values["nphases"]
    if n < 2 or not 1 <= neutral <= n:
        return
    k = neutral - 1
    keep = [i for i in range(n) if i != k]
    z = [[complex(values["r"][i][j], values["x"][i][j]) for j in range(n)] for i in range(n)]
    if z[k][k] == 0.0:
        raise ScriptError("the neutral to take out has no impedance: give it one")
    z = [[z[i][j] - z[i][k] * z[k][j] / z[k][k] for j in keep] for i in keep]
    values["r"] = tuple(tuple(value.real for value in row) for row in z)
    values["x"] = tuple(tuple(value.imag for value in row) for row in z)
    values["c"] = tuple(tuple(values["c"][i][j] for j in keep) for i in keep)
    values.update(nphases=n - 1, is_sequence=False)


def _at_frequency(model: Model, values: Values) -> tuple[Matrix, Matrix, Matrix]:
    """Return the matrices at the circuit's frequency, with OpenDSS's earth correction."""
    if values["is_sequence"] and values["units"] != "none" and values["c_default"]:
        # OpenDSS's own capacitances are per 1000 ft.
        factor = METRES[values["units"]] / METRES["kft"]
        scaled = {part: values[part] * factor for part in ("c1", "c0")}
        values = {**values, **_line_matrices({**values, **scaled})}
    r, x, c = values["r"], values["x"], values["c"]
    ratio = model.frequency_hz / values["basefreq"]
    if ratio == 1.0:
        return r, x, c
    if not values["is_sequence"]:
        # OpenDSS keeps susceptances, worked out at the base frequency that held when the capacitances came.
        c = _scaled(c, values["c_freq"] / values["basefreq"])
    earth_x = values["xg"] / math.log(658.5 * math.sqrt(values["rho"] / values["basefreq"]))
    r = tuple(tuple(value + values["rg"] * (ratio - 1.0) for value in row) for row in r)
    x = tuple(tuple((value - 0.5 * earth_x * math.log(ratio)) * ratio for value in row) for row in x)
    return r, x, c


def _scaled(rows: Matrix, factor: float) -> Matrix:
    return tuple(tuple(value * factor for value in row) for row in rows)
