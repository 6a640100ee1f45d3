"""Krum and multi-Krum: follow those whose weights have the nearest company.

Blanchard et al., "Machine learning with adversaries: Byzantine tolerant gradient descent", NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError
from gridray.federated.aggregators.base import Aggregate, Aggregator, State, no_state
from gridray.federated.aggregators.median import check_number
from gridray.federated.aggregators.stacking import coordinate_median, gram, stacked, unstacked, weighted_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.federated.updates import ClientUpdate, Weights


@dataclass(frozen=True, kw_only=True)
class KrumConfig:
    """Settings of Krum.

    num_attackers: clients that may send anything; a round needs 2 num_attackers + 3 updates.
    num_chosen: clients whose mean is taken: 1 is Krum, more is multi-Krum.
    """

    num_attackers: int = 1
    num_chosen: int = 1

    def __post_init__(self) -> None:
        if self.num_attackers < 0:
            raise ConfigError(f"num_attackers is {self.num_attackers}: give 0 or more")
        if not 1 <= self.num_chosen <= self.num_attackers + 3:
            # Of 2f + 3 updates, f + 3 are honest: more would let an attacker in.
            raise ConfigError(
                f"num_chosen is {self.num_chosen}: give 1 to num_attackers + 3 = {self.num_attackers + 3}"
            )


def krum(config: KrumConfig) -> Aggregator:
    """Return the mean of the clients that are nearest to their neighbours."""
    num_needed = 2 * config.num_attackers + 3 if config.num_attackers else 1

    def update(state: State, weights: Weights, updates: Sequence[ClientUpdate]) -> Aggregate:
        check_number("krum", len(updates), num_needed, config.num_attackers)
        rows = stacked(weights, updates).rows
        chosen = np.sort(np.argsort(_scores(rows, config.num_attackers), kind="stable")[: config.num_chosen])
        mean = weighted_mean(rows[chosen], np.full(len(chosen), 1.0 / len(chosen)))
        return Aggregate(unstacked(mean, weights), dict(state), {})

    return Aggregator(init=no_state, update=update, min_updates=num_needed)


def _scores(rows: NDArray[np.floating], num_attackers: int) -> NDArray[np.float64]:
    """Return each client's sum of squared distances to its n - f - 2 nearest others [n]."""
    products = gram(rows, coordinate_median(rows))
    squares = np.diag(products)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2.0 * products, 0.0)
    np.fill_diagonal(distances, -1.0)
    num_nearest = max(len(rows) - num_attackers - 2, 1)
    scores: NDArray[np.float64] = np.sort(distances, axis=1)[:, 1 : 1 + num_nearest].sum(axis=1)
    return scores
