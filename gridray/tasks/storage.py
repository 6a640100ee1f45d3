"""Storage: batteries that buy low, sell high and shave the feeder's peak, with prices and load known ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gridray.errors import ConfigError
from gridray.feeders.library import load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.tasks.base import StepResult
from gridray.tasks.constraints import CONSTRAINT_COSTS
from gridray.tasks.fleets.batteries import EFFICIENCY, FIRST_SOC, Batteries
from gridray.tasks.fleets.inverters import Autonomy, Inverters
from gridray.tasks.signals import load_signal, price_signal
from gridray.tasks.siting import site_inverters
from gridray.tasks.twin import Twin
from gridray.tasks.twin_config import InverterConfig
from gridray.tasks.twin_task import TwinTask, customers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.twin import Interval, TwinState


@dataclass(frozen=True, kw_only=True)
class StorageConfig(InverterConfig):
    """One utility's feeder, customers, PV and batteries, and the weights of the reward.

    PV follows the voltage by itself and is not commanded. The import limit is import_limit_share of the nominal load.
    Prices and load are known look_ahead_h hours ahead.
    The reward of a step is, in units of the batteries' energy at the mean price: what they earn at the step's price,
    less wear_eur_per_kwh of what passes through them, less peak_eur_per_kwh of what is imported above the limit, less
    voltage_eur per percent of mean depth outside 0.95..1.05; in the last step plus the worth of the energy that they
    hold more than at the beginning, at the mean price.
    """

    pv_share: float = 0.3
    pv_autonomy: Autonomy = "volt_var"
    battery_share: float = 0.2
    num_batteries: int = 2
    look_ahead_h: int = 12
    import_limit_share: float = 0.6
    wear_eur_per_kwh: float = 0.002
    peak_eur_per_kwh: float = 0.2
    voltage_eur: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        self.check_shares("import_limit_share")
        if self.num_batteries < 1 or not self.battery_share > 0.0:
            raise ConfigError(
                f"num_batteries is {self.num_batteries} and battery_share {self.battery_share}: give at least one "
                "battery with power."
            )
        self.check_look_ahead(self.look_ahead_h)


class Storage(TwinTask):
    """Arbitrage and peak shaving with batteries; see StorageConfig for the reward."""

    name = "storage"
    cost_names: ClassVar[tuple[str, ...]] = (*CONSTRAINT_COSTS, "import_over_limit_kwh", "cycled_kwh", "losses_kwh")
    config: StorageConfig

    def __init__(self, config: StorageConfig) -> None:
        """Load the feeder, place the inverters and make the year's profiles and prices."""
        published = load_feeder(config.feeder)
        pv, batteries = site_inverters(published, config)
        feeder = published.with_generators((*pv, *batteries))
        grid = compile_feeder(feeder)
        loads, pv_pu = customers(config, grid, len(pv))
        step_h, first = config.step_minutes / 60.0, len(grid.load_names)
        sun = Inverters(
            "pv", pv, grid, first, pv_pu, step_h, autonomy=config.pv_autonomy, trip=config.pv_trip, is_commanded=False
        )
        self.batteries = Batteries(batteries, first + len(pv), step_h)
        prices = price_signal(config, config.look_ahead_h)
        self.mean_eur_per_kwh = float(prices.series.mean()) / 1e3
        self._prices = prices.series
        self.import_limit_kw = config.import_limit_share * float(loads.kw.sum())
        self.unit_eur = float(self.batteries.battery.kwh.sum()) * self.mean_eur_per_kwh
        signals = (prices, load_signal(config, loads, config.look_ahead_h))
        fleets = (self.batteries, sun)
        twin = Twin(config, feeder, grid, loads, fleets, signals=signals, has_local_controls=True)
        super().__init__(config, twin)

    def prices_eur_per_kwh(self, day: int) -> NDArray[np.float64]:
        """Return the prices of a day's steps, float64 [num_steps]."""
        steps = self.twin.first_step + day * self.num_steps + np.arange(self.num_steps)
        return np.asarray(self._prices[steps % len(self._prices)] / 1e3, dtype=np.float64)

    def score(self, state: TwinState, interval: Interval) -> StepResult:
        """Weigh earnings, wear, peak and voltage."""
        config, quantities, step_h = self.config, interval.quantities, self.twin.step_h
        price = self._prices[self.twin.series_step(state)] / 1e3
        over_kwh = np.maximum(interval.balance.source.real - self.import_limit_kw, 0.0) * step_h
        kwh = self.batteries.battery.kwh.sum()
        gained_kwh = (self.batteries.stored_kwh(state) - FIRST_SOC * kwh) * EFFICIENCY
        is_last = state.t == self.num_steps - 1
        earned_eur = (
            price * quantities["injected_kwh"]
            + np.where(is_last, gained_kwh * self.mean_eur_per_kwh, 0.0)
            - config.wear_eur_per_kwh * quantities["cycled_kwh"]
            - config.peak_eur_per_kwh * over_kwh
            - config.voltage_eur * 100.0 * interval.depths.range_a_pu / self.grid.num_nodes
        )
        costs = interval.costs | {
            "import_over_limit_kwh": over_kwh,
            "cycled_kwh": quantities["cycled_kwh"],
            "losses_kwh": np.maximum(interval.balance.losses.real, 0.0) * step_h,
        }
        indicators = {
            "earned_eur": price * quantities["injected_kwh"],
            "import_kw": interval.balance.source.real,
            "converged": state.grid.converged.astype(np.float64),
        }
        return StepResult(earned_eur / self.unit_eur, costs, indicators)
