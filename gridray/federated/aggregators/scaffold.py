"""SCAFFOLD: control variates take the clients' drift out of their local steps.

Karimireddy et al., "SCAFFOLD: stochastic controlled averaging for federated learning", ICML 2020. The client's side,
which keeps its own control variate, is `gridray.federated.local.scaffold`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.errors import ConfigError
from gridray.federated.aggregators.base import Aggregate, Aggregator, State
from gridray.federated.aggregators.stacking import flattened, in_order, stacked, unstacked, weighted_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.federated.updates import ClientUpdate, Weights

CONTROL = "control/"
"""Prefix of the state's arrays that are sent to the clients: the server's control variate by weight name."""


@dataclass(frozen=True, kw_only=True)
class ScaffoldConfig:
    """Settings of SCAFFOLD's server.

    num_clients: members of the federation, sampled or not; the control variate is a mean over all of them.
    step: share of the clients' mean change that the global weights take.
    """

    num_clients: int
    step: float = 1.0

    def __post_init__(self) -> None:
        if self.num_clients < 1:
            raise ConfigError(f"num_clients is {self.num_clients}: give the number of members, 1 or more")
        if not 0 < self.step <= 1:
            raise ConfigError(f"step is {self.step}: give a number above 0, up to 1")


def scaffold(config: ScaffoldConfig) -> Aggregator:
    """Return the mean of weights over clients, and the server's control variate as state."""

    def init(weights: Weights) -> dict[str, NDArray[Any]]:
        return {CONTROL + name: np.zeros_like(array) for name, array in weights.items()}

    def update(state: State, weights: Weights, updates: Sequence[ClientUpdate]) -> Aggregate:
        current, rows, _ = stacked(weights, updates)
        even = np.full(len(rows), 1.0 / len(rows))
        mean = weighted_mean(rows, even)
        moved = mean if config.step == 1 else current + config.step * (mean - current)
        control = {name: state[CONTROL + name] for name in weights}
        changes = np.stack([flattened(update.controls, weights) for update in in_order(updates)])
        # Clients that were away keep their control variates: the mean over all moves by the senders' part.
        part = len(rows) / config.num_clients
        next_control = flattened(control, weights) + part * weighted_mean(changes, even)
        arrays = unstacked(next_control, weights)
        return Aggregate(unstacked(moved, weights), {CONTROL + name: arrays[name] for name in weights}, {})

    return Aggregator(init=init, update=update, has_controls=True)
