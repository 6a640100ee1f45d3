"""Named time series of equal steps, and their resampling with energy preserved."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from gridray.errors import ConfigError

MIN_STEP_S, MAX_STEP_S = 1, 3600


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeSeries:
    """Series of one unit on one clock; each value is the mean over its interval.

    names: one per series; unit: of all values, as "kW", "pu" or "EUR/MWh"; start: UTC, datetime64[s], of the first
    interval; step_s: length of an interval, s; values: float32 or float64 [num_steps, num_series].
    """

    names: tuple[str, ...]
    unit: str
    start: np.datetime64
    step_s: int
    values: NDArray[np.floating[Any]]

    def __post_init__(self) -> None:
        """Refuse series whose parts do not fit."""
        check_step(self.step_s)
        if self.values.ndim != 2 or self.values.shape[1] != len(self.names) or not len(self.values):
            raise ConfigError(
                f"values are of shape {self.values.shape} for {len(self.names)} names: give [num_steps, num_series] "
                "with at least one step and a column per name."
            )
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ConfigError(f"Two series are named '{twice}': give each its own name.")
        if self.values.dtype not in (np.float32, np.float64):
            raise ConfigError(f"values are {self.values.dtype}: give float32 or float64.")
        bad = np.argwhere(~np.isfinite(self.values))
        if len(bad):
            step, column = bad[0]
            raise ConfigError(
                f"Series '{self.names[column]}' is {self.values[step, column]} at step {step}: give finite values."
            )


def check_step(step_s: int) -> None:
    """Refuse a step that is not a whole number of seconds from 1 s to 1 h."""
    if step_s != int(step_s) or not MIN_STEP_S <= step_s <= MAX_STEP_S:
        raise ConfigError(f"step_s is {step_s}: give whole seconds from {MIN_STEP_S} to {MAX_STEP_S}.")


def resample(series: TimeSeries, step_s: int) -> TimeSeries:
    """Return the series at another step, float64; the energy of any span that both clocks share is the same.

    A new interval takes the mean of the old ones weighed by overlap, which is linear interpolation of the cumulative
    energy: coarser steps average, finer steps hold.

    Args:
        series: what to resample.
        step_s: new step, 1..3600 s.

    Raises:
        ConfigError: the step is out of range, or does not divide the series' length.
    """
    check_step(step_s)
    values = np.asarray(series.values, dtype=np.float64)
    old = series.step_s
    span = old * len(values)
    if span % step_s:
        raise ConfigError(
            f"The series last {span} s, which {step_s} s does not divide: give a step that does, or cut the last "
            f"{span % step_s} s."
        )
    # The pattern of overlaps repeats after the least common multiple of the steps, which divides the span.
    period = math.lcm(old, step_s)
    edges = np.union1d(np.arange(0, period + 1, old), np.arange(0, period + 1, step_s))
    share = np.diff(edges) / step_s
    overlap = csr_array((share, (edges[:-1] // step_s, edges[:-1] // old)), shape=(period // step_s, period // old))
    blocks = values.reshape(span // period, period // old, -1).swapaxes(0, 1)
    new = (overlap @ blocks.reshape(period // old, -1)).reshape(period // step_s, span // period, -1)
    return replace(series, step_s=int(step_s), values=new.swapaxes(0, 1).reshape(span // step_s, -1))
