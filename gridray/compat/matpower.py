"""MATPOWER's radial cases as tables of bus and branch, CSV."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from gridray.compat.tables import Table, make_table
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def matpower_tables(folder: Path, case: str, *, source_pu: float = 1.0) -> dict[str, Table]:
    """Return bus, ext_grid, line and load of `case`_bus.csv and `case`_branch.csv, open branches left out.

    Raises:
        ConfigError: a file is missing.
    """
    buses = read_rows(folder / f"{case}_bus.csv")
    branches = [row for row in read_rows(folder / f"{case}_branch.csv") if row["status"] == "1"]
    source = next(row for row in buses if row["type"] == "3")
    return {
        "bus": make_table({int(row["bus"]): {"vn_kv": float(row["base_kv"])} for row in buses}),
        "ext_grid": make_table({0: {"bus": int(source["bus"]), "vm_pu": source_pu}}),
        "line": make_table(
            {
                number: {
                    "from_bus": int(row["from"]),
                    "to_bus": int(row["to"]),
                    "length_km": 1.0,
                    "r_ohm_per_km": float(row["r_ohm"]),
                    "x_ohm_per_km": float(row["x_ohm"]),
                    "c_nf_per_km": 0.0,
                }
                for number, row in enumerate(branches)
            }
        ),
        "load": make_table(
            {
                number: {
                    "bus": int(row["bus"]),
                    "p_mw": float(row["p_kw"]) / 1e3,
                    "q_mvar": float(row["q_kvar"]) / 1e3,
                }
                for number, row in enumerate(buses)
                if float(row["p_kw"]) or float(row["q_kvar"])
            }
        ),
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file.

    Raises:
        ConfigError: there is no such file.
    """
    if not path.is_file():
        raise ConfigError(
            f"There is no '{path}': give --data, the folder with the grids' tables (case33bw_*.csv, ...)."
        )
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
