"""Generators, PV systems and batteries."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

from gridray.feeders.components import Generator
from gridray.feeders.opendss import shapes
from gridray.feeders.opendss.lexer import ScriptError
from gridray.feeders.opendss.loads import terminals
from gridray.feeders.opendss.model import Element, Model, connection

Values = dict[str, Any]

_INVERTER: Values = {
    "phases": 3,
    "bus1": "",
    "kv": 12.47,
    "model": 1,
    "conn": "wye",
    "vminpu": 0.9,
    "vmaxpu": 1.1,
    "pf": 1.0,
    "kvar": 0.0,
    "reactive_by": "pf",
    "varfollowinverter": False,
    "wattpriority": False,
    "pfpriority": False,
    "%pminnovars": -1.0,
    "%pminkvarmax": -1.0,
}


def generator_defaults(_: Model) -> Values:
    """Return OpenDSS's default generator."""
    return {
        "phases": 3,
        "base_phases": 3,
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


def after_generator(model: Model, item: Element, prop: str) -> None:
    """Keep kvar and power factor of a generator in step."""
    values = item.v
    if prop in shapes.FOLLOWED and (peak := shapes.peak(model, values[prop])):
        values["kw"], values["kvar"] = peak
        prop = "kvar"
    if prop in {"kv", "conn"}:
        # OpenDSS works the voltage base out here, by the phases known so far, and not again when phases come later.
        values["base_phases"] = values["phases"]
    elif prop == "mva":
        values["kva"] = values["mva"] * 1e3
    elif prop == "kvar":
        kva = math.hypot(values["kw"], values["kvar"])
        if kva > 0.0:
            values["pf"] = values["kw"] / kva * (-1.0 if values["kw"] * values["kvar"] < 0.0 else 1.0)
    elif prop in {"kw", "pf"} and 0.0 < abs(values["pf"]) <= 1.0:
        values["kvar"] = _kvar(values["kw"], values["pf"])


def pv_defaults(_: Model) -> Values:
    """Return OpenDSS's default PV system."""
    return {
        **_INVERTER,
        "pmpp": 500.0,
        "%pmpp": 100.0,
        "irradiance": 1.0,
        "kva": 500.0,
        "kvarmax": 500.0,
        "kvarmaxabs": 500.0,
        "temperature": 25.0,
        "%cutin": 20.0,
        "%cutout": 20.0,
    }


def storage_defaults(_: Model) -> Values:
    """Return OpenDSS's default storage, full and at rest."""
    return {
        **_INVERTER,
        "base_phases": 3,
        "kwrated": 25.0,
        "%kwrated": 100.0,
        "kwhrated": 50.0,
        "kwhstored": 50.0,
        "%reserve": 20.0,
        "%discharge": 100.0,
        "%charge": 100.0,
        "%idlingkw": 1.0,
        "%cutout": 0.0,
        "kvarmax": 25.0,
        "kvarmaxabs": 25.0,
        "state": "idling",
    }


def after_inverter(_: Model, item: Element, prop: str) -> None:
    """Follow up a property of PV or storage: what came last counts, and a rating resets the limits not given."""
    values = item.v
    if prop in {"kvar", "pf"}:
        values["reactive_by"] = prop
    elif prop in {"kva", "kvarmax"}:
        limits = ("kvarmax", "kvarmaxabs") if prop == "kva" else ("kvarmaxabs",)
        values.update({limit: values[prop] for limit in limits if not values.get(f"own_{limit}")})
    if prop in {"kvarmax", "kvarmaxabs"}:
        values[f"own_{prop}"] = True
    if item.cls == "storage":
        _after_storage(values, prop)


def _after_storage(values: Values, prop: str) -> None:
    if prop in {"kv", "conn"}:
        values["base_phases"] = values["phases"]
    elif prop == "kw":
        values["state"] = "idling" if values["kw"] == 0.0 else "discharging" if values["kw"] > 0.0 else "charging"
        if values["kw"] != 0.0 and values["kwrated"] > 0.0:
            values[f"%{values['state'][:-3]}e"] = 100.0 * abs(values["kw"]) / values["kwrated"]
    elif prop == "kwhrated":
        values["kwhstored"] = values["kwhrated"]
    elif prop == "%stored":
        values["kwhstored"] = values["kwhrated"] * values["%stored"] / 100.0


def convert(model: Model) -> list[Generator]:
    """Return the machines."""
    machines: list[Generator] = []
    names: set[str] = set()
    for cls, one in (("generator", _generator), ("pvsystem", _pv), ("storage", _battery)):
        for item in model.of(cls):
            try:
                machine = one(model, item)
                if item.name in names:
                    machine = replace(machine, name=f"{cls}_{item.name}")
                names.add(item.name)
                machines.append(machine)
            except ScriptError as error:
                model.problems.append(f"{item.where}: {item.title}: {error}")
    return machines


def _generator(model: Model, item: Element) -> Generator:
    values = item.v
    factor = model.generator_mult if not values.get("status", "v").startswith("f") else 1.0
    kw, kvar = values["kw"] * factor, values["kvar"] * factor
    kva: float = values["kva"] if "kva" in values else abs(kw) * 1.2 or 1.0
    return _machine(item, "generator", kw, kvar, kva)


def _pv(model: Model, item: Element) -> Generator:
    values = item.v
    kva = values["kva"]
    panel = values["pmpp"] * values["irradiance"]
    if values.get("p-tcurve"):
        panel *= _curve(model, values["p-tcurve"], values["temperature"])
    is_on = panel >= values["%cutout"] * kva / 100.0
    efficiency = _curve(model, values["effcurve"], panel / kva) if values.get("effcurve") and kva > 0.0 else 1.0
    kw = min(panel * efficiency, values["pmpp"] * values["%pmpp"] / 100.0) if is_on else 0.0
    return _machine(item, "pv", *_within_limits(values, kw, values["pmpp"], kva, is_on=is_on), kva)


def _battery(_: Model, item: Element) -> Generator:
    """Return a battery dispatched as its state says, where its energy allows; at rest it draws its losses."""
    values = item.v
    rated_kw, stored_kwh = values["kwrated"], values["kwhstored"]
    kva: float = values.get("kva", rated_kw)
    state = values["state"][:1]
    share = 0.0
    if state == "d" and stored_kwh > values["kwhrated"] * values["%reserve"] / 100.0:
        share = values["%discharge"] / 100.0
    elif state == "c" and stored_kwh < values["kwhrated"]:
        share = -values["%charge"] / 100.0
    kw = math.copysign(rated_kw * min(abs(share), values["%kwrated"] / 100.0), share)
    idle_kw = -rated_kw * values["%idlingkw"] / 100.0
    least_kw = values["%cutout"] * kva / 100.0
    if share == 0.0 or abs(kw) < least_kw:
        kw = idle_kw
    kw, kvar = _within_limits(values, kw, rated_kw, kva, is_on=abs(kw) >= least_kw)
    return replace(_machine(item, "battery", rated_kw, kvar, kva), dispatch_kw=kw)


def _within_limits(values: Values, kw: float, rated_kw: float, kva: float, *, is_on: bool) -> tuple[float, float]:
    """Return kw and the kvar asked for within an inverter's limits (OpenDSS's ComputeInverterPower).

    First the limits of kvar, then kva: reactive power goes first, or active, or both keep their ratio.
    """
    kvar: float = values["kvar"] if values["reactive_by"] == "kvar" else _kvar(kw, values["pf"])
    if (values["varfollowinverter"] and not is_on) or abs(kw) < values["%pminnovars"] * rated_kw / 100.0:
        kvar = 0.0
    limit = values["kvarmax"] if kvar > 0.0 else values["kvarmaxabs"]
    least_kw = values["%pminkvarmax"] * rated_kw / 100.0
    if abs(kw) < least_kw:
        limit *= abs(kw) / least_kw
    if abs(kvar) > limit:
        if values["pfpriority"]:
            kw *= limit / abs(kvar)
        kvar = math.copysign(limit, kvar)
    size = math.hypot(kw, kvar)
    if size > kva:
        if values["pfpriority"]:
            kw, kvar = kw * kva / size, kvar * kva / size
        elif values["wattpriority"]:
            kw = math.copysign(min(abs(kw), kva), kw)
            kvar = math.copysign(math.sqrt(max(kva**2 - kw**2, 0.0)), kvar)
        else:
            kvar = math.copysign(min(abs(kvar), kva), kvar)
            kw = math.copysign(math.sqrt(max(kva**2 - kvar**2, 0.0)), kw)
    return kw, kvar


def _machine(
    item: Element, kind: Literal["generator", "pv", "battery"], kw: float, kvar: float, kva: float
) -> Generator:
    values = {**item.v, "conn": connection(item.v["conn"])}
    if values["model"] not in {1, 2}:
        raise ScriptError(f"it has model {values['model']}: GridRay knows 1 (constant power) and 2 (impedance)")
    if not (values["kv"] > 0.0 and kva > 0.0):
        raise ScriptError(f"it has kv {values['kv']:g} and kva {kva:g}: give values above 0")
    bus, phases, connected, neutral = terminals(values)
    root, base_root = (
        math.sqrt(3.0) if n in {2, 3} else 1.0 for n in (values["phases"], values.get("base_phases", values["phases"]))
    )
    return Generator(
        name=item.name,
        kind=kind,
        bus=bus,
        phases=phases,
        kv=values["kv"] * root / base_root,
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
