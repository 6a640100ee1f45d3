"""Lines given by conductors in space: wires, cables, spacings and geometries."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_args

from gridray.errors import FeederError
from gridray.feeders.line_constants import ConcentricNeutral, Conductor, EarthModel, TapeShield, line_constants
from gridray.feeders.opendss.lexer import ScriptError
from gridray.feeders.opendss.model import METRES, Element, Model, unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gridray.feeders.components import Matrix

Values = dict[str, Any]

MAX_CONDUCTORS = 50
GMR_OF_SOLID = 0.7788
RAC_BY_RDC = 1.02
_CLASS_OF = {"wire": "wiredata", "cncable": "cndata", "tscable": "tsdata"}


def defaults(_: Model) -> Values:
    """Return OpenDSS's default geometry."""
    return {"nconds": 0, "nphases": 0, "cond": 1, "places": {}, "wires_": {}, "last_unit": "ft", "reduce": False}


def after(model: Model, item: Element, prop: str) -> None:
    """Follow up a property of a line geometry."""
    values = item.v
    cond = values["cond"]
    if prop in {"nconds", "cond"} and not 0 < values[prop] <= MAX_CONDUCTORS:
        raise ScriptError(f"{prop} is {values[prop]}: give 1 to {MAX_CONDUCTORS}")
    if prop == "cond":
        values["places"].setdefault(values["cond"], {"units": values["last_unit"]})
    elif prop in {"x", "h"}:
        values["places"].setdefault(cond, {"units": values["last_unit"]})[prop] = values[prop]
    elif prop == "units":
        values["last_unit"] = unit(values["units"])
        values["places"].setdefault(cond, {})["units"] = values["last_unit"]
    elif prop in _CLASS_OF:
        values["wires_"][cond] = _snapshot(model, _CLASS_OF[prop], values[prop])
    elif prop in {"wires", "cncables", "tscables"}:
        _set_wires(model, values, prop)
    elif prop == "spacing":
        _set_spacing(model, values)


def attach(model: Model, line: Element, prop: str) -> None:
    """Follow up a property of a line that names its geometry."""
    values = line.v
    if prop == "geometry":
        shape = model.find("linegeometry", values["geometry"]).v
        values["shape"] = {**shape, "places": dict(shape["places"]), "wires_": dict(shape["wires_"])}
        values["shape_name"] = values["geometry"]
    else:
        shape = values.get("shape", {})
        if not shape or values.get("shape_name") is not None:
            shape = values["shape"] = defaults(model)
            values["shape_name"] = None
            shape["reduce"] = True
        if prop == "spacing":
            shape["spacing"] = values["spacing"]
            _set_spacing(model, shape)
        else:
            shape[prop] = values[prop]
            _set_wires(model, shape, prop)
    if values["shape"]["nphases"]:
        values["phases"] = values["shape"]["nphases"]
    values["code"] = values.get("shape_name")


def matrices(model: Model, line: Element) -> tuple[Matrix, Matrix, Matrix]:
    """Return r, x, c per km of a line given by geometry, from a memory of those worked out before.

    Raises:
        ScriptError: a conductor lacks a number.
    """
    values = line.v
    shape = values["shape"]
    num_conductors, num_phases = shape["nconds"], shape["nphases"]
    if not 0 < num_phases <= num_conductors:
        raise ScriptError(f"its geometry has nconds {num_conductors} and nphases {num_phases}: give both")
    conductors = tuple(_conductor(shape, index) for index in range(1, num_conductors + 1))
    # A line has the earth model that held when it was made, or its own.
    own = values["own_earth_model"]
    earth = next((known for known in get_args(EarthModel) if own and known.startswith(own)), model.earth_model)
    try:
        return _matrices(conductors, num_phases, model.frequency_hz, values["rho"], earth, shape["reduce"])
    except FeederError as error:
        raise ScriptError(f"its geometry has no impedance: {error}") from error


@lru_cache(maxsize=1024)
def _matrices(
    conductors: tuple[Conductor, ...],
    num_phases: int,
    frequency_hz: float,
    rho: float,
    earth: EarthModel,
    reduce: bool,  # noqa: FBT001
) -> tuple[Matrix, Matrix, Matrix]:
    found = line_constants(
        conductors,
        num_phases=num_phases,
        frequency_hz=frequency_hz,
        earth_resistivity_ohm_m=rho,
        earth_model=earth,
        reduce=reduce,
    )
    return _rows(found.r_ohm_per_km), _rows(found.x_ohm_per_km), _rows(found.c_nf_per_km)


def _rows(values: NDArray[np.float64]) -> Matrix:
    return tuple(tuple(map(float, row)) for row in values)


def _set_wires(model: Model, values: Values, prop: str) -> None:
    cls = {"wires": "wiredata", "cncables": "cndata", "tscables": "tsdata"}[prop]
    first = 1 if cls != "wiredata" or not values["wires_"] else max(values["wires_"]) + 1
    has_cables = any(kind != "wiredata" for kind, _ in values["wires_"].values())
    if cls == "wiredata" and not has_cables:
        first = 1
    if len(values[prop]) > MAX_CONDUCTORS:
        raise ScriptError(f"{len(values[prop])} {prop}: give at most {MAX_CONDUCTORS}")
    for index, name in enumerate(values[prop], first):
        values["wires_"][index] = _snapshot(model, cls, name)
    values["nconds"] = max(values["nconds"], max(values["wires_"], default=0))


def _set_spacing(model: Model, values: Values) -> None:
    spacing = model.find("linespacing", values["spacing"]).v
    length_unit = unit(spacing.get("units", "ft"))
    x, h = spacing.get("x", ()), spacing.get("h", ())
    if len(x) != len(h):
        raise ScriptError(f"spacing '{values['spacing'][:40]}' has {len(x)} x and {len(h)} h: give as many")
    values["nconds"] = spacing.get("nconds", len(x))
    values["nphases"] = spacing.get("nphases", min(3, len(x)))
    for index, (xi, hi) in enumerate(zip(x, h, strict=True), 1):
        values["places"][index] = {"x": xi, "h": hi, "units": length_unit}


def _snapshot(model: Model, cls: str, name: str) -> tuple[str, Values]:
    return cls, dict(model.find(cls, name).v)


def _conductor(shape: Values, index: int) -> Conductor:
    place, wire = shape["places"].get(index), shape["wires_"].get(index)
    if place is None or wire is None or "x" not in place or "h" not in place:
        raise ScriptError(f"conductor {index} of its geometry lacks its wire, x or h: give them")
    cls, values = wire
    metres = METRES.get(place["units"], 1.0)
    radius_unit = unit(values.get("radunits", values.get("gmrunits", "none")))
    gmr_unit = unit(values.get("gmrunits", values.get("radunits", "none")))
    to_radius, to_gmr = METRES.get(radius_unit, 1.0), METRES.get(gmr_unit, 1.0)
    per_metre = 1.0 / METRES.get(unit(values.get("runits", "none")), 1.0)
    r_ac = values.get("rac", values.get("rdc", math.nan) * RAC_BY_RDC) * per_metre
    r_dc = values.get("rdc", values.get("rac", math.nan) / RAC_BY_RDC) * per_metre
    radius = values["radius"] if "radius" in values else values.get("diam", math.nan) / 2.0
    # OpenDSS takes one from the other as a bare number, each in its own unit.
    gmr = values.get("gmrac", radius * GMR_OF_SOLID)
    radius_m, gmr_m = (gmr / GMR_OF_SOLID if math.isnan(radius) else radius) * to_radius, gmr * to_gmr
    if not (r_ac > 0.0 and gmr_m > 0.0 and radius_m > 0.0):
        raise ScriptError(f"conductor {index} of its geometry lacks rac, gmr or diam above 0: give them")
    return Conductor(
        x_m=place["x"] * metres,
        h_m=place["h"] * metres,
        r_ac_ohm_per_m=r_ac,
        r_dc_ohm_per_m=r_dc,
        gmr_m=gmr_m,
        radius_m=radius_m,
        capacitance_radius_m=values["capradius"] * to_radius if "capradius" in values else None,
        cable=_cable(cls, values, to_radius, to_gmr, per_metre),
    )


def _cable(
    cls: str, values: Values, to_m: float, to_gmr: float, per_metre: float
) -> ConcentricNeutral | TapeShield | None:
    if cls == "wiredata":
        return None
    try:
        if cls == "cndata":
            return ConcentricNeutral(
                num_strands=values["k"],
                strand_diameter_m=values["diastrand"] * to_m,
                # OpenDSS takes the strands' GMR, its default too, to be in the unit of the core's.
                strand_gmr_m=values.get("gmrstrand", values["diastrand"] * GMR_OF_SOLID / 2.0) * to_gmr,
                strand_r_ac_ohm_per_m=values["rstrand"] * per_metre,
                eps_r=values.get("epsr", 2.3),
                insulation_thickness_m=values["inslayer"] * to_m,
                diameter_over_insulation_m=values["diains"] * to_m,
                diameter_over_cable_m=values["diacable"] * to_m,
            )
        return TapeShield(
            diameter_over_shield_m=values["diashield"] * to_m,
            tape_thickness_m=values["tapelayer"] * to_m,
            tape_lap_percent=values.get("tapelap", 20.0),
            eps_r=values.get("epsr", 2.3),
            insulation_thickness_m=values["inslayer"] * to_m,
            diameter_over_insulation_m=values["diains"] * to_m,
        )
    except KeyError as error:
        raise ScriptError(f"a cable of its geometry lacks {error}: give it") from error
