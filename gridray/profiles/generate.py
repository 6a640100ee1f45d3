"""Stochastic series of every kind, and the loads and PV of a feeder made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.errors import ConfigError
from gridray.profiles.business import COMMERCIAL, INDUSTRIAL, business_pu
from gridray.profiles.ev import ev_sessions, uncontrolled_kw
from gridray.profiles.households import MEAN_KW, expected_kw, household_kw
from gridray.profiles.price import price_eur_per_mwh
from gridray.profiles.processes import Clock
from gridray.profiles.pv import PvConfig, pv_pu
from gridray.profiles.series import TimeSeries
from gridray.profiles.weather import heat_pump_kw, temperature_c
from gridray.profiles.wind import wind_pu

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Generate = Callable[[Clock, int, np.random.Generator], NDArray[np.float32]]

MOST_HOUSES = 6
"""Households of one load that are drawn one by one; a load of more is their sum, with its variation made smaller."""


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Place, resolution and customers of a year.

    Shares of commercial and industrial customers are of the number of loads, the rest are households, one for each
    household_kw of a load's nominal power and at least one.
    """

    seed: int = 0
    num_days: int = 365
    step_minutes: int = 15
    latitude_deg: float = 36.1
    longitude_deg: float = -79.9
    commercial_share: float = 0.25
    industrial_share: float = 0.1
    household_kw: float = 2.0
    pv_spread_km: float = 8.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.num_days < 1 or not 1 <= self.step_minutes <= 60 or 1440 % self.step_minutes:
            raise ConfigError(
                f"num_days is {self.num_days} and step_minutes {self.step_minutes}: give at least one day and a "
                "number of minutes up to 60 that divides the day."
            )
        if not 0.0 <= self.commercial_share + self.industrial_share <= 1.0:
            raise ConfigError(
                f"commercial_share + industrial_share is {self.commercial_share + self.industrial_share}: give 0 to 1."
            )
        if not self.household_kw > 0.0:
            raise ConfigError(f"household_kw is {self.household_kw}: give a number above 0.")


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
        load_kw: nominal power of the loads, [num_loads]; weighs the feeder's peak, which becomes 1, and tells how many
            households a load has.
        num_pv: number of PV sites.
    """
    clock = Clock(num_days=config.num_days, step_s=60 * config.step_minutes)
    loads, suns = (np.random.default_rng(seed) for seed in np.random.SeedSequence(config.seed).spawn(2))
    series = np.empty((clock.num_steps, len(load_kw)), dtype=np.float32)
    typical = expected_kw(clock)
    for column, own in enumerate(loads.spawn(len(load_kw))):
        draw = own.random()
        if draw < config.industrial_share:
            series[:, column] = business_pu(clock, 1, own, INDUSTRIAL)[:, 0]
        elif draw < config.industrial_share + config.commercial_share:
            series[:, column] = business_pu(clock, 1, own, COMMERCIAL)[:, 0]
        else:
            num_houses = max(1, round(float(load_kw[column]) / config.household_kw))
            series[:, column] = _houses(clock, num_houses, own, typical) / MEAN_KW
    weights = np.maximum(load_kw, 1e-9).astype(np.float32)
    series *= weights.sum() / max(float(np.quantile(series @ weights, 0.999)), 1e-9)
    sun = PvConfig(latitude_deg=config.latitude_deg, longitude_deg=config.longitude_deg, spread_km=config.pv_spread_km)
    return Profiles(series, pv_pu(clock, num_pv, suns, sun))


def generate_series(kind: str, clock: Clock, num: int, *, seed: int) -> TimeSeries:
    """Return series of one kind; the first ones stay when more are added.

    Args:
        kind: key of KINDS.
        clock: days and step; local time, which the series state as if it were UTC.
        num: number of series.
        seed: of the whole; every kind draws from its own stream.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"There are no series of kind '{kind}': give one of {', '.join(KINDS)}.")
    unit, generate = KINDS[kind]
    stream = np.random.SeedSequence(seed, spawn_key=(list(KINDS).index(kind),))
    return TimeSeries(
        names=tuple(f"{kind}_{index}" for index in range(num)),
        unit=unit,
        start=np.datetime64(clock.start, "s"),
        step_s=clock.step_s,
        values=generate(clock, num, np.random.default_rng(stream)),
    )


def _houses(clock: Clock, num: int, rng: np.random.Generator, typical: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of a number of households, kW, [num_steps].

    Of many only MOST_HOUSES are drawn; their deviation from the typical course is scaled by the square root of drawn
    over all, as the variance of a mean of independent households falls.
    """
    drawn = min(num, MOST_HOUSES)
    mean = household_kw(clock, drawn, rng).mean(axis=1, dtype=np.float64)
    series: NDArray[np.float64] = np.maximum(typical + (mean - typical) * np.sqrt(drawn / num), 0.1 * typical)
    return series


def _temperatures(clock: Clock, num: int, rng: np.random.Generator) -> NDArray[np.float32]:
    series = np.empty((clock.num_steps, num), dtype=np.float32)
    for column, own in enumerate(rng.spawn(num)):
        series[:, column] = temperature_c(clock, own)
    return series


KINDS: dict[str, tuple[str, Generate]] = {
    "household": ("kW", household_kw),
    "commercial": ("pu of mean", lambda clock, num, rng: business_pu(clock, num, rng, COMMERCIAL)),
    "industrial": ("pu of mean", lambda clock, num, rng: business_pu(clock, num, rng, INDUSTRIAL)),
    "pv": ("pu of rating", pv_pu),
    "wind": ("pu of rating", wind_pu),
    "ev": ("kW", lambda clock, num, rng: uncontrolled_kw(clock, num, ev_sessions(clock, num, rng))),
    "heat_pump": ("kW", heat_pump_kw),
    "temperature": ("C", _temperatures),
    "price": ("EUR/MWh", price_eur_per_mwh),
}
"""Unit and generator of each kind; new ones go to the end, as the place makes the stream."""
