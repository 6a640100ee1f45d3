"""Reconfiguration and restoration: switches against interruptions after outages, losses and overloads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from gridray.errors import ConfigError
from gridray.feeders.library import load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.tasks.base import StepResult
from gridray.tasks.constraints import CONSTRAINT_COSTS
from gridray.tasks.fleets.operations import NO_BUDGET, OperationBudget
from gridray.tasks.fleets.outages import Outages
from gridray.tasks.fleets.supply import Supply
from gridray.tasks.fleets.switches import Switches
from gridray.tasks.fleets.zones import find_zones
from gridray.tasks.switch_siting import with_switchgear
from gridray.tasks.twin import Twin
from gridray.tasks.twin_config import TwinConfig
from gridray.tasks.twin_task import TwinTask, customers

if TYPE_CHECKING:
    from gridray.tasks.twin import Interval, TwinState


@dataclass(frozen=True, kw_only=True)
class ReconfigurationConfig(TwinConfig):
    """One utility's feeder, customers, switches and outages, and the weights of the reward.

    Switches and ties are added where the feeder has fewer than num_sectionalisers and num_ties (three-phase ones).
    Every episode has an outage that begins in its first first_outage_h hours (0: outages come by chance alone), and
    storm_factor multiplies the chance of more. Commands take switching_minutes. Relays pick up at pickup times the
    rating of the line that a switch is in, or of the strongest one at its weaker end. A customer is customer_kw of
    nominal power.
    The reward of a step is minus the sum of: outage_weight x energy not supplied over the nominal load's energy in
    percent; interruption_weight x sustained interruptions per customer in percent; switching_weight per operation;
    refused_weight per refused command; voltage_weight x mean over nodes of the depth outside 0.95..1.05 in percent;
    overload_weight x sum of overloads over ratings in percent; loss_weight x losses over nominal load in percent.
    """

    feeder: str = "ieee123"
    num_sectionalisers: int = 4
    num_ties: int = 2
    switch_budget: OperationBudget = NO_BUDGET
    failures_per_km_year: float = 0.1
    storm_factor: float = 1.0
    first_outage_h: float = 6.0
    switching_minutes: float = 3.0
    customer_kw: float = 5.0
    pickup: float = 1.5
    outage_weight: float = 0.1
    interruption_weight: float = 0.02
    switching_weight: float = 0.02
    refused_weight: float = 0.05
    voltage_weight: float = 1.0
    overload_weight: float = 0.01
    loss_weight: float = 0.01

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        if self.num_sectionalisers < 1 or self.num_ties < 0:
            raise ConfigError(
                f"num_sectionalisers is {self.num_sectionalisers} and num_ties {self.num_ties}: "
                "give at least one sectionaliser and 0 ties."
            )
        if not 0.0 <= self.switching_minutes < self.step_minutes:
            raise ConfigError(
                f"switching_minutes is {self.switching_minutes}: give minutes from 0 to below the step's "
                f"{self.step_minutes}."
            )
        if not 0.0 <= self.first_outage_h <= 24.0:
            raise ConfigError(f"first_outage_h is {self.first_outage_h}: give hours from 0 to 24.")
        for name in ("failures_per_km_year", "storm_factor"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number from 0.")
        for name in ("customer_kw", "pickup"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0.")


class Reconfiguration(TwinTask):
    """Restoration after outages by switches; see ReconfigurationConfig for the reward."""

    name = "reconfiguration"
    cost_names: ClassVar[tuple[str, ...]] = (
        *CONSTRAINT_COSTS,
        "saidi_min",
        "saifi",
        "maifi",
        "ens_kwh",
        "switch_operations",
        "losses_kwh",
    )
    config: ReconfigurationConfig

    def __init__(self, config: ReconfigurationConfig) -> None:
        """Load the feeder, put switches in and make the year's profiles."""
        feeder = with_switchgear(load_feeder(config.feeder), config.num_sectionalisers, config.num_ties)
        feeder = feeder.with_generators(())
        zones = find_zones(feeder)
        if len(zones.names) < 2:
            raise ConfigError(f"Feeder '{feeder.name}' has no zone behind a switch: give one with three-phase lines.")
        grid = compile_feeder(feeder)
        loads, _ = customers(config, grid, 0)
        step_h = config.step_minutes / 60.0
        self.outages = Outages(
            zones,
            step_h,
            failures_per_km_year=config.failures_per_km_year,
            storm_factor=config.storm_factor,
            first_within_h=config.first_outage_h,
        )
        self.switches = Switches(
            feeder, grid, zones, self.outages, step_h=step_h, budget=config.switch_budget, pickup=config.pickup
        )
        self.supply = Supply(
            feeder, loads, self.switches, config.customer_kw, config.step_minutes, config.switching_minutes
        )
        fleets = (self.outages, self.switches, self.supply)
        twin = Twin(config, feeder, grid, loads, fleets, has_local_controls=True)
        super().__init__(config, twin)

    def score(self, state: TwinState, interval: Interval) -> StepResult:
        """Weigh interruptions, switchings, voltage, overload and losses."""
        config, quantities = self.config, interval.quantities
        losses_kwh = np.maximum(interval.balance.losses.real, 0.0) * self.twin.step_h
        percent = 100.0 / (self.twin.nominal_kw * self.twin.step_h)
        penalty = (
            config.outage_weight * quantities["unserved_kwh"] * percent
            + config.interruption_weight * 100.0 * quantities["saifi"]
            + config.switching_weight * quantities["switch_operations"]
            + config.refused_weight * quantities["refused_operations"]
            + config.voltage_weight * 100.0 * interval.depths.range_a_pu / self.grid.num_nodes
            + config.overload_weight * 100.0 * interval.costs["thermal_overload_pu"]
            + config.loss_weight * losses_kwh * percent
        )
        costs = interval.costs | {
            "saidi_min": quantities["saidi_min"],
            "saifi": quantities["saifi"],
            "maifi": quantities["maifi"],
            "ens_kwh": quantities["unserved_kwh"],
            "switch_operations": quantities["switch_operations"],
            "losses_kwh": losses_kwh,
        }
        indicators = {
            "interrupted_share": self.supply.interrupted_share(state),
            "faulted_zones": quantities["faulted_zones"],
            "converged": state.grid.converged.astype(np.float64),
        }
        return StepResult(-penalty, costs, indicators)
