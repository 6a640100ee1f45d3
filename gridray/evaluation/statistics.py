"""Means with honest intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import bootstrap

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Estimate(NamedTuple):
    """A mean and its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """Return the mean with its 95 % interval: percentile bootstrap over days, the unit that varies."""
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0.0:
        return Estimate(mean, mean, mean)
    result = bootstrap(
        (values,),
        np.mean,
        confidence_level=0.95,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Estimate(mean, float(result.confidence_interval.low), float(result.confidence_interval.high))


def paired_difference(ours: NDArray[np.float64], theirs: NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """Return the mean of ours - theirs over the same days, with its 95 % interval."""
    return mean_interval(np.asarray(ours) - np.asarray(theirs), seed=seed)
