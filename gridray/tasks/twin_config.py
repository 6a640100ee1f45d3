"""Configuration of what tasks on a twin share: one utility's feeder, customers and devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from gridray.errors import ConfigError
from gridray.tasks.fleets.inverters import Trip
from gridray.tasks.imperfection import ImperfectionConfig
from gridray.tasks.observations import ObservationConfig
from gridray.tasks.own_series import SeriesConfig


@dataclass(frozen=True, kw_only=True)
class TwinConfig:
    """One utility's feeder and customers.

    feeder: name or path; seed: of the customers' series; series: files in their place; load_scale multiplies the
    feeder's published loads. Days of the year with day % held_out_every == held_out_every - 1 are held out from
    training. observation: what is seen; imperfection: how far what is seen and said differs from what is.
    regulator_delay_scale multiplies the time delays of regulators that the task does not command; with 0 they come to
    rest at once. has_thermal_image judges overloads by how hot lines and transformers are, not by the present current.
    """

    feeder: str = "ieee13"
    utility: str = "default"
    seed: int = 0
    load_scale: float = 1.0
    step_minutes: int = 15
    num_days: int = 365
    days: Literal["train", "held_out", "all"] = "train"
    held_out_every: int = 5
    series: SeriesConfig = field(default_factory=SeriesConfig)
    observation: ObservationConfig = field(default_factory=ObservationConfig)
    imperfection: ImperfectionConfig = field(default_factory=ImperfectionConfig)
    regulator_delay_scale: float = 0.0
    has_thermal_image: bool = False

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not 0.0 < self.load_scale < np.inf:
            raise ConfigError(f"load_scale is {self.load_scale}: give a finite number above 0.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: give a whole number from 0.")
        if not 0.0 <= self.regulator_delay_scale < np.inf:
            raise ConfigError(
                f"regulator_delay_scale is {self.regulator_delay_scale}: give a finite number from 0 (no delays); "
                "1 is the feeder's own."
            )
        if self.step_minutes not in {1, 5, 10, 15, 30, 60}:
            raise ConfigError(f"step_minutes is {self.step_minutes}: give 1, 5, 10, 15, 30 or 60.")
        if self.held_out_every < 2 or self.num_days < self.held_out_every:
            raise ConfigError(
                f"held_out_every is {self.held_out_every} and num_days {self.num_days}: "
                "give 2 <= held_out_every <= num_days."
            )

    def check_counts(self, *names: str) -> None:
        """Refuse fields of these names that are below 0."""
        for name in names:
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number from 0.")

    def check_shares(self, *names: str) -> None:
        """Refuse fields of these names that are no share from 0 to 5."""
        for name in names:
            if not 0.0 <= getattr(self, name) <= 5.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a share from 0 to 5.")

    def check_look_ahead(self, hours: int) -> None:
        """Refuse a look_ahead_h that is no part of a day."""
        if not 0 <= hours <= 24:
            raise ConfigError(f"look_ahead_h is {hours}: give hours from 0 to 24.")


@dataclass(frozen=True, kw_only=True)
class InverterConfig(TwinConfig):
    """A feeder with PV and batteries.

    Shares are rated power over the sum of the loads, divided among num_pv PV and num_batteries batteries, which hold
    battery_hours of their rated power. Where they are: `gridray.tasks.siting.site_inverters`. pv_trip: category of IEEE
    1547-2018 by whose default voltage trips PV (and wind) leave the grid.
    """

    pv_share: float = 0.5
    num_pv: int = 3
    battery_share: float = 0.1
    num_batteries: int = 1
    battery_hours: float = 4.0
    pv_trip: Trip = "none"

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        self.check_counts("num_pv", "num_batteries")
        self.check_shares("pv_share", "battery_share")
        if not 0.0 < self.battery_hours < np.inf:
            raise ConfigError(f"battery_hours is {self.battery_hours}: give a number above 0.")
