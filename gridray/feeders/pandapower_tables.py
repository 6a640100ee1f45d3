"""Rows of pandapower's tables, from a net in memory or its JSON file, checked as they are read.

pandapower's own `from_json` imports whatever module and calls whatever class a file names, so a file is read here
as plain data: tables are lists of rows, and every other object in it stays inert text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridray.errors import FeederError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_FILE_BYTES = 256 * 2**20
TABLE_KEYS = {"columns", "index", "data"}


@dataclass(frozen=True)
class Element:
    """One row of a table; missing or unusable values become problems, so that all are reported together."""

    table: str
    index: int
    row: Mapping[str, Any]
    buses: Container[int]
    problems: list[str]

    @property
    def name(self) -> str:
        """Name of what it becomes: table and index."""
        return f"{self.table}_{self.index}"

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number; 1.0 and a problem if there is none and no default."""
        value = self.row.get(key, default)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return number
        self.refuse(f"{key} is {value!r}", "give a number")
        return 1.0

    def positive(self, key: str, default: float | None = None) -> float:
        """Return a number above 0, likewise."""
        number = self.number(key, default)
        if number > 0.0:
            return number
        self.refuse(f"{key} is {number}", "give a number above 0")
        return 1.0

    def bus(self, key: str = "bus") -> str:
        """Return the name of the bus in this column, which must be in the bus table."""
        index = int(self.number(key))
        if index not in self.buses:
            self.refuse(f"{key} {index} is not in the bus table", "add the bus")
        return str(index)

    def text(self, key: str) -> str:
        """Return a text, empty if there is none."""
        return str(self.row.get(key, ""))

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a truth value; files have true, 1 or "True"."""
        return str(self.row.get(key, default)).lower() in {"true", "1", "1.0"}

    def has(self, key: str) -> bool:
        """Tell whether the column has a value here."""
        return key in self.row

    def refuse(self, what: str, remedy: str) -> None:
        """Record a problem, once."""
        problem = f"{self.table} {self.index}: {what}: {remedy}."
        if problem not in self.problems:
            self.problems.append(problem)


@dataclass(frozen=True)
class Net:
    """Tables by name, each a list of rows by index without missing values; columns by table; frequency."""

    name: str
    f_hz: float
    rows: Mapping[str, Mapping[int, Mapping[str, Any]]]
    columns: Mapping[str, frozenset[str]]
    problems: list[str]
    notes: list[str]

    def elements(self, table: str) -> list[Element]:
        """Return the rows of a table; none if there is no such table."""
        buses = self.rows.get("bus", {})
        return [Element(table, index, row, buses, self.problems) for index, row in self.rows.get(table, {}).items()]

    def in_service(self, table: str) -> Iterator[Element]:
        """Yield the rows in service; the others are noted."""
        for element in self.elements(table):
            if element.flag("in_service", default=True):
                yield element
            else:
                self.notes.append(f"{table} {element.index} is out of service: left out.")


def net_of_tables(net: Mapping[str, Any]) -> Net:
    """Return the tables of a pandapowerNet."""
    tables = {
        str(key): (list(frame.columns), frame.to_dict("index"))
        for key, frame in net.items()
        if hasattr(frame, "to_dict") and hasattr(frame, "columns")
    }
    return _net(net, tables)


def read_net(path: Path) -> Net:
    """Return the tables of a file that pandapower's to_json wrote; nothing in it is imported or run.

    Raises:
        FeederError: the file is not there, too large, a pickle, or not such JSON.
    """
    if not path.is_file():
        raise FeederError(f"There is no file '{path}': give a net written by pandapower.to_json.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise FeederError(f"{path} has {path.stat().st_size} bytes: a pandapower net has at most {MAX_FILE_BYTES}.")
    content = path.read_bytes()
    if content[:1] == b"\x80" or path.suffix.lower() in {".p", ".pkl", ".pickle"}:
        raise FeederError(f"{path} is a pickle, which can run code when it is read: write it anew by to_json.")
    try:
        data = json.loads(content)
        if isinstance(data, dict) and isinstance(data.get("_object"), dict):
            data = data["_object"]
        if not isinstance(data, dict) or "bus" not in data:
            raise FeederError(f"{path} has no bus table: give a net written by pandapower.to_json.")
        tables = {key: _split_table(value) for key, value in data.items() if _is_table(value)}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FeederError(f"{path} is not a net written by pandapower.to_json: {str(error)[:200]}") from error
    return _net({**data, "name": data.get("name") or path.stem}, tables)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and value.get("_class") == "DataFrame"


def _split_table(value: dict[str, Any]) -> tuple[list[str], dict[int, dict[str, Any]]]:
    content = value["_object"]
    content = json.loads(content) if isinstance(content, str) else content
    if not set(content) >= TABLE_KEYS:
        raise ValueError(f"a table has the keys {sorted(content)[:5]} where {sorted(TABLE_KEYS)} are due")
    columns = [str(column) for column in content["columns"]]
    rows = zip(content["index"], content["data"], strict=True)
    return columns, {index: dict(zip(columns, row, strict=True)) for index, row in rows if isinstance(index, int)}


def _net(net: Mapping[str, Any], tables: Mapping[str, tuple[list[str], Mapping[int, Mapping[str, Any]]]]) -> Net:
    problems: list[str] = []
    f_hz = net.get("f_hz", 50.0)
    if not isinstance(f_hz, (int, float)) or not f_hz > 0.0:
        problems.append(f"f_hz is {f_hz!r}: give the frequency in Hz.")
        f_hz = 50.0
    rows = {
        name: {
            int(index): {key: value for key, value in row.items() if not _is_missing(value)}
            for index, row in table.items()
        }
        for name, (_, table) in tables.items()
        if not name.startswith(("_", "res_"))
    }
    columns = {name: frozenset(names) for name, (names, _) in tables.items()}
    return Net(str(net.get("name") or "pandapower"), float(f_hz), rows, columns, problems, [])


def _is_missing(value: object) -> bool:
    return value is None or str(value) in {"nan", "NaN", "<NA>", "NaT", "None"}
