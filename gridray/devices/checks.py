"""Checks of devices' parameters, with errors that name the item."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_within(
    device: str,
    field: str,
    values: NDArray[np.float64] | NDArray[np.int64],
    low: float | NDArray[np.float64],
    high: float | NDArray[np.float64],
) -> None:
    """Refuse values outside low..high (or not a number).

    Raises:
        ConfigError: names the first wrong item.
    """
    given, least, most = np.broadcast_arrays(values, low, high)
    is_wrong = ~((given >= least) & (given <= most))
    if is_wrong.any():
        at = tuple(np.argwhere(is_wrong)[0].tolist())
        raise ConfigError(f"{device} {at}: {field} is {given[at]:g}: give a number from {least[at]:g} to {most[at]:g}.")
