"""Norm clipping: no client moves the global weights further than a given distance.

Sun et al., "Can you really backdoor federated learning?", 2019; centred at the global weights as Karimireddy, He and
Jaggi, "Learning from history for Byzantine robust optimization", ICML 2021, do it in one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError
from gridray.federated.aggregators.base import Aggregate, Aggregator, State, no_state
from gridray.federated.aggregators.stacking import gram, stacked, unstacked, weighted_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridray.federated.updates import ClientUpdate, Weights


@dataclass(frozen=True, kw_only=True)
class ClippedMeanConfig:
    """Settings of the clipped mean.

    max_norm: longest change of a client, Euclidean norm over the network group; none: the median of the round's.
    """

    max_norm: float | None = None

    def __post_init__(self) -> None:
        if self.max_norm is not None and self.max_norm <= 0:
            raise ConfigError(f"max_norm is {self.max_norm}: give a number above 0, or leave it out")


def clipped_mean(config: ClippedMeanConfig) -> Aggregator:
    """Return the mean over clients of changes that are no longer than the limit."""

    def update(state: State, weights: Weights, updates: Sequence[ClientUpdate]) -> Aggregate:
        current, rows, _ = stacked(weights, updates)
        norms = np.sqrt(np.diag(gram(rows, current)))
        limit = float(np.median(norms)) if config.max_norm is None else config.max_norm
        kept = np.minimum(1.0, limit / np.maximum(norms, limit)) if limit > 0 else np.zeros(len(rows))
        # What clipping takes from the clients stays with the present weights.
        shares = np.append(kept, (1.0 - kept).sum()) / len(rows)
        mean = weighted_mean(np.vstack([rows, current]), shares)
        report = {"clipped_clients": float(np.count_nonzero(norms > limit))}
        return Aggregate(unstacked(mean, weights), dict(state), report)

    return Aggregator(init=no_state, update=update)
