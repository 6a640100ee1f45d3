"""Train one policy on some feeders and let it act on feeders that it has not seen.

Command: .venv/bin/python benchmarks/transfer.py benchmarks/transfer.json

Utilities on IEEE 13, IEEE 34 and synthetic feeders record days of today's controls and of droop with noise, and some at
random. They federate one policy of devices, local and along the feeder (graph), with FedAvg. It then acts on IEEE 123
and on 20 synthetic feeders of other seeds and sizes, on held-out days, beside utility controls and droop, which are
made for each feeder. Intervals are 95 %: over days for a feeder, over feeders for the synthetic ones together.

--folder keeps data and policies, so that a run that was stopped goes on; --quick runs everything on tiny sizes.
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

from gridray.algorithms.bundle import load_bundle
from gridray.config import parse_config
from gridray.datasets.record import RecordConfig, record
from gridray.evaluation.rollout import evaluate_policy, held_out_days
from gridray.evaluation.statistics import mean_interval, paired_difference
from gridray.federated.config import FederateConfig
from gridray.federated.federate import federate
from gridray.policies.registry import make_policy
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from gridray.algorithms.bundle import Bundle
    from gridray.evaluation.statistics import Estimate

TRAINED_ON = ("ieee13", "ieee34", *(f"synthetic-{60 + 25 * i}-{100 + i}" for i in range(10)))
UNSEEN = ("ieee123", *(f"synthetic-{60 + 15 * i}-{i + 1}" for i in range(20)))
RECORDED = {"policy": {"utility_controls": 0.5, "droop": 0.5}, "noise_std": 0.25, "random_share": 0.1}
LEARNER = {"hidden_sizes": [64, 64], "learning_rate": 1e-3, "temperature": 2.0, "action_head": "mixed"}
# The scale of advantages stays at home: on some feeders there is a hundred times more to gain than on others.
FEDERATION = {
    "algorithm": "awr",
    "batch_size": 128,
    "local_updates": 40,
    "groups": {"advantage_square": "local"},
}
SHAPES = ("local", "graph")
BASELINES = ("utility_controls", "droop")
BASELINE = "droop"


def record_all(folder: Path, feeders: tuple[str, ...], num_episodes: int) -> dict[str, Path]:
    """Record a dataset on each feeder, where there is none yet."""
    found = {}
    for seed, feeder in enumerate(feeders):
        found[feeder] = folder / "data" / feeder
        if not found[feeder].exists():
            task_config = {"feeder": feeder, "utility": feeder, "seed": seed}
            config = RecordConfig(task_config=task_config, num_episodes=num_episodes, seed=seed, **RECORDED)
            record(config, found[feeder], use_ray=False)
            sys.stderr.write(f"recorded {feeder}\n")
    return found


def train(folder: Path, datasets: dict[str, Path], shape: str, num_rounds: int, seed: int) -> Bundle:
    """Federate a policy of this shape."""
    clients = [{"name": feeder, "dataset": str(path)} for feeder, path in datasets.items()]
    settings = {**FEDERATION, "learner": {**LEARNER, "policy": shape}, "clients": clients, "rounds": num_rounds}
    config: FederateConfig = parse_config(FederateConfig, settings | {"seed": seed}, where="benchmark")
    return load_bundle(federate(config, folder / f"{shape}-{seed}", use_ray=False).bundle)


def act_on(feeder: str, bundles: dict[str, Bundle], num_days: int) -> dict[str, Any]:
    """Return what each policy gets on held-out days of a feeder, and how far it is above droop."""
    task = make_task("volt_var", {"feeder": feeder, "days": "held_out", "seed": 1000})
    days = held_out_days(task, num_days)
    policies = {name: make_policy(name, task) for name in BASELINES}
    policies |= {name: bundle.policy_for(task) for name, bundle in bundles.items()}
    tables = {name: evaluate_policy(policy, task, days=days) for name, policy in policies.items()}
    row = {
        name: {
            "return": rounded(mean_interval(table.returns)),
            "violation_share": rounded(mean_interval(table["violation_share"])),
            "above_droop": rounded(paired_difference(table.returns, tables[BASELINE].returns)),
        }
        for name, table in tables.items()
    }
    return {"feeder": feeder, "num_devices": task.local_views.num_devices, "policies": row}


def summary(rows: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Return means over feeders with intervals, and on how many feeders a policy is above or below droop."""
    found = {}
    for name in names:
        parts = [row["policies"][name] for row in rows]
        gains = np.array([part["above_droop"][0] for part in parts])
        shares = [np.array([part[key][0] for part in parts]) for key in ("return", "violation_share")]
        found[name] = {
            "return": rounded(mean_interval(shares[0])),
            "violation_share": rounded(mean_interval(shares[1])),
            "above_droop": rounded(mean_interval(gains)),
            "feeders_above_droop": int((gains > 0.0).sum()),
            "feeders_clearly_above_droop": sum(part["above_droop"][1] > 0.0 for part in parts),
            "feeders_clearly_below_droop": sum(part["above_droop"][2] < 0.0 for part in parts),
        }
    return found


def rounded(estimate: Estimate) -> list[float]:
    """Return mean, low and high."""
    return [round(float(value), 5) for value in estimate]


def run(folder: Path, *, is_quick: bool) -> dict[str, Any]:
    """Record, train and act."""
    trained_on, unseen = (("ieee13", "synthetic-60-101"), UNSEEN[1:3]) if is_quick else (TRAINED_ON, UNSEEN)
    num_episodes, num_rounds, num_days = (4, 1, 2) if is_quick else (32, 12, 16)
    datasets = record_all(folder, trained_on, num_episodes)
    bundles, seconds = {}, {}
    for shape in SHAPES:
        start = time.process_time()
        bundles[shape] = train(folder, datasets, shape, num_rounds, seed=0)
        seconds[shape] = round(time.process_time() - start, 1)
        sys.stderr.write(f"trained {shape} in {seconds[shape]} CPU s\n")
    tables: dict[str, list[dict[str, Any]]] = {}
    for part, feeders in (("trained_on", trained_on[:2]), ("unseen", unseen)):
        tables[part] = []
        for feeder in feeders:
            tables[part].append(act_on(feeder, bundles, num_days))
            sys.stderr.write(json.dumps(tables[part][-1]) + "\n")
    synthetic = [row for row in tables["unseen"] if row["feeder"].startswith("synthetic")]
    return {
        "recorded": RECORDED | {"num_episodes": num_episodes},
        "federation": FEDERATION | {"rounds": num_rounds, "learner": LEARNER},
        "num_days": num_days,
        "training_cpu_s": seconds,
        "unseen_synthetic": summary(synthetic, [*BASELINES, *SHAPES]),
        **tables,
    }


def main() -> None:
    """Run and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gr-") as aside:
        results = run(options.folder or Path(aside), is_quick=options.quick)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
