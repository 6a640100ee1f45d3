"""FedAvg: the mean of the clients' weights, each counted by its number of samples.

McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.federated.aggregators.base import Aggregator, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.federated.updates import ClientUpdate, Weights


def fedavg() -> Aggregator:
    """Return the sample-weighted mean; it keeps no state."""
    return Aggregator(init=_init, update=_update)


def _init(weights: Weights) -> dict[str, NDArray[Any]]:
    del weights
    return {}


def _update(
    state: State, weights: Weights, updates: Sequence[ClientUpdate]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    ordered = sorted(updates, key=lambda update: update.client)
    total = sum(update.num_samples for update in ordered)
    mean = {}
    for name, current in weights.items():
        # Differences to the first client are averaged, so that equal updates give exactly that update back.
        first = ordered[0].weights[name].astype(np.float64)
        shift = np.zeros_like(first)
        for update in ordered[1:]:
            shift += (update.num_samples / total) * (update.weights[name] - first)
        mean[name] = np.asarray(first + shift, dtype=current.dtype)
    return mean, dict(state)
