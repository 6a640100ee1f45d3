"""A federation beside all that it has to be better than: each utility on its own, plain averaging, pooled data."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.algorithms.batches import InMemoryBatches, load_columns
from gridray.algorithms.registry import task_learner
from gridray.cluster.runtime import ray_session
from gridray.datasets.dataset import OfflineDataset
from gridray.errors import ConfigError
from gridray.federated.client import FEDERATED, UtilityClient
from gridray.federated.federate import FederationResult, federate, private_ray
from gridray.federated.local.baselines import ALONE, CLONED, GAIN, TODAY
from gridray.federated.local.config import LocalConfig
from gridray.federated.membership import client_spec, initial_learner
from gridray.federated.rounds import start_clients
from gridray.federated.sites import InProcess, RayActors
from gridray.federated.updates import Broadcast, check_report
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.federated.config import FederateConfig
    from gridray.federated.coordinator import RoundRecord

NAIVE, POOLED = "plain_averaging", "pooled"
METHODS = (TODAY, CLONED, ALONE, NAIVE, FEDERATED, POOLED)
"""In the order in which they are shown."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What each method is worth at each utility.

    federation: the federation itself.
    metrics: client name -> "<method>_<indicator>" -> mean over its held-out days, and the methods' gains over training
        alone; see `gridray.federated.local.baselines.judged`.
    """

    federation: FederationResult
    metrics: dict[str, dict[str, float]]

    def means(self, indicator: str) -> dict[str, dict[str, float]]:
        """Return method -> client -> mean, and `all`, the mean over clients."""
        table: dict[str, dict[str, float]] = {}
        for method in METHODS:
            row = {
                client: found[f"{method}_{indicator}"]
                for client, found in self.metrics.items()
                if f"{method}_{indicator}" in found
            }
            if row:
                table[method] = row | {"all": float(np.mean(list(row.values())))}
        return table

    def gains(self, method: str) -> dict[str, tuple[float, float, float]]:
        """Return client -> how much more a method returns than training alone, with the bounds of its interval."""
        names = [f"{method}_{GAIN}{bound}" for bound in ("", "_low", "_high")]
        return {
            client: (found[names[0]], found[names[1]], found[names[2]])
            for client, found in self.metrics.items()
            if names[0] in found
        }


def compare(
    config: FederateConfig,
    out: Path,
    on_progress: Callable[[RoundRecord], None] | None = None,
    *,
    num_days: int = 24,
    is_pooled: bool = False,
    use_ray: bool = True,
) -> Comparison:
    """Run a federation, and plain averaging, and let each utility compare them with what it has on its own.

    A utility trains alone at home, and sends means and intervals over its held-out days, nothing else.

    Args:
        config: the federation.
        out: its directory, see `federate`; plain averaging gets `plain_averaging/` in it, the outcome
            `comparison.json`.
        on_progress: called after each round.
        num_days: held-out days of each utility.
        is_pooled: train on all data together, too, which this process has to be able to read: for experiments.
        use_ray: as of `federate`.

    Raises:
        ConfigError: a privacy budget is to be kept.
    """
    if config.protection.reward_std is not None:
        raise ConfigError(
            "A comparison trains a second federation on the same data and sends results without noise, which no "
            f"budget covers ({config.protection.describe()}): leave the comparison out, or the budget"
        )
    out = out.absolute()
    with ExitStack() as stack:
        if use_ray:
            stack.enter_context(ray_session(**private_ray(config)))
        rivals: dict[str, dict[str, NDArray[Any]]] = {}
        plain = plainly_averaged(config)
        if plain != config:
            rivals[NAIVE] = federate(plain, out / NAIVE, on_progress, use_ray=use_ray).weights
        result = federate(config, out, on_progress, use_ray=use_ray)
        if is_pooled:
            rivals[POOLED] = pooled_weights(config, out)
        metrics = _reports(config, out, result, rivals, num_days, use_ray=use_ray)
    comparison = Comparison(federation=result, metrics=metrics)
    aside = out / ".comparison.json"
    aside.write_text(json.dumps(metrics, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    aside.rename(out / "comparison.json")
    return comparison


def plainly_averaged(config: FederateConfig) -> FederateConfig:
    """Return the federation with FedAvg for all networks and nothing else at the clients; same algorithm and budget."""
    return replace(config, aggregator="fedavg", groups={}, local=LocalConfig(), asynchronous=None)


def pooled_weights(config: FederateConfig, out: Path) -> dict[str, NDArray[Any]]:
    """Return what the algorithm learns from all data together, with as many updates as all clients take in all rounds.

    Each batch is of one utility, drawn by its share of all transitions: utilities with other feeders have rows of
    other widths.
    """
    clients = {
        client.name: UtilityClient(client_spec(config, client, out / "clients" / client.name))
        for client in config.clients
    }
    descriptions = {name: client.describe() for name, client in clients.items()}
    start = initial_learner(config, descriptions, {name: client.moments() for name, client in clients.items()})
    learners, batches = {}, {}
    for index, client in enumerate(config.clients):
        description = descriptions[client.name]
        task = make_task(description.task, description.task_config)
        learner = task_learner(config.algorithm, task, config=config.learner, seed=config.seed)
        columns = load_columns(OfflineDataset.open(client.dataset), learner.columns)
        batches[client.name] = InMemoryBatches(
            columns, batch_size=config.batch_size, seed=config.seed * len(config.clients) + index, device="cpu"
        )
        learners[client.name] = learner
    samples = np.array([descriptions[name].num_samples for name in learners], dtype=np.float64)
    num_updates = config.rounds * sum(client.num_updates for client in clients.values())
    order = np.random.default_rng([config.seed, 1]).choice(list(learners), num_updates, p=samples / samples.sum())
    weights, state, last = start.get_weights(), start.get_training_state(), ""
    for name in order.tolist():
        learner = learners[name]
        if name != last:
            if last:
                weights, state = learners[last].get_weights(), learners[last].get_training_state()
            learner.set_weights(weights)
            learner.set_training_state(state)
        learner.update(batches[name].draw())
        last = name
    return learners[last].get_weights()


def _reports(
    config: FederateConfig,
    out: Path,
    result: FederationResult,
    rivals: Mapping[str, Mapping[str, NDArray[Any]]],
    num_days: int,
    *,
    use_ray: bool,
) -> dict[str, dict[str, float]]:
    """Return what each client sends."""
    # A utility trains twice as long as in all rounds together.
    sites = RayActors(config.timeout_s * config.rounds) if use_ray else InProcess()
    broadcast = Broadcast(round=len(result.history), weights=result.weights)
    try:
        clients = start_clients(sites, config, out)
        tickets = {
            name: sites.call(client, "compare", broadcast, dict(rivals), num_days) for name, client in clients.items()
        }
        reports = {name: sites.value(ticket) for name, ticket in tickets.items()}
    finally:
        sites.stop()
    for name, report in reports.items():
        check_report(report, round_index=broadcast.round, client=name)
    return {name: dict(report.metrics) for name, report in sorted(reports.items())}
