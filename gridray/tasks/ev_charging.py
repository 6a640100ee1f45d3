"""EV charging under network limits: sites share what the feeder can carry among cars that want to leave charged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gridray.errors import ConfigError
from gridray.feeders.library import load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.profiles.ev import EvConfig, Place, ev_sessions
from gridray.profiles.processes import Clock
from gridray.tasks.base import StepResult
from gridray.tasks.constraints import CONSTRAINT_COSTS
from gridray.tasks.fleets.ev_chargers import EvChargers
from gridray.tasks.signals import load_signal, price_signal
from gridray.tasks.siting import site_item, spread_buses
from gridray.tasks.twin import Twin, calendar
from gridray.tasks.twin_config import TwinConfig
from gridray.tasks.twin_task import TwinTask, customers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.twin import Interval, TwinState

EV_STREAM = 7
"""Key of the sessions' random numbers beside the customers'."""


@dataclass(frozen=True, kw_only=True)
class EvChargingConfig(TwinConfig):
    """One utility's feeder, customers and charging sites, and the weights of the reward.

    Each of num_sites has points_per_site points of charger_kw, to which sessions_per_day cars come at the hours of
    `place` (home, public, work); a point stands for cars_per_point that are alike, as a feeder has more cars than are
    worth following one by one. Episodes begin at first_hour: 12 leaves nights whole, for cars at home. Prices and load
    are known look_ahead_h hours ahead. Without cars the feeder has room: loads are 0.75 of the published ones.
    The reward of a step is minus the sum of: unmet_weight x energy missing in cars that leave, over what all points can
    charge in an hour, in percent; price_weight x cost of the energy at the step's price over that of an hour's full
    charging at the mean price, in percent; voltage_weight x mean over nodes of the depth outside 0.95..1.05 in percent;
    overload_weight x sum of overloads over ratings in percent; but not below reward_floor.
    """

    load_scale: float = 0.75
    num_sites: int = 4
    points_per_site: int = 20
    cars_per_point: int = 5
    charger_kw: float = 22.0
    place: Place = "work"
    sessions_per_day: float = 1.0
    first_hour: int = 0
    look_ahead_h: int = 12
    unmet_weight: float = 1.0
    price_weight: float = 0.02
    voltage_weight: float = 2.0
    overload_weight: float = 0.02
    reward_floor: float = -50.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        if min(self.num_sites, self.points_per_site, self.cars_per_point) < 1 or not self.charger_kw > 0.0:
            raise ConfigError(
                f"num_sites is {self.num_sites}, points_per_site {self.points_per_site}, cars_per_point "
                f"{self.cars_per_point} and charger_kw {self.charger_kw}: give at least one point with power."
            )
        if not 0 <= self.first_hour < 24:
            raise ConfigError(f"first_hour is {self.first_hour}: give an hour from 0 to 23.")
        self.check_look_ahead(self.look_ahead_h)


class EvCharging(TwinTask):
    """Charging of many cars on one feeder; see EvChargingConfig for the reward."""

    name = "ev_charging"
    cost_names: ClassVar[tuple[str, ...]] = (*CONSTRAINT_COSTS, "unmet_kwh", "losses_kwh")
    config: EvChargingConfig

    def __init__(self, config: EvChargingConfig) -> None:
        """Load the feeder, place the sites and make the year's profiles and sessions."""
        published = load_feeder(config.feeder)
        num_points = config.num_sites * config.points_per_site
        point_kw = config.cars_per_point * config.charger_kw
        self.sites_kw = num_points * point_kw
        sites = tuple(
            site_item(published, "ev", bus, config.points_per_site * point_kw)
            for bus in spread_buses(published, config.num_sites)
        )
        feeder = published.with_generators(sites)
        grid = compile_feeder(feeder)
        loads, _ = customers(config, grid, 0)
        when = calendar(config.step_minutes, config.num_days, config.first_hour)
        # A day more, so that the last episode has its morning.
        clock = Clock(num_days=config.num_days + 1, step_s=60 * config.step_minutes)
        cars = EvConfig(place=config.place, sessions_per_day=config.sessions_per_day, charger_kw=(config.charger_kw,))
        year = ev_sessions(clock, num_points, np.random.default_rng([config.seed, EV_STREAM]), cars)
        year = year._replace(energy_kwh=config.cars_per_point * year.energy_kwh)
        self.chargers = EvChargers(sites, len(grid.load_names), year, np.full(num_points, point_kw), when)
        prices = price_signal(config, config.look_ahead_h)
        self._prices, self._mean_price = prices.series, float(prices.series.mean())
        twin = Twin(
            config,
            feeder,
            grid,
            loads,
            (self.chargers,),
            signals=(prices, load_signal(config, loads, config.look_ahead_h)),
            has_local_controls=True,
            first_hour=config.first_hour,
        )
        super().__init__(config, twin)

    def price_shares(self, day: int) -> NDArray[np.float64]:
        """Return the prices of a day's steps over the year's mean, float64 [num_steps]."""
        steps = self.twin.first_step + day * self.num_steps + np.arange(self.num_steps)
        return np.asarray(self._prices[steps % len(self._prices)] / self._mean_price, dtype=np.float64)

    def score(self, state: TwinState, interval: Interval) -> StepResult:
        """Weigh missing energy, its price, voltage and overload."""
        config, quantities = self.config, interval.quantities
        price = self._prices[self.twin.series_step(state)] / self._mean_price
        percent = 100.0 / self.sites_kw
        penalty = (
            config.unmet_weight * quantities["unmet_kwh"] * percent
            + config.price_weight * price * quantities["charged_kwh"] * percent
            + config.voltage_weight * 100.0 * interval.depths.range_a_pu / self.grid.num_nodes
            + config.overload_weight * 100.0 * interval.costs["thermal_overload_pu"]
        )
        costs = interval.costs | {
            "unmet_kwh": quantities["unmet_kwh"],
            "losses_kwh": np.maximum(interval.balance.losses.real, 0.0) * self.twin.step_h,
        }
        indicators = {
            "charged_kwh": quantities["charged_kwh"],
            "converged": state.grid.converged.astype(np.float64),
        }
        return StepResult(np.maximum(-penalty, config.reward_floor), costs, indicators)
