"""Make and edit elements: defaults, positions, like, and what a property does to others of its element."""

from __future__ import annotations

import copy
import difflib
from typing import TYPE_CHECKING, Any, Final

from gridray.feeders.opendss import (
    controls,
    geometry,
    lines,
    loads,
    machines,
    shapes,
    shunts,
    sources,
    switching,
    transformers,
)
from gridray.feeders.opendss.lexer import Parameter, ScriptError
from gridray.feeders.opendss.model import Element, Model, num_phases
from gridray.feeders.opendss.properties import HARMLESS, NAMES, UNSUPPORTED, find_property, value_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridray.feeders.opendss.files import Folder

Values = dict[str, Any]

DEFAULTS: Final[dict[str, Callable[[Model], Values]]] = {
    "line": lines.defaults,
    "linecode": lines.code_defaults,
    "linegeometry": geometry.defaults,
    "vsource": sources.defaults,
    "transformer": transformers.defaults,
    "autotrans": transformers.auto_defaults,
    "xfmrcode": transformers.defaults,
    "load": loads.defaults,
    "generator": machines.generator_defaults,
    "pvsystem": machines.pv_defaults,
    "storage": machines.storage_defaults,
    "capacitor": shunts.capacitor_defaults,
    "reactor": shunts.reactor_defaults,
    **dict.fromkeys(switching.CLASSES, switching.defaults),
}
# What follows from setting a property, called as after(model, element, property).
AFTER: Final[dict[str, Callable[[Model, Element, str], None]]] = {
    "line": lines.after,
    "linecode": lines.after_code,
    "linegeometry": geometry.after,
    "vsource": sources.after,
    "transformer": transformers.after,
    "autotrans": transformers.after,
    "xfmrcode": transformers.after,
    "load": loads.after,
    "generator": machines.after_generator,
    "capacitor": shunts.after_capacitor,
    "reactor": shunts.after_reactor,
    "pvsystem": machines.after_inverter,
    "storage": machines.after_inverter,
    "regcontrol": controls.after,
    **dict.fromkeys(switching.CLASSES, switching.after),
}
# What is worked out at the end of an edit.
FINISH: Final[dict[str, Callable[[Model, Element], None]]] = {
    "load": loads.finish,
    "vsource": sources.finish,
    "linecode": lines.finish_code,
    "regcontrol": controls.finish,
    **dict.fromkeys(switching.CLASSES, switching.finish),
}
# What like does not copy, buses, and by class the defaults that come back (OpenDSS's MakeLike).
_NOT_ALIKE = frozenset({"bus1", "bus2"})
_NOT_ALIKE_OF: Final[dict[str, tuple[str, ...]]] = {
    "transformer": ("%imag", "ppm_antifloat", "leadlag"),
    "autotrans": ("%imag", "ppm_antifloat", "leadlag"),
    "xfmrcode": ("%imag", "ppm_antifloat", "leadlag"),
    "linecode": ("units",),
    "line": ("open_ends",),
    "pvsystem": ("kvar", "reactive_by", "pfpriority"),
}
_DELTAS_COPIED_BADLY = frozenset({"load", "generator", "pvsystem", "storage"})
_ABOVE_ZERO = frozenset({"basefreq", "rho", "frequency"})
LIBRARY = frozenset({"linecode", "xfmrcode", "loadshape", "wiredata", "linegeometry", "linespacing", "xycurve"})


def make(model: Model, cls: str, name: str, where: str) -> Element:
    """Return a new element with OpenDSS's defaults; an element of the library that exists is edited anew.

    Raises:
        ScriptError: it has no name, or the circuit is there already.
    """
    if not name:
        raise ScriptError(f"a new {cls} has no name: write new {cls}.name")
    if cls == "circuit":
        if model.has_circuit:
            raise ScriptError("there is a circuit already: write clear before a new one")
        model.has_circuit, model.name = True, name
        cls, name = "vsource", "source"
    known = model.elements.setdefault(cls, {})
    if name in known:
        if cls not in LIBRARY:
            model.leave_out("element defined twice: the second definition edits the first", where)
        return known[name]
    known[name] = Element(cls, name, where, DEFAULTS.get(cls, _no_values)(model))
    return known[name]


def edit(model: Model, element: Element, given: list[Parameter], folder: Folder) -> Element:
    """Set properties in their order; a value without name goes to the property after the last one.

    Return the element that a following ~ edits: after like it is the one that was copied, as in OpenDSS.

    Raises:
        ScriptError: a property is not known or a value is of the wrong kind.
    """
    cls = element.cls
    if cls in HARMLESS or cls in UNSUPPORTED:
        _edit_other(element, given)
        return element
    names = NAMES[cls]
    index, active = -1, element
    for name, raw in given:
        index = index + 1 if name is None else find_property(cls, name)
        if index >= len(names):
            raise ScriptError(f"value '{raw[:40]}' comes after the last property of {cls}: name the property")
        prop = names[index]
        if cls in shapes.WITH_FILES:
            shapes.set_value(element, prop, raw, folder)
            continue
        value = value_of(cls, index, raw)
        if prop == "like":
            active = _copy(model, element, value)
            continue
        _set(model, element, prop, value)
    if cls in FINISH:
        FINISH[cls](model, element)
    return active


def _set(model: Model, element: Element, prop: str, value: Any) -> None:  # noqa: ANN401
    """Set a value and what follows from it; a value that is refused leaves the old one."""
    had, old = prop in element.v, element.v.get(prop)
    element.v[prop] = value
    try:
        if prop in {"phases", "nphases"}:
            num_phases(value)
        elif prop in _ABOVE_ZERO:
            _check_above_zero(prop, value)
        if element.cls in AFTER:
            AFTER[element.cls](model, element, prop)
    except ScriptError:
        if had:
            element.v[prop] = old
        else:
            del element.v[prop]
        raise


def _check_above_zero(prop: str, value: float) -> None:
    if not value > 0.0:
        raise ScriptError(f"{prop} is {value:g}: give a number above 0")


def _edit_other(element: Element, given: list[Parameter]) -> None:
    for name, raw in given:
        if name == "enabled":
            element.v["enabled"] = raw[:1].lower() in {"y", "t"}


def _copy(model: Model, element: Element, name: str) -> Element:
    """Make an element like another, which is returned."""
    known = model.elements.get(element.cls, {})
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else "define it first"
        raise ScriptError(f"{element.title} is like '{name[:40]}', which there is not: {hint}")
    values = copy.deepcopy(known[name].v)
    for prop in _NOT_ALIKE & values.keys():
        values[prop] = ""
    for winding in values.get("windings_", ()):
        winding["bus"] = ""
    if element.cls == "line" and values["code"] is None and (values["is_sequence"] or values.get("has_geometry")):
        model.leave_out("line made by like keeps the impedance; OpenDSS gives it the default", element.where)
    if element.cls == "line" and values["code"] is not None and values["units"] not in {"none", values["code_units"]}:
        model.leave_out("line made by like keeps its units; OpenDSS drops them", element.where)
    if values.get("conn") == "delta" and element.cls in _DELTAS_COPIED_BADLY:
        model.leave_out("delta made by like stays one; DSS C-API 0.14 wires it to ground", element.where)
    fresh = DEFAULTS.get(element.cls, _no_values)(model)
    for prop in _NOT_ALIKE_OF.get(element.cls, ()):
        values.pop(prop, None)
        if prop in fresh:
            values[prop] = fresh[prop]
    element.v.clear()
    element.v.update(values)
    return known[name]


def _no_values(_: Model) -> Values:
    return {}
