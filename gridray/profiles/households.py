"""Households as sums of appliances' pulses, so that peaks, ramps and coincidence come out right at any step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.profiles.processes import Clock, draw_days, draw_hours, pulses

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEAN_KW = 0.34
"""Of households, all year; the 100 houses of the IEEE European low voltage feeder have 0.351 kW on their day."""


class Appliance(NamedTuple):
    """What pulses an appliance gives.

    kw: least and most power, drawn per household; minutes: median length; per_day: starts a day of a household that
    has one; share: of households that have one; when: name in HOURS; winter: how much more often in January than on
    average.
    """

    kw: tuple[float, float]
    minutes: float
    per_day: float
    share: float
    when: str
    winter: float = 0.0


HOURS = {
    "any": np.ones(24),
    "awake": np.array([3, 1, 1, 1, 1, 2, 5, 9, 9, 8, 8, 9, 9, 8, 7, 8, 9, 10, 11, 11, 10, 9, 8, 5.0]),
    "day": np.array([3, 1, 1, 1, 1, 2, 5, 8, 8, 7, 7, 8, 8, 8, 8, 9, 10, 10, 10, 10, 10, 9, 7, 4.0]),
    "meals": np.array([1, 0, 0, 0, 0, 1, 5, 9, 8, 5, 5, 8, 10, 7, 5, 6, 9, 12, 11, 8, 5, 3, 2, 1.0]),
    "evening": np.array([4, 2, 1, 1, 1, 2, 5, 6, 4, 3, 3, 3, 3, 3, 4, 5, 8, 10, 11, 11, 11, 10, 8, 6.0]),
    "morning": np.array([1, 0, 0, 0, 1, 3, 8, 13, 11, 6, 5, 4, 4, 2, 2, 3, 4, 5, 6, 6, 5, 4, 3, 2.0]),
}
"""Chance of a start by hour; shapes so that the sum has the peaks of the European low voltage feeder's 100 houses."""
APPLIANCES = {
    "fridge": Appliance((0.06, 0.12), 30.0, 13.0, 1.0, "any"),
    "small": Appliance((0.1, 0.35), 8.0, 12.0, 1.0, "awake"),
    "kettle": Appliance((2.0, 3.0), 3.0, 4.0, 0.95, "awake"),
    "microwave": Appliance((0.9, 1.3), 5.0, 1.5, 0.8, "meals"),
    "hob": Appliance((1.0, 2.2), 15.0, 0.9, 0.7, "meals"),
    "oven": Appliance((1.8, 2.6), 28.0, 0.3, 0.7, "meals"),
    "washing": Appliance((1.4, 2.0), 35.0, 0.5, 0.9, "awake"),
    "drying": Appliance((1.4, 2.2), 55.0, 0.25, 0.4, "awake", 0.3),
    "shower": Appliance((6.0, 9.5), 5.0, 1.2, 0.45, "morning"),
    "screens": Appliance((0.1, 0.3), 120.0, 4.2, 1.0, "day"),
    "lighting": Appliance((0.08, 0.3), 80.0, 4.0, 1.0, "evening", 0.5),
    "heater": Appliance((0.6, 1.3), 100.0, 0.7, 0.3, "evening", 0.9),
    "cleaning": Appliance((0.6, 1.4), 15.0, 0.5, 0.8, "awake"),
}
MEAN_STANDBY_KW = 0.05
MEAN_MOOD = 0.98
"""Of a day, with busy and lazy ones and three weeks away."""
SPREAD = 0.5
"""Standard deviation of a household's log-size, and of a pulse's log-length."""


def household_kw(clock: Clock, num: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return mean power of each step, kW, [num_steps, num]; the first households stay when more are added."""
    series = np.empty((clock.num_steps, num), dtype=np.float32)
    for column, own in enumerate(rng.spawn(num)):
        series[:, column] = _one(clock, own)
    return series


def expected_kw(clock: Clock) -> NDArray[np.float64]:
    """Return what households of all sizes draw on average in each step, kW, [num_steps]."""
    weekend = np.where(clock.weekday >= 5, 1.1, 1.0) * MEAN_MOOD
    courses = {name: _course(clock, weights) for name, weights in HOURS.items()}
    total = np.full((clock.num_days, clock.per_day), MEAN_STANDBY_KW)
    for appliance in APPLIANCES.values():
        mean_h = appliance.minutes / 60.0 * np.exp(0.5 * SPREAD**2)
        kwh = appliance.share * appliance.per_day * 0.5 * sum(appliance.kw) * mean_h
        days = 1.0 if appliance.when == "any" else weekend * (1.0 + appliance.winter * clock.winter)
        total += np.broadcast_to(kwh * days, clock.num_days)[:, None] * courses[appliance.when]
    return total.ravel()


def _course(clock: Clock, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return chance per hour at each step of a day, about half an hour late as pulses last, [per_day]."""
    hours = np.arange(26) - 0.5
    wrapped = np.concatenate(([weights[-1]], weights, [weights[0]])) / weights.sum()
    course: NDArray[np.float64] = np.interp((clock.hour - 0.5) % 24.0, hours, wrapped)
    return course


def _one(clock: Clock, rng: np.random.Generator) -> NDArray[np.float64]:
    size = rng.lognormal(-0.5 * SPREAD**2, SPREAD)
    at_home = _at_home(clock, rng)
    starts, lengths, powers = [], [], []
    for appliance in APPLIANCES.values():
        has_one = rng.random() < appliance.share
        kw = rng.uniform(*appliance.kw)
        weights = 1.0 if appliance.when == "any" else at_home * (1.0 + appliance.winter * clock.winter)
        weights = np.broadcast_to(weights, clock.num_days)
        busy = 1.0 if appliance.when == "any" else size
        num = int(rng.poisson(has_one * appliance.per_day * busy * weights.sum()))
        starts.append(24.0 * draw_days(rng, num, weights) + draw_hours(rng, num, HOURS[appliance.when]))
        lengths.append(appliance.minutes / 60.0 * rng.lognormal(0.0, SPREAD, num))
        powers.append(np.full(num, kw))
    standby = MEAN_STANDBY_KW * rng.uniform(0.6, 1.4)
    return standby + pulses(clock, np.concatenate(starts), np.concatenate(lengths), np.concatenate(powers))


def _at_home(clock: Clock, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how much goes on each day, mean about 1, [num_days]: weekends, moods, and holidays of about a week."""
    mood = rng.lognormal(0.0, 0.25, clock.num_days)
    weekend = np.where(clock.weekday >= 5, rng.uniform(0.95, 1.25), 1.0)
    away = np.zeros(clock.num_days, dtype=bool)
    for first in rng.integers(0, max(clock.num_days, 365), 3):
        away[first : first + 7] = True
    return np.where(away, 0.1, mood * weekend)
