"""Classes and properties by name, abbreviation and position; values by kind."""

from __future__ import annotations

import difflib
from typing import Any

from gridray.feeders.opendss.lexer import ScriptError, matrix, number, numbers, text, words, yes
from gridray.feeders.opendss.tables import TABLES

MAX_WHOLE_NUMBER = 10**7

# Without influence on a snapshot of the power flow.
HARMLESS = (
    "tshape",
    "priceshape",
    "growthshape",
    "tcc_curve",
    "spectrum",
    "dynamicexp",
    "monitor",
    "energymeter",
    "sensor",
)
# Nothing in GridRay stands for them.
UNSUPPORTED = (
    "isource",
    "vccs",
    "fault",
    "gendispatcher",
    "storagecontroller",
    "upfc",
    "upfccontrol",
    "espvlcontrol",
    "indmach012",
    "gicsource",
    "invcontrol",
    "expcontrol",
    "gicline",
    "gictransformer",
    "vsconverter",
)
CLASSES = ("circuit", *TABLES, *HARMLESS, *UNSUPPORTED)

NAMES: dict[str, tuple[str, ...]] = {
    cls: tuple(entry.rpartition(":")[0].lower() for entry in table.split()) for cls, table in TABLES.items()
}
_KINDS = {cls: tuple(entry.rpartition(":")[2] for entry in table.split()) for cls, table in TABLES.items()}
_INDEX = {cls: {name: index for index, name in reversed(list(enumerate(names)))} for cls, names in NAMES.items()}


def find_class(name: str) -> str:
    """Return the class of this name.

    Raises:
        ScriptError: there is none.
    """
    if name in CLASSES:
        return name
    near = difflib.get_close_matches(name, CLASSES, 1)
    hint = f"did you mean '{near[0]}'?" if near else "give a class of OpenDSS"
    raise ScriptError(f"there is no class '{name[:40]}': {hint}")


def find_property(cls: str, name: str) -> int:
    """Return the index of a property by its name or its beginning, the first in table order that fits.

    Raises:
        ScriptError: none fits.
    """
    index = _INDEX[cls].get(name)
    if index is None:
        index = next((i for i, known in enumerate(NAMES[cls]) if name and known.startswith(name)), None)
        if index is None:
            near = difflib.get_close_matches(name, NAMES[cls], 1)
            hint = f"did you mean '{near[0]}'?" if near else "leave it out or correct it"
            raise ScriptError(f"class {cls} has no property '{name[:40]}': {hint}")
        _INDEX[cls][name] = index
    return index


def value_of(cls: str, index: int, raw: str) -> Any:  # noqa: ANN401
    """Return the value in the kind that the property has.

    Raises:
        ScriptError: it is of another kind.
    """
    kind = _KINDS[cls][index]
    try:
        return _READERS[kind](raw)
    except ScriptError as error:
        raise ScriptError(f"{cls} {NAMES[cls][index]}: {error}") from None


def _whole(raw: str) -> int:
    value = number(raw)
    if abs(value) > MAX_WHOLE_NUMBER:
        raise ScriptError(f"'{raw[:40]}' is too large: give a smaller whole number")
    return round(value)


def _lower(raw: str) -> str:
    return text(raw).lower()


_READERS: dict[str, Any] = {
    "f": number,
    "i": _whole,
    "b": yes,
    "s": _lower,
    "a": numbers,
    "l": lambda raw: tuple(text(word).lower() for word in words(raw)),
    "m": matrix,
}
