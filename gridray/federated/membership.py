"""What the members of a federation must have in common, and what each of them is given at the start."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np

from gridray.algorithms.base import normaliser_of
from gridray.algorithms.registry import task_learner
from gridray.errors import ConfigError, FederationError
from gridray.federated.client import ClientDescription, ClientSpec
from gridray.federated.coordinator import RoundRules
from gridray.federated.moments import Moments, pool, standard_deviation
from gridray.federated.privacy.protection import check_run
from gridray.federated.sharing import check_groups
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gridray.algorithms.base import Learner
    from gridray.federated.config import ClientConfig, FederateConfig
    from gridray.tasks.base import Task

_MIB = 2**20


def client_spec(config: FederateConfig, client: ClientConfig, folder: Path) -> ClientSpec:
    """Return what this client is told; folder is where it keeps what is its own."""
    return ClientSpec(
        name=client.name,
        dataset=client.dataset.absolute(),
        folder=folder,
        algorithm=config.algorithm,
        learner=config.learner | client.learner,
        local=config.local,
        local_updates=config.local_updates,
        local_epochs=config.local_epochs,
        batch_size=config.batch_size,
        sharing=config.sharing,
        shared_metrics=client.shared_metrics,
        sends_value=config.sharing.aggregator(len(config.clients)).needs_value,
        seed=config.seed,
        protection=config.protection,
        num_clients=len(config.clients),
        max_rounds=config.rounds,
        known_keys={other.name: other.public_key for other in config.clients if other.public_key is not None},
    )


def check_agreement(descriptions: Mapping[str, ClientDescription], policy: str) -> None:
    """Refuse clients whose observation or action channels differ; for policies of devices, whose tasks differ.

    Raises:
        FederationError: names the first channel that differs, or the tasks, or their steps.
    """
    first, *others = descriptions.values()
    for other in others:
        _check_step(first, other)
        if policy != "flat":
            _check_task(first, other)
            continue
        for kind in ("observation_names", "action_names"):
            _check_names(kind, first, other)


def initial_learner(
    config: FederateConfig,
    descriptions: Mapping[str, ClientDescription],
    moments: Mapping[str, Mapping[str, Moments]],
) -> Learner:
    """Make the learner that the first round starts from, normalised by the moments of all clients together.

    Where a budget is kept the moments would tell about the data without noise: observations stay as the task scales
    them, to about 1, and rewards are divided by a public number.

    Args:
        config: the federation.
        descriptions: what each client said about itself.
        moments: client name -> what `UtilityClient.moments` returned.

    Raises:
        ConfigError: a network group names no weight of the algorithm, or a client's own settings change the networks.
        GridRayError: the rule asks what policies are worth, and the algorithm has no critics to tell.
    """
    description = next(iter(descriptions.values()))
    task = make_task(description.task, description.task_config)
    learner = task_learner(config.algorithm, task, config=config.learner, seed=config.seed)
    config.sharing.check(learner.get_weights())
    check_groups(config.local.proximal, learner.get_weights())
    if config.sharing.aggregator(len(config.clients)).needs_value:
        learner.state_values(np.zeros((1, len(description.observation_names)), dtype=np.float32))
    _check_own_settings(config, task, learner)
    if (std := config.protection.reward_std) is not None:
        size = description.num_features
        learner.set_normaliser(normaliser_of(np.zeros(size), np.ones(size), 0.0, std))
        return learner
    observations, rewards, terminations = (
        pool({name: parts[column] for name, parts in moments.items()}) for column in ("obs", "rewards", "terminateds")
    )
    # Where episodes terminate, a constant added to each reward would change what is optimal.
    reward_mean = 0.0 if terminations.mean[0] > 0 else rewards.mean[0]
    cost_std = 1.0
    if learner.cost_column is not None:
        costs = pool({name: parts["costs"] for name, parts in moments.items()})
        cost_std = float(standard_deviation(costs)[0])
    learner.set_normaliser(
        normaliser_of(
            observations.mean,
            standard_deviation(observations),
            reward_mean,
            float(standard_deviation(rewards)[0]),
            cost_std,
        )
    )
    return learner


def round_rules(config: FederateConfig, descriptions: Mapping[str, ClientDescription]) -> RoundRules:
    """Return what holds in every round of this federation."""
    return RoundRules(
        sharing=config.sharing,
        clients=tuple(sorted(descriptions)),
        num_samples={name: description.num_samples for name, description in descriptions.items()},
        min_clients=config.quorum,
        max_update_bytes=int(config.max_update_mib * _MIB),
        run_digest=_run_digest(config, descriptions),
    )


def signed_rules(config: FederateConfig, descriptions: Mapping[str, ClientDescription], learner: Learner) -> RoundRules:
    """Return the rules of a federation whose members sign what they send and whose coordinator keeps a ledger.

    Raises:
        ConfigError: a privacy budget cannot be met by so few utilities.
    """
    weights = learner.get_weights()
    num_values = sum(weights[name].size for name in config.sharing.sent(weights))
    noise_multiplier = check_run(
        config.protection, num_clients=config.num_drawn, num_rounds=config.rounds, num_values=num_values
    )
    return replace(
        round_rules(config, descriptions),
        protection=config.protection,
        keys={name: description.public_key for name, description in descriptions.items()},
        data_sha256={name: description.data_sha256 for name, description in descriptions.items()},
        noise_multiplier=noise_multiplier,
    )


def rounds_within_budget(config: FederateConfig, descriptions: Mapping[str, ClientDescription]) -> int:
    """Return how many rounds the run can have before a client's privacy budget would be passed.

    Raises:
        ConfigError: not even one.
    """
    allowed = {
        name: description.max_rounds for name, description in descriptions.items() if description.max_rounds is not None
    }
    least = min(allowed, key=lambda name: allowed[name], default="")
    if allowed.get(least) == 0:
        raise ConfigError(
            f"Client {least!r} cannot take one round within its budget ({config.protection.describe()}): give more "
            "noise_multiplier, fewer local_updates, or a larger epsilon"
        )
    return min([config.rounds, *allowed.values()])


def _check_own_settings(config: FederateConfig, task: Task, learner: Learner) -> None:
    """Refuse settings of single clients that make other networks than those of the federation."""
    shapes = {name: array.shape for name, array in learner.get_weights().items()}
    for client in config.clients:
        if not client.learner:
            continue
        own = task_learner(config.algorithm, task, config=config.learner | client.learner, seed=config.seed)
        found = {name: array.shape for name, array in own.get_weights().items()}
        if found != shapes:
            name = min(name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name))
            raise ConfigError(
                f"The learner settings of client {client.name!r} make weight {name!r} of shape {found.get(name)}, the "
                f"federation's has {shapes.get(name)}: give settings that change the networks for all clients"
            )


def _check_task(first: ClientDescription, other: ClientDescription) -> None:
    if other.task != first.task:
        raise FederationError(
            f"Client {other.name!r} has data of task '{other.task}', client {first.name!r} of '{first.task}': "
            "record all datasets of a federation with one task"
        )


def _check_step(first: ClientDescription, other: ClientDescription) -> None:
    steps = [client.task_config.get("step_minutes") for client in (first, other)]
    if steps[0] != steps[1]:
        raise FederationError(
            f"Client {other.name!r} has steps of {steps[1]} minutes, client {first.name!r} of {steps[0]}: a "
            "discount would not mean the same; record all datasets of a federation with one step_minutes"
        )


def _check_names(kind: str, first: ClientDescription, other: ClientDescription) -> None:
    names, found = getattr(first, kind), getattr(other, kind)
    remedy = "record all datasets on one feeder with the same devices, or let the learner have policy: local or graph"
    for index, (name, given) in enumerate(zip(names, found, strict=False)):
        if name != given:
            raise FederationError(
                f"Client {other.name!r} has {given!r} as number {index} of its {kind}, client {first.name!r} has "
                f"{name!r}: {remedy}"
            )
    if len(names) != len(found):
        longer, count = (other, len(names)) if len(found) > len(names) else (first, len(found))
        raise FederationError(
            f"Client {other.name!r} has {len(found)} {kind}, client {first.name!r} has {len(names)}; only "
            f"{longer.name!r} has {getattr(longer, kind)[count]!r}: {remedy}"
        )


def _run_digest(config: FederateConfig, descriptions: Mapping[str, ClientDescription]) -> str:
    """Digest all that decides the numbers: a run may be continued only where none of it changed."""
    decisive = {
        "algorithm": config.algorithm,
        "learner": {client.name: config.learner | client.learner for client in config.clients},
        "local": asdict(config.local),
        "local_updates": config.local_updates,
        "local_epochs": config.local_epochs,
        "batch_size": config.batch_size,
        "rules": {group: asdict(rule) for group, rule in config.sharing.rules.items()},
        "clients_per_round": config.clients_per_round,
        "away": {client.name: client.away for client in config.clients},
        "asynchronous": None if config.asynchronous is None else asdict(config.asynchronous),
        "seed": config.seed,
        "protection": asdict(config.protection),
        # The noise per utility is chosen for this number of rounds.
        "rounds": None if config.protection.utility_noise is None else config.rounds,
        "data": {name: description.data_sha256 for name, description in descriptions.items()},
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
