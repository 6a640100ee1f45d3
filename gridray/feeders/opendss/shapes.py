"""Load shapes and curves, with numbers in the script or in files."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gridray.feeders.components import LoadShape
from gridray.feeders.opendss.lexer import ScriptError, number, numbers, parameters, text
from gridray.feeders.opendss.properties import find_property, value_of

if TYPE_CHECKING:
    from gridray.feeders.opendss.files import Folder
    from gridray.feeders.opendss.model import Element, Model

FOLLOWED = frozenset({"daily", "yearly", "duty"})
WITH_FILES = frozenset({"loadshape", "xycurve"})
# OpenDSS's own shape "default".
DEFAULT_SHAPE = (
    *(0.677, 0.6256, 0.6087, 0.5833, 0.58028, 0.6025, 0.657, 0.7477, 0.832, 0.88, 0.94, 0.989),
    *(0.985, 0.98, 0.9898, 0.999, 1.0, 0.958, 0.936, 0.913, 0.876, 0.876, 0.828, 0.756),
)
_COLUMNS = {"mult": "p", "pmult": "p", "qmult": "q"}
_FILE_OPTIONS = ("file", "csvfile", "column", "header", "dblfile", "sngfile")
_ARRAYS = frozenset({"mult", "pmult", "qmult", "hour", "points", "xarray", "yarray"})


def set_value(shape: Element, prop: str, raw: str, folder: Folder) -> None:
    """Set a property of a shape or curve, reading the file that it names.

    Raises:
        ScriptError: the file or a number is wrong.
    """
    values = shape.v
    if prop in _ARRAYS:
        values[_COLUMNS.get(prop, prop)] = _array(raw, folder)
    elif prop in {"csvfile", "pqcsvfile"}:
        _, content = folder.read(text(raw))
        rows = [re.findall(r"[^\s,]+", line) for line in content.splitlines()]
        rows = [row for row in rows if row]
        if prop == "csvfile":
            values["p"] = tuple(number(row[-1]) for row in rows)
        else:
            values["p"] = tuple(number(row[-2 if len(row) > 1 else -1]) for row in rows)
            values["q"] = tuple(number(row[-1]) for row in rows if len(row) > 1)
    elif prop in {"sngfile", "dblfile"}:
        raise ScriptError(f"{prop} is a binary file: give the numbers as csvfile")
    elif prop == "like":
        raise ScriptError("like of a shape or curve: write its numbers again")
    elif prop == "action":
        if text(raw).lower().startswith("n"):
            _normalise(values)
    else:
        values[prop] = value_of(shape.cls, find_property(shape.cls, prop), raw)
        _after(values, prop)


def peak(model: Model, name: str) -> tuple[float, float] | None:
    """Return the largest power of a shape of actual values and the reactive power with it, else None.

    OpenDSS gives them to the load or generator that is told to follow the shape.
    """
    shape = model.elements.get("loadshape", {}).get(name)
    if shape is None or not shape.v.get("useactual"):
        return None
    count = shape.v.get("npts")
    p, q = (shape.v.get(column) or () for column in ("p", "q"))
    if not p[:count]:
        return None
    at = max(range(len(p[:count])), key=lambda point: abs(p[point]))
    return p[at], q[at] if at < len(q) else 0.0


def convert(model: Model, used: set[str]) -> list[LoadShape]:
    """Return the shapes of the model, and OpenDSS's own "default" where it is used and not defined."""
    shapes = []
    known = model.elements.get("loadshape", {})
    for item in known.values():
        if item.name in used:
            try:
                shapes.append(_shape(item))
            except ScriptError as error:
                model.problems.append(f"{item.where}: {item.title}: {error}")
        else:
            model.leave_out("load shape that no load or generator uses is left out", item.where)
    if "default" in used and "default" not in known:
        shapes.append(LoadShape(name="default", interval_h=1.0, p_mult=DEFAULT_SHAPE))
    return shapes


def _shape(item: Element) -> LoadShape:
    values = item.v
    count = values.get("npts")
    p = values.get("p", ())
    p, q = (column[:count] if count and column else column for column in (p, values.get("q")))
    if not p:
        raise ScriptError("it has no numbers: give mult")
    if q is not None and len(q) != len(p):
        raise ScriptError(f"it has {len(p)} numbers in mult and {len(q)} in qmult: give as many")
    interval = values.get("interval", 1.0)
    if interval <= 0.0:
        interval = _even_interval(values.get("hour", ()))
    return LoadShape(name=item.name, interval_h=interval, p_mult=p, q_mult=q, is_actual=values.get("useactual", False))


def _even_interval(hours: tuple[float, ...]) -> float:
    steps = [b - a for a, b in pairwise(hours)]
    if not steps or steps[0] <= 0.0 or any(abs(step - steps[0]) > 1e-6 * steps[0] for step in steps):
        raise ScriptError("its points lie at uneven hours: give equal intervals")
    return steps[0]


def _array(raw: str, folder: Folder) -> tuple[float, ...]:
    inner = text(raw)
    if "=" not in inner:
        return numbers(raw)
    options: dict[str, str] = {}
    for given, value in parameters(inner):
        option = next((known for known in _FILE_OPTIONS if given and known.startswith(given)), None)
        if option is None:
            raise ScriptError(f"'{inner[:40]}' has more than file, column and header: take out '{given or value[:40]}'")
        options[option] = text(value)
    name = options.get("file") or options.get("csvfile")
    if name is None:
        raise ScriptError(f"'{inner[:40]}' names no text file: give (file=name)")
    column = int(number(options.get("column", "1"))) - 1
    skip = 1 if options.get("header", "n").lower().startswith("y") else 0
    _, content = folder.read(name)
    rows = [re.findall(r"[^\s,]+", line) for line in content.splitlines()[skip:]]
    if any(row and not 0 <= column < len(row) for row in rows):
        raise ScriptError(f"'{name[:80]}' lacks column {column + 1} in a row: correct it")
    return tuple(number(row[column]) for row in rows if row)


def _after(values: dict[str, Any], prop: str) -> None:
    if prop == "sinterval":
        values["interval"] = values[prop] / 3600.0
    elif prop == "minterval":
        values["interval"] = values[prop] / 60.0


def _normalise(values: dict[str, Any]) -> None:
    p = values.get("p", ())
    top = values.get("pbase") or max(map(abs, p), default=0.0)
    if top > 0.0:
        values["p"] = tuple(value / top for value in p)
    if values.get("q"):
        q_top = values.get("qbase") or max(map(abs, values["q"]))
        values["q"] = tuple(value / q_top for value in values["q"]) if q_top > 0.0 else values["q"]
    values["useactual"] = False
