"""FedAvg: the mean of the clients' weights, each counted by its number of samples.

McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from gridray.federated.aggregators.base import Aggregate, Aggregator, State, no_state
from gridray.federated.aggregators.stacking import stacked, unstacked, weighted_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridray.federated.updates import ClientUpdate, Weights


@dataclass(frozen=True, kw_only=True)
class FedAvgConfig:
    """Settings of FedAvg.

    count_by: whether clients count by their samples or all the same.
    """

    count_by: Literal["samples", "clients"] = "samples"


def fedavg(config: FedAvgConfig) -> Aggregator:
    """Return the mean; it keeps no state."""

    def update(state: State, weights: Weights, updates: Sequence[ClientUpdate]) -> Aggregate:
        _, rows, shares = stacked(weights, updates)
        if config.count_by == "clients":
            shares = np.full(len(rows), 1.0 / len(rows))
        return Aggregate(unstacked(weighted_mean(rows, shares), weights), dict(state), {})

    def weigh(updates: Sequence[ClientUpdate]) -> dict[str, float]:
        return {update.client: 1.0 for update in updates}

    return Aggregator(init=no_state, update=update, weigh=weigh if config.count_by == "clients" else None)
