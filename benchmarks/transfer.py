"""Train one policy on some feeders and let it act on feeders that it has not seen.

Command: .venv/bin/python benchmarks/transfer.py benchmarks/transfer.json

Utilities on IEEE 13, IEEE 34 and synthetic feeders record days of droop, with noise on what their PV does that stays
for two hours, and none on taps, capacitors and batteries. They federate one policy of devices, local and along the
feeder (graph), with FedAvg, from several seeds. It then acts on IEEE 123 and on 20 synthetic feeders of other seeds and
sizes, on held-out days: "local" and "graph" on PV and batteries, while taps and capacitors follow their own controls,
"local_alone" and "graph_alone" on all devices. Beside them act utility controls and droop, which are made for each
feeder. Intervals are 95 %: over days for a feeder, over feeders for the synthetic ones together; what is given of a
shape is the mean over its seeds.

Settings were chosen on other synthetic feeders (--validate), never on those of the table.

--folder keeps data and policies, so that a run that was stopped goes on, and parts can be made side by side, each in
its own process: --only FEEDER records one, then --only local-0, --only graph-0 and so on train one policy; the whole
command finds them. --quick runs everything on tiny sizes.
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
from gridray.policies.with_controls import WithControls
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.algorithms.bundle import Bundle
    from gridray.evaluation.rollout import EpisodeTable
    from gridray.evaluation.statistics import Estimate

TRAINED_ON = ("ieee13", "ieee34", *(f"synthetic-{60 + 12 * i}-{100 + i}" for i in range(24)))
VALIDATED_ON = tuple(f"synthetic-{75 + 35 * i}-{201 + i}" for i in range(8))
UNSEEN = ("ieee123", *(f"synthetic-{60 + 15 * i}-{i + 1}" for i in range(20)))
# Taps and capacitors are as droop's controls have them, and are cloned. What an inverter's vars are good for, such as
# taps that need not move, shows after a while: a deviate stays for two hours.
RECORDED = {"policy": "droop", "noise_std": {"pv": 0.35}, "noise_steps": 8}
LEARNER = {
    "hidden_sizes": [64, 64],
    "learning_rate": 1e-3,
    "action_head": "mixed",
    "advantage": "learnt",
    "temperature": 8.0,
    "choice_temperature": 0.0,
}
# The scale of advantages stays at home: on some feeders there is a hundred times more to gain than on others. Rewards
# are not standardised: a group that is local keeps its first values, a mean of 0 and a deviation of 1.
FEDERATION = {
    "algorithm": "awr",
    "batch_size": 128,
    "local_updates": 60,
    "clients_per_round": 6,
    "groups": {
        "advantage_square": "local",
        "learnt_square": "local",
        "normaliser.reward_mean": "local",
        "normaliser.reward_std": "local",
    },
}
ONLINE_EVALUATIONS = 28
"""Policies that were tried on validation feeders to choose the settings above."""
SHAPES = ("local", "graph")
# The noise was on what PV does: of that there is something to learn, taps and capacitors are at best as they were.
COMMANDED = ("pv", "battery")
BASELINES = ("utility_controls", "droop")
BASELINE = "droop"
INDICATORS = ("violation_share", "tap_operations", "losses_kwh")
FULL = {"num_episodes": 64, "rounds": 24, "num_days": 73, "seeds": 3}
QUICK = {"num_episodes": 4, "rounds": 1, "num_days": 2, "seeds": 1}


def recorded(folder: Path, feeder: str, num_episodes: int) -> Path:
    """Return the dataset of a feeder that is trained on, recorded where there is none yet."""
    path, seed = folder / "data" / feeder, TRAINED_ON.index(feeder)
    if not path.exists():
        task_config = {"feeder": feeder, "utility": feeder, "seed": seed}
        config = RecordConfig(task_config=task_config, num_episodes=num_episodes, seed=seed, **RECORDED)
        record(config, path, use_ray=False)
        sys.stderr.write(f"recorded {feeder}\n")
    return path


def train(folder: Path, feeders: Sequence[str], part: str, size: dict[str, int]) -> Bundle:
    """Federate the policy of a part, "<shape>-<seed>", where there is none yet."""
    shape, _, seed = part.partition("-")
    bundle, spent = folder / part / "policy", folder / part / "cpu_s"
    if not bundle.exists():
        datasets = {feeder: recorded(folder, feeder, size["num_episodes"]) for feeder in feeders}
        start = time.process_time()
        clients = [{"name": feeder, "dataset": str(path)} for feeder, path in datasets.items()]
        drawn = {"clients_per_round": min(int(FEDERATION["clients_per_round"]), len(clients))}
        settings = FEDERATION | drawn | {"learner": {**LEARNER, "policy": shape}, "clients": clients}
        settings |= {"rounds": size["rounds"], "seed": int(seed)}
        federate(parse_config(FederateConfig, settings, where="benchmark"), folder / part, use_ray=False)
        spent.write_text(f"{time.process_time() - start:.1f}\n", encoding="utf-8")
        sys.stderr.write(f"trained {part} in {spent.read_text(encoding='utf-8').strip()} CPU s\n")
    return load_bundle(bundle)


def act_on(feeder: str, bundles: dict[str, list[Bundle]], num_days: int) -> dict[str, Any]:
    """Return what each policy gets on held-out days of a feeder, and how far it is above droop."""
    task = make_task("volt_var", {"feeder": feeder, "days": "held_out", "seed": 1000})
    days = held_out_days(task, num_days)
    tables = {name: [evaluate_policy(make_policy(name, task), task, days=days)] for name in BASELINES}
    for shape, made in bundles.items():
        policies = [bundle.policy_for(task) for bundle in made]
        beside = [WithControls(policy, task, COMMANDED) for policy in policies]
        tables[f"{shape}_alone"] = [evaluate_policy(policy, task, days=days) for policy in policies]
        tables[shape] = [evaluate_policy(policy, task, days=days) for policy in beside]
    droop = tables[BASELINE][0].returns
    row = {
        name: {
            "return": rounded(mean_interval(over_seeds(made, "returns"))),
            "above_droop": rounded(paired_difference(over_seeds(made, "returns"), droop)),
            **{what: rounded(mean_interval(over_seeds(made, what))) for what in INDICATORS},
            "above_droop_by_seed": [round(float((table.returns - droop).mean()), 5) for table in made],
        }
        for name, made in tables.items()
    }
    return {"feeder": feeder, "num_devices": task.local_views.num_devices, "policies": row}


def over_seeds(tables: list[EpisodeTable], what: str) -> NDArray[np.float64]:
    """Return an indicator of each day, mean over the policies of several seeds."""
    return np.mean([table[what] for table in tables], axis=0)


def summary(rows: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Return means over feeders with intervals, and on how many feeders a policy is above or below droop."""
    found = {}
    for name in names:
        parts = [row["policies"][name] for row in rows]
        gains = np.array([part["above_droop"][0] for part in parts])
        means = {
            key: rounded(mean_interval(np.array([part[key][0] for part in parts]))) for key in ("return", *INDICATORS)
        }
        found[name] = means | {
            "above_droop": rounded(mean_interval(gains)),
            "above_droop_by_seed": np.mean([part["above_droop_by_seed"] for part in parts], axis=0).round(5).tolist(),
            "feeders_above_droop": int((gains > 0.0).sum()),
            "feeders_clearly_above_droop": sum(part["above_droop"][1] > 0.0 for part in parts),
            "feeders_clearly_below_droop": sum(part["above_droop"][2] < 0.0 for part in parts),
        }
    return found


def rounded(estimate: Estimate) -> list[float]:
    """Return mean, low and high."""
    return [round(float(value), 5) for value in estimate]


def act_on_all(feeders: Sequence[str], bundles: dict[str, list[Bundle]], num_days: int) -> list[dict[str, Any]]:
    """Return a row for each feeder."""
    rows = []
    for feeder in feeders:
        rows.append(act_on(feeder, bundles, num_days))
        sys.stderr.write(json.dumps(rows[-1]) + "\n")
    return rows


def run(folder: Path, *, is_quick: bool, is_validation: bool) -> dict[str, Any]:
    """Record, train and act."""
    trained_on, unseen = (("ieee13", "synthetic-60-100"), UNSEEN[1:3]) if is_quick else (TRAINED_ON, UNSEEN)
    size = QUICK if is_quick else FULL
    parts = {shape: [f"{shape}-{seed}" for seed in range(size["seeds"])] for shape in SHAPES}
    bundles = {shape: [train(folder, trained_on, part, size) for part in made] for shape, made in parts.items()}
    spent = {
        part: float((folder / part / "cpu_s").read_text(encoding="utf-8")) for made in parts.values() for part in made
    }
    facts = {
        "recorded": RECORDED | {"num_episodes": size["num_episodes"], "feeders": trained_on},
        "federation": FEDERATION | {"rounds": size["rounds"], "learner": LEARNER, "seeds": size["seeds"]},
        "online_evaluations": ONLINE_EVALUATIONS,
        "num_days": size["num_days"],
        "training_cpu_s": spent,
    }
    names = [*BASELINES, *SHAPES, *(f"{shape}_alone" for shape in SHAPES)]
    if is_validation:
        rows = act_on_all(VALIDATED_ON, bundles, size["num_days"])
        return facts | {"validation_synthetic": summary(rows, names), "validation": rows}
    tables = {
        "trained_on": act_on_all(trained_on[:2], bundles, size["num_days"]),
        "unseen": act_on_all(unseen, bundles, size["num_days"]),
    }
    synthetic = [row for row in tables["unseen"] if row["feeder"].startswith("synthetic")]
    return facts | {"unseen_synthetic": summary(synthetic, names), **tables}


def main() -> None:
    """Run and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only", help="a feeder, or <shape>-<seed>: make this part in the folder")
    parser.add_argument("--validate", action="store_true", help="act on the validation feeders instead")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.only is not None:
        size = QUICK if options.quick else FULL
        if options.only in TRAINED_ON:
            recorded(options.folder, options.only, size["num_episodes"])
        else:
            train(options.folder, TRAINED_ON, options.only, size)
        return
    with tempfile.TemporaryDirectory(prefix="gr-") as aside:
        results = run(options.folder or Path(aside), is_quick=options.quick, is_validation=options.validate)
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
