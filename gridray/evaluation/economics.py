"""What a day costs: energy, demand, interruptions and wear, at the prices of a small configuration."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.evaluation.rollout import EpisodeTable

DAYS_PER_MONTH = 365.0 / 12.0


@dataclass(frozen=True, kw_only=True)
class Economics:
    """Prices; the defaults are round numbers, not any utility's.

    Energy at the substation; demand per kW of the month's peak, of which each day bears its own peak's share; energy
    not supplied at the value of lost load; operations of taps, capacitors and switches. Losses are part of the energy
    bought: their price only says how much of it they are.
    """

    currency: str = "EUR"
    import_per_kwh: float = 0.10
    export_per_kwh: float = 0.05
    demand_per_kw_month: float = 8.0
    loss_per_kwh: float = 0.10
    outage_per_kwh: float = 10.0
    tap_each: float = 0.05
    capacitor_each: float = 0.50
    switch_each: float = 1.00

    def __post_init__(self) -> None:
        """Refuse prices that are negative or not finite."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "currency" and not (np.isfinite(value) and value >= 0.0):
                raise ConfigError(f"{field.name} is {value}: give a price of 0 or more.")


def with_costs(table: EpisodeTable, prices: Economics) -> EpisodeTable:
    """Return the table with energy_cost, demand_cost, outage_cost, wear_cost, their total_cost, and loss_cost."""

    def amount(name: str) -> NDArray[np.float64]:
        return table.indicators.get(name, np.zeros(len(table.day)))

    parts = {
        "energy_cost": prices.import_per_kwh * amount("import_kwh") - prices.export_per_kwh * amount("export_kwh"),
        "demand_cost": prices.demand_per_kw_month / DAYS_PER_MONTH * np.maximum(amount("peak_kw"), 0.0),
        "outage_cost": prices.outage_per_kwh * amount("ens_kwh"),
        "wear_cost": prices.tap_each * amount("tap_operations")
        + prices.capacitor_each * amount("capacitor_operations")
        + prices.switch_each * amount("switch_operations"),
    }
    total = {
        "total_cost": np.sum(list(parts.values()), axis=0),
        "loss_cost": prices.loss_per_kwh * amount("losses_kwh"),
    }
    return replace(table, indicators=table.indicators | parts | total)
