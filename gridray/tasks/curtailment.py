"""Active network management: curtail sun and wind, store, and ask customers, so that the feeder keeps its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gridray.errors import ConfigError
from gridray.feeders.library import load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.tasks.base import StepResult
from gridray.tasks.constraints import CONSTRAINT_COSTS
from gridray.tasks.fleets.batteries import Batteries
from gridray.tasks.fleets.flexible_loads import FlexibleLoads
from gridray.tasks.fleets.heat_pumps import HeatPumps
from gridray.tasks.fleets.inverters import Autonomy, Inverters
from gridray.tasks.signals import outdoor_c, wind_pu
from gridray.tasks.siting import INVERTER_OVERSIZE, site_inverters, site_item, spread_buses
from gridray.tasks.twin import Twin
from gridray.tasks.twin_config import InverterConfig
from gridray.tasks.twin_task import TwinTask, customers

if TYPE_CHECKING:
    from gridray.feeders.components import Generator
    from gridray.feeders.feeder import Feeder
    from gridray.tasks.twin import Interval, TwinState


@dataclass(frozen=True, kw_only=True)
class CurtailmentConfig(InverterConfig):
    """One utility's feeder, customers and devices, and the weights of the reward.

    Shares are rated power over the sum of the loads; a device of each kind at num_ buses. Flexible loads are the
    largest ones: flexible_share of each may be left out, and rebound of that energy comes back. pv_autonomy says which
    functions of IEEE 1547-2018 PV and wind follow by themselves; without any their reactive power is commanded too.
    The reward of a step is minus the sum of: energy_weight x (energy curtailed + energy left out by customers + losses)
    over the nominal load's energy in percent; comfort_weight x kelvin-hours below comfort per house; voltage_weight x
    mean over nodes of the depth outside 0.95..1.05 in percent; overload_weight x sum of overloads over ratings in
    percent; but not below reward_floor.
    """

    pv_share: float = 1.2
    wind_share: float = 0.5
    num_wind: int = 1
    pv_autonomy: Autonomy = "none"
    num_flexible: int = 2
    flexible_share: float = 0.5
    rebound: float = 1.0
    heat_pump_share: float = 0.1
    num_heat_pumps: int = 1
    energy_weight: float = 0.05
    comfort_weight: float = 1.0
    voltage_weight: float = 5.0
    overload_weight: float = 0.02
    reward_floor: float = -20.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        self.check_shares("wind_share", "heat_pump_share", "rebound")
        if not 0.0 <= self.flexible_share <= 1.0:
            raise ConfigError(f"flexible_share is {self.flexible_share}: give a share from 0 to 1.")
        self.check_counts("num_wind", "num_flexible", "num_heat_pumps")


class Curtailment(TwinTask):
    """Curtailment, storage and flexible demand on one feeder; see CurtailmentConfig for the reward."""

    name = "curtailment"
    cost_names: ClassVar[tuple[str, ...]] = (
        *CONSTRAINT_COSTS,
        "curtailed_kwh",
        "shed_kwh",
        "discomfort_kh",
        "losses_kwh",
    )
    config: CurtailmentConfig

    def __init__(self, config: CurtailmentConfig) -> None:
        """Load the feeder, place the devices and make the year's profiles and weather."""
        published = load_feeder(config.feeder)
        pv, batteries, wind, heat_pumps = _devices(config, published)
        feeder = published.with_generators((*pv, *batteries, *wind, *heat_pumps))
        grid = compile_feeder(feeder)
        loads, pv_pu = customers(config, grid, len(pv))
        blowing = wind_pu(config, [turbine.name for turbine in wind])
        step_h, first = config.step_minutes / 60.0, len(grid.load_names)
        first_wind = first + len(pv) + len(batteries)
        largest = np.argsort(-loads.kw, kind="stable")[: config.num_flexible].tolist()
        fleets = (
            Inverters("pv", pv, grid, first, pv_pu, step_h, autonomy=config.pv_autonomy, trip=config.pv_trip),
            Inverters(
                "wind", wind, grid, first_wind, blowing, step_h, autonomy=config.pv_autonomy, trip=config.pv_trip
            ),
            Batteries(batteries, first + len(pv), step_h),
            FlexibleLoads(feeder, loads, largest, config.flexible_share, config.rebound, step_h),
            HeatPumps(heat_pumps, first_wind + len(wind), outdoor_c(config), step_h),
        )
        twin = Twin(config, feeder, grid, loads, fleets, has_local_controls=True)
        super().__init__(config, twin)

    def score(self, state: TwinState, interval: Interval) -> StepResult:
        """Weigh lost energy, comfort and violations."""
        config, quantities = self.config, interval.quantities
        losses_kwh = np.maximum(interval.balance.losses.real, 0.0) * self.twin.step_h
        lost_kwh = quantities["curtailed_kwh"] + quantities["shed_kwh"] + losses_kwh
        penalty = (
            config.energy_weight * 100.0 * lost_kwh / (self.twin.nominal_kw * self.twin.step_h)
            + config.comfort_weight * quantities["discomfort_kh"]
            + config.voltage_weight * 100.0 * interval.depths.range_a_pu / self.grid.num_nodes
            + config.overload_weight * 100.0 * interval.costs["thermal_overload_pu"]
        )
        costs = interval.costs | {name: quantities[name] for name in ("curtailed_kwh", "shed_kwh", "discomfort_kh")}
        costs["losses_kwh"] = losses_kwh
        indicators = {
            "violation_share": interval.depths.share_a,
            "converged": state.grid.converged.astype(np.float64),
        }
        return StepResult(np.maximum(-penalty, config.reward_floor), costs, indicators)


def _devices(config: CurtailmentConfig, feeder: Feeder) -> tuple[tuple[Generator, ...], ...]:
    """Return PV, batteries, wind and heat pumps, each at buses of its own."""
    nominal_kw = config.load_scale * sum(load.kw for load in feeder.loads)
    pv, batteries = site_inverters(feeder, config)
    taken = {generator.bus for generator in (*pv, *batteries)}
    buses = spread_buses(feeder, config.num_wind + config.num_heat_pumps, taken)
    wind_kw = config.wind_share * nominal_kw / max(config.num_wind, 1)
    heat_kw = config.heat_pump_share * nominal_kw / max(config.num_heat_pumps, 1)
    wind = tuple(
        site_item(feeder, "wind", bus, INVERTER_OVERSIZE * wind_kw, kw=wind_kw) for bus in buses[: config.num_wind]
    )
    heat_pumps = tuple(site_item(feeder, "heat_pump", bus, heat_kw) for bus in buses[config.num_wind :])
    return pv, batteries, wind, heat_pumps
