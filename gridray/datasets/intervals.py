"""Samples onto equal intervals, with the gaps filled that the mapping allows to fill, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from gridray.datasets.mapping import is_position
from gridray.errors import DatasetError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.datasets.mapping import Mapping


class Intervals(NamedTuple):
    """Values of points at equal intervals.

    times: datetime64[ms] [E], beginning of each, UTC; values: float64 [E] by point, NaN where there is none;
    num_filled: number of filled intervals by point.
    """

    times: NDArray[np.datetime64]
    values: dict[str, NDArray[np.float64]]
    num_filled: dict[str, int]


def to_intervals(samples: pl.DataFrame, mapping: Mapping, step_minutes: float) -> Intervals:
    """Put used samples on intervals of step_minutes that begin at whole steps of UTC.

    A mean's samples are those in the interval; a position is the last one up to the interval's beginning.

    Raises:
        DatasetError: there is no sample to use.
    """
    step_ms = round(step_minutes * 60_000)
    used = samples.filter(pl.col("reason").is_null()).select("channel", "value", ms=pl.col("time").dt.epoch("ms"))
    if used.is_empty():
        raise DatasetError(f"No sample of '{mapping.utility}' can be used: see the report for the reasons.")
    positions = [name for name, point in mapping.points.items() if is_position(name, point)]
    is_last = pl.col("channel").is_in(positions)
    step = pl.when(is_last).then(-(-pl.col("ms") // step_ms)).otherwise(pl.col("ms") // step_ms)
    used = used.with_columns(step=step).sort("ms")
    by_step = used.group_by("channel", "step").agg(
        value=pl.when(is_last.first()).then(pl.col("value").last()).otherwise(pl.col("value").mean())
    )
    first, last = int(by_step["step"].min()), int(by_step["step"].max())  # type: ignore[arg-type]
    values: dict[str, NDArray[np.float64]] = {}
    num_filled = {}
    for name in mapping.points:
        part = by_step.filter(pl.col("channel") == name)
        row = np.full(last - first + 1, np.nan)
        row[part["step"].to_numpy() - first] = part["value"].to_numpy()
        if name in positions:
            filled = hold(row, int(mapping.repair.hold_minutes / step_minutes))
        else:
            filled = interpolate(row, int(mapping.repair.interpolate_minutes / step_minutes))
        values[name] = filled
        num_filled[name] = int(np.isnan(row).sum() - np.isnan(filled).sum())
    times = (np.arange(first, last + 1) * step_ms).astype("datetime64[ms]")
    return Intervals(times, values, num_filled)


def interpolate(row: NDArray[np.float64], longest: int) -> NDArray[np.float64]:
    """Fill gaps of at most `longest` NaN between two values on a straight line."""
    there = np.flatnonzero(~np.isnan(row))
    if not len(there):
        return row
    places = np.arange(len(row))
    after = np.searchsorted(there, places)
    is_inside = (after > 0) & (after < len(there)) & np.isnan(row)
    length = there[np.minimum(after, len(there) - 1)] - there[np.maximum(after - 1, 0)] - 1
    return np.where(is_inside & (length <= longest), np.interp(places, there, row[there]), row)


def hold(row: NDArray[np.float64], longest: int) -> NDArray[np.float64]:
    """Keep the last value for at most `longest` NaN after it."""
    there = np.flatnonzero(~np.isnan(row))
    if not len(there):
        return row
    places = np.arange(len(row))
    before = np.searchsorted(there, places, side="right") - 1
    age = places - there[np.maximum(before, 0)]
    return np.where((before >= 0) & (age <= longest), row[there[np.maximum(before, 0)]], row)
