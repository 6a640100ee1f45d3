"""Coordinate-wise median and trimmed mean: no minority moves a weight out of the range of the others.

Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates", ICML 2018. Clients count the
same: a number of samples is a client's own word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridray.errors import ConfigError, FederationError
from gridray.federated.aggregators.base import Aggregate, Aggregator, State, no_state
from gridray.federated.aggregators.stacking import coordinate_median, stacked, trimmed_mean, unstacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridray.federated.updates import ClientUpdate, Weights


@dataclass(frozen=True, kw_only=True)
class MedianConfig:
    """The median has no settings."""


@dataclass(frozen=True, kw_only=True)
class TrimmedMeanConfig:
    """Settings of the trimmed mean.

    num_attackers: clients that may send anything; so many of each weight's values are dropped at both ends.
    """

    num_attackers: int = 1

    def __post_init__(self) -> None:
        if self.num_attackers < 0:
            raise ConfigError(f"num_attackers is {self.num_attackers}: give 0 or more")


def median(config: MedianConfig) -> Aggregator:
    """Return the median of each weight."""
    del config

    def update(state: State, weights: Weights, updates: Sequence[ClientUpdate]) -> Aggregate:
        return Aggregate(unstacked(coordinate_median(stacked(weights, updates).rows), weights), dict(state), {})

    return Aggregator(init=no_state, update=update)


def trimmed(config: TrimmedMeanConfig) -> Aggregator:
    """Return the mean of each weight without its extremes."""
    num_needed = 2 * config.num_attackers + 1

    def update(state: State, weights: Weights, updates: Sequence[ClientUpdate]) -> Aggregate:
        check_number("trimmed_mean", len(updates), num_needed, config.num_attackers)
        rows = stacked(weights, updates).rows
        return Aggregate(unstacked(trimmed_mean(rows, config.num_attackers), weights), dict(state), {})

    return Aggregator(init=no_state, update=update, min_updates=num_needed)


def check_number(rule: str, num_updates: int, num_needed: int, num_attackers: int) -> None:
    """Refuse a round that has too few updates for what the rule promises."""
    if num_updates < num_needed:
        raise FederationError(
            f"Rule {rule!r} has {num_updates} updates; against {num_attackers} attackers it needs {num_needed}: "
            "raise min_clients, or lower num_attackers"
        )
