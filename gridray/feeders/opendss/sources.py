"""The voltage sources of a circuit."""

from __future__ import annotations

import math
from typing import Any

from gridray.feeders.components import Source
from gridray.feeders.opendss.lexer import ScriptError
from gridray.feeders.opendss.model import Element, Model, bus_and_nodes

Values = dict[str, Any]

BASE_MVA = 100.0
_OHM = ("r1", "x1", "r0", "x0")


def defaults(_: Model) -> Values:
    """Return OpenDSS's default source."""
    values = {
        "bus1": "sourcebus",
        "basekv": 115.0,
        "pu": 1.0,
        "angle": 0.0,
        "phases": 3,
        "mvasc3": 2000.0,
        "mvasc1": 2100.0,
        "isc3": 10000.0,
        "isc1": 10500.0,
        "x1r1": 4.0,
        "x0r0": 3.0,
        "basemva": BASE_MVA,
        "given_as": "mva",
        "enabled": True,
    }
    values.update(zip(_OHM, _impedance(values), strict=True))
    return values


def after(model: Model, source: Element, prop: str) -> None:
    """Follow up a property of a source."""
    values = source.v
    if prop in {"mvasc3", "mvasc1"}:
        values["given_as"] = "mva"
    elif prop in {"isc3", "isc1"}:
        values["given_as"] = "current"
    elif prop in {"r1", "x1", "r0", "x0"}:
        values["given_as"] = "ohm"
    elif prop in {"z1", "z0", "z2", "puz1", "puz0", "puz2"}:
        if len(values[prop]) != 2:
            raise ScriptError(f"{prop} has {len(values[prop])} numbers: give [r, x]")
        _after_impedance(values, prop)
    elif prop == "frequency":
        model.frequency_hz = values["frequency"]


def finish(_: Model, source: Element) -> None:
    """Work out the impedance where short-circuit power gives it, so that a later edit of one part keeps the others."""
    if source.v["given_as"] in {"mva", "current"}:
        source.v.update(zip(_OHM, _impedance(source.v), strict=True))


def convert(model: Model) -> list[Source]:
    """Return the sources, the circuit's own first; what they cannot be joins the problems."""
    found: list[Source] = []
    if not model.of("vsource"):
        model.problems.append("the model has no source: start with New Circuit.name")
    for item in model.of("vsource"):
        try:
            found.append(_source(item))
        except ScriptError as error:
            model.problems.append(f"{item.where}: {item.title}: {error}")
    return found


def _source(item: Element) -> Source:
    values = item.v
    n = values["phases"]
    bus, nodes = bus_and_nodes(values["bus1"], n, n)
    if n not in {1, 3}:
        raise ScriptError(f"it has {n} phases: give 1 or 3")
    if values.get("bus2") and any(bus_and_nodes(values["bus2"], n, n)[1]) and "." in values["bus2"]:
        raise ScriptError("bus2 joins it to another bus than ground: take it out")
    if not values["basekv"] > 0.0:
        raise ScriptError(f"basekv is {values['basekv']:g}: give a voltage above 0")
    r1, x1, r0, x0 = _impedance(values)
    return Source(
        bus=bus,
        kv=values["basekv"],
        pu=values["pu"],
        angle_deg=values["angle"],
        r1_ohm=r1,
        x1_ohm=x1,
        r0_ohm=r0,
        x0_ohm=x0,
        phases=nodes,
        name=item.name,
    )


def _after_impedance(values: Values, prop: str) -> None:
    sequence = prop[-1]
    values["given_as"] = "pu" if prop.startswith("pu") else "ohm"
    values[f"set{sequence}"] = True
    unset = [other for other in "02" if not values.get(f"set{other}")] if sequence == "1" else []
    prefix = "pu_" if prop.startswith("pu") else ""
    for which in (sequence, *unset):
        values[f"{prefix}r{which}"], values[f"{prefix}x{which}"] = values[prop]


def _impedance(values: Values) -> tuple[float, float, float, float]:
    """Return r1, x1, r0, x0 in ohm (OpenDSS's VSource.RecalcElementData)."""
    if values["given_as"] == "ohm":
        zero = "1" if values["phases"] == 1 else "0"
        return values["r1"], values["x1"], values[f"r{zero}"], values[f"x{zero}"]
    kv = values["basekv"]
    if values["given_as"] == "pu":
        base = kv**2 / values["basemva"]
        return tuple(values.get(f"pu_{part}", 0.0) * base for part in ("r1", "x1", "r0", "x0"))
    root = 1.0 if values["phases"] == 1 else math.sqrt(3.0)
    if values["given_as"] == "mva":
        mva3, current1 = values["mvasc3"], values["mvasc1"] * 1e3 / (root * kv) if kv > 0.0 else 0.0
    else:
        mva3, current1 = math.sqrt(3.0) * kv * values["isc3"] / 1e3, values["isc1"]
    if not (kv > 0.0 and mva3 > 0.0 and current1 > 0.0 and values["x1r1"] != 0.0):
        raise ScriptError("its short-circuit power and x1r1 are not all above 0: correct them")
    x1 = kv**2 / mva3 / math.sqrt(1.0 + 1.0 / values["x1r1"] ** 2)
    r1 = x1 / values["x1r1"]
    ratio = values["x0r0"]
    a = 1.0 + ratio**2
    b = 4.0 * (r1 + x1 * ratio)
    c = 4.0 * (r1**2 + x1**2) - (3.0 * kv * 1e3 / root / current1) ** 2
    if b * b < 4.0 * a * c:
        raise ScriptError("its one-phase short-circuit power does not fit the three-phase one: correct them")
    r0 = (-b + math.sqrt(b * b - 4.0 * a * c)) / (2.0 * a)
    return r1, x1, r0, r0 * ratio
