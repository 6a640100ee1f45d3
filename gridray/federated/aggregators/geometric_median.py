"""RFA: the point with the least sum of distances to the clients' weights, by the smoothed Weiszfeld iteration.

Pillutla, Kakade and Harchaoui, "Robust aggregation for federated learning", IEEE Trans. Signal Processing, 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError
from gridray.federated.aggregators.base import Aggregate, Aggregator, State, no_state
from gridray.federated.aggregators.stacking import coordinate_median, gram, stacked, unstacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.federated.updates import ClientUpdate, Weights

_TOLERANCE = 1e-10
# A geometric median depends on where a far point lies, hardly on how far: beyond this many median distances rounding
# would cost more than the point's place matters.
_FAR = 1e3


@dataclass(frozen=True, kw_only=True)
class GeometricMedianConfig:
    """Settings of the iteration.

    smoothing: least distance that counts, as a share of the median distance from the coordinate-wise median.
    max_iterations: steps of Weiszfeld's iteration at most.
    """

    smoothing: float = 1e-3
    max_iterations: int = 200

    def __post_init__(self) -> None:
        if self.smoothing <= 0:
            raise ConfigError(f"smoothing is {self.smoothing}: give a number above 0")
        if self.max_iterations < 1:
            raise ConfigError(f"max_iterations is {self.max_iterations}: give 1 or more")


def geometric_median(config: GeometricMedianConfig) -> Aggregator:
    """Return the smoothed geometric median; clients count the same."""

    def update(state: State, weights: Weights, updates: Sequence[ClientUpdate]) -> Aggregate:
        rows = stacked(weights, updates).rows
        centre = coordinate_median(rows)
        shares = _shares(gram(rows, centre), config)
        # Shares sum to at most 1: what far points lost stays at the centre.
        return Aggregate(unstacked(centre + shares @ rows - shares.sum() * centre, weights), dict(state), {})

    return Aggregator(init=no_state, update=update)


def _shares(products: NDArray[np.float64], config: GeometricMedianConfig) -> NDArray[np.float64]:
    """Return how much of each row [n], taken from the centre, the median is, from inner products about the centre.

    The median is a convex combination of rows, so all distances follow from the inner products: the iteration does not
    touch the weights.
    """
    norms = np.sqrt(np.diag(products))
    scale = np.median(norms)
    if scale == 0.0:
        return np.zeros(len(norms))
    pull = np.minimum(1.0, _FAR * scale / np.maximum(norms, scale))
    products = products * pull[:, None] * pull[None, :]
    shares = np.full(len(norms), 1.0 / len(norms))
    for _ in range(config.max_iterations):
        along = products @ shares
        squared = np.maximum(np.diag(products) - 2.0 * along + shares @ along, 0.0)
        inverse = 1.0 / np.maximum(np.sqrt(squared), config.smoothing * scale)
        before, shares = shares, inverse / inverse.sum()
        if np.abs(shares - before).max() < _TOLERANCE:
            break
    pulled: NDArray[np.float64] = shares * pull
    return pulled
