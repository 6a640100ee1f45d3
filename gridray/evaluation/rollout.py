"""Run a policy over whole days, all of them side by side, and count what happens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gridray.envs.vector_env import OBSERVATION_LIMIT
from gridray.errors import GridRayError
from gridray.evaluation.indicators import (
    cost_indicators,
    other_indicators,
    voltage_indicators,
    voltage_series,
)
from gridray.policies.base import TwinPolicy
from gridray.tasks.base import has_levels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gridray.policies.base import Policy
    from gridray.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class EpisodeTable:
    """Outcome of one policy on D days.

    day: int64 [D]; returns: float64 [D], sum of rewards; indicators: by name, float64 [D], see
    `gridray.evaluation.indicators`.
    """

    policy: str
    day: NDArray[np.int64]
    returns: NDArray[np.float64]
    indicators: dict[str, NDArray[np.float64]]

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        """Return the returns, or the indicator of this name, [D].

        Raises:
            GridRayError: the task reports no such indicator.
        """
        if name == "returns":
            return self.returns
        if name not in self.indicators:
            raise GridRayError(f"There is no indicator '{name}': give one of {', '.join(self.indicators)}.")
        return self.indicators[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns of numbers."""
        return ("returns", *self.indicators)


def evaluate_policy(
    policy: Policy | TwinPolicy,
    task: Task,
    *,
    days: Sequence[int] | NDArray[np.int64],
    num_envs: int = 512,
    seed: int = 0,
    on_step: Callable[[float], None] | None = None,
) -> EpisodeTable:
    """Run the policy over each of these days once, num_envs days side by side.

    What a task draws at random on a day depends on seed and day alone: every policy meets the same outages.

    Args:
        policy: any controller.
        task: its task.
        days: days of the task's year, int [D].
        num_envs: days that are stepped together; does not change the outcome of policies that draw nothing.
        seed: of policies and tasks that draw.
        on_step: called with the share of the whole after every step.

    Raises:
        GridRayError: the policy gave an action that is not finite.
    """
    days = np.asarray(days, dtype=np.int64)
    rng = np.random.default_rng(seed)
    seeds = day_seeds(days, seed)
    parts = []
    for first in range(0, len(days), num_envs):
        part = slice(first, first + num_envs)
        share = len(days[part]) / len(days) / task.num_steps
        tick = partial(on_step or _ignore, share)
        parts.append(_run_days(policy, task, (days[part], seeds[part]), rng, tick))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return EpisodeTable(policy=policy.name, day=days, returns=columns.pop("returns"), indicators=columns)


def day_seeds(days: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """Return the seed of what is drawn on each day, uint64 [D]: the same whatever other days there are."""
    return np.array([np.random.SeedSequence([seed, int(day)]).generate_state(1, np.uint64)[0] for day in days])


def held_out_days(task: Task, num_days: int | None = None) -> NDArray[np.int64]:
    """Return the task's days, or num_days of them spread evenly over the year."""
    days = task.allowed_days()
    if num_days is None or num_days >= len(days):
        return days
    picked: NDArray[np.int64] = days[np.linspace(0, len(days) - 1, num_days).round().astype(np.int64)]
    return picked


def _run_days(
    policy: Policy | TwinPolicy,
    task: Task,
    episodes: tuple[NDArray[np.int64], NDArray[np.uint64]],
    rng: np.random.Generator,
    tick: Callable[[], None],
) -> dict[str, NDArray[np.float64]]:
    days, seeds = episodes
    state = task.new_state(len(days))
    task.reset(state, np.arange(len(days)), days, seeds)
    is_whole = has_levels(task.action_channels)
    rewards, voltages, costs, indicators = [], [], [], []
    is_running = np.ones(len(days), dtype=np.bool_)
    for _ in range(task.num_steps):
        actions = _actions(policy, task, state, rng)
        result = task.step(state, np.rint(actions).astype(np.int64) if is_whole else actions)
        # Whoever has ended before the day's last step earns and costs nothing any more.
        rewards.append(result.rewards * is_running)
        costs.append({name: values * is_running for name, values in result.costs.items()})
        indicators.append(result.indicators)
        voltages.append(voltage_series(task.voltages(state)))
        is_running = is_running & (state.t < task.num_steps)
        tick()
    step_h = 24.0 / task.num_steps
    columns = voltage_indicators(_stacked(voltages), step_h)
    columns |= other_indicators(_stacked(indicators), step_h)
    columns |= cost_indicators(_stacked(costs), step_h)
    return {"returns": np.sum(rewards, axis=0), **columns}


def _ignore(_share: float) -> None:
    """Tell nobody."""


def _actions(
    policy: Policy | TwinPolicy,
    task: Task,
    state: Any,  # noqa: ANN401  # the task's own
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    if isinstance(policy, TwinPolicy):
        actions = policy.act_on(state, rng)
    else:
        actions = policy.act(np.clip(task.observe(state), -OBSERVATION_LIMIT, OBSERVATION_LIMIT), rng)
    if not np.isfinite(actions).all():
        raise GridRayError(f"Policy '{policy.name}' gave an action that is not finite: check what trained it.")
    return np.asarray(actions)


def _stacked(rows: Sequence[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    """Return arrays [T, D] by name."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
