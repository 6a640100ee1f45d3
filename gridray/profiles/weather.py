"""Outdoor temperature, and heat pumps that follow it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError
from gridray.profiles.processes import Clock, gaussian, pulses

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEATING_LIMIT_C, INDOOR_C = 15.0, 20.0
"""Heating starts below the limit (EN 12831's usual range is 12 to 17 degrees)."""
COP_AT_0_C, COP_PER_K = 3.0, 0.06
"""Coefficient of performance of an air-source heat pump by outdoor temperature, as manufacturers' EN 14511 tables."""
HOT_WATER = 0.025
"""Share of the time that a pump runs for hot water; it gives winter 13 to 23 times summer's energy, as simbench's."""
SLOTS = 6
"""Starts of a heat pump in a day; simbench's run about every two to three hours."""


@dataclass(frozen=True, kw_only=True)
class ClimateConfig:
    """Mean, half the span from January to July, half the span of a day, and the weather's standard deviation, C.

    The numbers are of Greensboro, NC (TMY3 station 723170).
    """

    mean_c: float = 14.4
    season_c: float = 11.0
    day_c: float = 4.2
    weather_c: float = 4.7
    design_c: float = -8.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not self.design_c < HEATING_LIMIT_C:
            raise ConfigError(f"design_c is {self.design_c}: give a temperature below {HEATING_LIMIT_C}.")


def temperature_c(clock: Clock, rng: np.random.Generator, config: ClimateConfig | None = None) -> NDArray[np.float64]:
    """Return outdoor temperature, C, [num_steps]: season, hour (warmest at 14:30) and weather that lasts two days."""
    config = config or ClimateConfig()
    hourly = Clock(num_days=clock.num_days + 1, step_s=3600, start=clock.start)
    weather = config.weather_c * (
        0.9 * gaussian(rng, hourly.num_steps, 1.0, 48.0, 3.0) + 0.44 * gaussian(rng, hourly.num_steps, 1.0, 4.0, 0.5)
    )
    hours = np.arange(clock.num_steps) * clock.step_h + 0.5 * clock.step_h
    at_step = np.interp(hours, np.arange(hourly.num_steps), weather)
    # The year lags the sun by ten days more than `winter` does.
    day = np.repeat(clock.day_of_year, clock.per_day)
    season = -config.season_c * np.cos(2.0 * np.pi * (day - 22) / 365.25)
    temperature: NDArray[np.float64] = (
        config.mean_c + season + at_step + config.day_c * np.cos(2.0 * np.pi * (hours - 14.5) / 24.0)
    )
    return temperature


def heat_pump_kw(
    clock: Clock, num: int, rng: np.random.Generator, config: ClimateConfig | None = None
) -> NDArray[np.float32]:
    """Return electric power of heat pumps in one climate, kW, [num_steps, num]; first ones stay when more are added.

    A pump starts at its own hours of the day and runs as long as the heat that was lost since the last start asks.

    Args:
        clock: steps.
        num: number of heat pumps, 1.5 to 4 kW each.
        rng: its first child makes the weather, the others the pumps.
        config: climate; pumps run without pause at its design temperature.
    """
    config = config or ClimateConfig()
    weather, *pumps = rng.spawn(num + 1)
    hourly = Clock(num_days=clock.num_days, step_s=3600, start=clock.start)
    outdoor_c = temperature_c(hourly, weather, config)
    heat = np.where(outdoor_c < HEATING_LIMIT_C, (INDOOR_C - outdoor_c) / (INDOOR_C - config.design_c), 0.0)
    duty = HOT_WATER + heat * _cop(config.design_c) / _cop(outdoor_c)
    lost = np.concatenate(([0.0], np.cumsum(duty)))
    series = np.empty((clock.num_steps, num), dtype=np.float32)
    for column, own in enumerate(pumps):
        of_day = np.sort((np.arange(SLOTS) + 0.6 * own.random(SLOTS)) * 24.0 / SLOTS)
        starts = (24.0 * np.arange(clock.num_days)[:, None] + of_day).ravel()
        starts = starts + own.normal(0.0, 0.3, len(starts))
        size = own.uniform(0.6, 1.0)
        since = np.diff(np.interp(starts, np.arange(len(lost)), lost), prepend=0.0)
        lengths = size * np.maximum(since, 0.0) * own.uniform(0.7, 1.3, len(starts))
        series[:, column] = pulses(clock, starts, lengths, np.full(len(starts), own.uniform(1.5, 4.0)))
    return series


def _cop(outdoor_c: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.maximum(COP_AT_0_C + COP_PER_K * np.asarray(outdoor_c), 1.0)
