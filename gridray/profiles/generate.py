"""Stochastic load and PV series: season, weekday and hour, each customer's own noise, sun and passing clouds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pvlib import spa
from scipy.signal import lfilter

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

START_UNIX = 1704067200
"""Monday, 1 January 2024, 00:00 UTC: the year whose sun is taken."""
CLASSES = ("household", "commercial", "industrial")
HOURS = np.array([0, 3, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24], dtype=np.float64)
DAY_SHAPES = {
    "household": np.array([0.40, 0.32, 0.42, 0.68, 0.55, 0.62, 0.55, 0.68, 1.00, 1.00, 0.72, 0.40]),
    "commercial": np.array([0.35, 0.33, 0.40, 0.70, 0.98, 1.00, 0.98, 0.92, 0.75, 0.60, 0.45, 0.35]),
    "industrial": np.array([0.70, 0.68, 0.75, 0.95, 1.00, 0.98, 1.00, 0.95, 0.85, 0.80, 0.75, 0.70]),
}
"""Share of the daily peak at HOURS (local time), shapes as in the BDEW standard profiles H0, G0 and an even shift."""
WEEKEND = {"household": 1.05, "commercial": 0.65, "industrial": 0.75}
WINTER_GAIN = {"household": 0.20, "commercial": 0.05, "industrial": 0.0}
SUMMER_GAIN = {"household": 0.10, "commercial": 0.15, "industrial": 0.02}


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Place, resolution and customers of a year.

    Shares of commercial and industrial customers are of the number of loads, the rest are households. noise_std is
    the standard deviation of a customer's log-load, noise_hours its correlation time; common_std the feeder's own.
    """

    seed: int = 0
    num_days: int = 365
    step_minutes: int = 15
    latitude_deg: float = 36.1
    longitude_deg: float = -79.9
    commercial_share: float = 0.25
    industrial_share: float = 0.1
    noise_std: float = 0.25
    noise_hours: float = 1.5
    common_std: float = 0.08
    common_hours: float = 12.0
    cloud_common_share: float = 0.8

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.num_days < 1 or self.step_minutes < 1 or 1440 % self.step_minutes:
            raise ConfigError(
                f"num_days is {self.num_days} and step_minutes {self.step_minutes}: give at least one day and a "
                "number of minutes that divides the day."
            )
        if not 0.0 <= self.commercial_share + self.industrial_share <= 1.0:
            raise ConfigError(
                f"commercial_share + industrial_share is {self.commercial_share + self.industrial_share}: give 0 to 1."
            )


class Profiles(NamedTuple):
    """Time series from midnight of day 0, all loads' sum about 1 at its highest.

    load_pu: float32 [num_steps, num_loads], multiplier of each load's nominal power.
    pv_pu: float32 [num_steps, num_pv], active power available over the rating, 0..1.1.
    """

    load_pu: NDArray[np.float32]
    pv_pu: NDArray[np.float32]


def generate_profiles(config: ProfileConfig, load_kw: NDArray[np.float64], num_pv: int) -> Profiles:
    """Return the series of one feeder, the same for the same configuration.

    Args:
        config: place, resolution, customers and seed.
        load_kw: nominal power of the loads, [num_loads]; weighs the feeder's peak, which becomes 1.
        num_pv: number of PV sites.
    """
    seeds = np.random.SeedSequence(config.seed).spawn(3)
    return Profiles(_loads(config, load_kw, seeds[0]), _pv(config, num_pv, seeds[1]))


def _loads(config: ProfileConfig, load_kw: NDArray[np.float64], seed: np.random.SeedSequence) -> NDArray[np.float32]:
    per_day = 1440 // config.step_minutes
    step = np.arange(config.num_days * per_day)
    day = step // per_day
    hour = (step % per_day) * 24.0 / per_day
    shapes = {name: _shape(name, day, hour) for name in CLASSES}
    common_seed, *load_seeds = seed.spawn(len(load_kw) + 1)
    persistence = _persistence(config, config.common_hours)
    common = _log_noise(np.random.default_rng(common_seed), len(step), config.common_std, persistence)
    series = np.empty((len(step), len(load_kw)), dtype=np.float32)
    for column, load_seed in enumerate(load_seeds):
        rng = np.random.default_rng(load_seed)
        draw = rng.random()
        is_industrial = draw < config.industrial_share
        is_commercial = draw < config.industrial_share + config.commercial_share
        kind = "industrial" if is_industrial else "commercial" if is_commercial else "household"
        shift = int(rng.integers(-per_day // 24, per_day // 24 + 1))
        own = _log_noise(rng, len(step), config.noise_std, _persistence(config, config.noise_hours))
        series[:, column] = np.roll(shapes[kind], shift) * own * common
    total = series @ np.maximum(load_kw, 1e-9).astype(np.float32)
    series *= np.float32(np.maximum(load_kw, 1e-9).sum()) / np.quantile(total, 0.999)
    return series


def _shape(name: str, day: NDArray[np.int64], hour: NDArray[np.float64]) -> NDArray[np.float64]:
    season = np.cos(2.0 * np.pi * (day - 15) / 365.0)
    gain = 1.0 + WINTER_GAIN[name] * np.maximum(season, 0.0) + SUMMER_GAIN[name] * np.maximum(-season, 0.0)
    week = np.where(day % 7 >= 5, WEEKEND[name], 1.0)
    shape: NDArray[np.float64] = np.interp(hour, HOURS, DAY_SHAPES[name]) * gain * week
    return shape


def _persistence(config: ProfileConfig, hours: float) -> float:
    return float(np.exp(-config.step_minutes / 60.0 / hours))


def _log_noise(rng: np.random.Generator, size: int, std: float, persistence: float) -> NDArray[np.float64]:
    """Return exp of a stationary AR(1) process of this standard deviation, mean 1, [size]."""
    drive = rng.standard_normal(size) * std * np.sqrt(1.0 - persistence**2)
    drive[0] = rng.standard_normal() * std
    noise: NDArray[np.float64] = np.exp(lfilter([1.0], [1.0, -persistence], drive) - std**2 / 2.0)
    return noise


def _pv(config: ProfileConfig, num_pv: int, seed: np.random.SeedSequence) -> NDArray[np.float32]:
    """Return clear-sky power (Haurwitz) times each site's cloud index, mostly common to all."""
    per_day = 1440 // config.step_minutes
    step = np.arange(config.num_days * per_day)
    local_noon_shift_h = config.longitude_deg / 15.0
    unix = START_UNIX + (step + 0.5) * config.step_minutes * 60.0 - local_noon_shift_h * 3600.0
    # spa: apparent zenith, zenith, ... in degrees; standard air, no terrain.
    zenith = spa.solar_position(unix, config.latitude_deg, config.longitude_deg, 0.0, 1013.25, 12.0, 67.0, 0.5667)[1]
    sine = np.maximum(np.cos(np.radians(zenith)), 0.0)
    clear = np.where(sine > 1e-3, 1098.0 * sine * np.exp(-0.057 / np.maximum(sine, 1e-3)), 0.0) / 1000.0
    shared_seed, *site_seeds = seed.spawn(num_pv + 1)
    days = _cloud_state(np.random.default_rng(shared_seed), config, len(step))
    series = np.empty((len(step), num_pv), dtype=np.float32)
    for column, site_seed in enumerate(site_seeds):
        own = _cloud_state(np.random.default_rng(site_seed), config, len(step))
        index = config.cloud_common_share * days + (1.0 - config.cloud_common_share) * own
        series[:, column] = clear * index
    return series


def _cloud_state(rng: np.random.Generator, config: ProfileConfig, size: int) -> NDArray[np.float64]:
    """Return a clear-sky index 0.1..1.05: a logistic of slow weather and fast clouds, which makes two states."""
    slow = lfilter([1.0], [1.0, -(p := float(np.exp(-config.step_minutes / 60.0 / 18.0)))], rng.standard_normal(size))
    fast = lfilter([1.0], [1.0, -(f := float(np.exp(-config.step_minutes / 60.0 / 0.5)))], rng.standard_normal(size))
    weather = slow * np.sqrt(1.0 - p**2) * 1.8 + fast * np.sqrt(1.0 - f**2) * 0.7
    index: NDArray[np.float64] = 0.1 + 0.95 / (1.0 + np.exp(-2.2 * (weather + 0.7)))
    return index
