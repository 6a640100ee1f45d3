"""What tasks may know ahead: prices, and the customers' load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.profiles.generate import generate_series
from gridray.profiles.processes import Clock
from gridray.tasks.base import ObservationChannel
from gridray.tasks.own_series import own_series
from gridray.tasks.twin import Signal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridray.tasks.twin import Loads
    from gridray.tasks.twin_config import TwinConfig

MEAN_EUR_PER_MWH = 45.0
"""About the mean of `profiles.price`, for the scale of the channel."""


def price_signal(config: TwinConfig, look_ahead_h: int) -> Signal:
    """Return day-ahead prices, EUR/MWh, hourly values known look_ahead_h hours ahead."""
    series = _series(config, "price", config.series.price, ("price",))[:, 0]
    channel = ObservationChannel("price.eur_per_mwh", "EUR/MWh", MEAN_EUR_PER_MWH, 1.0 / MEAN_EUR_PER_MWH)
    return Signal(channel, series, look_ahead_h, 60 // config.step_minutes)


def load_signal(config: TwinConfig, loads: Loads, look_ahead_h: int) -> Signal:
    """Return the customers' load at rated voltage, kW, known without error at every hour of look_ahead_h."""
    series = (loads.series_pu @ loads.kw.astype(np.float32)).astype(np.float32)
    channel = ObservationChannel("load.p_kw", "kW", 0.0, 1.0 / float(loads.kw.sum()))
    return Signal(channel, series, look_ahead_h, 60 // config.step_minutes)


def outdoor_c(config: TwinConfig) -> np.ndarray:
    """Return the temperature outside over the year, degC, float32 [num_series_steps]."""
    return _series(config, "temperature", config.series.temperature, ("temperature",))[:, 0]


def wind_pu(config: TwinConfig, names: Sequence[str]) -> np.ndarray:
    """Return wind power over rating, float32 [num_series_steps, len(names)]."""
    return _series(config, "wind", config.series.wind, names)


def _series(config: TwinConfig, kind: str, path: str | None, names: Sequence[str]) -> np.ndarray:
    """Return a file's series, or generated ones where there is none."""
    if path is not None:
        return own_series(kind, path, names, num_days=config.num_days, step_minutes=config.step_minutes)[0]
    clock = Clock(num_days=config.num_days, step_s=60 * config.step_minutes)
    return generate_series(kind, clock, len(names), seed=config.seed).values.astype(np.float32)
