"""How indicators are called and shown, whichever task reports them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gridray.evaluation.statistics import Estimate, mean_interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gridray.evaluation.rollout import EpisodeTable


class Column(NamedTuple):
    """Indicator, heading, factor and decimals of a table's column."""

    name: str
    heading: str
    factor: float
    decimals: int

    def text(self, value: float) -> str:
        """Return a value as the table shows it."""
        return f"{value * self.factor:.{self.decimals}f}"


KNOWN = (
    Column("returns", "return", 1.0, 2),
    Column("violation_share", "node-steps in violation, %", 100.0, 3),
    Column("violation_depth_pu", "deepest violation, mean, %", 100.0, 3),
    Column("deepest_violation_pu", "deepest violation of the day, %", 100.0, 2),
    Column("violation_hours", "violation, h/day", 1.0, 2),
    Column("longest_violation_hours", "longest run, h", 1.0, 2),
    Column("saidi_min", "SAIDI, min/day", 1.0, 2),
    Column("saifi", "SAIFI, interruptions/day", 1.0, 3),
    Column("maifi", "MAIFI, momentary/day", 1.0, 3),
    Column("ens_kwh", "energy not supplied, kWh/day", 1.0, 1),
    Column("losses_kwh", "losses, kWh/day", 1.0, 0),
    Column("import_kwh", "import, kWh/day", 1.0, 0),
    Column("export_kwh", "export, kWh/day", 1.0, 0),
    Column("peak_kw", "peak import, kW", 1.0, 0),
    Column("tap_operations", "tap steps/day", 1.0, 1),
    Column("capacitor_operations", "capacitor operations/day", 1.0, 2),
    Column("switch_operations", "switch operations/day", 1.0, 2),
    Column("curtailed_kwh", "curtailed, kWh/day", 1.0, 1),
    Column("total_cost", "cost/day", 1.0, 2),
    Column("energy_cost", "of it energy", 1.0, 2),
    Column("demand_cost", "of it demand", 1.0, 2),
    Column("outage_cost", "of it outages", 1.0, 2),
    Column("wear_cost", "of it wear", 1.0, 2),
    Column("loss_cost", "losses' part of energy", 1.0, 2),
    Column("unconverged_share", "steps without a power-flow solution, %", 100.0, 2),
)
PARTS = {"share": ("% of steps", 100.0, 2), "depth": ("mean when above", 1.0, 4), "hours": ("h/day", 1.0, 2)}


def columns(tables: Iterable[EpisodeTable]) -> list[Column]:
    """Return the columns that some policy has other than 0, known ones first; the return always comes."""
    tables = list(tables)
    names = [name for name in tables[0].names if name == "returns" or any(table[name].any() for table in tables)]
    known = [column for column in KNOWN if column.name in names]
    return known + [_column(name) for name in names if name not in {column.name for column in KNOWN}]


def summary(table: EpisodeTable) -> dict[str, Estimate]:
    """Return the mean and 95 % interval of each indicator over the days."""
    return {name: mean_interval(table[name]) for name in table.names}


def caidi_min(table: EpisodeTable) -> float | None:
    """Return minutes per interruption, SAIDI over SAIFI of all days (IEEE 1366); None without interruptions."""
    if "saidi_min" not in table.names or not table["saifi"].any():
        return None
    return float(table["saidi_min"].sum() / table["saifi"].sum())


def _column(name: str) -> Column:
    limit, _, part = name.partition(".")
    if part:
        words, factor, decimals = PARTS.get(part.removeprefix("longest_"), ("", 1.0, 3))
        longest = "longest run, " if part.startswith("longest_") else ""
        return Column(name, f"{_words(limit)}: {longest}{'h' if longest else words}", factor, decimals)
    return Column(name, _words(name), 1.0, 3)


def _words(name: str) -> str:
    for suffix, unit in (("_pu", "pu"), ("_percent", "%"), ("_kwh", "kWh"), ("_kw", "kW"), ("_eur", "EUR")):
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix).replace('_', ' ')}, {unit}"
    return name.replace("_", " ")
