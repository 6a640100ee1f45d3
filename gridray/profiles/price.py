"""Day-ahead prices: hour, weekday, weeks of weather and fuel, spikes and negative hours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError
from gridray.profiles.processes import Clock, draw_days, draw_hours, gaussian, pulses, step_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

HOUR_SHAPE = np.array(
    [-19, -21, -23, -21, -11, 3, 13, 15, 11, 6, 0, -5, -8, -9, -5, 6, 21, 27, 23, 12, 4, -4, -11, -15]
) / 100.0  # fmt: skip
"""Price of each hour over the day's mean, less 1: between the Dutch day-ahead market's 2016, 2019 and 2022."""
SPIKE_HOURS = np.array([0, 0, 0, 0, 0, 0, 1, 3, 3, 1, 0, 0, 0, 0, 0, 1, 3, 5, 5, 3, 1, 0, 0, 0.0])
DIP_HOURS = np.array([1, 1, 2, 2, 2, 1, 0, 0, 0, 0, 1, 2, 4, 5, 4, 2, 0, 0, 0, 0, 0, 0, 0, 1.0])


@dataclass(frozen=True, kw_only=True)
class PriceConfig:
    """Mean price, its spread over weeks, days and hours (standard deviation over the mean), spikes and dips a year."""

    mean_eur_per_mwh: float = 45.0
    weeks_std: float = 0.23
    days_std: float = 0.10
    hours_std: float = 0.08
    weekend: float = 0.84
    spikes_per_year: float = 12.0
    dips_per_year: float = 8.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if not self.mean_eur_per_mwh > 0.0 or not self.weekend > 0.0:
            raise ConfigError(
                f"mean_eur_per_mwh is {self.mean_eur_per_mwh} and weekend {self.weekend}: give numbers above 0."
            )
        if min(self.weeks_std, self.days_std, self.hours_std, self.spikes_per_year, self.dips_per_year) < 0.0:
            raise ConfigError("A spread or a number of spikes or dips is below 0: give 0 or more.")


def price_eur_per_mwh(
    clock: Clock, num: int, rng: np.random.Generator, config: PriceConfig | None = None
) -> NDArray[np.float32]:
    """Return price years of one market, drawn alike and independent, EUR/MWh, [num_steps, num].

    The market clears by the hour: finer steps hold its price.
    """
    config = config or PriceConfig()
    hourly = Clock(num_days=clock.num_days, step_s=3600, start=clock.start)
    series = np.empty((clock.num_steps, num), dtype=np.float32)
    for column, own in enumerate(rng.spawn(num)):
        price = config.mean_eur_per_mwh * _relative(hourly, own, config)
        series[:, column] = step_means(np.repeat(price, 3600 // np.gcd(3600, clock.step_s)), _held(clock))
    return series


def _held(clock: Clock) -> int:
    return clock.step_s // int(np.gcd(3600, clock.step_s))


def _relative(clock: Clock, rng: np.random.Generator, config: PriceConfig) -> NDArray[np.float64]:
    size = clock.num_steps
    week = np.where(clock.weekday >= 5, config.weekend, 1.0)
    week = np.repeat(week / week.mean(), 24)
    slow = config.weeks_std * gaussian(rng, size, 1.0, 1500.0, 24.0) + config.days_std * gaussian(rng, size, 1.0, 24.0)
    level = week * np.exp(slow - 0.5 * (config.weeks_std**2 + config.days_std**2))
    # How far a day swings differs from day to day.
    swing = np.repeat(rng.lognormal(-0.06, 0.35, clock.num_days), 24)
    shape = 1.0 + swing * np.tile(HOUR_SHAPE, clock.num_days)
    noise = config.hours_std * gaussian(rng, size, 1.0, 3.0)
    spikes = _events(clock, rng, config.spikes_per_year, SPIKE_HOURS, 0.7)
    dips = _events(clock, rng, config.dips_per_year, DIP_HOURS, 0.45)
    return level * shape + noise + spikes - dips


def _events(
    clock: Clock, rng: np.random.Generator, per_year: float, hours: NDArray[np.float64], mean_height: float
) -> NDArray[np.float64]:
    """Return rare pulses of one to four whole hours, heights exponential, over the mean price, [num_steps]."""
    num = int(rng.poisson(per_year * clock.num_days / 365.25))
    starts = np.floor(24.0 * draw_days(rng, num, np.ones(clock.num_days)) + draw_hours(rng, num, hours))
    lengths = rng.integers(1, 5, num).astype(np.float64)
    return pulses(clock, starts, lengths, rng.exponential(mean_height, num))
