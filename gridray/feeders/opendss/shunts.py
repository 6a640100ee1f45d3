"""Capacitors and reactors."""

from __future__ import annotations

import math
from typing import Any

from gridray.feeders.components import Capacitor, Reactor
from gridray.feeders.opendss.lexer import ScriptError
from gridray.feeders.opendss.loads import terminals
from gridray.feeders.opendss.model import Element, Model, bus_and_nodes, connection

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
        "kvar": 1200.0,
        "r": 0.0,
        "x": 0.0,
        "conn": "wye",
        "given_by": "kvar",
        "enabled": True,
    }


def after_capacitor(_: Model, item: Element, prop: str) -> None:
    """Follow up a property of a capacitor."""
    values = item.v
    if prop == "conn":
        values["conn"] = connection(values["conn"])
    elif prop == "numsteps":
        count = values["numsteps"]
        if not 1 <= count <= MAX_STEPS:
            raise ScriptError(f"numsteps is {count}: give 1 to {MAX_STEPS}")
        values["steps_kvar"] = [sum(values["steps_kvar"]) / count] * count
        values["steps_closed"] = [True] * count
    elif prop in {"kvar", "cuf"}:
        given = values[prop]
        if not given:
            raise ScriptError(f"{prop} is empty: give a number")
        values["given_by"] = prop
        rest = values["steps_kvar"][len(given) :] if prop == "kvar" else [0.0] * values["numsteps"]
        rest = [given[0]] * values["numsteps"] if len(given) == 1 and prop == "kvar" else rest
        values["steps_kvar"] = [*given, *rest][: values["numsteps"]]
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
        values["given_by"] = "ohm"
        if prop in {"z", "z1"}:
            values["r"], values["x"] = values[prop]
    elif prop in {"rmatrix", "xmatrix"}:
        values["given_by"] = "matrix"


def convert(model: Model) -> tuple[list[Capacitor], list[Reactor]]:
    """Return the capacitors, and the reactors with series capacitors among them."""
    capacitors: list[Capacitor] = []
    reactors: list[Reactor] = []
    for item in (*model.of("reactor"), *model.of("capacitor")):
        try:
            if item.cls == "reactor":
                reactors.append(_reactor(item))
            elif _is_series(item.v):
                reactors.append(_series_capacitor(model, item))
            else:
                capacitors.append(_capacitor(model, item))
        except ScriptError as error:
            model.problems.append(f"{item.where}: {item.title}: {error}")
    return capacitors, reactors


def _is_series(values: Values) -> bool:
    return bool(values["bus2"]) and values["bus2"].split(".")[0] != values["bus1"].split(".")[0]


def _capacitor(model: Model, item: Element) -> Capacitor:
    values = item.v
    if any(values.get("r", ())) or any(values.get("xl", ())):
        raise ScriptError("it has r or xl in series: take them out or write a reactor")
    if values["given_by"] == "cmatrix":
        raise ScriptError("it is given by a cmatrix: give kvar and kv")
    if not values["kv"] > 0.0:
        raise ScriptError(f"its kv is {values['kv']:g}: give a voltage above 0")
    bus, phases, kind, neutral = terminals({**values, "bus1": _one_terminal(values)})
    closed = values["steps_closed"]
    steps = [_kvar(model, values, step) for step in values["steps_kvar"]]
    if any(closed) and not all(closed):
        model.notes.append(f"{item.where}: {item.title} has open steps: it is taken as a bank of the closed ones")
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


def _series_capacitor(model: Model, item: Element) -> Reactor:
    values = item.v
    if values["given_by"] == "cmatrix" or any(values.get("r", ())) or any(values.get("xl", ())):
        raise ScriptError("it is a series capacitor with more than kvar and kv: give those alone")
    kvar = sum(
        _kvar(model, values, step)
        for step, closed in zip(values["steps_kvar"], values["steps_closed"], strict=True)
        if closed
    )
    if not (values["kv"] > 0.0 and kvar > 0.0):
        raise ScriptError("it is a series capacitor without kv or kvar: give values above 0")
    n = values["phases"]
    coil_kv = values["kv"] / (math.sqrt(3.0) if n > 1 else 1.0)
    return _between(item, 0.0, -(coil_kv**2) * 1e3 / (kvar / n), None)


def _reactor(item: Element) -> Reactor:
    values = item.v
    if values["given_by"] == "matrix":
        raise ScriptError("it is given by matrices: give r and x")
    if "z0" in values and values["z0"] != values.get("z1"):
        raise ScriptError("its z0 differs from z1: give one impedance, r and x")
    if any(values.get(curve) for curve in ("rcurve", "lcurve")):
        raise ScriptError("its impedance follows a curve: give r and x")
    r, x = values["r"], values["x"]
    if values["given_by"] == "kvar":
        if values["kvar"] == 0.0:
            raise ScriptError("its kvar is 0: give a value or disable it")
        has_root = values["conn"] == "wye" and values["phases"] > 1
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
