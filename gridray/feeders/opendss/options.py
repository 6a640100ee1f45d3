"""Options of the set command."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from gridray.feeders.opendss.lexer import Parameter, ScriptError, number, numbers, text
from gridray.feeders.opendss.loads import set_all

if TYPE_CHECKING:
    from gridray.feeders.opendss.model import Model

# In the order of OpenDSS's table: an abbreviation means the first that starts with it.
OPTIONS = tuple(
    re.findall(
        r"\S+",
        """
type element hour sec year frequency stepsize mode random number time class object circuit editor tolerance
maxiterations h loadmodel loadmult normvminpu normvmaxpu emergvminpu emergvmaxpu %mean %stddev ldcurve %growth genkw
genpf capkvar addtype allowduplicates zonelock ueweight lossweight ueregs lossregs voltagebases algorithm trapezoidal
autobuslist controlmode tracecontrol genmult defaultdaily defaultyearly allocationfactors cktmodel pricesignal
pricecurve terminal basefrequency harmonics maxcontroliter bus datapath keeplist reduceoption demandinterval %normal
diverbose casename markercode nodewidth log recorder overloadreport voltexceptionreport cfactors showexport
numallociterations defaultbasefrequency markswitches switchmarkercode daisysize marktransformers transmarkercode
transmarkersize loadshapeclass earthmodel querylog markcapacitors markregulators markpvsystems markstorage
capmarkercode regmarkercode pvmarkercode storemarkercode capmarkersize regmarkersize pvmarkersize storemarkersize
neglectloady markfuses fusemarkercode fusemarkersize markreclosers reclosermarkercode reclosermarkersize
registryupdate markrelays relaymarkercode relaymarkersize processtime totaltime steptime sampleenergymeters
miniterations dssvisualizationtool keepload zmag seasonrating seasonsignal linetypes eventlogdefault
longlinecorrection showreports numcpus numcores numactors activeactor cpu actorprogress parallel concatenatereports
numanodes
""",
    )
)
EARTH_MODELS = ("carson", "fullcarson", "deri")
_MULTIPLIERS = {"loadmult": "load_mult", "genmult": "generator_mult"}
SNAPSHOT = ("snap", "power")


def set_options(model: Model, given: list[Parameter], place: str) -> None:
    """Apply the options of a set or solve command."""
    for name, raw in given:
        if name is None:
            continue
        _set(model, _option_name(name), raw, place)


def _option_name(word: str) -> str:
    """Return the option that a word abbreviates; a word near one is taken for a slip, another for a newer option."""
    found = word if word in OPTIONS else next((option for option in OPTIONS if option.startswith(word)), None)
    if found is None and (near := difflib.get_close_matches(word, OPTIONS, 1, 0.7)):
        raise ScriptError(f"there is no option '{word[:40]}': did you mean '{near[0]}'?")
    return found or word


def _set(model: Model, name: str, raw: str, place: str) -> None:
    low = text(raw).lower()
    _refuse(name, low, raw)
    if name in {"defaultbasefrequency", "basefrequency", "frequency"}:
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
    elif name in _MULTIPLIERS:
        setattr(model, _MULTIPLIERS[name], number(raw))
    elif name in {"allocationfactors", "cfactors"}:
        set_all(model, name.removesuffix("s"), number(raw))
    elif name == "voltagebases":
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
    if name == "loadmodel" and not low.startswith("p"):
        raise ScriptError("loadmodel=admittance makes all loads impedances: give them model=2 instead")
    if name == "year" and number(raw) != 0.0:
        raise ScriptError("year applies growth to loads: set it to 0")
    if name == "longlinecorrection" and low.startswith(("y", "t")):
        raise ScriptError("longlinecorrection changes the impedance of lines: take it out")
    if name == "cktmodel" and low.startswith("p"):
        raise ScriptError("cktmodel=positive is a one-phase equivalent: use multiphase")


def _positive(raw: str) -> float:
    value = number(raw)
    if not value > 0.0:
        raise ScriptError(f"'{raw[:40]}' is not above 0: give a number above 0")
    return value
