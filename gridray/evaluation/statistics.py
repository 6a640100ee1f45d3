"""Means, interquartile means and shares with honest intervals: bootstraps over days, the unit that varies."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import bootstrap, trim_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Statistic = Callable[..., NDArray[np.float64]]

NUM_RESAMPLES = 2000
DAYS_PER_STRATUM = 365 / 4
"""A season: days of one are more alike than days of the year."""


class Estimate(NamedTuple):
    """A mean and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """Return the mean with its 95 % interval: percentile bootstrap over days."""
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0.0:
        return Estimate(mean, mean, mean)
    result = bootstrap(
        (values,),
        np.mean,
        confidence_level=0.95,
        n_resamples=NUM_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Estimate(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))


def paired_difference(ours: NDArray[np.float64], theirs: NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """Return the mean of ours - theirs over the same days, with its 95 % interval."""
    return mean_interval(np.asarray(ours) - np.asarray(theirs), seed=seed)


def seasons(day: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the quarter of the year of each day, 0..3."""
    quarter: NDArray[np.int64] = ((day % 365) // DAYS_PER_STRATUM).astype(np.int64)
    return quarter


def stratified_interval(
    statistic: Statistic, columns: tuple[NDArray[np.float64], ...], strata: NDArray[np.int64], *, seed: int = 0
) -> Estimate:
    """Return a statistic with its 95 % percentile interval, days drawn anew within their strata.

    As rliable does (Agarwal et al., "Deep RL at the edge of the statistical precipice", NeurIPS 2021), whose strata
    are tasks; ours are seasons. A day that is alone in its stratum could only be drawn as itself, as if it were
    certain: where there is one, days are drawn without strata.

    Args:
        statistic: takes the columns [..., D] and reduces the last axis.
        columns: float64 [D] each, of the same days: all are drawn together.
        strata: int64 [D], the stratum of each day.
        seed: of the resamples.
    """
    rng = np.random.default_rng(seed)
    if np.unique(strata, return_counts=True)[1].min() < 2:
        strata = np.zeros_like(strata)
    picks = np.empty((NUM_RESAMPLES, len(strata)), dtype=np.int64)
    for stratum in np.unique(strata):
        (rows,) = np.nonzero(strata == stratum)
        picks[:, rows] = rows[rng.integers(0, len(rows), (NUM_RESAMPLES, len(rows)))]
    point = float(statistic(*columns))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = statistic(*(column[picks] for column in columns))
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Estimate(point, float("nan"), float("nan"))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(point, float(low), float(high))


def interquartile_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of the middle half along the last axis."""
    return np.asarray(trim_mean(values, 0.25, axis=-1))


def share_better(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of days on which ours is above theirs, ties half, along the last axis."""
    return np.asarray(((ours > theirs) + 0.5 * (ours == theirs)).mean(axis=-1))
