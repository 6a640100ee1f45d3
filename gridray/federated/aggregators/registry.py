"""Aggregators by name."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gridray.config import parse_config
from gridray.errors import ConfigError
from gridray.federated.aggregators.clipped import ClippedMeanConfig, clipped_mean
from gridray.federated.aggregators.fedavg import FedAvgConfig, fedavg
from gridray.federated.aggregators.fedbuff import FedBuffConfig, fedbuff
from gridray.federated.aggregators.fedopt import FedOptConfig, fedadam, fedyogi
from gridray.federated.aggregators.fedora import FedoraConfig, fedora
from gridray.federated.aggregators.geometric_median import GeometricMedianConfig, geometric_median
from gridray.federated.aggregators.krum import KrumConfig, krum
from gridray.federated.aggregators.median import MedianConfig, TrimmedMeanConfig, median, trimmed
from gridray.federated.aggregators.scaffold import ScaffoldConfig, scaffold

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gridray.federated.aggregators.base import Aggregator

AGGREGATORS: dict[str, tuple[Callable[[Any], Aggregator], type[Any]]] = {
    "clipped_mean": (clipped_mean, ClippedMeanConfig),
    "fedadam": (fedadam, FedOptConfig),
    "fedavg": (fedavg, FedAvgConfig),
    "fedbuff": (fedbuff, FedBuffConfig),
    "fedora": (fedora, FedoraConfig),
    "fedyogi": (fedyogi, FedOptConfig),
    "geometric_median": (geometric_median, GeometricMedianConfig),
    "krum": (krum, KrumConfig),
    "median": (median, MedianConfig),
    "scaffold": (scaffold, ScaffoldConfig),
    "trimmed_mean": (trimmed, TrimmedMeanConfig),
}
"""Rule -> (function that makes it, its configuration class)."""


def make_aggregator(name: str, settings: Mapping[str, Any] | None = None, *, num_clients: int = 1) -> Aggregator:
    """Return the aggregator of that name, for a federation of num_clients.

    Raises:
        ConfigError: no aggregator has that name, or it has no such setting.
    """
    if name not in AGGREGATORS:
        raise ConfigError(f"Aggregator {name!r} does not exist: choose one of {', '.join(sorted(AGGREGATORS))}")
    make, config_class = AGGREGATORS[name]
    given = dict(settings or {})
    if any(part.name == "num_clients" for part in fields(config_class)):
        given = {"num_clients": num_clients} | given
    return make(parse_config(config_class, given, where=f"aggregator '{name}'"))
