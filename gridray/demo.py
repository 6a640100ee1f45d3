"""The whole way in one run: three utilities record, train alone, federate, and are compared on held-out days."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from gridray import __version__
from gridray.algorithms.bundle import load_bundle, save_bundle
from gridray.algorithms.registry import make_learner
from gridray.algorithms.train import TrainConfig, train
from gridray.cluster.runtime import ray_session
from gridray.datasets.dataset import OfflineDataset
from gridray.datasets.record import RecordConfig, record
from gridray.errors import GridRayError
from gridray.evaluation.report import ReportData, VoltageProfile, write_report
from gridray.evaluation.rollout import EpisodeTable, evaluate_policy, held_out_days
from gridray.evaluation.verdict import verdict
from gridray.federated.config import ClientConfig, FederateConfig
from gridray.federated.federate import federate
from gridray.policies.registry import make_policy
from gridray.tasks.registry import make_task
from gridray.tasks.siting import bus_distances_km

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridray.policies.base import Policy
    from gridray.tasks.base import Task

TASK = "volt_var"
FEDERATED = "federated"
BASELINES = ("random", "utility_controls", "droop")


@dataclass(frozen=True, kw_only=True)
class Utility:
    """One utility: its customers and devices, and how its logs came about."""

    name: str
    task_config: dict[str, Any]
    policy: str
    noise_std: float
    random_share: float


UTILITIES = (
    # A good operator: volt-var curves at the inverters, small test moves.
    Utility(
        name="north",
        task_config={"load_scale": 0.9, "pv_share": 0.4, "seed": 1},
        policy="droop",
        noise_std=0.15,
        random_share=0.0,
    ),
    # An average one: the usual local controls, larger moves by hand, some episodes of trial.
    Utility(
        name="east",
        task_config={"load_scale": 1.0, "pv_share": 0.8, "seed": 2},
        policy="utility_controls",
        noise_std=0.25,
        random_share=0.1,
    ),
    # A careless one: most of its log is arbitrary.
    Utility(
        name="south",
        task_config={"load_scale": 1.05, "pv_share": 1.2, "seed": 3},
        policy="utility_controls",
        noise_std=0.4,
        random_share=0.6,
    ),
)
LEARNER = {"hidden_sizes": [128, 128], "discount": 0.9, "learning_rate": 1e-3, "temperature": 10.0}


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Size of the demo; local training takes rounds x local_updates updates, as each client of the federation does."""

    feeder: str = "ieee34"
    num_episodes: int = 160
    rounds: int = 40
    local_updates: int = 200
    batch_size: int = 256
    num_stages: int = 4
    num_days: int = 36
    seed: int = 0
    utilities: tuple[Utility, ...] = UTILITIES
    learner: dict[str, Any] = field(default_factory=lambda: dict(LEARNER))

    def digest(self) -> str:
        """Return a digest of all that decides the demo's numbers."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


QUICK = DemoConfig(feeder="ieee13", num_episodes=8, rounds=4, local_updates=10, batch_size=64, num_stages=2, num_days=4)
"""A minute's run for tests and for `gridray demo --quick`: the whole way, too short to learn much."""


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """tables: utility -> policy -> episodes; bundles: utility -> its bundle of the federated policy."""

    tables: dict[str, dict[str, EpisodeTable]]
    verdict: list[str]
    report: Path
    bundles: dict[str, Path]


def run_demo(
    config: DemoConfig, out: Path, report: Path, on_progress: Callable[[str, float], None] | None = None
) -> DemoResult:
    """Run the demo; what a stopped run of the same configuration finished is not done again.

    Args:
        config: sizes, utilities and learner.
        out: working directory: datasets, checkpoints and bundles.
        report: directory of the page.
        on_progress: called with what was just done and the share of the whole it was.

    Raises:
        GridRayError: a step failed, or `out` holds a demo of another configuration.
    """
    progress = on_progress or (lambda _what, _share: None)
    # Actors may work in another directory than this process.
    out, report = out.absolute(), report.absolute()
    _claim(config, out)
    with ray_session():
        tasks = {utility.name: make_task(TASK, _task_config(config, utility)) for utility in config.utilities}
        for utility in config.utilities:
            _record(config, utility, out)
            progress(f"recorded {utility.name}", 0.1 / len(config.utilities))
        curves: dict[str, dict[str, list[tuple[int, float]]]] = {name: {} for name in tasks}
        for stage in range(1, config.num_stages + 1):
            _train_locally(config, out, stage)
            progress(f"trained alone, stage {stage}", 0.35 / config.num_stages)
        for stage in range(1, config.num_stages + 1):
            _federate(config, tasks, out, stage)
            progress(f"federated, stage {stage}", 0.35 / config.num_stages)
    held_out = {
        utility.name: make_task(TASK, _task_config(config, utility) | {"days": "held_out"})
        for utility in config.utilities
    }
    tables: dict[str, dict[str, EpisodeTable]] = {}
    for name, task in held_out.items():
        tables[name] = _compare(config, task, out)
        curves[name] = _curves(config, task, out, name, tables[name])
        progress(f"evaluated at {name}", 0.2 / len(tasks))
    sentences = verdict(tables, ours=FEDERATED, today="utility_controls")
    page = write_report(
        report,
        ReportData(
            title=f"Three utilities learn voltage control together: {config.feeder}",
            verdict=sentences,
            tables=tables,
            curves=curves,
            profiles=[_voltage_profile(name, task, out) for name, task in held_out.items()],
            facts=_facts(config),
        ),
    )
    return DemoResult(
        tables=tables, verdict=sentences, report=page, bundles={name: _bundle(out, name, FEDERATED) for name in tasks}
    )


def _claim(config: DemoConfig, out: Path) -> None:
    """Mark the directory as this configuration's, so that nothing of another one is taken for its own."""
    mark = out / "demo.json"
    if mark.exists():
        found = json.loads(mark.read_text(encoding="utf-8")).get("digest")
        if found != config.digest():
            raise GridRayError(f"'{out}' holds a demo of another configuration: give another --out, or remove it.")
        return
    out.mkdir(parents=True, exist_ok=True)
    aside = out / f".demo.json.{os.getpid()}"
    aside.write_text(json.dumps({"digest": config.digest(), **asdict(config)}, indent=1), encoding="utf-8")
    aside.replace(mark)


def _task_config(config: DemoConfig, utility: Utility) -> dict[str, Any]:
    return {"feeder": config.feeder, "utility": utility.name, **utility.task_config}


def _dataset(out: Path, name: str) -> Path:
    return out / "datasets" / name


def _bundle(out: Path, name: str, policy: str) -> Path:
    return out / "bundles" / name / policy


def _record(config: DemoConfig, utility: Utility, out: Path) -> None:
    path = _dataset(out, utility.name)
    if path.exists():
        OfflineDataset.open(path)
        return
    settings = RecordConfig(
        task=TASK,
        task_config=_task_config(config, utility),
        policy=utility.policy,
        noise_std=utility.noise_std,
        random_share=utility.random_share,
        num_episodes=config.num_episodes,
        num_envs=32,
        num_actors=1,
        seed=config.seed + 1,
        rows_per_shard=4096,
    )
    record(settings, path)


def _train_locally(config: DemoConfig, out: Path, stage: int) -> None:
    """Bring every utility's own training to the end of the stage, side by side."""
    num_updates = config.rounds * config.local_updates * stage // config.num_stages
    jobs = []
    for utility in config.utilities:
        settings = TrainConfig(
            dataset=_dataset(out, utility.name),
            algorithm="iql",
            num_updates=num_updates,
            batch_size=config.batch_size,
            seed=config.seed,
            learner=config.learner,
            report_every=config.local_updates,
            stream=False,
        )
        goal = _bundle(out, utility.name, f"local-{num_updates}")
        if not goal.exists():
            jobs.append(ray.remote(_train_one).remote(settings, out / "local" / utility.name, goal))
    ray.get(jobs, timeout=3600)


def _train_one(settings: TrainConfig, folder: Path, goal: Path) -> None:
    result = train(settings, folder)
    goal.parent.mkdir(parents=True, exist_ok=True)
    result.bundle.replace(goal)


def _federate(config: DemoConfig, tasks: dict[str, Task], out: Path, stage: int) -> None:
    """Bring the federation to the end of the stage and give each utility a bundle for its own devices."""
    rounds = config.rounds * stage // config.num_stages
    goals = {name: _bundle(out, name, f"{FEDERATED}-{rounds * config.local_updates}") for name in tasks}
    if stage == config.num_stages:
        goals |= {f"{name} last": _bundle(out, name, FEDERATED) for name in tasks}
    if all(goal.exists() for goal in goals.values()):
        return
    settings = FederateConfig(
        algorithm="iql",
        clients=tuple(ClientConfig(name=name, dataset=_dataset(out, name)) for name in tasks),
        rounds=rounds,
        local_updates=config.local_updates,
        batch_size=config.batch_size,
        learner=config.learner,
        seed=config.seed,
    )
    result = federate(settings, out / FEDERATED)
    task = next(iter(tasks.values()))
    learner = make_learner(
        "iql",
        observation_size=len(task.observation_channels),
        action_size=len(task.action_channels),
        config=config.learner,
        seed=config.seed,
    )
    learner.set_weights(result.weights)
    provenance = {"kind": "federated", "rounds": rounds, "local_updates": config.local_updates, "clients": list(tasks)}
    for name, goal in goals.items():
        goal.parent.mkdir(parents=True, exist_ok=True)
        save_bundle(goal, learner=learner, task=tasks[name.removesuffix(" last")], provenance=provenance)


def _final(config: DemoConfig, out: Path, owner: str) -> Path:
    return _bundle(out, owner, f"local-{config.rounds * config.local_updates}")


def _compare(config: DemoConfig, task: Task, out: Path) -> dict[str, EpisodeTable]:
    """Run every policy, each utility's included, on this utility's held-out days."""
    policies: dict[str, Policy] = {name: make_policy(name, task) for name in BASELINES}
    for utility in config.utilities:
        policies[f"trained at {utility.name}"] = load_bundle(_final(config, out, utility.name)).policy
    policies[FEDERATED] = load_bundle(_bundle(out, task.config.utility, FEDERATED)).policy
    days = held_out_days(task, config.num_days)
    return {name: evaluate_policy(policy, task, days=days, seed=config.seed) for name, policy in policies.items()}


def _curves(
    config: DemoConfig, task: Task, out: Path, name: str, tables: dict[str, EpisodeTable]
) -> dict[str, list[tuple[int, float]]]:
    days = held_out_days(task, min(config.num_days, 12))
    lines: dict[str, list[tuple[int, float]]] = {"alone": [], FEDERATED: []}
    for stage in range(1, config.num_stages + 1):
        updates = config.rounds * stage // config.num_stages * config.local_updates
        own = config.rounds * config.local_updates * stage // config.num_stages
        for label, bundle in (("alone", f"local-{own}"), (FEDERATED, f"{FEDERATED}-{updates}")):
            policy = load_bundle(_bundle(out, name, bundle)).policy
            lines[label].append((updates, float(evaluate_policy(policy, task, days=days).returns.mean())))
    shown = np.isin(tables["utility_controls"].day, days)
    lines["utility controls"] = [(0, float(tables["utility_controls"].returns[shown].mean()))]
    return lines


def _voltage_profile(name: str, task: Task, out: Path) -> VoltageProfile:
    """Show the evening peak of a winter day, with today's control and with the federated policy."""
    day = task.allowed_days()[:1]
    step = task.num_steps * 19 // 24
    shown: dict[str, Any] = {}
    for label, policy in (
        ("utility controls", make_policy("utility_controls", task)),
        (FEDERATED, load_bundle(_bundle(out, name, FEDERATED)).policy),
    ):
        state = task.new_state(1)
        task.reset(state, np.arange(1), day, np.zeros(1, dtype=np.uint64))
        for _ in range(step):
            task.step(state, policy.act(task.observe(state), np.random.default_rng(0)))
        shown[label] = task.voltages(state)[0].copy()
    distance = bus_distances_km(task.feeder)
    buses, phases = zip(*(node.rsplit(".", 1) for node in task.grid.node_names), strict=True)
    return VoltageProfile(
        title=f"{name}, day {day[0]}, 19:00",
        distance_km=np.array([distance[bus] for bus in buses]),
        phase=np.array([int(phase) for phase in phases]),
        vmag_pu=shown,
    )


def _facts(config: DemoConfig) -> dict[str, str]:
    facts = {
        "command": shlex.join(["gridray", *sys.argv[1:]]),
        "gridray": __version__,
        "feeder": config.feeder,
        "updates": f"{config.rounds} rounds of {config.local_updates} at each utility, and as many alone",
        "learner": json.dumps({"algorithm": "iql", **config.learner}),
        "configuration": config.digest(),
    }
    for u in config.utilities:
        settings = f"{u.task_config}; {config.num_episodes} days logged by {u.policy}"
        facts[u.name] = f"{settings}, noise {u.noise_std}, arbitrary on {100 * u.random_share:.0f} % of days"
    return facts
