"""Open and closed conductors of lines: what the script switches, and the state that its switching devices have.

Devices act in the order of the script, as OpenDSS's do (SwtControl, Fuse, Relay and Recloser of DSS C-API 0.14): a
state given to a device switches its line at once; a relay, recloser or fuse without one closes its line. What a
SwtControl is told by normal or action holds unless it is locked or the script turns controls off. Devices that would
trip on current or voltage are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gridray.feeders.opendss.lexer import ScriptError

if TYPE_CHECKING:
    from gridray.feeders.opendss.model import Element, Model

Values = dict[str, Any]

PROTECTION = ("fuse", "relay", "recloser")
CLASSES = ("swtcontrol", *PROTECTION)


def defaults(_: Model) -> Values:
    """Return a device's defaults."""
    return {"switchedobj": "", "monitoredobj": "", "switchedterm": 1, "state": (), "lock": False, "command": None}


def switch(line: Element, terminal: int, conductor: int, *, is_open: bool) -> None:
    """Open or close one conductor, counted from 1, or all (0), of a line at a terminal.

    Raises:
        ScriptError: the line has no such terminal or conductor.
    """
    n = line.v["phases"]
    if terminal not in {1, 2} or not 0 <= conductor <= n:
        raise ScriptError(f"{line.title} has no conductor {conductor} at terminal {terminal}: it has 2 and {n}")
    ends = {(terminal, c) for c in (range(1, n + 1) if conductor == 0 else (conductor,))}
    line.v["open_ends"] = line.v["open_ends"] | ends if is_open else line.v["open_ends"] - ends


def after(model: Model, device: Element, prop: str) -> None:
    """Follow up a property of a switching device."""
    values = device.v
    if prop == "state":
        values["command"] = None
        _apply(model, device)
    elif prop in {"normal", "action"}:
        opened = _opened(values[prop])
        if device.cls == "swtcontrol":
            values["command"] = opened[:1]
        elif prop == "action":
            values["state"] = values["action"]
            _apply(model, device)


def finish(model: Model, device: Element) -> None:
    """Close the line of a protective device that has no state of its own."""
    if device.cls in PROTECTION and not device.v["state"]:
        device.v["state"] = ("closed",) * 3
        _apply(model, device)


def settle(model: Model) -> None:
    """Let the commands of switch controls act, and note what is left out."""
    for device in model.of("swtcontrol"):
        command = device.v["command"]
        is_open_now = any(_opened(device.v["state"]))
        if command and command[0] != is_open_now and not device.v["lock"] and model.has_controls:
            line = _line(model, device)
            if line is not None:
                switch(line, device.v["switchedterm"], 0, is_open=command[0])
    for cls in PROTECTION:
        for device in model.of(cls):
            model.leave_out(f"{cls} is left out: it holds its state and trips on nothing", device.where)


def _apply(model: Model, device: Element) -> None:
    """Switch the device's line to the device's state, a fuse conductor by conductor."""
    line = _line(model, device)
    if line is None:
        return
    opened, terminal = _opened(device.v["state"]), device.v["switchedterm"]
    if device.cls != "fuse":
        switch(line, terminal, 0, is_open=opened[0])
        return
    for conductor, is_open in enumerate(opened[: line.v["phases"]], 1):
        switch(line, terminal, conductor, is_open=is_open)


def _opened(states: tuple[str, ...]) -> tuple[bool, ...]:
    return tuple(state.startswith(("o", "t")) for state in states)


def _line(model: Model, device: Element) -> Element | None:
    """Return the line that a device switches; what switches nothing that GridRay has stays as it is."""
    title = device.v["switchedobj"] or device.v["monitoredobj"]
    cls, _, name = title.partition(".")
    if not title:
        return None
    if cls != "line":
        if any(_opened(device.v["state"])) or device.v["command"]:
            raise ScriptError(f"it switches {title[:40]}: put a line with switch=yes in series and switch that")
        return None
    return model.find("line", name)
