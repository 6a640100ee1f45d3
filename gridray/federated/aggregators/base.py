"""What an aggregator is: the server step of a round as a pair of pure functions, as optax has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from gridray.federated.updates import ClientUpdate, Weights

State = Mapping[str, NDArray[Any]]


class Aggregate(NamedTuple):
    """Outcome of a server step.

    weights: new global weights.
    state: what the aggregator keeps until the next round; it is saved with the round.
    report: name -> scalar that the round's record shows, such as the effective number of clients.
    """

    weights: dict[str, NDArray[Any]]
    state: dict[str, NDArray[Any]]
    report: dict[str, float]


InitFunction = Callable[[Weights], dict[str, NDArray[Any]]]
UpdateFunction = Callable[[State, Weights, Sequence[ClientUpdate]], Aggregate]
WeighFunction = Callable[[Sequence[ClientUpdate]], dict[str, float]]


class Aggregator(NamedTuple):
    """Server step over weight dicts.

    init: global weights -> state, a dict of arrays that is kept between rounds and saved with them.
    update: (state, global weights, updates of the round) -> what they become. Pure, and independent of the order of the
        updates.
    min_updates: updates that a round needs, or the rule promises nothing.
    max_staleness: rounds by which an update may be behind; above 0 only for rules that count staleness.
    needs_value: whether updates must carry a value report.
    weigh: updates, whose weights are not read -> what each client counts in a sum under masks, 0 or more; where it is
        missing, its samples.
    has_controls: whether clients correct their gradients by control variates and send how these changed.
    """

    init: InitFunction
    update: UpdateFunction
    min_updates: int = 1
    max_staleness: int = 0
    needs_value: bool = False
    weigh: WeighFunction | None = None
    has_controls: bool = False


def no_state(weights: Weights) -> dict[str, NDArray[Any]]:
    """Return the state of a rule that keeps none."""
    del weights
    return {}
