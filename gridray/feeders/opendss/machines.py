"""Generators, PV systems and batteries."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

from gridray.feeders.components import Generator, Load
from gridray.feeders.opendss.lexer import ScriptError
from gridray.feeders.opendss.loads import terminals
from gridray.feeders.opendss.model import Element, Model, connection

Values = dict[str, Any]


def generator_defaults(_: Model) -> Values:
    """Return OpenDSS's default generator."""
    return {
        "phases": 3,
        "bus1": "",
        "kv": 12.47,
        "kw": 1000.0,
        "pf": 0.88,
        "kvar": 60.0,
        "model": 1,
        "conn": "wye",
        "vminpu": 0.9,
        "vmaxpu": 1.1,
        "enabled": True,
    }


def after_generator(_: Model, item: Element, prop: str) -> None:
    """Keep kvar and power factor of a generator in step."""
    values = item.v
    if prop == "mva":
        values["kva"] = values["mva"] * 1e3
    elif prop == "kvar":
        kva = math.hypot(values["kw"], values["kvar"])
        if kva > 0.0:
            values["pf"] = values["kw"] / kva * (-1.0 if values["kw"] * values["kvar"] < 0.0 else 1.0)
    elif prop in {"kw", "pf"} and 0.0 < abs(values["pf"]) <= 1.0:
        values["kvar"] = _kvar(values["kw"], values["pf"])


def after_inverter(_: Model, item: Element, prop: str) -> None:
    """Remember which of kvar and power factor came last."""
    if prop in {"kvar", "pf"}:
        item.v["reactive_by"] = prop


def convert(model: Model) -> tuple[list[Generator], list[Load]]:
    """Return the machines, and what batteries at rest draw, as loads."""
    machines: list[Generator] = []
    idling: list[Load] = []
    names: set[str] = set()
    for cls, one in (("generator", _generator), ("pvsystem", _pv), ("storage", _battery)):
        for item in model.of(cls):
            try:
                machine = one(model, item)
                if item.name in names:
                    machine = replace(machine, name=f"{cls}_{item.name}")
                names.add(item.name)
                machines.append(machine)
                if cls == "storage":
                    idling.extend(_idling(item, machines[-1]))
            except ScriptError as error:
                model.problems.append(f"{item.where}: {item.title}: {error}")
    return machines, idling


def _generator(model: Model, item: Element) -> Generator:
    values = item.v
    factor = model.generator_mult if not values.get("status", "v").startswith("f") else 1.0
    kw, kvar = values["kw"] * factor, values["kvar"] * factor
    kva: float = values["kva"] if "kva" in values else abs(kw) * 1.2 or 1.0
    return _machine(item, "generator", values, kw, kvar, kva)


def _pv(model: Model, item: Element) -> Generator:
    values: Values = {"phases": 3, "bus1": "", "kv": 12.47, "model": 1, "conn": "wye", "vminpu": 0.9, "vmaxpu": 1.1}
    values |= {"pmpp": 500.0, "%pmpp": 100.0, "irradiance": 1.0, "kva": 500.0, "temperature": 25.0, "pf": 1.0}
    values |= {"%cutin": 20.0, "%cutout": 20.0, **item.v}
    kva = values["kva"]
    panel = values["pmpp"] * values["irradiance"] * values["%pmpp"] / 100.0
    if values.get("p-tcurve"):
        panel = values["pmpp"] * values["irradiance"] * _curve(model, values["p-tcurve"], values["temperature"])
        limit = values["pmpp"] * values["%pmpp"] / 100.0
        panel = min(panel, limit)
    if panel < values["%cutout"] * kva / 100.0:
        panel = 0.0
    efficiency = _curve(model, values["effcurve"], panel / kva) if values.get("effcurve") else 1.0
    kw = panel * efficiency
    kvar = values["kvar"] if values.get("reactive_by") == "kvar" else _kvar(kw, values["pf"])
    if math.hypot(kw, kvar) > kva:
        if values.get("pfpriority") and values.get("reactive_by") == "pf":
            kw, kvar = kva * abs(values["pf"]), _kvar(kva * abs(values["pf"]), values["pf"])
        elif values.get("wattpriority"):
            kw = min(kw, kva)
            kvar = math.copysign(math.sqrt(max(kva**2 - kw**2, 0.0)), kvar)
        else:
            kvar = math.copysign(min(abs(kvar), kva), kvar)
            kw = math.sqrt(max(kva**2 - kvar**2, 0.0))
    return _machine(item, "pv", values, kw, kvar, kva)


def _battery(_: Model, item: Element) -> Generator:
    values: Values = {"phases": 3, "bus1": "", "kv": 12.47, "model": 1, "conn": "wye", "vminpu": 0.9, "vmaxpu": 1.1}
    values |= {"kwrated": 25.0, "kwhrated": 50.0, "state": "idling", "%idlingkw": 1.0, **item.v}
    if not values["state"].startswith("i") or values.get("kw"):
        raise ScriptError("it charges or discharges: set state=idling, give no kw, and dispatch it as an action")
    kvar = values["kvar"] if values.get("reactive_by") == "kvar" else 0.0
    kva: float = values["kva"] if "kva" in values else values["kwrated"]
    return _machine(item, "battery", values, values["kwrated"], kvar, kva)


def _idling(item: Element, battery: Generator) -> list[Load]:
    kw = battery.kw * item.v.get("%idlingkw", 1.0) / 100.0
    kvar = _kvar(kw, item.v["pf"]) if item.v.get("reactive_by") == "pf" else 0.0
    if kw == 0.0:
        return []
    return [
        Load(
            name=f"{item.name}_idling",
            bus=battery.bus,
            phases=battery.phases,
            connection=battery.connection,
            model=1,
            kv=battery.kv,
            kw=kw,
            kvar=kvar,
            vmin_pu=battery.vmin_pu,
            vmax_pu=battery.vmax_pu,
            neutral=battery.neutral,
        )
    ]


def _machine(
    item: Element, kind: Literal["generator", "pv", "battery"], values: Values, kw: float, kvar: float, kva: float
) -> Generator:
    values = {**values, "conn": connection(values["conn"])}
    if values["model"] not in {1, 2}:
        raise ScriptError(f"it has model {values['model']}: GridRay knows 1 (constant power) and 2 (impedance)")
    if not (values["kv"] > 0.0 and kva > 0.0):
        raise ScriptError(f"it has kv {values['kv']:g} and kva {kva:g}: give values above 0")
    bus, phases, connected, neutral = terminals(values)
    return Generator(
        name=item.name,
        kind=kind,
        bus=bus,
        phases=phases,
        kv=values["kv"],
        kva=kva,
        kw=kw,
        kvar=kvar,
        kwh=values["kwhrated"] if kind == "battery" else 0.0,
        connection=connected,
        model=values["model"],
        neutral=neutral,
        vmin_pu=values["vminpu"],
        vmax_pu=values["vmaxpu"],
        daily=values.get("daily") or None,
        yearly=values.get("yearly") or None,
    )


def _kvar(kw: float, pf: float) -> float:
    if not 0.0 < abs(pf) <= 1.0:
        raise ScriptError(f"its pf is {pf:g}: give one in -1..1, not 0")
    return kw * math.sqrt(1.0 / pf**2 - 1.0) * math.copysign(1.0, pf)


def _curve(model: Model, name: str, x: float) -> float:
    """Return y of an XY curve at x, on straight lines, as at the nearest end outside."""
    curve = model.find("xycurve", name).v
    xs, ys = curve.get("xarray", ()), curve.get("yarray", ())
    if curve.get("points"):
        xs, ys = curve["points"][::2], curve["points"][1::2]
    if len(xs) < 2 or len(xs) != len(ys) or any(a >= b for a, b in pairwise(xs)):
        raise ScriptError(f"curve '{name[:40]}' has no rising x values, each with its y: correct it")
    index = next((i for i in range(1, len(xs) - 1) if x < xs[i]), len(xs) - 1)
    slope = (ys[index] - ys[index - 1]) / (xs[index] - xs[index - 1])
    return float(ys[index - 1] + slope * (x - xs[index - 1]))
