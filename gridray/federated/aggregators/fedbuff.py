"""FedBuff: updates enter as they come; the older the weights they started from, the less they count.

Nguyen et al., "Federated learning with buffered asynchronous aggregation", AISTATS 2022.
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


@dataclass(frozen=True, kw_only=True)
class FedBuffConfig:
    """Settings of the buffered server.

    max_staleness: rounds by which an update may be behind; an older one is refused.
    """

    max_staleness: int = 5

    def __post_init__(self) -> None:
        if self.max_staleness < 0:
            raise ConfigError(f"max_staleness is {self.max_staleness}: give 0 or more")


def fedbuff(config: FedBuffConfig) -> Aggregator:
    """Return the mean of the buffer's changes, each by 1 / sqrt(1 + staleness).

    The state holds past global weights as "version/<age>", since an update says what it is, not what it changed.
    """

    def init(weights: Weights) -> dict[str, NDArray[Any]]:
        return {"round": np.zeros(1, dtype=np.int64), "version/0": flattened(weights, weights)}

    def update(state: State, weights: Weights, updates: Sequence[ClientUpdate]) -> Aggregate:
        current, rows, _ = stacked(weights, updates)
        index = int(state["round"][0])
        ages = np.array([index - update.round for update in in_order(updates)])
        for i in np.flatnonzero(ages):
            rows[i] += current - state[f"version/{ages[i]}"]
        kept = 1.0 / np.sqrt(1.0 + ages)
        # What staleness takes from the clients stays with the present weights.
        shares = np.append(kept, (1.0 - kept).sum()) / len(rows)
        mean = weighted_mean(np.vstack([rows, current]), shares)
        moved = unstacked(mean, weights)
        versions = {
            f"version/{age}": state[f"version/{age - 1}"] for age in range(1, min(index + 1, config.max_staleness) + 1)
        }
        versions["version/0"] = flattened(moved, weights)
        return Aggregate(moved, {"round": np.array([index + 1]), **versions}, {"mean_staleness": float(ages.mean())})

    return Aggregator(init=init, update=update, max_staleness=config.max_staleness)
