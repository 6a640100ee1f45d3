"""Units of privacy in a dataset, and batches that hold whole units drawn in secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.errors import ConfigError
from gridray.federated.privacy.accounting import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.federated.privacy.noise import SecretStream

_DAYS_A_YEAR = 365


def unit_of_rows(unit: Unit, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Return the number of the unit that each row belongs to, [num_rows], from 0 without gaps.

    A day is a calendar day where rows have a timestamp, so that a day that was recorded under two policies is one unit;
    without timestamps it is an episode. A feeder-year is a calendar year, or all rows.

    Args:
        unit: transition, day or feeder-year.
        columns: eps_id [num_rows], and timestamp datetime64 [num_rows] if there is one.

    Raises:
        ConfigError: rows of a dataset have no such unit.
    """
    num_rows = len(columns["eps_id"])
    if unit is Unit.TRANSITION:
        return np.arange(num_rows)
    if unit is Unit.UTILITY:
        raise ConfigError("A dataset has no unit 'utility': give transition, day or feeder-year")
    if "timestamp" in columns:
        dates = columns["timestamp"].astype("datetime64[D]" if unit is Unit.DAY else "datetime64[Y]")
        return np.unique(dates, return_inverse=True)[1]
    if unit is Unit.DAY:
        return np.unique(columns["eps_id"], return_inverse=True)[1]
    return np.zeros(num_rows, dtype=np.int64)


class SecretBatches:
    """Batches of whole units: each unit is in a batch with the same probability, whatever else is in it (Poisson)."""

    def __init__(self, unit_of_row: NDArray[np.int64], *, sampling_rate: float, rows_per_unit: int) -> None:
        """Sort rows by unit.

        Args:
            unit_of_row: as `unit_of_rows` makes it.
            sampling_rate: probability that a unit is in a batch.
            rows_per_unit: rows drawn from each unit in a batch, with replacement.
        """
        self._rows = np.argsort(unit_of_row, kind="stable")
        self._counts = np.bincount(unit_of_row)
        self._starts = np.cumsum(self._counts) - self._counts
        self._sampling_rate = sampling_rate
        self._rows_per_unit = rows_per_unit

    @property
    def num_units(self) -> int:
        """Units in the dataset."""
        return len(self._counts)

    def draw(self, stream: SecretStream, *purpose: str) -> NDArray[np.int64]:
        """Return row numbers [units in the batch, rows_per_unit]; a batch may be empty."""
        units = np.flatnonzero(stream.uniform(self.num_units, "units", *purpose) < self._sampling_rate)
        shape = (len(units), self._rows_per_unit)
        parts = stream.uniform(len(units) * self._rows_per_unit, "rows", *purpose).reshape(shape)
        offsets = (parts * self._counts[units, None]).astype(np.int64)
        return np.asarray(self._rows[self._starts[units, None] + offsets])
