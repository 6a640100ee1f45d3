"""What a utility can have without the others, found out at home: its controls, cloning, training on its own data."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from gridray.algorithms.bc import BcConfig
from gridray.algorithms.train import TrainConfig, Training
from gridray.evaluation.rollout import evaluate_policy, held_out_days
from gridray.evaluation.statistics import paired_difference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gridray.algorithms.base import Learner
    from gridray.datasets.dataset import OfflineDataset
    from gridray.policies.base import Policy
    from gridray.tasks.base import Task

TODAY, CLONED, ALONE = "utility_controls", "bc_alone", "alone"
JUDGED_BY = ("returns", "violation_share", "losses_kwh")
"""Indicators that an evaluation sends, means over days."""
GAIN = "gain_over_alone"


def own_learners(
    dataset: OfflineDataset, *, algorithm: str, learner: Mapping[str, Any], size: tuple[int, int], seed: int
) -> dict[str, Learner]:
    """Return what cloning and the algorithm make of the utility's data alone.

    Args:
        dataset: the utility's own.
        algorithm: of the federation.
        learner: its configuration.
        size: updates in all, rows of a batch.
        seed: decides first weights and batches.
    """
    learners = {}
    for name, kind, settings in ((CLONED, "bc", cloning(learner)), (ALONE, algorithm, dict(learner))):
        config = TrainConfig(
            dataset=dataset.path, algorithm=kind, learner=settings, num_updates=size[0], batch_size=size[1], seed=seed
        )
        training = Training(config, dataset)
        training.advance(size[0])
        learners[name] = training.learner
    return learners


def cloning(learner: Mapping[str, Any]) -> dict[str, Any]:
    """Return what cloning knows of another learner's configuration."""
    known = {field.name for field in fields(BcConfig)}
    return {key: value for key, value in learner.items() if key in known}


def judged(policies: Mapping[str, Policy], task: Task, num_days: int, *, seed: int) -> dict[str, float]:
    """Return means over held-out days by "<policy>_<indicator>", and how much more than alone a policy returns.

    The gain has a 95 % interval over paired days: "<policy>_gain_over_alone", and the same with "_low" and "_high".
    """
    days = held_out_days(task, num_days)
    tables = {name: evaluate_policy(policy, task, days=days, seed=seed) for name, policy in policies.items()}
    found: dict[str, float] = {}
    for name, table in tables.items():
        found |= {f"{name}_{what}": float(table[what].mean()) for what in JUDGED_BY if what in table.names}
        if name != ALONE:
            gain = paired_difference(table.returns, tables[ALONE].returns)
            found |= {f"{name}_{GAIN}": gain.mean, f"{name}_{GAIN}_low": gain.low, f"{name}_{GAIN}_high": gain.high}
    return found
