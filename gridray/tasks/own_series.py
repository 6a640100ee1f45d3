"""The user's own time series in the place of generated ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError
from gridray.profiles.parquet import read_series
from gridray.profiles.series import resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SECONDS_PER_DAY = 86400
UNITS = {"load": ("kW", "pu"), "pv": ("pu",), "wind": ("pu",), "price": ("EUR/MWh",), "temperature": ("C",)}
"""Units that a kind may be in; one that begins with "pu" is pu. The first is assumed where a file states none."""


@dataclass(frozen=True, kw_only=True)
class SeriesConfig:
    """Parquet files of a task's series (`gridray.profiles.parquet`); what is None is generated.

    load: kW, or pu of the load's nominal power, kvar in proportion; pv, wind: pu of rating; price: EUR/MWh;
    temperature: C. Columns are named as the loads or devices; others are taken in turn, unless they are in kW. Day 0
    begins with a file's first value. A file that does not state its unit is in the first one named here.
    """

    load: str | None = None
    pv: str | None = None
    wind: str | None = None
    price: str | None = None
    temperature: str | None = None


def own_series(
    kind: str, path: str, names: Sequence[str], *, num_days: int, step_minutes: int
) -> tuple[NDArray[np.float32], str]:
    """Return a file's series for these loads or devices at a task's step, and their unit.

    Args:
        kind: a key of UNITS.
        path: the file.
        names: of the loads or devices.
        num_days: days taken from the file's beginning.
        step_minutes: length of a step, min; energy is preserved.

    Returns:
        float32 [num_days * steps of a day, len(names)], and one of the kind's units.

    Raises:
        ConfigError: the file is too short, in another unit or lacks a name, or power of sun or wind is below 0.
        DatasetError: the file is not as `read_series` wants it.
    """
    where = f"series.{kind} '{path}'"
    series = read_series(path, assumed_unit=UNITS[kind][0])
    unit = "pu" if series.unit.startswith("pu") else series.unit
    if unit not in UNITS[kind]:
        raise ConfigError(f"{where} is in {series.unit}: give {' or '.join(UNITS[kind])}.")
    num_rows = num_days * SECONDS_PER_DAY // series.step_s
    if num_days * SECONDS_PER_DAY % series.step_s or len(series.values) < num_rows:
        days = len(series.values) * series.step_s // SECONDS_PER_DAY
        raise ConfigError(
            f"{where} has {days} whole days of steps of {series.step_s} s: give num_days of at most {days}."
        )
    is_named = not set(names).isdisjoint(series.names)
    missing = [name for name in names if name not in series.names]
    if missing and (is_named or unit == "kW"):
        raise ConfigError(f"{where} has no column '{missing[0]}': give one for each of {', '.join(names)}.")
    columns = [series.names.index(name) if is_named else i % len(series.names) for i, name in enumerate(names)]
    part = replace(series, names=tuple(names), values=series.values[:num_rows, columns])
    if kind in {"pv", "wind"} and (part.values < 0.0).any():
        raise ConfigError(f"{where} goes down to {part.values.min():g} pu: give what is available, from 0.")
    return resample(part, 60 * step_minutes).values.astype(np.float32), unit
