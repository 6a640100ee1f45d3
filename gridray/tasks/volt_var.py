"""Volt-var control: regulator taps, capacitors, PV and battery inverters against voltage, losses and wear."""

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
from gridray.tasks.fleets.capacitors import Capacitors
from gridray.tasks.fleets.inverters import Inverters
from gridray.tasks.fleets.operations import NO_BUDGET, OperationBudget
from gridray.tasks.fleets.regulators import Regulators
from gridray.tasks.siting import site_inverters
from gridray.tasks.twin import Twin
from gridray.tasks.twin_config import InverterConfig
from gridray.tasks.twin_task import TwinTask, customers

if TYPE_CHECKING:
    from gridray.tasks.twin import Interval, TwinState


@dataclass(frozen=True, kw_only=True)
class VoltVarConfig(InverterConfig):
    """One utility's feeder, customers and devices, and the weights of the reward.

    The reward of a step is minus the sum of: voltage_weight x mean over nodes of the depth outside 0.95..1.05 in
    percent; loss_weight x losses over nominal load in percent; tap_weight per tap step; capacitor_weight per switching;
    curtailment_weight x curtailed power over nominal load in percent; cycling_weight x battery power likewise;
    but not below reward_floor: how badly a feeder collapses teaches nothing, and heavy tails drown what does.
    tap_budget and capacitor_budget limit each device's operations; what they refuse is a cost, not part of the reward.
    """

    voltage_weight: float = 20.0
    loss_weight: float = 0.05
    tap_weight: float = 0.05
    capacitor_weight: float = 0.05
    curtailment_weight: float = 0.05
    cycling_weight: float = 0.002
    reward_floor: float = -5.0
    tap_budget: OperationBudget = NO_BUDGET
    capacitor_budget: OperationBudget = NO_BUDGET

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        if not self.reward_floor < 0.0:
            raise ConfigError(f"reward_floor is {self.reward_floor}: give a number below 0.")
        if self.regulator_delay_scale > 0.0:
            raise ConfigError(
                f"regulator_delay_scale is {self.regulator_delay_scale}, but volt_var commands the regulators: leave "
                "it out, or limit them by tap_budget."
            )
        if not self.voltage_weight >= 0.0:
            raise ConfigError(f"voltage_weight is {self.voltage_weight}: give a number from 0.")


class VoltVar(TwinTask):
    """Volt-var control of one utility's feeder; see VoltVarConfig for the reward."""

    name = "volt_var"
    cost_names: ClassVar[tuple[str, ...]] = (
        *CONSTRAINT_COSTS,
        "tap_operations",
        "capacitor_operations",
        "curtailed_kwh",
        "losses_kwh",
    )
    config: VoltVarConfig

    def __init__(self, config: VoltVarConfig) -> None:
        """Load the feeder, place the inverters and make the year's profiles."""
        published = load_feeder(config.feeder)
        pv, batteries = site_inverters(published, config)
        feeder = published.with_generators((*pv, *batteries))
        grid = compile_feeder(feeder)
        loads, pv_pu = customers(config, grid, len(pv))
        step_h, first = config.step_minutes / 60.0, len(grid.load_names)
        fleets = (
            Regulators(feeder, grid, step_h, config.tap_budget),
            Capacitors(feeder, step_h, config.capacitor_budget),
            Inverters("pv", pv, grid, first, pv_pu, step_h, trip=config.pv_trip),
            Batteries(batteries, first + len(pv), step_h),
        )
        twin = Twin(config, feeder, grid, loads, fleets)
        super().__init__(config, twin)

    def score(self, state: TwinState, interval: Interval) -> StepResult:
        """Weigh voltage, losses, wear, curtailment and cycling."""
        config, step_h = self.config, self.twin.step_h
        quantities, depths = interval.quantities, interval.depths
        losses_kw = interval.balance.losses.real
        percent = 100.0 / self.twin.nominal_kw
        penalty = (
            config.voltage_weight * 100.0 * (depths.range_a_pu / self.grid.num_nodes)
            + config.loss_weight * losses_kw * percent
            + config.tap_weight * quantities["tap_operations"]
            + config.capacitor_weight * quantities["capacitor_operations"]
            + config.curtailment_weight * quantities["curtailed_kwh"] / step_h * percent
            + config.cycling_weight * quantities["cycled_kwh"] / step_h * percent
        )
        costs = interval.costs | {
            "tap_operations": quantities["tap_operations"],
            "capacitor_operations": quantities["capacitor_operations"],
            "curtailed_kwh": quantities["curtailed_kwh"],
            "losses_kwh": losses_kw * step_h,
        }
        indicators = {
            "violation_share": depths.share_a,
            "violation_depth_pu": depths.deepest_pu,
            "converged": state.grid.converged.astype(np.float64),
        }
        return StepResult(np.maximum(-penalty, config.reward_floor), costs, indicators)
