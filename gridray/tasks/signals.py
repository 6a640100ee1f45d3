"""What tasks may know ahead: prices, and the customers' load."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.profiles.generate import generate_series
from gridray.profiles.processes import Clock
from gridray.tasks.base import ObservationChannel
from gridray.tasks.twin import Signal

if TYPE_CHECKING:
    from gridray.tasks.twin import Loads
    from gridray.tasks.twin_task import TwinConfig

MEAN_EUR_PER_MWH = 45.0
"""About the mean of `profiles.price`, for the scale of the channel."""


def price_signal(config: TwinConfig, look_ahead_h: int) -> Signal:
    """Return day-ahead prices, EUR/MWh, hourly values known look_ahead_h hours ahead."""
    clock = Clock(num_days=config.num_days, step_s=60 * config.step_minutes)
    series = generate_series("price", clock, 1, seed=config.seed).values[:, 0].astype(np.float32)
    channel = ObservationChannel("price.eur_per_mwh", "EUR/MWh", MEAN_EUR_PER_MWH, 1.0 / MEAN_EUR_PER_MWH)
    return Signal(channel, series, look_ahead_h, 60 // config.step_minutes)


def load_signal(config: TwinConfig, loads: Loads, look_ahead_h: int) -> Signal:
    """Return the customers' load at rated voltage, kW, known without error at every hour of look_ahead_h."""
    series = (loads.series_pu @ loads.kw.astype(np.float32)).astype(np.float32)
    channel = ObservationChannel("load.p_kw", "kW", 0.0, 1.0 / float(loads.kw.sum()))
    return Signal(channel, series, look_ahead_h, 60 // config.step_minutes)


def outdoor_c(config: TwinConfig) -> np.ndarray:
    """Return the temperature outside over the year, degC, float32 [num_series_steps]."""
    clock = Clock(num_days=config.num_days, step_s=60 * config.step_minutes)
    return generate_series("temperature", clock, 1, seed=config.seed).values[:, 0].astype(np.float32)


def wind_pu(config: TwinConfig, num: int) -> np.ndarray:
    """Return wind power over rating, float32 [num_series_steps, num]."""
    clock = Clock(num_days=config.num_days, step_s=60 * config.step_minutes)
    return generate_series("wind", clock, num, seed=config.seed).values.astype(np.float32)
