"""What `gridray evaluate --offline` does: the values of policies from a log alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gridray.algorithms.bundle import load_bundle
from gridray.cli.output import print_json, print_table, progress
from gridray.datasets.dataset import OfflineDataset
from gridray.errors import ConfigError
from gridray.evaluation.off_policy import OfflineEstimate, estimate, read_episodes
from gridray.policies.registry import POLICIES, TWIN_POLICIES, make_policy
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from gridray.evaluation.fqe import FqeConfig
    from gridray.policies.base import Policy
    from gridray.tasks.base import Task


def offline_values(names: list[str], path: Path, *, noise_std: float, config: FqeConfig, as_json: bool) -> None:
    """Estimate and print the return of a day of each policy, without stepping the twin."""
    dataset = OfflineDataset.open(path)
    task = make_task(dataset.card.task, dataset.card.task_config)
    policies = {name: _policy(name, task) for name in names}
    episodes, log_p, source = read_episodes(dataset)
    found: dict[str, OfflineEstimate] = {}
    with progress("Estimating", len(policies)) as advance:
        for name, policy in policies.items():
            found[name] = estimate(episodes, log_p, policy, noise_std=noise_std, config=config)
            advance(1)
    logged = float(episodes.rewards.sum(axis=1).mean())
    if as_json:
        plain = {
            name: {key: value._asdict() if hasattr(value, "_asdict") else value for key, value in one._asdict().items()}
            for name, one in found.items()
        }
        print_json({"behaviour": source, "noise_std": noise_std, "logged_return": logged, "policies": plain})
        return
    rows = [
        [name, *(f"{e.mean:.2f} ({e.low:.2f} to {e.high:.2f})" for e in one[:3]), f"{one.effective_episodes:.1f}"]
        for name, one in found.items()
    ]
    print_table(
        f"Return of a day from {len(episodes.rewards)} logged days (mean {logged:.2f}); probabilities {source}",
        ["policy", "fitted Q", "importance sampling", "doubly robust", "effective episodes"],
        rows,
    )


def _policy(name: str, task: Task) -> Policy:
    if name in TWIN_POLICIES:
        raise ConfigError(f"'{name}' looks into the twin: it has no value without one. Leave --offline out.")
    if name in POLICIES:
        return make_policy(name, task)
    return load_bundle(Path(name)).policy_for(task)
