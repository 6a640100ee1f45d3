"""Balanced grids written down as pandapower's tables, without pandapower."""

from __future__ import annotations

from typing import Any, NamedTuple


class Table(NamedTuple):
    """What `gridray.feeders.pandapower.from_pandapower` reads of a pandas table."""

    columns: tuple[str, ...]
    rows: dict[int, dict[str, Any]]

    def to_dict(self, _orient: str) -> dict[int, dict[str, Any]]:
        """Return the rows by index."""
        return self.rows


def make_table(rows: dict[int, dict[str, Any]]) -> Table:
    """Return a table of these rows by index; a column that a row lacks is missing there."""
    return Table(tuple(dict.fromkeys(key for row in rows.values() for key in row)), rows)
