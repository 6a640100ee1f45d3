"""Discounted returns of ANM6Easy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.compat.anm6 import DISCOUNT, Anm6Config, Anm6Easy
from gridray.compat.anm6_data import SOLAR, STEPS_PER_DAY, WIND
from gridray.compat.anm6_mpc import PerfectForecastMpc
from gridray.compat.base import Anchor, Comparison, Played, Run
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SYSTEM = "ANM6Easy"
SET_POINTS = {
    "hold": (SOLAR.max_p, WIND.max_p, 0.0, 0.0, 0.0, 0.0),
    "curtail": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
}
"""hold: do nothing (inject all there is, storage idle); curtail: inject nothing. MW and Mvar as the actions."""
POLICIES = (*SET_POINTS, "random", "mpc")
REPLAN_STEPS = 8
"""Steps of a plan of "mpc" that are taken before the next; the forecast being perfect, they are good ones."""
PUBLISHED = {"hold": -858.0, "mpc": -13.2}
"""Discounted returns of the original's paper."""


def episode_rewards(task: Anm6Easy, policy: str, starts: Sequence[int], *, seed: int = 0) -> NDArray[np.float64]:
    """Return the rewards of episodes from these starts, float64 [num_episodes, num_steps]; 0 after a collapse.

    Raises:
        ConfigError: no such policy or start.
    """
    if policy not in POLICIES:
        raise ConfigError(f"There is no policy '{policy}': give one of {', '.join(POLICIES)}.")
    last = int(task.allowed_days()[-1])
    if max(starts) > last:
        raise ConfigError(f"{SYSTEM} has no start {max(starts)}: give one of 0..{last}.")
    rng = np.random.default_rng(seed)
    shape = (len(starts), len(task.action_channels))
    low, high = (np.array([getattr(channel, name) for channel in task.action_channels]) for name in ("low", "high"))
    powers = np.broadcast_to(np.array(SET_POINTS.get(policy, low)), (len(starts), REPLAN_STEPS, len(low)))
    mpc = PerfectForecastMpc()
    state = task.new_state(len(starts))
    task.reset(state, np.arange(len(starts)), np.asarray(starts, dtype=np.int64))
    rewards = np.zeros((len(starts), task.num_steps))
    is_alive = np.ones(len(starts), dtype=np.bool_)
    for t in range(task.num_steps):
        if policy == "mpc" and t % REPLAN_STEPS == 0:
            charges = zip(state.charge_mwh, (state.day + t) % STEPS_PER_DAY, strict=True)
            powers = np.stack([mpc.plan(float(charge), int(quarter)) for charge, quarter in charges])
        scaled = 2.0 * (powers[:, t % REPLAN_STEPS] - low) / (high - low) - 1.0
        actions = rng.uniform(-1.0, 1.0, shape) if policy == "random" else scaled
        rewards[:, t] = task.step(state, actions.astype(np.float32)).rewards * is_alive
        is_alive &= state.t < task.num_steps
    return rewards


def discounted(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the discounted return of each row, [num_episodes]."""
    result: NDArray[np.float64] = rewards @ DISCOUNT ** np.arange(rewards.shape[1])
    return result


def play(run: Run, _data: Path | None) -> Played:
    """Return one episode, 3000 rewards; the profile is the number of the start."""
    return Played(episode_rewards(Anm6Easy(Anm6Config()), run.policy, [run.profile], seed=run.seed)[0], {})


def compare(_data: Path | None) -> list[Comparison]:
    """Return mean discounted returns over starts spread over the day; those of "mpc" are cut after 1000 quarters."""
    rows = []
    for policy in POLICIES:
        task = Anm6Easy(Anm6Config(num_steps=1000 if policy == "mpc" else 3000))
        starts = range(0, STEPS_PER_DAY, 8 if policy == "mpc" else 1)
        returns = discounted(episode_rewards(task, policy, starts))
        original = PUBLISHED.get(policy, np.nan)
        rows.append(Comparison(SYSTEM, f"discounted return, {policy}", original, float(returns.mean())))
    return rows


ANCHOR = Anchor((SYSTEM,), ", ".join(POLICIES), play, compare, DISCOUNT)
