"""What an aggregator is: the server step of a round as a pair of pure functions, as optax has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from gridray.federated.updates import ClientUpdate, Weights

State = Mapping[str, NDArray[Any]]
InitFunction = Callable[[Weights], dict[str, NDArray[Any]]]
UpdateFunction = Callable[
    [State, Weights, Sequence[ClientUpdate]], tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]
]


class Aggregator(NamedTuple):
    """Server step over weight dicts.

    init: global weights -> state, a dict of arrays that is kept between rounds and saved with them.
    update: (state, global weights, updates of the round) -> (new global weights, new state). Pure, and independent
        of the order of the updates.
    """

    init: InitFunction
    update: UpdateFunction
