"""The trust table: our BC, IQL, TD3+BC and CQL and d3rlpy's on the same rows, seeds, network sizes and settings.

Pendulum-v1 is recorded here: "medium" by a swing-up controller with noise, "mixed" by controllers from idle to good and
by random torques. "volt_var" is the utility's own controls with exploration noise on IEEE 13. Both libraries are given
columns that are normalised already, as our training normalises them; the policy after the last update is what counts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pendulum
from learner_peers import D3rlpy, D3rlpyOnOurBatches, Ours

from gridray.algorithms.base import BATCH_COLUMNS
from gridray.algorithms.batches import load_columns, normaliser_of_rows
from gridray.datasets.record import RecordConfig, record
from gridray.evaluation.rollout import evaluate_policy, held_out_days
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Columns = dict[str, NDArray[Any]]
    Act = Callable[[NDArray[np.float32]], NDArray[np.float32]]

SEEDS = range(5)
MOST_SEEDS = range(60)
MORE_SEEDS = {"pendulum mixed | td3_bc": MOST_SEEDS}
"""Rows whose first five seeds differed clearly, repeated to tell chance from a difference."""
BATCH = 128
NETWORK = {"hidden_sizes": [64, 64], "learning_rate": 3e-3}
UPDATES = {"bc": 500, "iql": 2000, "td3_bc": 2000, "cql": 1500}
"""Few, with small networks and a large step size: d3rlpy's CQL takes 10 ms an update even so."""
SETTINGS: dict[str, dict[str, Any]] = {
    "bc": {},
    "iql": {"discount": 0.95},
    "td3_bc": {"discount": 0.95},
    "cql": {"discount": 0.95, "actor_learning_rate": 1e-3},
}
NUM_EPISODES = 100
TASK: dict[str, Any] = {"feeder": "ieee13", "step_minutes": 60}
TEST_DAYS = 8


def pendulum_rows(quality: str) -> Columns:
    """Record episodes of Pendulum-v1, one after the other."""
    rng = np.random.default_rng(0)
    gain = np.full(NUM_EPISODES, 0.8) if quality == "medium" else rng.uniform(0.0, 1.0, NUM_EPISODES)
    is_random = np.zeros(NUM_EPISODES, dtype=bool) if quality == "medium" else rng.random(NUM_EPISODES) < 0.3
    return pendulum.episodes(gain, is_random, rng, noise_std=0.3, seed=0)


def volt_var() -> Columns:
    """Record days under the utility's controls with noise, and some at random."""
    config = RecordConfig(task_config=TASK, num_episodes=200, noise_std=0.3, random_share=0.2, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        return load_columns(record(config, Path(folder) / "data", use_ray=False), BATCH_COLUMNS)


class _Named:
    """What `evaluate_policy` needs of a policy."""

    def __init__(self, name: str, act: Act) -> None:
        self.name = name
        self._act = act

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the actions."""
        del rng
        return np.clip(self._act(observations), -1.0, 1.0)


def volt_var_return(act: Act) -> float:
    """Return the mean return of held-out days."""
    task = make_task("volt_var", TASK | {"days": "held_out"})
    days = held_out_days(task, TEST_DAYS)
    return float(evaluate_policy(_Named("peer", act), task, days=days).returns.mean())


SETS: dict[str, tuple[Callable[[], Columns], Callable[[Act], float]]] = {
    "pendulum medium": (lambda: pendulum_rows("medium"), pendulum.mean_return),
    "pendulum mixed": (lambda: pendulum_rows("mixed"), pendulum.mean_return),
    "volt_var ieee13": (volt_var, volt_var_return),
}
LIBRARIES: dict[str, type[Ours | D3rlpy]] = {"gridray": Ours, "d3rlpy": D3rlpy}
ON_OUR_BATCHES = "d3rlpy on our batches"
"""Trained too, on the first SAME_BATCHES seeds, where MORE_SEEDS looks for what differs."""
SAME_BATCHES = 20
TRAINERS = LIBRARIES | {ON_OUR_BATCHES: D3rlpyOnOurBatches}


def run(library: str, algorithm: str, data: str, columns: Columns, seed: int, *, quick: bool) -> float:
    """Train from nothing and return the last policy's mean return."""
    normaliser = normaliser_of_rows([columns])
    mean, std = normaliser.observation_mean, normaliser.observation_std
    scaled = columns | {
        "obs": (columns["obs"] - mean) / std,
        "new_obs": (columns["new_obs"] - mean) / std,
        "rewards": (columns["rewards"] - normaliser.reward_mean) / normaliser.reward_std,
    }
    peer = TRAINERS[library](algorithm, scaled, NETWORK | SETTINGS[algorithm], BATCH, seed)
    for _ in range(20 if quick else UPDATES[algorithm]):
        peer.update()
    act = peer.policy()
    return SETS[data][1](lambda observations: act(((observations - mean) / std).astype(np.float32)))


def trust(out: Path, *, seconds: float, quick: bool, share: tuple[int, int], parts: Sequence[Path]) -> None:
    """Fill the table's missing cells for so many seconds, and write it with its summary after each.

    Args:
        out: the table; it goes on where it stopped.
        seconds: no cell begins later.
        quick: few updates and seeds.
        share: which of how many shares of the cells are filled, counted from 0.
        parts: tables of shares, whose cells replace those of out.
    """
    cells: dict[str, float] = {}
    for path in (*([out] if out.exists() else []), *parts):
        table = json.loads(path.read_text("utf-8"))
        if table["settings"] != _settings(quick=quick):
            raise SystemExit(f"'{path}' is of other settings: give another file, or remove it")
        cells |= table["returns"]
    # All sets and algorithms with one seed first: a table that was stopped is a smaller one of the same kind.
    rows = [(seed, data, algorithm) for seed in MOST_SEEDS for data in SETS for algorithm in UPDATES]
    rows = [row for row in rows if row[0] in (range(2) if quick else _seeds(f"{row[1]} | {row[2]}"))]
    plan = [(*row, library) for row in rows for library in LIBRARIES]
    plan += [(*row, ON_OUR_BATCHES) for row in rows if row[0] < SAME_BATCHES and f"{row[1]} | {row[2]}" in MORE_SEEDS]
    mine, num_shares = share
    if num_shares > 1:
        # Cells of an algorithm and library take equally long: they go round.
        plan.sort(key=lambda cell: (cell[2], cell[3], cell[1], cell[0]))
    if parts:
        _write(out, cells, len(plan), quick=quick)
    start, recorded = time.perf_counter(), {}
    for seed, data, algorithm, library in plan[mine::num_shares]:
        key = f"{data} | {algorithm} | {library} | {seed}"
        if key in cells:
            continue
        if time.perf_counter() - start > seconds:
            break
        if data not in recorded:
            recorded[data] = SETS[data][0]()
        cells[key] = round(run(library, algorithm, data, recorded[data], seed, quick=quick), 3)
        sys.stdout.write(f"{time.perf_counter() - start:.0f} s, {len(cells)} of {len(plan)}: {key}: {cells[key]}\n")
        sys.stdout.flush()
        _write(out, cells, len(plan), quick=quick)


def _seeds(row: str) -> range:
    return MORE_SEEDS.get(row, SEEDS)


def _settings(*, quick: bool) -> dict[str, Any]:
    return {"network": NETWORK, "batch": BATCH, "updates": UPDATES, "algorithms": SETTINGS, "quick": quick}


def _write(out: Path, cells: dict[str, float], num_planned: int, *, quick: bool) -> None:
    summary = {
        f"{data} | {algorithm}": _compare(cells, f"{data} | {algorithm}") for data in SETS for algorithm in UPDATES
    }
    table = {
        "is_complete": len(cells) >= num_planned,
        "num_cells": len(cells),
        "num_planned": num_planned,
        "behaviour": "mean return over seeds of the last policy; interval: 95 % of 10,000 bootstraps over seeds",
        "settings": _settings(quick=quick),
        "summary": {name: row for name, row in summary.items() if row},
        "returns": dict(sorted(cells.items())),
    }
    aside = out.with_suffix(".partial")
    aside.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    aside.replace(out)


def _compare(cells: dict[str, float], row: str) -> dict[str, Any]:
    """Return both libraries' means with intervals, and that of the difference of means."""
    rng = np.random.default_rng(0)
    # Sorted, so that a table filled in shares has the same bootstraps.
    ordered = sorted(cells.items())
    values = {lib: np.array([v for k, v in ordered if k.startswith(f"{row} | {lib} |")]) for lib in TRAINERS}
    values = {lib: part for lib, part in values.items() if lib in LIBRARIES or len(part) > 1}
    if any(len(part) < 2 for part in values.values()):
        return {}
    means = {lib: part[rng.integers(len(part), size=(10_000, len(part)))].mean(axis=1) for lib, part in values.items()}
    difference = np.quantile(means["gridray"] - means["d3rlpy"], (0.025, 0.975))
    report: dict[str, Any] = {
        lib: [round(float(x), 2) for x in (values[lib].mean(), *np.quantile(means[lib], (0.025, 0.975)))]
        for lib in values
    }
    report["num_seeds"] = min(len(values[lib]) for lib in LIBRARIES)
    report["difference_interval"] = [round(float(bound), 2) for bound in difference]
    # At least d3rlpy's, as far as so many seeds can tell.
    report["reaches_d3rlpy"] = bool(difference[1] >= 0.0)
    return report
