"""Loads."""

from __future__ import annotations

import math
from typing import Any

from gridray.feeders.components import Connection, Load, Reactor
from gridray.feeders.opendss import shapes
from gridray.feeders.opendss.lexer import ScriptError
from gridray.feeders.opendss.model import Element, Model, bus_and_nodes, connection

Values = dict[str, Any]

MODELS = range(1, 9)
_GIVEN_BY = {"kw": "kw pf", "kvar": "kw kvar", "kva": "kva pf", "xfkva": "xfkva", "kwh": "kwh"}
_GIVEN_BY |= {"allocationfactor": "xfkva", "kwhdays": "kwh", "cfactor": "kwh"}


def defaults(_: Model) -> Values:
    """Return OpenDSS's default load."""
    return {
        "phases": 3,
        "bus1": "",
        "kv": 12.47,
        "kw": 10.0,
        "pf": 0.88,
        "kvar": 5.0,
        "kva": 11.3636,
        "model": 1,
        "conn": "wye",
        "rneut": -1.0,
        "xneut": 0.0,
        "status": "variable",
        "vminpu": 0.95,
        "vmaxpu": 1.05,
        "vlowpu": 0.5,
        "xfkva": 0.0,
        "allocationfactor": 0.5,
        "kwh": 0.0,
        "kwhdays": 30.0,
        "cfactor": 4.0,
        "cvrwatts": 1.0,
        "cvrvars": 2.0,
        "zipv": (),
        "given_by": "kw pf",
        "enabled": True,
    }


def after(model: Model, load: Element, prop: str) -> None:
    """Follow up a property of a load."""
    if prop in shapes.FOLLOWED and (peak := shapes.peak(model, load.v[prop])):
        load.v["kw"], load.v["kvar"] = peak
        load.v["given_by"] = "kw pf" if load.v.get("has_pf") else "kw kvar"
    if prop in {"pf", "kvar"}:
        load.v["has_pf"] = prop == "pf"
    if prop in _GIVEN_BY:
        # An allocation factor says nothing until there is a connected kVA to allocate; then kW follow at once, by the
        # power factor known so far (OpenDSS's ComputeAllocatedLoad).
        if prop != "allocationfactor" or load.v["xfkva"] > 0.0:
            load.v["given_by"] = _GIVEN_BY[prop]
        if prop in {"xfkva", "allocationfactor"} and load.v["xfkva"] > 0.0:
            load.v["kw"] = load.v["xfkva"] * load.v["allocationfactor"] * abs(load.v["pf"])
    elif prop == "conn":
        load.v["conn"] = connection(load.v["conn"])
    elif prop == "pf" and not 0.0 < abs(load.v["pf"]) <= 1.0:
        raise ScriptError(f"pf is {load.v['pf']:g}: give one in -1..1, not 0")


def finish(_: Model, load: Element) -> None:
    """Work out kW and kvar from what was given last (OpenDSS's LoadSpecType)."""
    values = load.v
    by = values["given_by"]
    if by == "kw kvar":
        kva = math.hypot(values["kw"], values["kvar"])
        if kva > 0.0:
            values["pf"] = values["kw"] / kva * (-1.0 if values["kw"] * values["kvar"] < 0.0 else 1.0)
        return
    if by == "kva pf":
        values["kw"] = values["kva"] * abs(values["pf"])
    elif by == "kwh":
        if not values["kwhdays"] > 0.0:
            raise ScriptError("kwhdays is not above 0: give the days of its kwh")
        values["kw"] = values["kwh"] / (values["kwhdays"] * 24.0) * values["cfactor"]
    if 0.0 < abs(values["pf"]) <= 1.0:
        values["kvar"] = values["kw"] * math.sqrt(1.0 / values["pf"] ** 2 - 1.0) * math.copysign(1.0, values["pf"])


def set_all(model: Model, prop: str, value: float) -> None:
    """Set a property of all loads so far."""
    for load in model.elements.get("load", {}).values():
        load.v[prop] = value
        after(model, load, prop)
        finish(model, load)


def convert(model: Model) -> tuple[list[Load], list[Reactor]]:
    """Return the loads, and the impedances of their neutrals to ground."""
    loads: list[Load] = []
    neutrals: list[Reactor] = []
    for item in model.of("load"):
        try:
            loads.append(_load(model, item))
            neutrals.extend(_neutral(model, item, loads[-1]))
        except ScriptError as error:
            model.problems.append(f"{item.where}: {item.title}: {error}")
    return loads, neutrals


def terminals(values: Values) -> tuple[str, tuple[int, ...], Connection, int]:
    """Return bus, phases, connection and neutral of a load, capacitor or machine.

    Raises:
        ScriptError: GridRay has no such connection.
    """
    n = values["phases"]
    if n > 3:
        raise ScriptError(f"it has {n} phases: give 1 to 3")
    is_delta = values["conn"] == "delta"
    if is_delta and n == 2:
        raise ScriptError("it is a delta of 2 phases: write it as two of one phase")
    bus, nodes = bus_and_nodes(values["bus1"], n, n if is_delta and n == 3 else n + 1)
    if not bus:
        raise ScriptError("it has no bus: give bus1")
    if is_delta and (n == 3 or 0 not in nodes):
        return bus, nodes, "delta", 0
    phases, neutral = nodes[:n], nodes[n]
    if n == 1 and phases[0] == 0:
        phases, neutral = (neutral,), 0
    if 0 in phases:
        raise ScriptError(f"bus1={values['bus1'][:40]} puts a phase on ground: correct its nodes")
    return bus, phases, "wye", neutral


def _load(model: Model, item: Element) -> Load:
    values = item.v
    if values["model"] not in MODELS:
        raise ScriptError(f"it has model {values['model']}: give 1 to 8")
    if values.get("%seriesrl", 50.0) and values["model"] == 8 and len(values["zipv"]) != 7:
        raise ScriptError(f"its zipv has {len(values['zipv'])} numbers: model 8 needs seven")
    if not values["kv"] > 0.0:
        raise ScriptError(f"its kv is {values['kv']:g}: give a voltage above 0")
    bus, phases, kind, neutral = terminals(values)
    # OpenDSS: a fixed load follows no shape; neither it nor an exempt one follows the circuit's multiplier.
    is_fixed = values["status"].startswith("f")
    factor = model.load_mult if values["status"].startswith("v") else 1.0
    return Load(
        name=item.name,
        bus=bus,
        phases=phases,
        connection=kind,
        model=values["model"],
        kv=values["kv"],
        kw=values["kw"] * factor,
        # The reactive power of models 6 and 7 is fixed: no multiplier changes it.
        kvar=values["kvar"] * (1.0 if values["model"] in {6, 7} else factor),
        vmin_pu=values["vminpu"],
        vmax_pu=values["vmaxpu"],
        vlow_pu=values["vlowpu"],
        neutral=neutral,
        cvr_watts=values["cvrwatts"],
        cvr_vars=values["cvrvars"],
        zipv=values["zipv"],
        daily=None if is_fixed else values.get("daily") or None,
        yearly=None if is_fixed else values.get("yearly") or None,
    )


def _neutral(model: Model, item: Element, load: Load) -> list[Reactor]:
    r, x = item.v["rneut"], item.v["xneut"]
    if load.neutral == 0 or r < 0.0:
        return []
    model.leave_out("rneut grounds a load's neutral; DSS C-API 0.14 leaves it floating", item.where)
    # OpenDSS grounds a neutral without impedance through a micro-ohm.
    r = 1e-6 if r == 0.0 and x == 0.0 else r
    return [Reactor(name=f"{item.name}_neutral", bus=load.bus, phases=(load.neutral,), r_ohm=r, x_ohm=x)]
