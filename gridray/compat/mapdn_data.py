"""Grids of MAPDN (Wang et al. 2021, arXiv:2110.14300): 33, 141 and 322 buses, their zones, PV sites and profiles."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import networkx as nx
import numpy as np

from gridray.compat.matpower import matpower_tables, read_rows
from gridray.compat.tables import Table, make_table
from gridray.errors import ConfigError
from gridray.feeders.pandapower import from_pandapower
from gridray.profiles.generate import ProfileConfig, generate_profiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder

STEP_MINUTES = 3
LATERALS_33 = {6: 0, 19: 1, 23: 2, 26: 3}
"""First bus of each zone of the 33-bus grid; buses count on from it: 6-18, 19-22, 23-25, 26-33."""
PV_33 = (13, 18, 22, 25, 29, 33)


class Grid(NamedTuple):
    """One of MAPDN's grids: zones, PV sites and scale of the actions.

    load_share: generated loads' peak over the grid's own loads; pv_share: PV power over that peak. Both are ours, as
    the original's series are not published with its code.
    """

    num_zones: int
    num_pv: int
    load_share: float
    pv_share: float
    action_scale: float


GRIDS = {
    "33": Grid(4, 6, 1.0, 2.5, 0.8),
    "141": Grid(9, 22, 1.0, 2.5, 0.6),
    "322": Grid(22, 38, 0.35, 2.5, 0.8),
}
"""Number of buses -> grid."""


class MapdnData(NamedTuple):
    """A grid as a feeder, its zones and series.

    buses: names in order; zone: int64 [num_buses], -1 for the main zone; pv_bus: int64 [num_pv], place in buses;
    load_kw, load_kvar: float32 [num_times, num_loads]; pv_kw: float32 [num_times, num_pv].
    """

    feeder: Feeder
    buses: tuple[str, ...]
    zone: NDArray[np.int64]
    pv_bus: NDArray[np.int64]
    load_kw: NDArray[np.float32]
    load_kvar: NDArray[np.float32]
    pv_kw: NDArray[np.float32]


def read_grid(
    name: str, data: str | Path, *, profiles: str | Path | None, num_days: int, seed: int, noise: bool
) -> MapdnData:
    """Read a grid (case33bw_*.csv, case141_*.csv or bus322/*.csv) and its series.

    Args:
        name: number of buses, a key of GRIDS.
        data: folder of the grid's tables.
        profiles: folder with the original's load_active.csv, load_reactive.csv, pv_active.csv (MW, a row for 3
            minutes); None makes series of our own generator.
        num_days: days that are generated.
        seed: of the generator and the noise.
        noise: add the original's noise to every value, |N(0, 1)| times 1 % of its series' deviation.

    Raises:
        ConfigError: no such grid, or a file is missing or has the wrong width.
    """
    if name not in GRIDS:
        raise ConfigError(f"MAPDN has no grid of {name} buses: give one of {', '.join(GRIDS)}.")
    tables = (
        _tables_322(Path(data) / "bus322")
        if name == "322"
        else matpower_tables(Path(data), "case33bw" if name == "33" else f"case{name}")
    )
    buses = tuple(str(index) for index in tables["bus"].rows)
    zone, pv_bus = _zones(name, tables, buses)
    feeder = _with_pv(tables, buses, pv_bus, GRIDS[name].pv_share * GRIDS[name].load_share)
    rng = np.random.default_rng(seed)
    if profiles is None:
        series = _generated(feeder, GRIDS[name].load_share, num_days, seed)
    else:
        series = [_original_csv(Path(profiles) / f"{file}.csv", num) for file, num in _widths(feeder)]
    load_kw, load_kvar, pv_kw = [_noisy(values, rng) if noise else values for values in series]
    return MapdnData(feeder, buses, zone, pv_bus, load_kw, load_kvar, pv_kw)


def _tables_322(folder: Path) -> dict[str, Table]:
    return {
        name: make_table(
            {
                int(row["index"]): {k: _value(v) for k, v in row.items() if v}
                for row in read_rows(folder / f"{name}.csv")
            }
        )
        for name in ("bus", "ext_grid", "line", "trafo", "load", "sgen")
    }


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _zones(name: str, tables: Mapping[str, Table], buses: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each bus's zone and the PV sites.

    322 has both in its files. The others' are in a pickle of the original: for 33 its paper's figure and observation
    width (50) give them, for 141 zones are the largest subtrees and sites lie evenly in each.
    """
    if name == "322":
        labels = [str(row["zone"]) for row in tables["bus"].rows.values()]
        zone = [-1 if label == "main" else int(label.removeprefix("zone")) - 1 for label in labels]
        sites = [str(int(row["bus"])) for row in tables["sgen"].rows.values()]
    elif name == "33":
        first = [max((bus for bus in LATERALS_33 if bus <= int(bus_name)), default=0) for bus_name in buses]
        # Bus 6 itself still belongs to the trunk: zone 1 has 12 buses.
        zone = [-1 if int(b) <= 6 else LATERALS_33[start] for b, start in zip(buses, first, strict=True)]
        sites = [str(bus) for bus in PV_33]
    else:
        members, sites = _subtrees(tables, GRIDS[name].num_zones, GRIDS[name].num_pv)
        zone = [members.get(bus, -1) for bus in buses]
    return np.array(zone), np.array([buses.index(site) for site in sites])


def _subtrees(tables: Mapping[str, Table], num_zones: int, num_pv: int) -> tuple[dict[str, int], list[str]]:
    """Return zones by bus and PV sites: subtrees as large as that number of zones allows, sites spread over them."""
    lines = tables["line"].rows.values()
    root = str(tables["ext_grid"].rows[0]["bus"])
    tree = nx.bfs_tree(nx.Graph([(str(row["from_bus"]), str(row["to_bus"])) for row in lines]), root)
    heads: list[str] = []
    smallest = len(tree)
    while len(heads) < num_zones:
        smallest -= 1
        heads = _cut(tree, root, smallest)
    members: dict[str, int] = {}
    # A head nearer to the root comes later and must not take what lies behind an earlier one.
    for zone, head in enumerate(heads[:num_zones]):
        members |= {bus: zone for bus in (head, *nx.descendants(tree, head)) if bus not in members}
    ordered = [bus for bus in nx.dfs_preorder_nodes(tree, root) if bus in members]
    picked = np.linspace(0, len(ordered) - 1, num_pv).round().astype(int)
    return members, [ordered[place] for place in picked]


def _cut(tree: nx.DiGraph, root: str, smallest: int) -> list[str]:
    """Return the heads of subtrees of at least this many buses, cut off from the leaves on."""
    size: dict[str, int] = {}
    heads = []
    for bus in nx.dfs_postorder_nodes(tree, root):
        size[bus] = 1 + sum(size[child] for child in tree.successors(bus))
        if size[bus] >= smallest and bus != root:
            heads.append(bus)
            size[bus] = 0
    return heads


def _with_pv(tables: dict[str, Table], buses: Sequence[str], pv_bus: NDArray[np.int64], pv_share: float) -> Feeder:
    """Return the feeder; PV of pv_share times the loads, sized as in the original's table or equally."""
    loads = tables["load"].rows.values()
    total = pv_share * sum(row["p_mw"] * row.get("scaling", 1.0) for row in loads)
    given = [row["p_mw"] for row in tables["sgen"].rows.values()] if "sgen" in tables else [1.0] * len(pv_bus)
    scale = total / sum(given)
    tables = tables | {
        "sgen": make_table(
            {
                number: {"bus": int(buses[place]), "p_mw": size * scale, "q_mvar": 0.0, "type": "PV"}
                for number, (place, size) in enumerate(zip(pv_bus, given, strict=True))
            }
        )
    }
    return from_pandapower(tables)


def _widths(feeder: Feeder) -> tuple[tuple[str, int], ...]:
    num_loads, num_pv = len(feeder.loads), len(feeder.generators)
    return ("load_active", num_loads), ("load_reactive", num_loads), ("pv_active", num_pv)


def _generated(feeder: Feeder, load_share: float, num_days: int, seed: int) -> list[NDArray[np.float32]]:
    kw, kvar = (load_share * np.array([getattr(load, name) for load in feeder.loads]) for name in ("kw", "kvar"))
    rated = np.array([generator.kw for generator in feeder.generators])
    config = ProfileConfig(seed=seed, num_days=num_days, step_minutes=STEP_MINUTES)
    profiles = generate_profiles(config, kw, len(rated))
    pv = np.minimum(profiles.pv_pu, 1.0) * rated
    return [(profiles.load_pu * nominal).astype(np.float32) for nominal in (kw, kvar)] + [pv.astype(np.float32)]


def _original_csv(path: Path, width: int) -> NDArray[np.float32]:
    """Return a table of the original in kW: a heading, then a time stamp and MW in each row."""
    if not path.is_file():
        raise ConfigError(
            f"There is no '{path}': give the folder with MAPDN's load_active, load_reactive and pv_active."
        )
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    if not rows or len(rows[0]) != width + 1:
        raise ConfigError(f"'{path}' has {len(rows[0]) - 1 if rows else 0} series: give {width}, one for each unit.")
    return np.array([row[1:] for row in rows], dtype=np.float64).astype(np.float32) * np.float32(1e3)


def _noisy(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    deviation = values.std(axis=0) / np.float32(100.0)
    noisy: NDArray[np.float32] = values + deviation * np.abs(rng.standard_normal(values.shape, dtype=np.float32))
    return noisy
