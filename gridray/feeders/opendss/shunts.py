"""Capacitors and reactors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.feeders.components import Capacitor, Reactor
from gridray.feeders.opendss.lexer import ScriptError
from gridray.feeders.opendss.loads import terminals
from gridray.feeders.opendss.model import Element, Model, bus_and_nodes, connection

if TYPE_CHECKING:
    from numpy.typing import NDArray

Values = dict[str, Any]

MAX_STEPS = 1000


def capacitor_defaults(_: Model) -> Values:
    """Return OpenDSS's default capacitor."""
    return {
        "phases": 3,
        "bus1": "",
        "bus2": "",
        "kv": 12.47,
        "conn": "wye",
        "numsteps": 1,
        "steps_kvar": [1200.0],
        "steps_closed": [True],
        "given_by": "kvar",
        "enabled": True,
    }


def reactor_defaults(_: Model) -> Values:
    """Return OpenDSS's default reactor."""
    return {
        "phases": 3,
        "bus1": "",
        "bus2": "",
        "kv": 12.47,
        "kvar": 100.0,
        "r": 0.0,
        "x": 0.0,
        "conn": "wye",
        "given_by": "kvar",
        "enabled": True,
    }


def after_capacitor(model: Model, item: Element, prop: str) -> None:
    """Follow up a property of a capacitor."""
    values = item.v
    if prop == "conn":
        values["conn"] = connection(values["conn"])
    elif prop == "numsteps":
        count = values["numsteps"]
        if not 1 <= count <= MAX_STEPS:
            raise ScriptError(f"numsteps is {count}: give 1 to {MAX_STEPS}")
        # One rating is divided into steps; capacitances are each step's own.
        divisor = count if values["given_by"] == "kvar" else 1
        values["steps_kvar"] = [values["steps_kvar"][0] * len(values["steps_kvar"]) / divisor] * count
        values["steps_closed"] = [True] * count
    elif prop in {"kvar", "cuf"}:
        given = values[prop]
        if not given:
            raise ScriptError(f"{prop} is empty: give a number")
        values["given_by"] = prop
        if prop == "kvar" and any(value != given[0] for value in given):
            model.leave_out("kvar of a capacitor's further steps are left out: OpenDSS takes the first's", item.where)
        rest = [given[0] if prop == "kvar" else 0.0] * values["numsteps"]
        values["steps_kvar"] = [*(given[:1] if prop == "kvar" else given), *rest][: values["numsteps"]]
    elif prop == "states":
        closed = [bool(round(state)) for state in values["states"]][: values["numsteps"]]
        values["steps_closed"] = [*closed, *values["steps_closed"][len(closed) :]]
    elif prop == "cmatrix":
        values["given_by"] = "cmatrix"


def after_reactor(model: Model, item: Element, prop: str) -> None:
    """Follow up a property of a reactor."""
    values = item.v
    if prop == "conn":
        values["conn"] = connection(values["conn"])
    elif prop == "kvar":
        values["given_by"] = "kvar"
    elif prop == "x":
        values["given_by"] = "ohm"
    elif prop == "lmh":
        values.update(given_by="ohm", x=values["lmh"] * 1e-3 * 2.0 * math.pi * model.frequency_hz)
    elif prop in {"z", "z1", "z2", "z0"}:
        if len(values[prop]) != 2:
            raise ScriptError(f"{prop} has {len(values[prop])} numbers: give [r, x]")
        if prop == "z":
            values["given_by"] = "ohm"
            values["r"], values["x"] = values[prop]
        elif prop == "z1":
            values["given_by"] = "sequence"
    elif prop in {"rmatrix", "xmatrix"}:
        values["given_by"] = "matrix"


def convert(model: Model) -> tuple[list[Capacitor], list[Reactor]]:
    """Return the capacitors, and the reactors with what else is a fixed impedance: filters, series capacitors."""
    capacitors: list[Capacitor] = []
    reactors: list[Reactor] = []
    controlled = {item.v.get("capacitor") for item in model.of("capcontrol")}
    for item in (*model.of("reactor"), *model.of("capacitor")):
        try:
            if item.cls == "reactor":
                reactors.append(_reactor(item))
            elif not _is_series(item.v) and not _is_filter(item.v):
                capacitors.append(_capacitor(model, item))
            else:
                reactors.extend(_fixed_capacitor(model, item, is_controlled=item.name in controlled))
        except ScriptError as error:
            model.problems.append(f"{item.where}: {item.title}: {error}")
    return capacitors, reactors


def _is_series(values: Values) -> bool:
    return bool(values["bus2"]) and values["bus2"].split(".")[0] != values["bus1"].split(".")[0]


def _is_filter(values: Values) -> bool:
    return values["given_by"] == "cmatrix" or any(any(values.get(prop, ())) for prop in ("r", "xl", "harm"))


def _capacitor(model: Model, item: Element) -> Capacitor:
    values = item.v
    if not values["kv"] > 0.0:
        raise ScriptError(f"its kv is {values['kv']:g}: give a voltage above 0")
    bus, phases, kind, neutral = terminals({**values, "bus1": _one_terminal(values)})
    closed = values["steps_closed"]
    steps = [_kvar(model, values, step) for step in values["steps_kvar"]]
    if any(closed) and not all(closed):
        model.notes.append(f"{item.where}: {item.title} has open steps: it is taken as a bank of the closed ones")
    if kind == "delta" and sum(closed) > 1:
        model.notes.append(f"{item.where}: {item.title} is the sum of its steps: DSS C-API 0.14 counts some twice")
    kvar = sum(step for step, is_closed in zip(steps, closed, strict=True) if is_closed or not any(closed))
    return Capacitor(
        name=item.name,
        bus=bus,
        phases=phases,
        connection=kind,
        kv=values["kv"],
        kvar=kvar,
        is_closed=any(closed),
        neutral=neutral,
    )


def _one_terminal(values: Values) -> str:
    """Return bus1 with its neutral node, which for a capacitor is the second terminal's."""
    n = values["phases"]
    if values["conn"] == "delta":
        return str(values["bus1"])
    bus, nodes = bus_and_nodes(values["bus1"], n, n)
    neutrals = {0}
    if values["bus2"]:
        neutrals = set(bus_and_nodes(values["bus2"], n, n)[1])
    if len(neutrals) != 1:
        raise ScriptError(f"bus2={values['bus2'][:40]} has several nodes of its own bus: give all the same")
    return ".".join(map(str, (bus, *nodes, *neutrals)))


def _kvar(model: Model, values: Values, step: float) -> float:
    if values["given_by"] == "kvar":
        return step
    per_phase_kv = values["kv"] / (math.sqrt(3.0) if values["conn"] == "wye" and values["phases"] > 1 else 1.0)
    return float(2.0 * math.pi * model.frequency_hz * step * 1e-6 * per_phase_kv**2 * 1e3 * values["phases"])


def _fixed_capacitor(model: Model, item: Element, *, is_controlled: bool) -> list[Reactor]:
    """Return a filter or series capacitor as the impedance of its closed steps; none if all are open."""
    values = item.v
    if is_controlled:
        raise ScriptError("it is a filter or in series and has a capcontrol: take that out")
    n = values["phases"]
    y: NDArray[np.complex128] = np.zeros((n, n), dtype=np.complex128)
    for step, is_closed in enumerate(values["steps_closed"]):
        if is_closed:
            y += _step_siemens(model, values, step)
    if not any(values["steps_closed"]):
        model.notes.append(f"{item.where}: {item.title} is open and left out")
        return []
    if np.linalg.matrix_rank(y) < n:
        raise ScriptError("its matrix cannot be inverted: give kvar and kv")
    z: NDArray[np.complex128] = np.asarray(np.linalg.inv(y), dtype=np.complex128)
    is_plain = np.count_nonzero(z - z[0, 0] * np.eye(n)) == 0
    if values["conn"] == "delta" or not values["bus2"]:
        bus, phases = bus_and_nodes(values["bus1"], n, n)
        reactor = Reactor(name=item.name, bus=bus, phases=phases, r_ohm=0.0, x_ohm=0.0)
    else:
        reactor = _between(item, 0.0, 0.0, None)
    if is_plain:
        return [replace(reactor, r_ohm=float(z[0, 0].real), x_ohm=float(z[0, 0].imag))]
    return [_with_matrix(reactor, z)]


def _step_siemens(model: Model, values: Values, step: int) -> NDArray[np.complex128]:
    """Return the admittance of one step, what is in series with it included (Capacitor.pas, MakeYprimWork)."""
    n = values["phases"]
    omega = 2.0 * math.pi * model.frequency_hz
    r, xl, harmonic = (
        given[step] if len(given := values.get(prop, ())) > step else 0.0 for prop in ("r", "xl", "harm")
    )
    if values["given_by"] == "cmatrix":
        rows = values["cmatrix"]
        if len(rows) != n:
            raise ScriptError(f"its cmatrix has {len(rows)} rows for {n} phases: give one a phase")
        if r or xl or harmonic:
            raise ScriptError("it has a cmatrix and r, xl or harm: give one of them")
        return np.asarray(1j * omega * 1e-6 * np.array(rows), dtype=np.complex128)
    kvar = _kvar(model, values, values["steps_kvar"][step])
    if not (values["kv"] > 0.0 and kvar > 0.0):
        raise ScriptError("it has no kv or kvar: give values above 0")
    has_root = values["conn"] == "wye" and n in {2, 3}
    b = kvar / n / (values["kv"] / (math.sqrt(3.0) if has_root else 1.0)) ** 2 / 1e3
    if harmonic:
        xl = 1.0 / b / harmonic**2
    r = r or xl / 1e3
    if values["conn"] == "wye":
        return np.asarray(np.eye(n) / complex(r, xl - 1.0 / b), dtype=np.complex128)
    if n != 3:
        raise ScriptError("it is a filter in delta of fewer than 3 phases: connect it in wye")
    # A little on the diagonal lets OpenDSS, and us, invert the delta.
    delta = 1j * b * (3.0 * np.eye(n) - 1.0 + 2.0e-6 * np.eye(n))
    return np.asarray(np.linalg.inv(np.linalg.inv(delta) + complex(r, xl) * np.eye(n)), dtype=np.complex128)


def _reactor(item: Element) -> Reactor:
    values = item.v
    if any(values.get(curve) for curve in ("rcurve", "lcurve")):
        raise ScriptError("its impedance follows a curve: give r and x")
    if values["given_by"] in {"matrix", "sequence"}:
        return _matrix_reactor(item)
    r, x = values["r"], values["x"]
    if values["given_by"] == "kvar":
        if values["kvar"] == 0.0:
            raise ScriptError("its kvar is 0: give a value or disable it")
        has_root = values["conn"] == "wye" and values["phases"] in {2, 3}
        x = (values["kv"] / (math.sqrt(3.0) if has_root else 1.0)) ** 2 * 1e3 / (values["kvar"] / values["phases"])
    parallel = values.get("rp") or None
    if r == 0.0 and x == 0.0:
        raise ScriptError("it has neither r nor x: give one")
    if values["conn"] == "delta" or not _is_series(values):
        bus, phases, kind, neutral = terminals({**values, "bus1": _one_terminal(values)})
        if neutral == 0:
            return Reactor(
                name=item.name, bus=bus, phases=phases, r_ohm=r, x_ohm=x, parallel_r_ohm=parallel, connection=kind
            )
    return _between(item, r, x, parallel)


def _matrix_reactor(item: Element) -> Reactor:
    """Return a reactor of matrices or sequence values, which OpenDSS takes as wye or in series."""
    values = item.v
    if values["conn"] == "delta":
        raise ScriptError("it is a delta given by a matrix: give r and x")
    z = _sequence_ohm(values) if values["given_by"] == "sequence" else _matrix_ohm(values)
    if np.linalg.matrix_rank(z) < len(z):
        raise ScriptError("its impedance matrix cannot be inverted: correct it")
    if not values["bus2"]:
        bus, phases = bus_and_nodes(values["bus1"], len(z), len(z))
        reactor = Reactor(name=item.name, bus=bus, phases=phases, r_ohm=0.0, x_ohm=0.0)
    else:
        reactor = _between(item, 0.0, 0.0, None)
    return _with_matrix(reactor, z)


def _with_matrix(reactor: Reactor, z_ohm: NDArray[np.complex128]) -> Reactor:
    r, x = (tuple(tuple(float(value) for value in row) for row in part) for part in (z_ohm.real, z_ohm.imag))
    return replace(reactor, r_matrix_ohm=r, x_matrix_ohm=x)


def _sequence_ohm(values: Values) -> NDArray[np.complex128]:
    """Return the matrix of z1, z2 and z0 (Reactor.pas: the diagonal is a third of their sum, of z1 for one phase)."""
    n = values["phases"]
    z1 = complex(*values["z1"])
    z2, z0 = (complex(*values[prop]) if prop in values else z1 for prop in ("z2", "z0"))
    if n != 3:
        return np.asarray((z1 if n == 1 else z0 + z1 + z2) / 3.0 * np.eye(n), dtype=np.complex128)
    a = complex(-0.5, math.sqrt(0.75))
    turns = np.array([[1.0, 1.0, 1.0], [1.0, a * a, a], [1.0, a, a * a]])
    return np.asarray(turns @ np.diag([z0, z1, z2]) @ turns.conj() / 3.0, dtype=np.complex128)


def _matrix_ohm(values: Values) -> NDArray[np.complex128]:
    """Return r + jx, or what lies in parallel."""
    n = values["phases"]
    r, x = values.get("rmatrix", ()), values.get("xmatrix", ())
    if len(r) != n or len(x) != n:
        raise ScriptError(f"rmatrix has {len(r)} rows and xmatrix {len(x)} for {n} phases: give one a phase in both")
    if not values.get("parallel"):
        return np.asarray(np.array(r) + 1j * np.array(x), dtype=np.complex128)
    if min(np.linalg.matrix_rank(np.array(r)), np.linalg.matrix_rank(np.array(x))) < n:
        raise ScriptError("its rmatrix or xmatrix in parallel cannot be inverted: correct it")
    return np.asarray(np.linalg.inv(np.linalg.inv(np.array(r)) + np.linalg.inv(1j * np.array(x))), dtype=np.complex128)


def _between(item: Element, r: float, x: float, parallel: float | None) -> Reactor:
    n = item.v["phases"]
    bus, phases = bus_and_nodes(item.v["bus1"], n, n)
    to_bus, to_phases = bus_and_nodes(item.v["bus2"], n, n)
    return Reactor(
        name=item.name,
        bus=bus,
        phases=phases,
        r_ohm=r,
        x_ohm=x,
        parallel_r_ohm=parallel,
        to_bus=to_bus,
        to_phases=to_phases,
    )
