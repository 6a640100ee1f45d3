"""EV chargers: sessions with arrival, stay and energy, and the power that they draw without control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from gridray.errors import ConfigError
from gridray.profiles.processes import Clock, draw_days, draw_hours, pulses

if TYPE_CHECKING:
    from numpy.typing import NDArray

Place = Literal["home", "public", "work"]
ARRIVAL_PERCENT = {
    "home": [2.1, 0.5, 0.2, 0.1, 0.1, 0.1, 0.2, 0.6, 1.4, 1.1, 1.1, 1.5, 2.2, 2.2, 2.7, 3.7, 5.7, 12.1, 17.0, 11.5, 9.1,
             8.9, 9.1, 6.6],
    "public": [1.0, 0.5, 0.2, 0.2, 0.2, 0.2, 0.7, 3.2, 7.9, 7.7, 5.1, 4.7, 5.3, 5.3, 5.0, 5.1, 5.7, 8.3, 10.9, 8.1, 5.1,
               4.0, 3.4, 2.3],
    "work": [0, 0, 0, 0, 0.1, 1.4, 4.3, 14.3, 26.7, 18.1, 7.7, 4.9, 5.4, 5.3, 4.0, 3.0, 2.0, 1.0, 0.6, 0.5, 0.3, 0.1,
             0.1, 0],
}  # fmt: skip
"""Weekday arrivals by hour, rounded from ElaadNL's open data on charging (elaad.nl)."""
WEEKEND_PERCENT = {
    "home": [4.1, 2.0, 0.8, 0.3, 0.2, 0.1, 0.1, 0.4, 0.9, 1.7, 3.0, 4.8, 6.0, 6.2, 6.2, 6.9, 8.8, 10.2, 7.9, 6.5, 6.8,
             6.2, 5.8, 4.1],
    "public": [2.0, 1.2, 0.6, 0.4, 0.3, 0.3, 0.3, 0.6, 1.7, 3.7, 5.7, 7.0, 7.9, 8.2, 8.5, 8.3, 8.0, 8.0, 7.3, 5.8, 4.9,
               3.9, 3.1, 2.2],
    "work": ARRIVAL_PERCENT["work"],
}  # fmt: skip
KNOTS_H = np.array([0.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.5, 18.0, 24.0])
MEAN_KWH = {
    "home": np.array([30.8, 29.5, 20.7, 22.0, 20.6, 17.5, 14.6, 14.7, 15.3, 15.0, 22.0, 30.8]),
    "public": np.array([20.9, 21.6, 19.5, 20.3, 19.1, 16.7, 13.5, 12.3, 12.5, 13.0, 17.0, 20.9]),
    "work": np.array([12.0, 12.0, 12.0, 10.9, 12.3, 11.9, 15.5, 14.9, 14.4, 14.0, 14.0, 14.0]),
}
"""Energy of a session by hour of arrival, ElaadNL until 11:30; later hours are a straight line to midnight's."""
MEAN_STAY_H = {
    "home": np.array([9.3, 7.9, 4.8, 4.3, 5.6, 4.5, 3.6, 3.6, 3.4, 3.8, 11.5, 9.3]),
    "public": np.array([10.0, 9.7, 7.3, 5.8, 5.3, 5.1, 5.1, 4.3, 3.0, 2.9, 9.0, 10.0]),
    "work": np.array([8.0, 8.0, 8.0, 8.4, 8.5, 8.4, 8.1, 6.6, 4.7, 4.0, 3.5, 3.5]),
}
"""Hours plugged in by hour of arrival, likewise."""


@dataclass(frozen=True, kw_only=True)
class EvConfig:
    """Where chargers are, how often a car comes, and which ratings they may have, kW, each as likely."""

    place: Place = "home"
    sessions_per_day: float = 0.2
    charger_kw: tuple[float, ...] = (7.4, 11.0)

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.place not in ARRIVAL_PERCENT:
            raise ConfigError(f"place is '{self.place}': give one of {', '.join(ARRIVAL_PERCENT)}.")
        if not self.sessions_per_day > 0.0 or not self.charger_kw or min(self.charger_kw) <= 0.0:
            raise ConfigError(
                f"sessions_per_day is {self.sessions_per_day} and charger_kw {self.charger_kw}: give numbers above 0."
            )


class EvSessions(NamedTuple):
    """Sessions by charger and arrival; those of one charger do not overlap.

    charger: int64 [num_sessions]; arrival_h, departure_h: hours since the clock's start, float64 [num_sessions];
    energy_kwh: wanted, and within reach of the charger, float64 [num_sessions]; kw: rating of the charger, float64
    [num_sessions].
    """

    charger: NDArray[np.int64]
    arrival_h: NDArray[np.float64]
    departure_h: NDArray[np.float64]
    energy_kwh: NDArray[np.float64]
    kw: NDArray[np.float64]


def ev_sessions(clock: Clock, num: int, rng: np.random.Generator, config: EvConfig | None = None) -> EvSessions:
    """Return the sessions of a number of chargers; those of the first chargers stay when more are added.

    Args:
        clock: days and weekdays; its step does not matter.
        num: number of chargers.
        rng: its children make the chargers.
        config: place, rate and ratings.
    """
    config = config or EvConfig()
    parts = [_sessions_of_one(clock, charger, own, config) for charger, own in enumerate(rng.spawn(num))]
    empty = EvSessions(np.empty(0, dtype=np.int64), *(np.empty(0) for _ in range(4)))
    return EvSessions(*(np.concatenate(columns) for columns in zip(empty, *parts, strict=True)))


def uncontrolled_kw(clock: Clock, num: int, sessions: EvSessions) -> NDArray[np.float32]:
    """Return the power of charging at full rating from arrival on, mean of each step, kW, [num_steps, num]."""
    series = np.empty((clock.num_steps, num), dtype=np.float32)
    for charger in range(num):
        own = sessions.charger == charger
        kw = sessions.kw[own]
        series[:, charger] = pulses(clock, sessions.arrival_h[own], sessions.energy_kwh[own] / kw, kw)
    return series


def _sessions_of_one(clock: Clock, charger: int, rng: np.random.Generator, config: EvConfig) -> EvSessions:
    rated_kw = float(rng.choice(config.charger_kw))
    is_weekend = clock.weekday >= 5
    busy = np.where(is_weekend, 0.2 if config.place == "work" else 0.9, 1.0)
    num = int(rng.poisson(config.sessions_per_day * busy.sum()))
    days = draw_days(rng, num, busy)
    weekday_h = draw_hours(rng, num, np.array(ARRIVAL_PERCENT[config.place]))
    weekend_h = draw_hours(rng, num, np.array(WEEKEND_PERCENT[config.place]))
    hour = np.where(is_weekend[days], weekend_h, weekday_h)
    # Gamma of shape 4 and 2: a spread of a half and of 0.7 of the mean, as wide as single sessions are.
    stay_h = np.interp(hour, KNOTS_H, MEAN_STAY_H[config.place]) * rng.gamma(4.0, 0.25, num)
    energy = np.interp(hour, KNOTS_H, MEAN_KWH[config.place]) * rng.gamma(2.0, 0.5, num)
    arrival = np.asarray(24.0 * days + hour, dtype=np.float64)
    order = np.argsort(arrival)
    arrival, stay_h, energy = arrival[order], np.maximum(stay_h[order], 0.25), energy[order]
    departure = arrival + stay_h
    # A car that finds the charger taken goes elsewhere.
    is_free = arrival >= np.concatenate(([0.0], np.maximum.accumulate(departure)[:-1]))[:num]
    energy = np.minimum(energy, rated_kw * stay_h)
    count = int(is_free.sum())
    return EvSessions(
        np.full(count, charger), arrival[is_free], departure[is_free], energy[is_free], np.full(count, rated_kw)
    )
