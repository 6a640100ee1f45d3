"""Run the commands of OpenDSS scripts, file by file, on a model."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from gridray.feeders.opendss.edit import edit, make
from gridray.feeders.opendss.lexer import (
    Parameter,
    ScriptError,
    number,
    numbers,
    parameters,
    text,
    without_comment,
)
from gridray.feeders.opendss.model import Element, Model
from gridray.feeders.opendss.options import set_options
from gridray.feeders.opendss.properties import HARMLESS, UNSUPPORTED, find_class
from gridray.feeders.opendss.switching import switch

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridray.feeders.opendss.files import Folder

MAX_DEPTH = 20
MAX_PROBLEMS = 50
# In the order of OpenDSS's table: an abbreviation means the first that starts with it.
COMMANDS = tuple(
    re.findall(
        r"\S+",
        """
new edit more m ~ select save show solve enable disable plot reset compile set dump open close redirect help quit ?
next panel sample clear about calcvoltagebases setkvbase buildy get init export fileedit voltages currents powers
seqvoltages seqcurrents seqpowers losses phaselosses cktlosses allocateloads formedit totals capacity classes
userclasses zsc zsc10 zscrefresh ysc puvoltages varvalues varnames buscoords makebuslist makeposseq reduce
interpolate alignfile top rotate vdiff summary distribute di_plot comparecases yearlycurves cd visualize closedi
doscmd estimate reconductor _initsnap _solvenocontrol _samplecontrols _docontrolactions _showcontrolqueue
_solvedirect _solvepflow addbusmarker uuids setloadandgenkv cvrt nodediff rephase setbusxy updatestorage obfuscate
latlongcoords batchedit pstcalc variable reprocessbuses clearbusmarkers relcalc var cleanup finishtimestep nodelist
newactor wait calcincmatrix calcincmatrix_o tear_circuit connect disconnect refine_buslevels remark abort
calclaplacian clearall comhelp exportoverloads zsc012 allpceatbus
""",
    )
)
HARMLESS_COMMANDS = frozenset(
    re.findall(
        r"\S+",
        """
select save show plot dump help ? next panel sample about get export fileedit voltages currents powers seqvoltages
seqcurrents seqpowers losses phaselosses cktlosses formedit totals capacity classes userclasses zsc zsc10 zscrefresh
ysc puvoltages varvalues varnames makebuslist interpolate alignfile top rotate vdiff summary di_plot comparecases
yearlycurves visualize closedi addbusmarker uuids nodediff clearbusmarkers relcalc cleanup nodelist newactor wait
calcincmatrix calcincmatrix_o remark comhelp buildy reset init quit reprocessbuses exportoverloads zsc012
allpceatbus calclaplacian setbusxy latlongcoords obfuscate abort
""",
    )
)
_COMMAND_SET = frozenset(COMMANDS)


class Script:
    """An OpenDSS script being run; `is_solved` once its first solve has come."""

    def __init__(self, model: Model, folder: Folder) -> None:
        self.model = model
        self.is_solved = False
        self._folder = folder
        self._active: Element | None = None
        self._is_copied = False
        self._files: list[str] = []
        self._variables: dict[str, str] = {}
        self._place = ""
        self._handlers: dict[str, Callable[[list[Parameter]], None]] = {
            "new": self._new,
            "edit": self._edit,
            "more": self._more,
            "m": self._more,
            "~": self._more,
            "solve": self._solve,
            "enable": lambda rest: self._enable(rest, "y"),
            "disable": lambda rest: self._enable(rest, "n"),
            "redirect": self._redirect,
            "compile": self._compile,
            "set": lambda rest: set_options(self.model, rest, self._place),
            "open": lambda rest: self._switch(rest, is_open=True),
            "close": lambda rest: self._switch(rest, is_open=False),
            "clear": lambda _: self._clear(),
            "clearall": lambda _: self._clear(),
            "calcvoltagebases": lambda _: None,
            "setkvbase": self._set_kv_base,
            "buscoords": self._bus_coords,
            "batchedit": self._batch_edit,
            "var": self._set_variables,
            "cd": lambda rest: self._folder.enter(_only(rest, "a folder")),
        }

    def run_file(self, name: str) -> None:
        """Run a file, by its name seen from the current folder.

        Raises:
            ScriptError: it cannot be read, or files call each other in a loop.
        """
        path, content = self._folder.read(name)
        if path in self._files or len(self._files) >= MAX_DEPTH:
            raise ScriptError(f"'{name}' is being read already, or {MAX_DEPTH} files deep: take out the redirect")
        self._files.append(path)
        with self._folder.inside(path):
            in_block = False
            for line_number, line in enumerate(content.splitlines(), 1):
                in_block, is_comment = _block_comment(line, in_block=in_block)
                if not is_comment:
                    self.run_line(line, f"{path}:{line_number}")
        self._files.pop()

    def run_line(self, line: str, place: str) -> None:
        """Run one command; what is wrong with it joins the model's problems."""
        line = without_comment(line).strip()
        if not line or len(self.model.problems) > MAX_PROBLEMS:
            return
        self._place = place
        try:
            self._command(line)
        except ScriptError as error:
            self.model.problems.append(f"{place}: {error}")
        self._place = place

    def _command(self, line: str) -> None:
        if line[0] == "~":
            line = "~ " + line[1:]
        (name, first), *rest = [(key, self._replace(raw)) for key, raw in parameters(line)]
        if name is not None and name not in _COMMAND_SET:
            self._property(name, first, rest)
            return
        command, rest = (name, [(None, first), *rest]) if name else (_command_name(text(first).lower()), rest)
        if self.is_solved and command not in {"buscoords", "redirect", "compile", "clear", "solve", "cd"}:
            if command not in HARMLESS_COMMANDS:
                self.model.leave_out("commands after the first solve are left out", self._place)
            return
        handler = self._handlers.get(command)
        if handler is not None:
            handler(rest)
        elif command in HARMLESS_COMMANDS:
            self.model.leave_out(f"command '{command}' is left out", self._place)
        else:
            raise ScriptError(f"command '{command}' changes the circuit in a way that GridRay lacks: take it out")

    def _replace(self, raw: str) -> str:
        if raw[:1] == "@":
            name, dot, more = raw.partition(".")
            value = self._variables.get(name.lower())
            if value is None:
                raise ScriptError(f"variable '{raw[:40]}' has no value: give it one with var")
            return value + dot + more
        return raw

    def _property(self, name: str, value: str, rest: list[Parameter]) -> None:
        if self.is_solved:
            self.model.leave_out("commands after the first solve are left out", self._place)
            return
        owner, _, prop = name.rpartition(".")
        if owner:
            self._active, self._is_copied = self._find(owner), False
        self._apply([(prop, value), *rest])

    def _apply(self, given: list[Parameter]) -> None:
        if self._active is None:
            raise ScriptError("there is no element to edit so far: make one with new")
        self._active = edit(self.model, self._active, given, self._folder)

    def _find(self, title: str) -> Element:
        cls, _, name = text(title).lower().partition(".")
        if cls == "circuit":
            return self.model.find("vsource", "source")
        if not name:
            return self.model.find(self._active.cls if self._active else "circuit", cls)
        return self.model.find(find_class(cls), name)

    def _new(self, rest: list[Parameter]) -> None:
        title = text(_first(rest, "an element")).lower()
        cls, _, name = title.partition(".")
        cls = find_class(cls)
        if not self.model.has_circuit and cls not in {"circuit", "linecode", "loadshape", "xfmrcode", "wiredata"}:
            raise ScriptError(f"'{title[:40]}' comes before the circuit: start with New Circuit.name")
        made = make(self.model, cls, name, self._place)
        self._active = edit(self.model, made, rest[1:], self._folder)
        self._is_copied = self._active is not made

    def _edit(self, rest: list[Parameter]) -> None:
        self._active, self._is_copied = self._find(_first(rest, "an element")), False
        self._apply(rest[1:])

    def _more(self, rest: list[Parameter]) -> None:
        if self._is_copied:
            self.model.leave_out("~ after like edits the element that was copied, as in OpenDSS", self._place)
        self._apply(rest)

    def _solve(self, rest: list[Parameter]) -> None:
        if not self.is_solved:
            set_options(self.model, rest, self._place)
        self.is_solved = True

    def _enable(self, rest: list[Parameter], value: str) -> None:
        title = _first(rest, "an element")
        if title.endswith(".*"):
            self._batch_edit([(None, title), ("enabled", value)])
        else:
            self._active = self._find(title)
            self._apply([("enabled", value)])

    def _redirect(self, rest: list[Parameter]) -> None:
        self.run_file(_only(rest, "a file"))

    def _compile(self, rest: list[Parameter]) -> None:
        name = _only(rest, "a file")
        self.run_file(name)
        self._folder.enter_of(name)

    def _clear(self) -> None:
        if not self.is_solved:
            fresh = Model(frequency_hz=self.model.frequency_hz)
            fresh.problems, fresh.left_out = self.model.problems, self.model.left_out
            fresh.first_place, fresh.earth_model = self.model.first_place, self.model.earth_model
            self.model.__dict__.update(fresh.__dict__)
            self._active = None

    def _switch(self, rest: list[Parameter], *, is_open: bool) -> None:
        item = self._find(_first(rest, "an element"))
        values = [round(number(raw)) for _, raw in rest[1:]]
        terminal, conductor = values[0] if values else 1, values[1] if len(values) > 1 else 0
        if item.cls == "line":
            switch(item, terminal, conductor, is_open=is_open)
        elif conductor != 0 and item.v.get("phases") != 1:
            raise ScriptError(f"one conductor of {item.title} is switched: GridRay does so with lines only, write 0")
        elif item.cls in {"transformer", "autotrans", "vsource"} or item.cls in UNSUPPORTED:
            raise ScriptError(f"{item.title} is switched: put a line with switch=yes in series and switch that")
        elif item.cls not in HARMLESS:
            item.v["enabled"] = not is_open
        self._active = item

    def _set_kv_base(self, rest: list[Parameter]) -> None:
        self.model.leave_out("voltage base of a bus (setkvbase) is left out", self._place)
        for name, raw in rest:
            if name in {"kvll", "kvln"}:
                base = number(raw) * (1.0 if name == "kvll" else 3.0**0.5)
                if base > 0.0 and not any(abs(base - known) < 1e-3 * known for known in self.model.base_kv):
                    self.model.base_kv = (*self.model.base_kv, base)

    def _bus_coords(self, rest: list[Parameter]) -> None:
        _, content = self._folder.read(_only(rest, "a file"))
        for line in content.splitlines():
            row = re.findall(r"[^\s,]+", without_comment(line).replace('"', " "))
            if len(row) >= 3:
                x, y = numbers(f"({row[1]} {row[2]})")
                self.model.bus_xy[row[0].lower()] = (x, y)

    def _batch_edit(self, rest: list[Parameter]) -> None:
        cls, _, pattern = text(_first(rest, "a class and pattern")).lower().partition(".")
        try:
            chosen = re.compile(pattern)
        except re.error as error:
            raise ScriptError(f"'{pattern[:40]}' is no regular expression ({error}): correct it") from error
        for item in list(self.model.elements.get(find_class(cls), {}).values()):
            if chosen.search(item.name):
                edit(self.model, item, rest[1:], self._folder)

    def _set_variables(self, rest: list[Parameter]) -> None:
        for name, raw in rest:
            if name and name[0] == "@":
                self._variables[name] = raw


def _block_comment(line: str, *, in_block: bool) -> tuple[bool, bool]:
    """Return whether the next line lies in a block comment, and whether this one is comment."""
    is_comment = in_block or line.lstrip().startswith("/*")
    return is_comment and "*/" not in line, is_comment


def _command_name(word: str) -> str:
    if word in _COMMAND_SET:
        return word
    found = next((command for command in COMMANDS if command.startswith(word)), None)
    if found is None:
        near = difflib.get_close_matches(word, COMMANDS, 1)
        hint = f"did you mean '{near[0]}'?" if near else "give a command of OpenDSS"
        raise ScriptError(f"there is no command '{word[:40]}': {hint}")
    return str(found)


def _first(rest: list[Parameter], what: str) -> str:
    if not rest:
        raise ScriptError(f"{what} is missing: name it")
    return rest[0][1]


def _only(rest: list[Parameter], what: str) -> str:
    return " ".join(text(raw) for _, raw in rest) or _first([], what)
