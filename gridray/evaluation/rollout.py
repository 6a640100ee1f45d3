"""Run a policy over whole days and count what happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gridray.envs.vector_env import GridVectorEnv
from gridray.errors import GridRayError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridray.policies.base import Policy
    from gridray.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class EpisodeTable:
    """Outcome of one policy on D days, arrays [D].

    day: int64; returns: sum of rewards; violation_share: share of node-steps outside 0.95..1.05 pu;
    violation_depth_pu: mean over steps of the deepest violation; violation_hours: time with any node outside;
    longest_violation_hours: longest unbroken run of it; losses_kwh; tap_operations; capacitor_operations;
    curtailed_kwh; unconverged_share: share of steps without a power-flow solution.
    """

    policy: str
    day: NDArray[np.int64]
    returns: NDArray[np.float64]
    violation_share: NDArray[np.float64]
    violation_depth_pu: NDArray[np.float64]
    violation_hours: NDArray[np.float64]
    longest_violation_hours: NDArray[np.float64]
    losses_kwh: NDArray[np.float64]
    tap_operations: NDArray[np.float64]
    capacitor_operations: NDArray[np.float64]
    curtailed_kwh: NDArray[np.float64]
    unconverged_share: NDArray[np.float64]


INDICATORS = (
    "returns",
    "violation_share",
    "violation_depth_pu",
    "violation_hours",
    "longest_violation_hours",
    "losses_kwh",
    "tap_operations",
    "capacitor_operations",
    "curtailed_kwh",
    "unconverged_share",
)
"""The measured columns of an EpisodeTable."""


def evaluate_policy(
    policy: Policy, task: Task, *, days: Sequence[int] | NDArray[np.int64], num_envs: int = 64, seed: int = 0
) -> EpisodeTable:
    """Run the policy over each of these days once, num_envs days side by side.

    Raises:
        GridRayError: the policy gave an action that is not finite.
    """
    days = np.asarray(days, dtype=np.int64)
    rng = np.random.default_rng(seed)
    parts = [_run_days(policy, task, days[first : first + num_envs], rng) for first in range(0, len(days), num_envs)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in INDICATORS}
    return EpisodeTable(policy=policy.name, day=days, **columns)


def held_out_days(task: Task, num_days: int | None = None) -> NDArray[np.int64]:
    """Return the task's days, or num_days of them spread evenly over the year."""
    days = task.allowed_days()
    if num_days is None or num_days >= len(days):
        return days
    picked: NDArray[np.int64] = days[np.linspace(0, len(days) - 1, num_days).round().astype(np.int64)]
    return picked


def _run_days(
    policy: Policy, task: Task, days: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    envs = GridVectorEnv(task, len(days))
    observations, _ = envs.reset(options={"days": days})
    num_steps = task.num_steps
    history: dict[str, list[NDArray[np.float64]]] = {}
    for _ in range(num_steps):
        actions = policy.act(observations, rng)
        if not np.isfinite(actions).all():
            raise GridRayError(f"Policy '{policy.name}' gave an action that is not finite: check what trained it.")
        observations, rewards, _, _, infos = envs.step(actions)
        for name, values in {"rewards": rewards, **infos}.items():
            history.setdefault(name, []).append(values)
    series = {name: np.stack(values) for name, values in history.items()}
    hours = 24.0 / num_steps
    is_violated = series["violation_share"] > 0.0
    return {
        "returns": series["rewards"].sum(axis=0),
        "violation_share": series["violation_share"].mean(axis=0),
        "violation_depth_pu": series["violation_depth_pu"].mean(axis=0),
        "violation_hours": is_violated.sum(axis=0) * hours,
        "longest_violation_hours": _longest_run(is_violated) * hours,
        "losses_kwh": series["cost_losses_kwh"].sum(axis=0),
        "tap_operations": series["cost_tap_operations"].sum(axis=0),
        "capacitor_operations": series["cost_capacitor_operations"].sum(axis=0),
        "curtailed_kwh": series["cost_curtailed_kwh"].sum(axis=0),
        "unconverged_share": 1.0 - series["converged"].mean(axis=0),
    }


def _longest_run(is_true: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the longest unbroken run of True in each column of [num_steps, D], in steps."""
    longest = run = np.zeros(is_true.shape[1])
    for row in is_true:
        run = np.where(row, run + 1.0, 0.0)
        longest = np.maximum(longest, run)
    return longest
