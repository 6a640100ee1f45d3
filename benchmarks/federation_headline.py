"""Six utilities with six feeders learn volt-var control together, offline only; all they have to beat beside them.

Run by benchmarks/federation.py headline. IEEE 13, 34 and 123 and three synthetic feeders; two operators log the
utility's controls with a little noise, two with more and some random days, two mostly random ones. Every policy has the
same networks, whose weights do not depend on the feeder, and the same algorithm and settings: trained alone (each
utility's policy is also tried at all others), pooled, plainly averaged, and federated by the chosen rules. On held-out
days, with the last weights; no evaluation chose anything while training. A stopped run goes on from its last cell.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.algorithms.registry import task_learner
from gridray.config import parse_config
from gridray.datasets.record import RecordConfig, record
from gridray.evaluation.rollout import evaluate_policy, held_out_days
from gridray.evaluation.statistics import mean_interval, paired_difference
from gridray.federated.comparison import plainly_averaged, pooled_weights
from gridray.federated.config import FederateConfig
from gridray.federated.federate import federate
from gridray.federated.local import baselines
from gridray.federated.local.baselines import cloning, own_learners
from gridray.policies.registry import make_policy
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.datasets.dataset import OfflineDataset
    from gridray.policies.base import Policy

STEP_MINUTES = 60
FEEDERS = {
    "a": "ieee13", "b": "synthetic-60-1", "c": "ieee34", "d": "synthetic-100-2", "e": "ieee123", "f": "synthetic-150-3",
}  # fmt: skip
OPERATORS: dict[str, dict[str, float]] = {
    "good": {"noise_std": 0.15},
    "average": {"noise_std": 0.3, "random_share": 0.25},
    "careless": {"noise_std": 0.3, "random_share": 0.8},
}
SKILL = {"a": "good", "b": "good", "c": "average", "d": "average", "e": "careless", "f": "careless"}
NUM_EPISODES, TEST_DAYS = 150, 24
SEEDS = range(5)
ALGORITHM = "iql"
LEARNER: dict[str, Any] = {"policy": "local", "hidden_sizes": [64, 64], "learning_rate": 1e-3, "discount": 0.9}
ROUNDS, UPDATES, BATCH = 20, 50, 128
CHOSEN: dict[str, Any] = {"aggregator": "fedora"}
TODAY, CLONED, ALONE, FEDERATED, NAIVE, POOLED = "utility_controls", "bc", "alone", "federated", "naive", "pooled"


def task_of(utility: str) -> dict[str, Any]:
    """Return the configuration of a utility's task."""
    return {"feeder": FEEDERS[utility], "step_minutes": STEP_MINUTES, "seed": 10 + "abcdef".index(utility)}


def logs(folder: Path, num_episodes: int) -> dict[str, OfflineDataset]:
    """Record the six logs."""
    return {
        utility: record(
            RecordConfig(task_config=task_of(utility), num_episodes=num_episodes, seed=3, **OPERATORS[skill]),
            folder / utility,
            use_ray=False,
        )
        for utility, skill in SKILL.items()
    }


def federation(datasets: dict[str, OfflineDataset], seed: int, num_rounds: int) -> FederateConfig:
    """Return the chosen federation."""
    values = {
        "algorithm": ALGORITHM, "learner": LEARNER, "rounds": num_rounds, "local_updates": UPDATES, "batch_size": BATCH,
        "seed": seed, "clients": [{"name": name, "dataset": str(data.path)} for name, data in datasets.items()],
    }  # fmt: skip
    return parse_config(FederateConfig, values | CHOSEN, where="headline")


def returns_of(policies: dict[str, Policy], utility: str) -> dict[str, list[list[float]]]:
    """Return, by policy, returns and shares of violated node-steps of the utility's held-out days."""
    task = make_task("volt_var", task_of(utility) | {"days": "held_out"})
    days = held_out_days(task, TEST_DAYS)
    tables = {name: evaluate_policy(policy, task, days=days) for name, policy in policies.items()}
    return {
        name: [np.round(table.returns, 4).tolist(), np.round(table["violation_share"], 6).tolist()]
        for name, table in tables.items()
    }


def policy_for(utility: str, algorithm: str, weights: dict[str, NDArray[Any]]) -> Policy:
    """Return the policy with these weights at this utility."""
    task = make_task("volt_var", task_of(utility))
    learner = task_learner(algorithm, task, config=cloning(LEARNER) if algorithm == "bc" else LEARNER)
    learner.set_weights(learner.get_weights() | weights)
    return learner.policy()


def cell(datasets: dict[str, OfflineDataset], seed: int, *, num_rounds: int) -> dict[str, Any]:
    """Train everything from one seed; return utility -> policy -> returns and violations by day."""
    config = federation(datasets, seed, num_rounds)
    num_updates = num_rounds * UPDATES
    made: dict[str, tuple[str, dict[str, NDArray[Any]]]] = {}
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        made[FEDERATED] = (ALGORITHM, federate(config, Path(folder, FEDERATED), use_ray=False).weights)
        plain = plainly_averaged(config)
        if plain != config:
            made[NAIVE] = (ALGORITHM, federate(plain, Path(folder, NAIVE), use_ray=False).weights)
        made[POOLED] = (ALGORITHM, pooled_weights(config, Path(folder, POOLED)))
    for name, data in datasets.items():
        own = own_learners(data, algorithm=ALGORITHM, learner=LEARNER, size=(num_updates, BATCH), seed=seed)
        made[f"{ALONE} {name}"] = (ALGORITHM, own[baselines.ALONE].get_weights())
        made[f"{CLONED} {name}"] = ("bc", own[baselines.CLONED].get_weights())
    found = {}
    for utility in datasets:
        policies = {TODAY: make_policy(TODAY, make_task("volt_var", task_of(utility) | {"days": "held_out"}))}
        policies["droop"] = make_policy("droop", make_task("volt_var", task_of(utility) | {"days": "held_out"}))
        for name, (algorithm, weights) in made.items():
            if not name.startswith(CLONED) or name == f"{CLONED} {utility}":
                policies[name] = policy_for(utility, algorithm, weights)
        found[utility] = returns_of(policies, utility)
    return found


def table(out: Path, *, seconds: float, is_quick: bool) -> dict[str, Any]:
    """Fill the missing seeds for so many seconds."""
    results: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {}
    cells: dict[str, Any] = results.get("cells", {})
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="gr-") as folder:
        datasets = logs(Path(folder), 4 if is_quick else NUM_EPISODES)
        for seed in SEEDS[:1] if is_quick else SEEDS:
            if str(seed) in cells or time.perf_counter() - start > seconds:
                continue
            cells[str(seed)] = cell(datasets, seed, num_rounds=1 if is_quick else ROUNDS)
            sys.stderr.write(f"seed {seed} after {time.perf_counter() - start:.0f} s\n")
            results = {
                "method": __doc__,
                "settings": {
                    "feeders": FEEDERS, "operators": {name: OPERATORS[skill] for name, skill in SKILL.items()},
                    "step_minutes": STEP_MINUTES, "episodes": NUM_EPISODES, "test_days": TEST_DAYS, "rounds": ROUNDS,
                    "updates_a_round": UPDATES, "batch": BATCH, "algorithm": ALGORITHM, "learner": LEARNER,
                    "chosen": CHOSEN, "online_evaluations": 0,
                },
                "is_complete": len(cells) == len(SEEDS),
                "utilities": {utility: summary(cells, utility) for utility in FEEDERS},
                "cells": cells,
            }  # fmt: skip
            save(results, out)
    return {name: value for name, value in results.items() if name != "cells"}


def save(results: dict[str, Any], out: Path) -> None:
    """Write the results, the days of all cells in one line."""
    cells = json.dumps(results["cells"])
    rest = json.dumps(results | {"cells": {}}, indent=1)
    aside = out.with_suffix(".partial")
    aside.write_text(rest.replace('"cells": {}', f'"cells": {cells}') + "\n", "utf-8")
    aside.replace(out)


def summary(cells: dict[str, Any], utility: str) -> dict[str, Any]:
    """Return each method's mean return and violations over seeds and days, and the federated policy's gains.

    Gains are paired by seed and day: means over seeds first, then an interval over days; and over seeds, of means over
    days, where there are two or more.
    """
    by_seed = [seeds[utility] for seeds in cells.values()]
    names = list(by_seed[0])
    values = {name: np.array([one[name] for one in by_seed]) for name in names}  # seeds, what, days
    alone = [values[name] for name in names if name.startswith(ALONE)]
    # The best is known only afterwards, by those who may try all of them everywhere.
    best = max(alone, key=lambda found: float(found[:, 0].mean()))
    own = {ALONE: values[f"{ALONE} {utility}"], CLONED: values[f"{CLONED} {utility}"]}
    own |= {"mean alone": np.mean(alone, axis=0), "best alone": best}
    others = {name: values[name] for name in names if not name.startswith((ALONE, CLONED))}
    rows: dict[str, Any] = {}
    for name, found in (others | own).items():
        rows[name] = {"return": _rounded(mean_interval(found[:, 0].mean(axis=0)))}
        rows[name]["violation_percent"] = round(100.0 * float(found[:, 1].mean()), 3)
        if name != FEDERATED:
            gain = values[FEDERATED][:, 0] - found[:, 0]
            rows[name]["federated_gain_over_days"] = _rounded(
                paired_difference(gain.mean(axis=0), np.zeros(gain.shape[1]))
            )
            rows[name]["federated_gain_over_seeds"] = _rounded(mean_interval(gain.mean(axis=1)))
    return rows


def _rounded(values: Any) -> list[float]:  # noqa: ANN401  # three numbers
    return [round(float(value), 3) for value in values]
