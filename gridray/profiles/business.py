"""Commercial and industrial customers: opening hours, production, machines and each day's own mood."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.profiles.processes import Clock, draw_days, draw_hours, gaussian, pulses, step_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

FINE_S = 900
"""Longest step at which noise is followed; longer steps are means of these."""


class Business(NamedTuple):
    """How a kind of customer runs.

    share: of the customers of its class; hours: spans that it is open, h of the day; base: night over day; saturday,
    sunday: activity over a weekday's; winter: gain in January, loss in July; month_std, day_std, hour_std, step_std: of
    log-load over weeks, from day to day, within 1.5 h and from quarter to quarter of an hour; machines: starts a day,
    of a quarter of the day's load; campaign_days: mean length of runs, and of pauses a quarter as long, 0 for none.
    """

    share: float
    hours: tuple[tuple[float, float], ...]
    base: float
    saturday: float = 1.0
    sunday: float = 1.0
    winter: float = 0.0
    month_std: float = 0.0
    day_std: float = 0.08
    hour_std: float = 0.08
    step_std: float = 0.05
    machines: float = 3.0
    campaign_days: float = 0.0


COMMERCIAL = {
    "shop": Business(0.45, ((6.7, 18.3),), 0.36, 0.45, 0.15, -0.05, month_std=0.12, day_std=0.1),
    "office": Business(0.20, ((7.0, 15.8),), 0.08, 0.06, 0.02, day_std=0.15, hour_std=0.15),
    "evening": Business(0.10, ((8.5, 24.6),), 0.19, winter=-0.07, day_std=0.065),
    "continuous": Business(0.10, ((6.0, 20.0),), 0.78, 0.7, 0.4, hour_std=0.08, step_std=0.06),
    "bakery": Business(0.05, ((1.8, 12.8),), 0.33, 0.7, 0.0, 0.0, 0.22, 0.2, 0.2, 0.14),
    "restaurant": Business(
        0.10,
        ((10.3, 14.0), (17.0, 21.8)),
        0.42,
        1.35,
        1.7,
        month_std=0.1,
        day_std=0.25,
        hour_std=0.2,
        step_std=0.15,
        machines=1.0,
    ),
}
"""Fitted to simbench's G0 and G4, G1, G2, G3, G5, G6 (statistics of ODbL data, see docs/profiles.md)."""
INDUSTRIAL = {
    "campaigns": Business(
        0.3, ((0.0, 24.0),), 0.1, day_std=0.08, hour_std=0.08, step_std=0.045, machines=1.0, campaign_days=14.0
    ),
    "weekdays": Business(
        0.4, ((0.0, 24.0),), 0.22, 0.12, 0.12, day_std=0.1, hour_std=0.04, step_std=0.012, machines=0.0
    ),
    "works": Business(
        0.3, ((0.0, 24.0),), 0.5, 0.85, 0.65, winter=-0.25, day_std=0.03, hour_std=0.055, step_std=0.07, machines=0.5
    ),
}
"""Fitted to simbench's BL-H, WB-H and G3-H."""


def business_pu(clock: Clock, num: int, rng: np.random.Generator, kinds: dict[str, Business]) -> NDArray[np.float32]:
    """Return power over each customer's own mean, [num_steps, num]; the first customers stay when more are added.

    Args:
        clock: steps.
        num: number of customers.
        rng: its children make the customers.
        kinds: COMMERCIAL, INDUSTRIAL or a part of them; a customer's kind is drawn by share.
    """
    fine = clock.finer(FINE_S)
    shares = np.cumsum([kind.share for kind in kinds.values()])
    series = np.empty((clock.num_steps, num), dtype=np.float32)
    for column, own in enumerate(rng.spawn(num)):
        kind = list(kinds.values())[int(np.searchsorted(shares, own.random() * shares[-1], side="right"))]
        power = step_means(_one(fine, kind, own), clock.step_s // fine.step_s)
        series[:, column] = power / power.mean()
    return series


def _one(clock: Clock, kind: Business, rng: np.random.Generator) -> NDArray[np.float64]:
    days = np.select([clock.weekday == 5, clock.weekday == 6], [kind.saturday, kind.sunday], 1.0)
    days = days * (1.0 + kind.winter * clock.winter)
    days = np.where(_is_holiday(clock, rng), min(kind.sunday, 1.0) * days, days)
    if kind.campaign_days:
        days = days * _campaigns(clock, kind.campaign_days, rng)
    power = kind.base + (1.0 - kind.base) * (days[:, None] * _open(clock, kind, rng)).ravel()
    size, step_h = clock.num_steps, clock.step_h
    noise = kind.day_std * gaussian(rng, size, step_h, 24.0, 3.0)
    noise += kind.hour_std * gaussian(rng, size, step_h, 1.5) + kind.step_std * gaussian(rng, size, step_h, 0.1, 0.02)
    if kind.month_std:
        noise += kind.month_std * gaussian(rng, size, step_h, 500.0, 24.0)
    # Plant has a capacity: what noise there is stays within two standard deviations and a half.
    most = 2.5 * np.sqrt(kind.month_std**2 + kind.day_std**2 + kind.hour_std**2 + kind.step_std**2)
    noise = most * np.tanh(noise / most)
    num = int(rng.poisson(kind.machines * clock.num_days))
    weights = np.maximum(days, 0.1)
    starts = 24.0 * draw_days(rng, num, weights) + draw_hours(rng, num, _open_hours(kind))
    machine = pulses(clock, starts, rng.lognormal(-1.2, 0.5, num), rng.uniform(0.1, 0.4, num))
    load: NDArray[np.float64] = power * np.exp(noise) + machine * (1.0 - kind.base)
    return load


def _is_holiday(clock: Clock, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw ten days of the year that are like Sundays, [num_days]; customers close on days of their own."""
    is_closed = np.zeros(367, dtype=bool)
    is_closed[rng.integers(0, 365, 10)] = True
    return is_closed[clock.day_of_year]


def _campaigns(clock: Clock, run_days: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return 1 on days of production and 0 between, runs and pauses exponential, [num_days]."""
    num = int(clock.num_days / run_days) + 10
    ends = np.cumsum(np.stack((rng.exponential(run_days, num), rng.exponential(run_days / 4.0, num)), axis=1).ravel())
    is_running: NDArray[np.bool_] = np.searchsorted(ends, np.arange(clock.num_days)) % 2 == 0
    return is_running.astype(np.float64)


def _open(clock: Clock, kind: Business, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how open it is, 0..1, [num_days, per_day]; doors open and close over half an hour, not on the minute."""
    is_open = np.zeros((clock.num_days, clock.per_day))
    habit = rng.normal(0.0, 0.5)
    for start, end in kind.hours:
        if end - start >= 24.0:
            return np.ones_like(is_open)
        opens = start + habit + rng.normal(0.0, 0.2, (clock.num_days, 1))
        closes = end + habit + rng.normal(0.0, 0.3, (clock.num_days, 1))
        is_open += 1.0 / (1.0 + np.exp((opens - clock.hour) / 0.3)) - 1.0 / (1.0 + np.exp((closes - clock.hour) / 0.3))
    return np.clip(is_open, 0.0, 1.0)


def _open_hours(kind: Business) -> NDArray[np.float64]:
    hour = np.arange(24) + 0.5
    is_open = np.any([(hour >= start) & (hour < end) for start, end in kind.hours], axis=0)
    weights: NDArray[np.float64] = 0.1 + is_open.astype(np.float64)
    return weights
