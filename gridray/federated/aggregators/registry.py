"""Aggregators by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridray.errors import ConfigError
from gridray.federated.aggregators.fedavg import fedavg

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridray.federated.aggregators.base import Aggregator

AGGREGATORS: dict[str, Callable[[], Aggregator]] = {"fedavg": fedavg}


def make_aggregator(name: str) -> Aggregator:
    """Return the aggregator of that name.

    Raises:
        ConfigError: no aggregator has that name.
    """
    if name not in AGGREGATORS:
        raise ConfigError(f"Aggregator {name!r} does not exist: choose one of {', '.join(sorted(AGGREGATORS))}")
    return AGGREGATORS[name]()
