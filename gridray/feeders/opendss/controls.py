"""Controls of regulators and capacitors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gridray.feeders.components import CapacitorControl, RegulatorControl
from gridray.feeders.opendss.lexer import ScriptError, number

if TYPE_CHECKING:
    from gridray.feeders.opendss.model import Element, Model

Values = dict[str, Any]

_KINDS: dict[str, Literal["kvar", "voltage", "current", "pf", "time"]] = {
    "c": "current",
    "v": "voltage",
    "k": "kvar",
    "t": "time",
    "p": "pf",
}


def after(_: Model, control: Element, prop: str) -> None:
    """Follow up a property of a regulator control."""
    if prop == "winding":
        control.v["tapwinding"] = control.v["winding"]


def finish(model: Model, control: Element) -> None:
    """Set the tap of the transformer where the edit gave tapnum."""
    values = control.v
    tap_number = values.pop("tapnum", None)
    if tap_number is None or not values.get("transformer"):
        return
    windings = _transformer(model, values["transformer"]).v["windings_"]
    winding = windings[_index(values.get("tapwinding", 1), windings)]
    if winding["numtaps"] < 1:
        raise ScriptError("tapnum is given but the winding has no taps: give it numtaps")
    middle = (winding["maxtap"] + winding["mintap"]) / 2.0
    tap = middle + tap_number * (winding["maxtap"] - winding["mintap"]) / winding["numtaps"]
    winding["tap"] = min(max(tap, winding["mintap"]), winding["maxtap"])


def convert(model: Model) -> tuple[list[RegulatorControl], list[CapacitorControl]]:
    """Return the controls of regulators and of capacitors."""
    regulators: list[RegulatorControl] = []
    capacitors: list[CapacitorControl] = []
    for item in (*model.of("regcontrol"), *model.of("capcontrol")):
        try:
            if item.cls == "regcontrol" and item.v.get("maxtapchange", 1) < 1:
                model.leave_out("regulator control with maxtapchange=0 is left out: it does not act", item.where)
            elif item.cls == "regcontrol":
                regulators.append(_regulator(model, item))
            else:
                capacitors.append(_capacitor(model, item))
        except ScriptError as error:
            model.problems.append(f"{item.where}: {item.title}: {error}")
    return regulators, capacitors


def _regulator(model: Model, item: Element) -> RegulatorControl:
    values = item.v
    if not values.get("transformer"):
        raise ScriptError("it controls no transformer: give transformer")
    windings = _transformer(model, values["transformer"]).v["windings_"]
    winding = values.get("winding", 1)
    _index(winding, windings)
    if values.get("tapwinding", winding) != winding:
        raise ScriptError(f"it watches winding {winding} and taps {values['tapwinding']}: give one winding for both")
    if values.get("ldc_z", 0.0) or values.get("cogen"):
        raise ScriptError("it has ldc_z or cogen: GridRay's line drop has R and X only")
    if values.get("reversible"):
        model.leave_out("reverse settings of a regulator are left out: they act on reverse power only", item.where)
    if values.get("vlimit", 0.0):
        model.leave_out("vlimit of a regulator is kept but not acted on by free controls", item.where)
    bus = values.get("bus") or None
    pt_ratio = values.get("ptratio", 60.0)
    if bus is not None and values.get("remoteptratio"):
        if values.get("vlimit", 0.0) and values["remoteptratio"] != pt_ratio:
            raise ScriptError("it has vlimit and a remoteptratio of its own: leave one out")
        pt_ratio = values["remoteptratio"]
    if not pt_ratio > 0.0:
        raise ScriptError(f"its ptratio is {pt_ratio:g}: give a ratio above 0")
    return RegulatorControl(
        name=item.name,
        transformer=values["transformer"],
        vreg_v=values.get("vreg", 120.0),
        band_v=values.get("band", 3.0),
        pt_ratio=pt_ratio,
        ct_primary_a=values.get("ctprim", 300.0),
        r_v=values.get("r", 0.0),
        x_v=values.get("x", 0.0),
        delay_s=values.get("delay", 15.0),
        tap_delay_s=values.get("tapdelay", 2.0),
        max_tap_change=values.get("maxtapchange", 16),
        winding=winding,
        pt_phase=_phase(values, "ptphase", lowest=1),
        bus=bus,
        v_limit_v=values.get("vlimit", 0.0),
    )


def _capacitor(model: Model, item: Element) -> CapacitorControl:
    values = item.v
    if not values.get("capacitor"):
        raise ScriptError("it controls no capacitor: give capacitor")
    bank = model.find("capacitor", values["capacitor"])
    if bank.v["numsteps"] > 1:
        raise ScriptError(f"its bank has {bank.v['numsteps']} steps: write a capacitor and a control for each")
    cls, _, name = values.get("element", "").partition(".")
    if not name:
        raise ScriptError("it watches no element: give element=line.name")
    model.find(cls, name)
    kind = _KINDS.get(values.get("type", "current")[:1])
    if kind is None or values.get("usermodel"):
        raise ScriptError(f"its type is {values['type'][:40]}: give current, voltage, kvar, pf or time")
    if values.get("vbus"):
        raise ScriptError("it watches another bus by vbus: name an element at that bus")
    return CapacitorControl(
        name=item.name,
        capacitor=values["capacitor"],
        kind=kind,
        element=values["element"],
        terminal=values.get("terminal", 1),
        on_setting=values.get("onsetting", 300.0),
        off_setting=values.get("offsetting", 200.0),
        pt_ratio=values.get("ptratio", 60.0),
        ct_ratio=values.get("ctratio", 60.0),
        pt_phase=_phase(values, "ptphase", lowest=0),
        ct_phase=_phase(values, "ctphase", lowest=0),
        voltage_override=values.get("voltoverride", False),
        vmin_v=values.get("vmin", 115.0),
        vmax_v=values.get("vmax", 126.0),
        delay_s=values.get("delay", 15.0),
        delay_off_s=values.get("delayoff", 15.0),
        dead_time_s=values.get("deadtime", 300.0),
    )


def _phase(values: Values, prop: str, *, lowest: int) -> int:
    """Return the phase watched; 0 is the average."""
    given = values.get(prop, "1")
    if lowest == 0 and given.startswith("av"):
        return 0
    if given.startswith(("av", "ma", "mi")):
        raise ScriptError(f"{prop}={given} watches several phases: give the number of one")
    phase = round(number(given))
    if not 1 <= phase <= 3:
        raise ScriptError(f"{prop} is {phase}: give 1, 2 or 3")
    return phase


def _transformer(model: Model, name: str) -> Element:
    name = name.removeprefix("transformer.")
    if name.startswith("autotrans.") or name not in model.elements.get("transformer", {}):
        return (
            model.find("autotrans", name.removeprefix("autotrans."))
            if _is_auto(model, name)
            else model.find("transformer", name)
        )
    return model.elements["transformer"][name]


def _is_auto(model: Model, name: str) -> bool:
    return name.startswith("autotrans.") or name in model.elements.get("autotrans", {})


def _index(winding: int, windings: list[Values]) -> int:
    if not 1 <= winding <= len(windings):
        raise ScriptError(f"its winding is {winding}, of {len(windings)}: correct it")
    return winding - 1
