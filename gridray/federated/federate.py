"""Run a federation from its configuration to a saved policy."""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gridray.algorithms.bundle import save_bundle
from gridray.cluster.runtime import ray_session
from gridray.errors import FederationError
from gridray.federated.client import UtilityClient
from gridray.federated.coordinator import RoundRecord
from gridray.federated.ledger import PrivacySpent
from gridray.federated.membership import rounds_within_budget
from gridray.federated.rounds import COORDINATOR_CPUS, Federation, evaluate_weights, run_round, start_federation
from gridray.federated.sharing import TARGET
from gridray.federated.sites import InProcess, PooledActors, RayActors, Sites
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gridray.federated.config import FederateConfig

Evaluation = dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class FederationResult:
    """Outcome of a federation.

    bundle: directory of the policy bundle.
    history: one record per round.
    evaluation: client name -> metrics of the final weights on its held-out days, where asked for.
    weights: final global weights, parameter name -> array.
    ended: why there were no more rounds.
    privacy: what has been spent of each budget, by unit.
    """

    bundle: Path
    history: tuple[RoundRecord, ...]
    evaluation: Evaluation
    weights: dict[str, NDArray[Any]]
    ended: str
    privacy: tuple[PrivacySpent, ...]


def federate(
    config: FederateConfig,
    out: Path,
    on_progress: Callable[[RoundRecord], None] | None = None,
    *,
    use_ray: bool = True,
) -> FederationResult:
    """Train one policy on the datasets of all clients, none of which leaves its client.

    Args:
        config: the federation.
        out: directory for the bundle (`policy/`), `history.json`, `curves.csv` and the state of each round; where it
            holds a stopped run of the same configuration, that run is continued, with equal results.
        on_progress: called after each round of this call.
        use_ray: run coordinator and clients as actors; otherwise all in this process, with equal results.

    Raises:
        FederationError: clients disagree on channels, too few of them answer, or `out` holds another run.
    """
    out = out.absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FederationError(f"'{out}' cannot be made ({error.strerror}): give another output directory") from error
    with ExitStack() as stack:
        if use_ray:
            stack.enter_context(ray_session(**private_ray(config)))
        sites = _sites(config, use_ray=use_ray)
        stack.callback(sites.stop)
        federation = start_federation(sites, config, out)
        history = list(federation.history())
        num_rounds = rounds_within_budget(config, federation.descriptions)
        while len(history) < num_rounds and not has_stalled(config, history):
            history.append(run_round(federation))
            if on_progress is not None:
                on_progress(history[-1])
        federation.ask_patiently("open_round")
        broadcast = sites.call(federation.coordinator, "broadcast")
        evaluate_weights(federation, broadcast)
        ended = _reason(config, num_rounds, len(history))
        federation.ask("end_run", ended)
        privacy: tuple[PrivacySpent, ...] = federation.ask("privacy")
        evaluation: Evaluation = federation.ask("evaluation")
        _save_personal(federation, broadcast)
        # Arrays from Ray's object store are read-only and end with it.
        weights = {name: np.array(array) for name, array in sites.value(broadcast).weights.items()}
    federation.learner.set_weights(_whole(federation, weights))
    _write(out, history, evaluation)
    return FederationResult(
        bundle=_save(config, out / "policy", federation, history),
        history=tuple(history),
        evaluation=evaluation,
        weights=weights,
        ended=ended,
        privacy=privacy,
    )


def private_ray(config: FederateConfig) -> dict[str, Any]:
    """Return what a private Ray offers, so that every member finds a place on one machine: logical CPUs, resources."""
    num_clients = len(config.clients) if config.simulation_actors is None else config.simulation_actors
    most = max(client.num_cpus for client in config.clients)
    resources = Counter(client.resource for client in config.clients if client.resource)
    return {
        "num_cpus": max(os.cpu_count() or 1, math.ceil(most * num_clients + COORDINATOR_CPUS)),
        "resources": dict(resources),
    }


def has_stalled(config: FederateConfig, history: Sequence[RoundRecord]) -> bool:
    """Tell whether the mean return of all clients has not been better for as many evaluations as patience allows."""
    patience = None if config.evaluation is None else config.evaluation.patience
    means = [
        float(np.mean([metrics["returns"] for metrics in record.evaluation.values() if "returns" in metrics]))
        for record in history
        if any("returns" in metrics for metrics in record.evaluation.values())
    ]
    if patience is None or len(means) <= patience:
        return False
    return max(means[-patience:]) <= max(means[:-patience])


def learning_curves(history: Sequence[RoundRecord], evaluation: Evaluation) -> Iterator[tuple[int, str, str, float]]:
    """Yield round, client, metric and value; `all` is the mean over clients, `rules` what the rules report."""
    for record in history:
        by_metric: dict[str, list[float]] = {}
        for source in (record.metrics, _named("held_out", record.evaluation)):
            for client, metrics in source.items():
                for name, value in metrics.items():
                    yield record.round, client, name, value
                    by_metric.setdefault(name, []).append(value)
        for name, values in by_metric.items():
            yield record.round, "all", name, float(np.mean(values))
        for name, value in record.report.items():
            yield record.round, "rules", name, value
    for client, metrics in _named("held_out", evaluation).items():
        for name, value in metrics.items():
            yield len(history), client, name, value


def _reason(config: FederateConfig, num_rounds: int, num_closed: int) -> str:
    if num_closed < num_rounds:
        return "no progress"
    return "all rounds" if num_rounds == config.rounds else "privacy budget spent"


def _named(prefix: str, evaluation: Evaluation) -> Evaluation:
    return {
        client: {f"{prefix}_{name}": value for name, value in metrics.items()} for client, metrics in evaluation.items()
    }


def _sites(config: FederateConfig, *, use_ray: bool) -> Sites:
    if not use_ray:
        return InProcess()
    if config.simulation_actors is not None:
        return PooledActors(config.timeout_s, config.simulation_actors, (UtilityClient,))
    return RayActors(config.timeout_s)


def _save_personal(federation: Federation, broadcast: Any) -> None:  # noqa: ANN401  # a ticket
    """Let clients that have something of their own, a feeder included, write their policies, where they are."""
    config, sites = federation.config, federation.sites
    has_own = config.local.personal is not None or federation.learner.shape != "flat"
    if has_own or not config.sharing.is_whole(federation.learner.get_weights()):
        idle = {name: client for name, client in federation.clients.items() if name not in federation.in_flight}
        tickets = {name: sites.call(client, "save_policy", broadcast) for name, client in idle.items()}
        sites.late(tickets)


def _whole(federation: Federation, weights: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return all weights of a learner: what is not shared is as it was at the start, targets as what they go after."""
    whole = federation.learner.get_weights() | weights
    targets = [name for name in whole if name.startswith(TARGET) and name not in weights]
    return whole | {name: whole[name.removeprefix(TARGET)] for name in targets}


def _write(out: Path, history: Sequence[RoundRecord], evaluation: Evaluation) -> None:
    (out / "history.json").write_text(json.dumps([asdict(record) for record in history], indent=1), encoding="utf-8")
    with (out / "curves.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("round", "client", "metric", "value"))
        writer.writerows(learning_curves(history, evaluation))


def _save(config: FederateConfig, path: Path, federation: Federation, history: Sequence[RoundRecord]) -> Path:
    provenance = {
        "kind": "federated",
        "rules": {group or "rest": asdict(rule) for group, rule in config.sharing.rules.items()},
        "local": asdict(config.local),
        "algorithm": config.algorithm,
        "rounds": len(history),
        "local_updates": config.local_updates,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "protection": config.protection.describe(),
        "clients": {
            name: {
                "num_samples": client.num_samples,
                "data_sha256": client.data_sha256,
                "feeder_hash": client.feeder_hash,
            }
            for name, client in federation.descriptions.items()
        },
        "weights_sha256": history[-1].weights_sha256,
    }
    description = next(iter(federation.descriptions.values()))
    task = make_task(description.task, description.task_config)
    save_bundle(path, learner=federation.learner, task=task, provenance=provenance)
    return path
