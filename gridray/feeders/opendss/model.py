"""Elements of an OpenDSS model as its script has left them, and what the reader has to say about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from gridray.feeders.opendss.lexer import ScriptError, text

METRES = {
    "mi": 1609.344,
    "kft": 304.8,
    "km": 1000.0,
    "m": 1.0,
    "ft": 0.3048,
    "in": 0.0254,
    "cm": 0.01,
    "mm": 0.001,
}
_UNIT_STARTS = (("none", "no"), ("mi", "mi"), ("kft", "kf"), ("km", "km"), ("m", "me"), ("ft", "f"), ("in", "in"))
MAX_PHASES = 100


@dataclass
class Element:
    """One element: its values by lower-case property name, and the file and line that made it."""

    cls: str
    name: str
    where: str
    v: dict[str, Any]

    @property
    def title(self) -> str:
        """Class and name as OpenDSS writes them."""
        return f"{self.cls}.{self.name}"


@dataclass
class Model:
    """What a script has built so far."""

    name: str = ""
    has_circuit: bool = False
    frequency_hz: float = 60.0
    load_mult: float = 1.0
    generator_mult: float = 1.0
    earth_model: str = "deri"
    other_mode: str = ""
    has_controls: bool = True
    base_kv: tuple[float, ...] = ()
    elements: dict[str, dict[str, Element]] = field(default_factory=dict)
    bus_xy: dict[str, tuple[float, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    first_place: dict[str, str] = field(default_factory=dict)

    def of(self, cls: str) -> list[Element]:
        """Return the enabled elements of a class, in order of definition."""
        return [item for item in self.elements.get(cls, {}).values() if item.v.get("enabled", True)]

    def find(self, cls: str, name: str) -> Element:
        """Return an element.

        Raises:
            ScriptError: there is none.
        """
        found = self.elements.get(cls, {}).get(name)
        if found is None:
            raise ScriptError(f"there is no {cls} '{name}' so far: define it before its use, or correct the name")
        return found

    def leave_out(self, what: str, where: str) -> None:
        """Count something that does not change the solution, for one note on all of its kind."""
        self.left_out[what] += 1
        self.first_place.setdefault(what, where)

    def all_notes(self) -> tuple[str, ...]:
        """Return the notes, those of one kind as one line."""
        counted = (
            f"{self.first_place[what]}: {what}" + (f" (and {count - 1} more)" if count > 1 else "")
            for what, count in self.left_out.items()
        )
        return (*self.notes, *counted)


def unit(raw: str) -> str:
    """Return the length unit that a value names.

    Raises:
        ScriptError: it names none.
    """
    low = text(raw).lower()
    if low in METRES:
        return low
    for name, start in _UNIT_STARTS:
        if low.startswith(start):
            return name
    raise ScriptError(f"'{raw[:40]}' is not a unit of length: give one of none, {', '.join(METRES)}")


def convert_units(source: str, target: str) -> float:
    """Return how many target units one source unit has; 1 if either is none, as OpenDSS does."""
    return 1.0 if "none" in (source, target) else METRES[source] / METRES[target]


def connection(raw: str) -> str:
    """Return wye, delta or series.

    Raises:
        ScriptError: it is none of them.
    """
    low = text(raw).lower()
    if low.startswith(("w", "y", "ln")):
        return "wye"
    if low.startswith(("d", "ll")):
        return "delta"
    if low.startswith("s"):
        return "series"
    raise ScriptError(f"'{raw[:40]}' is not a connection: give wye or delta")


def bus_and_nodes(bus: str, phases: int, conductors: int) -> tuple[str, tuple[int, ...]]:
    """Return the bus of "645.2.3" and its nodes; those not given are 1 to phases, then ground.

    Raises:
        ScriptError: a node is no whole number.
    """
    name, *given = text(bus).lower().split(".")
    try:
        nodes = [int(node) for node in given if node]
    except ValueError:
        raise ScriptError(f"bus '{bus[:40]}' has a node that is no number: write bus.1.2.3") from None
    if any(node < 0 for node in nodes):
        raise ScriptError(f"bus '{bus[:40]}' has a negative node: write bus.1.2.3")
    default = [*range(1, phases + 1), *([0] * (conductors - phases))]
    return name, tuple([*nodes, *default[len(nodes) :]][:conductors])


def num_phases(value: int) -> int:
    """Return the number of phases.

    Raises:
        ScriptError: it is no possible one.
    """
    if not 1 <= value <= MAX_PHASES:
        raise ScriptError(f"{value} phases: give 1 to {MAX_PHASES}")
    return value
