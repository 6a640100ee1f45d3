"""Options of the set command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridray.feeders.opendss.lexer import Parameter, ScriptError, number, numbers, text

if TYPE_CHECKING:
    from gridray.feeders.opendss.model import Model

EARTH_MODELS = ("carson", "fullcarson", "deri")
SNAPSHOT = ("snap", "power")


def set_options(model: Model, given: list[Parameter], place: str) -> None:
    """Apply the options of a set or solve command."""
    for name, raw in given:
        if name is None:
            continue
        _set(model, name, raw, place)


def _set(model: Model, name: str, raw: str, place: str) -> None:
    low = text(raw).lower()
    _refuse(name, low, raw)
    if name in {"defaultbasefrequency", "frequency"}:
        hertz = _positive(raw)
        if model.has_circuit and hertz != model.frequency_hz:
            raise ScriptError(
                f"{name}={hertz:g} after a circuit of {model.frequency_hz:g} Hz: set it before new circuit"
            )
        model.frequency_hz = hertz
    elif name == "mode":
        model.other_mode = "" if low.startswith(SNAPSHOT) else f"{place}: mode={low[:40]}"
    elif name == "controlmode":
        model.has_controls = not low.startswith("o")
    elif name == "loadmult":
        model.load_mult = number(raw)
    elif name == "genmult":
        model.generator_mult = number(raw)
    elif name.startswith("voltageb"):
        model.base_kv = tuple(_positive(str(base)) for base in numbers(raw))
    elif name == "earthmodel":
        found = next((known for known in EARTH_MODELS if low and known.startswith(low)), None)
        if found is None:
            raise ScriptError(f"earth model '{low[:40]}' is not known: give one of {', '.join(EARTH_MODELS)}")
        model.earth_model = found
    else:
        model.leave_out(f"option '{name[:40]}' is left out", place)


def _refuse(name: str, low: str, raw: str) -> None:
    """Raise for options that make OpenDSS solve something else than a power flow of what is written."""
    if name == "loadmodel" and low.startswith("a"):
        raise ScriptError("loadmodel=admittance makes all loads impedances: give them model=2 instead")
    if name == "year" and number(raw) != 0.0:
        raise ScriptError("year applies growth to loads: set it to 0")
    if name.startswith("cktmodel") and low.startswith("p"):
        raise ScriptError("cktmodel=positive is a one-phase equivalent: use multiphase")


def _positive(raw: str) -> float:
    value = number(raw)
    if not value > 0.0:
        raise ScriptError(f"'{raw[:40]}' is not above 0: give a number above 0")
    return value
