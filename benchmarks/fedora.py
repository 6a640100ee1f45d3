"""FEDORA in miniature: ten clients of 5,000 transitions, some with good data, some with poor, methods side by side.

Run by benchmarks/federation.py fedora. Rengarajan et al. (NeurIPS 2024) report FEDORA at or above pooled training and
above training alone and naive federated averaging. Two problems: Pendulum-v1 (good: a swing-up controller with noise;
poor: random torques) and volt-var control of IEEE 13 in hourly steps (good: the utility's controls with noise; poor:
random set-points). A client makes ROUNDS * UPDATES gradient steps, pooled training as many as all clients together.
The policy after the last update is what counts. Cells stay in the result file; a stopped run goes on from there.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pendulum

from gridray.algorithms.base import BATCH_COLUMNS
from gridray.algorithms.batches import load_columns, normaliser_of_rows
from gridray.algorithms.registry import make_learner
from gridray.datasets.record import RecordConfig, record
from gridray.evaluation.rollout import evaluate_policy, held_out_days
from gridray.evaluation.statistics import interquartile_mean, mean_interval, share_better
from gridray.federated.aggregators.grouped import REST, grouped
from gridray.federated.aggregators.registry import make_aggregator
from gridray.federated.aggregators.stacking import flattened, unstacked
from gridray.federated.attacks import sign_flip
from gridray.federated.local.config import EnsembleConfig, LocalConfig
from gridray.federated.local.training import LocalTraining, TrainingSpec
from gridray.federated.updates import Broadcast, ClientUpdate
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from gridray.algorithms.base import Learner

    Columns = dict[str, NDArray[Any]]

NUM_CLIENTS, NUM_ROWS = 10, 5_000
ROUNDS, UPDATES, BATCH = 25, 40, 128
LEARNER = {"hidden_sizes": [64, 64], "learning_rate": 1e-3, "discount": 0.95}
SEEDS = range(5)
TASK: dict[str, Any] = {"feeder": "ieee13", "step_minutes": 60}
TEST_DAYS = 16
INFLATION = 100.0
OPEN = {"num_liars": 0, "max_share": 1.0}
"""FEDORA's rule without what GridRay added against liars."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to train.

    rule, settings: the server's rule; none: no federation.
    ensemble: FEDORA's losses at the clients; none: plain TD3+BC.
    num_good: clients with good data; they come first.
    per_round: clients drawn for a round; none: all.
    inflates: whether the last client reports a value INFLATION too high.
    flips: whether the last client sends -5 times its change.
    """

    rule: str | None
    settings: dict[str, float] = field(default_factory=dict)
    ensemble: EnsembleConfig | None = field(default_factory=EnsembleConfig)
    num_good: int = 5
    per_round: int | None = None
    inflates: bool = False
    flips: bool = False


VARIANTS = {
    "alone": Variant(rule=None, ensemble=None),
    "pooled": Variant(rule=None, ensemble=None),
    "naive": Variant(rule="fedavg", ensemble=None),
    "fedora": Variant(rule="fedora"),
    "fedora without weighting": Variant(rule="fedavg"),
    "fedora without optimism": Variant(rule="fedora", ensemble=EnsembleConfig(optimism=False)),
    "fedora without proximity": Variant(rule="fedora", ensemble=EnsembleConfig(actor_anchor=0.0)),
    "fedora without decay": Variant(rule="fedora", ensemble=EnsembleConfig(decay=1.0)),
    "pooled, 2 good": Variant(rule=None, ensemble=None, num_good=2),
    "naive, 2 good": Variant(rule="fedavg", ensemble=None, num_good=2),
    "fedora, 2 good": Variant(rule="fedora", num_good=2),
    "fedora, 2 a round": Variant(rule="fedora", per_round=2),
    "fedora, one inflates": Variant(rule="fedora", inflates=True),
    "open fedora, one inflates": Variant(rule="fedora", settings=OPEN, inflates=True),
    "fedora, one flips": Variant(rule="fedora", flips=True),
    "naive, one flips": Variant(rule="fedavg", ensemble=None, flips=True),
}


def pendulum_rows(*, is_good: bool, seed: int) -> Columns:
    """Return one client's transitions."""
    num = NUM_ROWS // pendulum.EPISODE_STEPS
    rng = np.random.default_rng(seed)
    return pendulum.episodes(np.full(num, 1.0), np.full(num, not is_good), rng, noise_std=0.3, seed=seed)


def volt_var_rows(*, is_good: bool, seed: int) -> Columns:
    """Return one client's transitions; its own days."""
    share = 0.0 if is_good else 1.0
    config = RecordConfig(task_config=TASK, num_episodes=209, noise_std=0.2, random_share=share, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        columns = load_columns(record(config, Path(folder) / "data", use_ray=False), BATCH_COLUMNS)
    return {name: values[:NUM_ROWS] for name, values in columns.items()}


def volt_var_return(learner: Learner) -> float:
    """Return the mean return of held-out days."""
    task = make_task("volt_var", TASK | {"days": "held_out"})
    policy = learner.policy()
    return float(evaluate_policy(policy, task, days=held_out_days(task, TEST_DAYS)).returns.mean())


def pendulum_return(learner: Learner) -> float:
    """Return the mean return of fixed starts."""
    policy, rng = learner.policy(), np.random.default_rng(0)
    return pendulum.mean_return(lambda observations: policy.act(observations, rng))


PROBLEMS: dict[str, tuple[Callable[..., Columns], Callable[[Learner], float]]] = {
    "pendulum": (pendulum_rows, pendulum_return),
    "volt_var": (volt_var_rows, volt_var_return),
}


class Data:
    """Rows of good and poor clients of a problem, recorded once."""

    def __init__(self, problem: str) -> None:
        rows = PROBLEMS[problem][0]
        self._good = [rows(is_good=True, seed=index) for index in range(NUM_CLIENTS // 2)]
        self._poor = [rows(is_good=False, seed=100 + index) for index in range(NUM_CLIENTS - 2)]

    def clients(self, num_good: int) -> list[Columns]:
        """Return the clients' rows, good ones first."""
        return self._good[:num_good] + self._poor[: NUM_CLIENTS - num_good]


def run(problem: str, variant: str, data: Data, seed: int, *, num_rounds: int) -> dict[str, float]:
    """Train and return the last policy's mean return; alone, means over all, good and poor clients."""
    how, value_of = VARIANTS[variant], PROBLEMS[problem][1]
    rows = data.clients(how.num_good)
    local = LocalConfig(ensemble=how.ensemble, target_networks="keep" if how.ensemble else "average")
    # Alone and pooled are federations of one.
    groups = [rows] if variant.startswith("pooled") else [[own] for own in rows] if how.rule is None else [rows]
    if variant.startswith("pooled"):
        groups = [[{name: np.concatenate([own[name] for own in rows]) for name in rows[0]}]]
    found = []
    for members in groups:
        num_updates = UPDATES * (NUM_CLIENTS if variant.startswith("pooled") else 1)
        found.append(value_of(federated(how, members, local, seed, num_rounds=num_rounds, num_updates=num_updates)))
    report = {"return": float(np.mean(found))}
    if variant == "alone":
        report |= {"good": float(np.mean(found[: how.num_good])), "poor": float(np.mean(found[how.num_good :]))}
    return {name: round(value, 3) for name, value in report.items()}


def federated(
    how: Variant, rows: Sequence[Columns], local: LocalConfig, seed: int, *, num_rounds: int, num_updates: int
) -> Learner:
    """Return a learner with the joint weights after the last round."""
    sizes = {"observation_size": rows[0]["obs"].shape[1], "action_size": rows[0]["actions"].shape[1]}
    learner = make_learner("td3_bc", **sizes, config=LEARNER, seed=seed)
    learner.set_normaliser(normaliser_of_rows(rows))
    clients = [
        LocalTraining(
            TrainingSpec("td3_bc", LEARNER, local, *sizes.values(), num_updates, BATCH, seed=seed),
            lambda columns, own=own: {name: own[name] for name in columns},
        )
        for own in rows
    ]
    weights = learner.get_weights()
    aggregator = grouped({REST: make_aggregator(how.rule or "fedavg", how.settings)})
    state = aggregator.init(weights)
    rngs = [np.random.default_rng([seed, index]) for index in range(len(clients))]
    draw = np.random.default_rng([seed, 1_000])
    for number in range(num_rounds):
        drawn = sorted(draw.choice(len(clients), how.per_round or len(clients), replace=False).tolist())
        updates = []
        for index in drawn:
            clients[index].train(Broadcast(round=number, weights=weights), rngs[index])
            sent, value = clients[index].weights(), clients[index].value()
            if index == len(clients) - 1:
                value += INFLATION if how.inflates else 0.0
                sent = flipped(weights, sent) if how.flips else sent
            updates.append(
                ClientUpdate(
                    client=f"c{index}", round=number, num_samples=NUM_ROWS, weights=sent, metrics={}, value=value
                )
            )
        outcome = aggregator.update(state, weights, updates)
        weights, state = outcome.weights, outcome.state
    learner.set_weights(weights)
    return learner


def flipped(start: Columns, weights: Columns) -> Columns:
    """Return what the attacker sends: the other way, five times as far."""
    current = flattened(start, start)
    return unstacked(sign_flip(current, flattened(weights, start)[None], np.random.default_rng(0))[0], start)


def table(out: Path, *, seconds: float, is_quick: bool) -> dict[str, Any]:
    """Fill the missing cells for so many seconds, all variants with one seed first; write after each."""
    results: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {}
    cells: dict[str, dict[str, float]] = results.get("cells", {})
    start, data = time.perf_counter(), {}
    plan = [(s, p, v) for s in (SEEDS[:1] if is_quick else SEEDS) for p in PROBLEMS for v in VARIANTS]
    for seed, problem, variant in plan:
        key = f"{problem} | {variant} | {seed}"
        if key in cells or time.perf_counter() - start > seconds:
            continue
        if problem not in data:
            data[problem] = Data(problem)
        cells[key] = run(problem, variant, data[problem], seed, num_rounds=1 if is_quick else ROUNDS)
        results = {
            "method": __doc__,
            "settings": {
                "clients": NUM_CLIENTS, "rows": NUM_ROWS, "rounds": ROUNDS, "updates_a_round": UPDATES, "batch": BATCH,
                "learner": LEARNER,
            },
            "is_complete": len(cells) >= len(plan),
            "problems": {name: summary(cells, name) for name in PROBLEMS},
            "cells": cells,
        }  # fmt: skip
        aside = out.with_suffix(".partial")
        aside.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        aside.replace(out)
    return results


def summary(cells: dict[str, dict[str, float]], problem: str) -> dict[str, Any]:
    """Return, by variant, mean over seeds with its interval, and the probability that FEDORA is better."""
    values = {
        variant: np.array([cell["return"] for key, cell in cells.items() if key.startswith(f"{problem} | {variant} |")])
        for variant in VARIANTS
    }
    rows: dict[str, Any] = {}
    for variant, returns in values.items():
        if len(returns) < 2:  # an interval needs two
            continue
        rows[variant] = {
            "return": _rounded(mean_interval(returns)),
            "iqm": round(float(interquartile_mean(returns)), 3),
        }
        if variant != "fedora" and len(returns) == len(values["fedora"]):
            rows[variant]["p_fedora_better"] = _rounded(_probability(values["fedora"], returns))
    return rows


def _probability(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Sequence[float]:
    """Return the probability of improvement over all pairs of seeds, with its interval over seeds of both."""
    rng = np.random.default_rng(0)
    drawn = [
        share_better(
            np.repeat(rng.choice(ours, len(ours)), len(theirs)), np.tile(rng.choice(theirs, len(theirs)), len(ours))
        )
        for _ in range(2_000)
    ]
    point = share_better(np.repeat(ours, len(theirs)), np.tile(theirs, len(ours)))
    return (float(point), *np.quantile(drawn, (0.025, 0.975)).tolist())


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 3) for value in values]
