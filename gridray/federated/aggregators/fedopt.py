"""FedOpt: the clients' mean change is a gradient, which an adaptive optimiser at the server follows.

Reddi et al., "Adaptive federated optimization", ICLR 2021, algorithm 2: FedAdam and FedYogi.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.errors import ConfigError
from gridray.federated.aggregators.base import Aggregate, Aggregator, State
from gridray.federated.aggregators.stacking import flattened, stacked, unstacked, weighted_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from gridray.federated.updates import ClientUpdate, Weights

    SecondMoment = Callable[[NDArray[np.float64], NDArray[np.float64], float], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class FedOptConfig:
    """Settings of the server's optimiser.

    learning_rate: longest step of a weight per round, in the weight's unit.
    momentum: share of the mean change that is kept from round to round.
    second_momentum: the same for its square.
    adaptivity: added to the root of the second moment; the greater, the more like averaging.
    """

    learning_rate: float = 1e-2
    momentum: float = 0.9
    second_momentum: float = 0.99
    adaptivity: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("learning_rate", "adaptivity"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0")
        for name in ("momentum", "second_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number from 0 to below 1")


def fedadam(config: FedOptConfig) -> Aggregator:
    """Return FedAdam: the second moment is an exponential mean of the squared change."""
    return _fedopt(config, lambda second, squared, keep: keep * second + (1.0 - keep) * squared)


def fedyogi(config: FedOptConfig) -> Aggregator:
    """Return FedYogi: the second moment moves towards the squared change by a step that does not depend on itself."""
    return _fedopt(config, lambda second, squared, keep: second - (1.0 - keep) * squared * np.sign(second - squared))


def _fedopt(config: FedOptConfig, next_second: SecondMoment) -> Aggregator:
    def init(weights: Weights) -> dict[str, NDArray[Any]]:
        size = flattened(weights, weights).size
        return {"first": np.zeros(size), "second": np.full(size, config.adaptivity**2)}

    def update(state: State, weights: Weights, updates: Sequence[ClientUpdate]) -> Aggregate:
        current, rows, shares = stacked(weights, updates)
        change = weighted_mean(rows, shares) - current
        first = config.momentum * state["first"] + (1.0 - config.momentum) * change
        second = next_second(state["second"], np.square(change), config.second_momentum)
        moved = current + config.learning_rate * first / (np.sqrt(second) + config.adaptivity)
        return Aggregate(unstacked(moved, weights), {"first": first, "second": second}, {})

    return Aggregator(init=init, update=update)
