"""Pooled mean and standard deviation from sums that each client computes on its own data."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.errors import FederationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Moments(NamedTuple):
    """Number of rows, and mean and sum of squared deviations of each feature.

    mean: float64 [num_features].
    m2: float64 [num_features], sum over rows of (value - mean) squared.
    """

    num_rows: int
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]


def moments(rows: NDArray[np.floating]) -> Moments:
    """Return the moments of rows [num_rows, num_features]."""
    values = rows.astype(np.float64)
    mean = values.mean(axis=0)
    return Moments(len(values), mean, np.square(values - mean).sum(axis=0))


def pool(parts: Mapping[str, Moments]) -> Moments:
    """Combine the clients' moments, in order of client name, into those of all rows together.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.

    Raises:
        FederationError: a client's moments are not finite, or have no rows or another number of features.
    """
    names = sorted(parts)
    pooled = parts[names[0]]
    for name in names:
        _check(name, parts[name], len(pooled.mean))
    for name in names[1:]:
        part = parts[name]
        num_rows = pooled.num_rows + part.num_rows
        delta = part.mean - pooled.mean
        mean = pooled.mean + delta * (part.num_rows / num_rows)
        m2 = pooled.m2 + part.m2 + np.square(delta) * (pooled.num_rows * part.num_rows / num_rows)
        pooled = Moments(num_rows, mean, m2)
    return pooled


def as_sums(part: Moments, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return moments as one vector that simply adds up over clients, so that a secure sum can hide its parts.

    Args:
        part: moments of a client.
        centre: public guess of the mean [num_features], the same at every client; the nearer, the less is rounded away.

    Returns:
        Number of rows, sums of (value - centre), sums of (value - centre) squared [1 + 2 num_features].
    """
    shift = part.mean - centre
    return np.concatenate([[part.num_rows], part.num_rows * shift, part.m2 + part.num_rows * np.square(shift)])


def of_sums(total: NDArray[np.float64], centre: NDArray[np.float64]) -> Moments:
    """Return the moments of all rows from the sum of what `as_sums` gave at each client."""
    num_rows = round(total[0])
    first, second = np.split(total[1:], 2)
    return Moments(num_rows, centre + first / num_rows, np.maximum(second - np.square(first) / num_rows, 0.0))


def standard_deviation(pooled: Moments) -> NDArray[np.float64]:
    """Return the population standard deviation [num_features]."""
    return np.sqrt(pooled.m2 / pooled.num_rows)


def _check(name: str, part: Moments, num_features: int) -> None:
    if part.num_rows < 1:
        raise FederationError(f"Moments of client {name!r} have {part.num_rows} rows: its dataset needs at least one")
    if part.mean.shape != (num_features,) or part.m2.shape != (num_features,):
        raise FederationError(f"Moments of client {name!r} have shape {part.mean.shape}, expected ({num_features},)")
    if not (np.isfinite(part.mean).all() and np.isfinite(part.m2).all() and (part.m2 >= 0).all()):
        raise FederationError(f"Moments of client {name!r} are not finite: check its dataset for NaN")
