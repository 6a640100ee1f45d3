"""Return of the joint policy against the share of attackers, by rule and attack, on a small control problem.

Run by benchmarks/federation.py attacks. Ten clients have data of one bandit with continuous actions: the best action is
tanh(gain @ state), the reward minus the squared distance to it; each client's states have another mean. All train IQL.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.algorithms.registry import make_learner
from gridray.federated.aggregators.grouped import grouped
from gridray.federated.aggregators.registry import make_aggregator
from gridray.federated.attacks import ATTACKS, attacked, inverted_rewards
from gridray.federated.local.config import LocalConfig
from gridray.federated.local.training import LocalTraining, TrainingSpec
from gridray.federated.updates import Broadcast, ClientUpdate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NUM_CLIENTS, NUM_STATES, NUM_ACTIONS, NUM_ROWS, NUM_UPDATES = 10, 4, 2, 1000, 20
LEARNER = {"hidden_sizes": [32, 32], "learning_rate": 3e-3, "discount": 0.0}
RULES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "clipped_mean": {},
    "median": {},
    "trimmed_mean": {"num_attackers": 4},
    "krum": {"num_attackers": 3, "num_chosen": 4},
    "geometric_median": {},
}
LABEL_INVERSION = "inverted_rewards"


def transitions(gain: NDArray[np.float64], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Return rows of one client, whose behaviour is the best action with noise."""
    states = rng.normal(loc=0.5 * rng.normal(size=NUM_STATES), size=(NUM_ROWS, NUM_STATES))
    best = np.tanh(states @ gain)
    actions = np.clip(best + 0.5 * rng.normal(size=best.shape), -1.0, 1.0)
    return {
        "obs": states.astype(np.float32),
        "new_obs": states.astype(np.float32),
        "actions": actions.astype(np.float32),
        "rewards": -np.square(actions - best).sum(axis=1).astype(np.float32),
        "terminateds": np.ones(NUM_ROWS, dtype=bool),
    }


def clients_of(data: Sequence[dict[str, NDArray[Any]]], num_updates: int) -> list[LocalTraining]:
    """Return the clients' training."""
    spec = TrainingSpec("iql", LEARNER, LocalConfig(), NUM_STATES, NUM_ACTIONS, num_updates, 64, seed=0)
    return [LocalTraining(spec, lambda columns, rows=rows: {name: rows[name] for name in columns}) for rows in data]


def final_return(rule: str, attack: str, num_attackers: int, *, num_rounds: int, seed: int) -> float:
    """Return the joint policy's mean reward on fresh states after num_rounds of NUM_UPDATES updates each."""
    rng = np.random.default_rng(seed)
    gain = rng.normal(size=(NUM_STATES, NUM_ACTIONS)) / np.sqrt(NUM_STATES)
    data = [transitions(gain, rng) for _ in range(NUM_CLIENTS)]
    if attack == LABEL_INVERSION:
        data[:num_attackers] = [inverted_rewards(rows) for rows in data[:num_attackers]]
    clients = clients_of(data, num_updates=NUM_UPDATES)
    weights = make_learner("iql", observation_size=NUM_STATES, action_size=NUM_ACTIONS, config=LEARNER).get_weights()
    aggregator = grouped({"": make_aggregator(rule, RULES[rule])})
    state = aggregator.init(weights)
    for index in range(num_rounds):
        sent = []
        for client in clients:
            client.train(Broadcast(round=index, weights=weights), rng)
            sent.append(client.weights())
        if attack in ATTACKS and num_attackers:
            sent[:num_attackers] = attacked(attack, weights, sent[:num_attackers], rng)
        updates = [
            ClientUpdate(client=f"c{i}", round=index, num_samples=NUM_ROWS, weights=each, metrics={})
            for i, each in enumerate(sent)
        ]
        outcome = aggregator.update(state, weights, updates)
        weights, state = bounded(outcome.weights), outcome.state
    return mean_reward(weights, gain, rng)


def bounded(weights: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return weights that clients can still compute with: a federation this far gone stays gone."""
    return {name: np.clip(np.nan_to_num(array), -100.0, 100.0) for name, array in weights.items()}


def mean_reward(weights: dict[str, NDArray[Any]], gain: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Return the greedy policy's mean reward."""
    learner = make_learner("iql", observation_size=NUM_STATES, action_size=NUM_ACTIONS, config=LEARNER)
    learner.set_weights(weights)
    states = rng.normal(size=(2000, NUM_STATES)).astype(np.float32)
    actions = learner.policy().act(states, rng)
    return float(-np.square(actions - np.tanh(states @ gain)).sum(axis=1).mean())


def table(
    *, num_rounds: int, num_seeds: int, rules: Sequence[str] = tuple(RULES), attackers: tuple[int, ...] = (0, 2, 4)
) -> list[dict[str, Any]]:
    """Return one row per rule, attack and number of attackers: mean return over seeds, and its spread."""
    rows = []
    for rule in rules:
        for attack in (*ATTACKS, LABEL_INVERSION):
            for num_attackers in attackers:
                if num_attackers == 0 and attack != LABEL_INVERSION:
                    continue
                returns = [
                    final_return(rule, attack, num_attackers, num_rounds=num_rounds, seed=seed)
                    for seed in range(num_seeds)
                ]
                rows.append(
                    {
                        "rule": rule,
                        "attack": attack if num_attackers else "none",
                        "share_of_attackers": num_attackers / NUM_CLIENTS,
                        "mean_return": round(float(np.mean(returns)), 4),
                        "std_over_seeds": round(float(np.std(returns)), 4),
                    }
                )
                sys.stderr.write(json.dumps(rows[-1]) + "\n")
    return rows
