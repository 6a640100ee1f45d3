"""Building blocks of the generators: the clock, Gaussian processes in time and space, and pulses of power."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import lfilter

from gridray.errors import ConfigError
from gridray.profiles.series import check_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DAY_S = 86400


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Days of equal steps in local mean time, from midnight of an ISO date; step_s divides the day."""

    num_days: int = 365
    step_s: int = 900
    start: str = "2024-01-01"

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        check_step(self.step_s)
        if self.num_days < 1 or DAY_S % self.step_s:
            raise ConfigError(
                f"num_days is {self.num_days} and step_s {self.step_s}: give at least one day and a step that "
                f"divides {DAY_S} s."
            )
        try:
            np.datetime64(self.start, "D")
        except ValueError as error:
            raise ConfigError(f"start is '{self.start}': give an ISO date, as 2024-01-01.") from error

    @property
    def per_day(self) -> int:
        """Steps of a day."""
        return DAY_S // self.step_s

    @property
    def num_steps(self) -> int:
        """Steps in all."""
        return self.num_days * self.per_day

    @property
    def step_h(self) -> float:
        """Length of a step, h."""
        return self.step_s / 3600.0

    @cached_property
    def dates(self) -> NDArray[np.datetime64]:
        """Date of each day, datetime64[D] [num_days]."""
        return np.datetime64(self.start, "D") + np.arange(self.num_days)

    @cached_property
    def day_of_year(self) -> NDArray[np.int64]:
        """Day of the year, 0 is 1 January, int64 [num_days]."""
        first = self.dates.astype("datetime64[Y]").astype("datetime64[D]")
        day_of_year: NDArray[np.int64] = (self.dates - first).astype(np.int64)
        return day_of_year

    @cached_property
    def weekday(self) -> NDArray[np.int64]:
        """Day of the week, 0 is Monday, int64 [num_days]; 1 January 1970 was a Thursday."""
        weekday: NDArray[np.int64] = (self.dates.astype(np.int64) + 3) % 7
        return weekday

    @cached_property
    def winter(self) -> NDArray[np.float64]:
        """Season of the northern hemisphere, 1 in mid January and -1 in mid July, [num_days]."""
        winter: NDArray[np.float64] = np.cos(2.0 * np.pi * (self.day_of_year - 15) / 365.25)
        return winter

    @cached_property
    def hour(self) -> NDArray[np.float64]:
        """Hour of the middle of each step of a day, [per_day]."""
        return np.asarray((np.arange(self.per_day) + 0.5) * self.step_h, dtype=np.float64)

    def finer(self, most_s: int) -> Clock:
        """Return the clock of the longest step up to most_s that divides this one's."""
        step_s = next(step for step in range(min(most_s, self.step_s), 0, -1) if self.step_s % step == 0)
        return Clock(num_days=self.num_days, step_s=step_s, start=self.start)


def gaussian(
    rng: np.random.Generator, size: int, step_h: float, time_h: float, smooth_h: float = 0.0
) -> NDArray[np.float64]:
    """Return a stationary Gaussian process of mean 0 and variance 1, [size].

    Ornstein-Uhlenbeck with correlation exp(-t / time_h), passed through a first-order lag of smooth_h where changes
    from step to step must be smooth.
    """
    a = float(np.exp(-step_h / time_h))
    drive = rng.standard_normal(size) * np.sqrt(1.0 - a * a)
    drive[0] = rng.standard_normal()
    process: NDArray[np.float64] = lfilter([1.0], [1.0, -a], drive)
    if smooth_h > 0.0:
        b = float(np.exp(-step_h / smooth_h))
        # Variance of the lag's output for this input: (1 - b)(1 + a b) / ((1 + b)(1 - a b)).
        gain = np.sqrt((1.0 + b) * (1.0 - a * b) / ((1.0 - b) * (1.0 + a * b)))
        smoothed = lfilter([gain * (1.0 - b)], [1.0, -b], process, zi=[gain * b * process[0]])
        process = smoothed[0]
    return process


def in_space(own: NDArray[np.float64], distance_km: NDArray[np.float64], length_km: float) -> NDArray[np.float64]:
    """Correlate independent processes as exp(-distance / length_km), [num_steps, num_sites].

    By a Cholesky factor: a site depends only on those before it, so that adding sites leaves the first unchanged.
    """
    covariance = np.exp(-distance_km / length_km) + 1e-9 * np.eye(len(distance_km))
    correlated: NDArray[np.float64] = own @ np.linalg.cholesky(covariance).T
    return correlated


def sites_km(rngs: Sequence[np.random.Generator], spread_km: float) -> NDArray[np.float64]:
    """Return the distances between sites drawn evenly from a disc of this diameter, [num_sites, num_sites]."""
    draws = np.array([rng.random(2) for rng in rngs])
    place = 0.5 * spread_km * np.sqrt(draws[:, 0]) * np.exp(2j * np.pi * draws[:, 1])
    distance_km: NDArray[np.float64] = np.abs(place[:, None] - place[None, :])
    return distance_km


def pulses(
    clock: Clock, start_h: NDArray[np.float64], duration_h: NDArray[np.float64], kw: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the sum of rectangular pulses as mean power of each step, [num_steps]; energy is exact at any step.

    Args:
        clock: steps; what lies outside is cut off.
        start_h: start of each pulse since the clock's start, h, [num_pulses].
        duration_h: length of each pulse, h, [num_pulses].
        kw: power of each pulse, [num_pulses].
    """
    end = clock.num_steps
    edge = np.clip(np.concatenate((start_h, start_h + duration_h)) / clock.step_h, 0.0, end)
    height = np.concatenate((kw, -kw))
    index = edge.astype(np.int64)
    late = height * (edge - index)
    # An edge within a step counts there for the time that is left, and fully from the next step on.
    steps = np.bincount(index, height - late, end + 2) + np.bincount(index + 1, late, end + 2)
    power = np.cumsum(steps)[:end]
    # Between pulses the sum leaves rounding of about 1e-12.
    return np.where(power > 1e-9, power, 0.0)


def draw_hours(rng: np.random.Generator, size: int, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Draw hours of the day, even within each of the weights' intervals, [size]."""
    total = np.concatenate(([0.0], np.cumsum(weights)))
    hours: NDArray[np.float64] = np.interp(rng.random(size) * total[-1], total, np.linspace(0.0, 24.0, len(total)))
    return hours


def draw_days(rng: np.random.Generator, size: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draw days by weight, in rising order, int64 [size]."""
    return np.repeat(np.arange(len(weights)), rng.multinomial(size, weights / weights.sum()))


def step_means(values: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Return the means of each factor steps, first axis, [num_steps / factor, ...]."""
    means: NDArray[np.float64] = values.reshape(len(values) // factor, factor, *values.shape[1:]).mean(axis=1)
    return means
