"""Train from a utility's own log alone, deploy on days that nobody saw, and compare with the utility's controls.

Command: OMP_NUM_THREADS=1 python benchmarks/headline.py benchmarks/headline.json
It goes on where it stopped when it is started again; --quick makes a tiny table of another kind.

A cell is a feeder and a seed. Its log is recorded anew: `volt_var` with its default configuration, training days, the
utility controls with normal noise on every action, nothing else. Implicit Q-learning takes a fixed number of updates
on it, with the same settings everywhere, and the last policy is run on all held-out days; the twin is not asked in
between.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gridray.algorithms.bundle import load_bundle
from gridray.algorithms.train import TrainConfig, train
from gridray.datasets.record import RecordConfig, record
from gridray.evaluation.rollout import EpisodeTable, evaluate_policy, held_out_days
from gridray.policies.registry import make_policy
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

TASK = "volt_var"
FEEDERS = ("ieee13", "ieee34", "ieee123")
SEEDS = range(1, 4)
"""Seed 0 was used to choose the settings."""
NOISE_STD, NUM_EPISODES = 0.2, 300
ALGORITHM, NUM_UPDATES, BATCH_SIZE = "iql", 6000, 256
LEARNER = {
    "hidden_sizes": [128, 128],
    "learning_rate": 1e-3,
    "discount": 0.9,
    "temperature": 10.0,
    "actor_decay_updates": NUM_UPDATES,
}
ONLINE_EVALUATIONS = 25
"""Runs on training days of the twin while these settings were chosen, over all feeders: 13 of learned policies, 12 of
the utility controls with noise of 0.1 to 0.4."""
SHOWN = {"returns": 2, "violation_share": 6, "deepest_violation_pu": 5, "tap_operations": 1, "losses_kwh": 1}
"""Columns that are kept of every day, and their decimals."""
NUM_RESAMPLES = 10_000


def run_cell(feeder: str, seed: int, *, quick: bool) -> dict[str, Any]:
    """Record, train, and return the last policy's days."""
    config = RecordConfig(
        task=TASK,
        task_config={"feeder": feeder},
        policy="utility_controls",
        noise_std=NOISE_STD,
        num_episodes=8 if quick else NUM_EPISODES,
        num_envs=100,
        seed=seed,
        rows_per_shard=100 * 96,
    )
    with tempfile.TemporaryDirectory() as folder:
        dataset = record(config, Path(folder) / "log", use_ray=False)
        settings = TrainConfig(
            dataset=dataset.path,
            algorithm=ALGORITHM,
            num_updates=20 if quick else NUM_UPDATES,
            batch_size=BATCH_SIZE,
            seed=seed,
            learner=LEARNER,
            stream=False,
        )
        start = time.process_time()
        bundle = load_bundle(train(settings, Path(folder) / "run").bundle)
        training_s = time.process_time() - start
        logged = float(dataset.load(["rewards"])["rewards"].sum()) / config.num_episodes
    task, days = _deployed(feeder, quick=quick)
    bundle.check_task(task)
    table = evaluate_policy(bundle.policy, task, days=days)
    return {"training_cpu_s": round(training_s, 1), "logged_return": round(logged, 2), "days": _days(table)}


def run_baseline(feeder: str, *, quick: bool) -> dict[str, Any]:
    """Return the days of the utility's own controls, without noise."""
    task, days = _deployed(feeder, quick=quick)
    return {"days": _days(evaluate_policy(make_policy("utility_controls", task), task, days=days))}


def _deployed(feeder: str, *, quick: bool) -> tuple[Any, NDArray[np.int64]]:
    task = make_task(TASK, {"feeder": feeder, "days": "held_out"})
    return task, held_out_days(task, 4 if quick else None)


def _days(table: EpisodeTable) -> dict[str, list[float]]:
    columns = {name: np.round(table[name], decimals).tolist() for name, decimals in SHOWN.items()}
    return {"day": table.day.tolist(), **columns}


def summary(cells: dict[str, Any], feeder: str) -> dict[str, Any]:
    """Return means of learned policy and utility controls, and their differences."""
    today = cells[_key(feeder)]["days"]
    learned = [cell["days"] for key, cell in cells.items() if key.startswith(f"{feeder} | seed")]
    if not learned:
        return {}
    rows: dict[str, Any] = {"num_seeds": len(learned), "num_days": len(today["day"])}
    for name in SHOWN:
        ours, theirs = np.array([days[name] for days in learned]), np.array(today[name])
        difference = ours - theirs
        rows[name] = {
            "utility_controls": round(float(theirs.mean()), 5),
            "learned": round(float(ours.mean()), 5),
            "learned_by_seed": [round(float(mean), 5) for mean in ours.mean(axis=1)],
            "difference": [round(value, 5) for value in (float(difference.mean()), *_interval(difference))],
        }
    better = np.array([days["returns"] for days in learned]) > np.array(today["returns"])
    return rows | {"days_above_utility": round(float(better.mean()), 3)}


def _interval(difference: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of [seeds, days]: both are drawn anew."""
    rng = np.random.default_rng(0)
    num_seeds, num_days = difference.shape
    seeds = rng.integers(num_seeds, size=(NUM_RESAMPLES, num_seeds))
    days = rng.integers(num_days, size=(NUM_RESAMPLES, num_days))
    by_day = np.stack([difference[picked].mean(axis=0) for picked in seeds])
    means = np.take_along_axis(by_day, days, axis=1).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def _key(feeder: str, seed: int | None = None) -> str:
    return f"{feeder} | utility_controls" if seed is None else f"{feeder} | seed {seed}"


def _settings(*, quick: bool) -> dict[str, Any]:
    return {
        "task": TASK,
        "noise_std": NOISE_STD,
        "num_episodes": NUM_EPISODES,
        "algorithm": ALGORITHM,
        "num_updates": NUM_UPDATES,
        "batch_size": BATCH_SIZE,
        "learner": LEARNER,
        "quick": quick,
    }


def _write(out: Path, cells: dict[str, Any], planned: list[str], *, quick: bool) -> None:
    feeders = [feeder for feeder in FEEDERS if _key(feeder) in cells]
    table = {
        "is_complete": all(key in cells for key in planned),
        "settings": _settings(quick=quick),
        "online_evaluations": ONLINE_EVALUATIONS,
        "checkpoint": "last",
        "intervals": f"95 %, {NUM_RESAMPLES} bootstraps over seeds and days, learned minus utility controls by day",
        "summary": {feeder: summary(cells, feeder) for feeder in feeders},
        "cells": cells,
    }
    aside = out.with_suffix(".partial")
    aside.write_text(json.dumps(table) + "\n", "utf-8")
    aside.replace(out)


def main() -> None:
    """Fill the table's missing cells and write it after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    feeders, seeds = (FEEDERS[:1], SEEDS[:2]) if options.quick else (FEEDERS, SEEDS)
    # One seed of every feeder first: a table that was stopped is a smaller one of the same kind.
    planned: list[tuple[str, int | None]] = [(feeder, seed) for seed in (None, *seeds) for feeder in feeders]
    known = json.loads(options.out.read_text("utf-8")) if options.out.exists() else {}
    if known and known["settings"] != _settings(quick=options.quick):
        parser.error(f"'{options.out}' is of other settings: give another file, or remove it")
    cells: dict[str, Any] = known.get("cells", {})
    keys = [_key(*cell) for cell in planned]
    start = time.perf_counter()
    for feeder, seed in planned:
        key = _key(feeder, seed)
        if key in cells:
            continue
        if seed is None:
            cells[key] = run_baseline(feeder, quick=options.quick)
        else:
            cells[key] = run_cell(feeder, seed, quick=options.quick)
        _write(options.out, cells, keys, quick=options.quick)
        mean = np.mean(cells[key]["days"]["returns"])
        sys.stdout.write(f"{time.perf_counter() - start:.0f} s: {key}: {mean:.2f}\n")
        sys.stdout.flush()
    _write(options.out, cells, keys, quick=options.quick)


if __name__ == "__main__":
    main()
