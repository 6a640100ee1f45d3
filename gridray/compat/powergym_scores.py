"""Whole days of PowerGym's tasks under the policies whose scores are published."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from gridray.compat.base import Anchor, Comparison, Played, Run
from gridray.compat.powergym import IDLE, NUM_TAPS, PowerGym, PowerGymConfig
from gridray.compat.powergym_data import SYSTEMS
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

POLICIES = ("hold", "random", "utility")
RANDOM_SEEDS = 5
PUBLISHED = {
    "13Bus": {"random": -44.82, "hold": -16.90, "static-16": -6.25, "utility": -5.31},
    "34Bus": {"random": -97.13, "hold": -71.72, "static-16": -6.15, "utility": -6.16},
    "123Bus": {"random": -171.39, "hold": -292.24, "static-16": -7.27, "utility": -8.05},
    "8500Node": {"random": -6081.8, "hold": -22669.0, "static-16": -1023.9, "utility": -11.94},
}
"""Mean daily return of the unmodified original over its profiles, run with dss-python 0.15.7."""
NUM_PUBLISHED = {"13Bus": 73, "34Bus": 16, "123Bus": 12, "8500Node": 2}
"""Profiles, from the first, that these means are over."""

FIRST_REWARDS = {
    "13Bus": (-1.58982, -0.12651, -0.12191),
    "34Bus": (-2.98387, -0.06941, -0.07013),
    "123Bus": (-3.52437, -0.12771, -0.12609),
}
"""First rewards of the original with static-16 in profile 0."""


def play(run: Run, data: Path | None) -> Played:
    """Return one day, 24 rewards."""
    return Played(daily_rewards(_task(run.system, data), run.policy, [run.profile], seed=run.seed)[0], {})


def compare(data: Path | None) -> list[Comparison]:
    """Return first rewards and mean daily returns beside the original's."""
    rows = []
    for system, published in PUBLISHED.items():
        task = _task(system, data)
        if system in FIRST_REWARDS:
            first = daily_rewards(task, "static-16", [0])[0]
            pairs = zip(FIRST_REWARDS[system], first, strict=False)
            rows += [
                Comparison(system, f"reward {t}, static-16, profile 0", original, float(ours))
                for t, (original, ours) in enumerate(pairs, 1)
            ]
        remark = "" if system in FIRST_REWARDS else "other load shapes: the original's are not published"
        for policy, original in published.items():
            seeds = range(RANDOM_SEEDS if policy == "random" else 1)
            days = [daily_rewards(task, policy, range(NUM_PUBLISHED[system]), seed=seed).sum(axis=1) for seed in seeds]
            rows.append(Comparison(system, f"daily return, {policy}", original, float(np.mean(days)), remark))
    return rows


def daily_rewards(task: PowerGym, policy: str, profiles: Sequence[int], *, seed: int = 0) -> NDArray[np.float64]:
    """Return the rewards of each profile's day, float64 [num_profiles, 24].

    policy: static-K (capacitors on, all taps at level K, batteries idle), hold (the reset state: static-32), random
    (uniform over all levels), utility (the model's own regulator and capacitor controls).

    Raises:
        ConfigError: no such policy or profile.
    """
    allowed = task.allowed_days()
    unknown = sorted(set(profiles) - set(allowed.tolist()))
    if unknown:
        raise ConfigError(f"{task.config.system} has no profile {unknown[0]}: give one of 0..{len(allowed) - 1}.")
    tap = _tap_level(policy)
    state = task.new_state(len(profiles))
    task.reset(state, np.arange(len(profiles)), np.asarray(profiles, dtype=np.int64))
    rng = np.random.default_rng(seed)
    levels = np.array([channel.high + 1 for channel in task.action_channels], dtype=np.int64)
    fixed = np.tile(static_action(task, tap), (len(profiles), 1))
    rewards = np.empty((len(profiles), task.num_steps))
    for t in range(task.num_steps):
        actions = rng.integers(0, levels, fixed.shape) if policy == "random" else fixed
        result = task.step_utility(state) if policy == "utility" else task.step(state, actions)
        rewards[:, t] = result.rewards
    return rewards


def static_action(task: PowerGym, tap: int) -> NDArray[np.int64]:
    """Return levels with capacitors on, all regulators at this tap and batteries idle, int64 [num_actions]."""
    grid = task.grid
    sizes = (len(grid.capacitor_names), len(grid.tap_names), len(grid.generator_names))
    return np.repeat(np.array([1, tap, IDLE]), sizes)


def _task(system: str, data: Path | None) -> PowerGym:
    if data is None:
        raise ConfigError("PowerGym's data files are not part of GridRay: give --data, the folder that has `systems`.")
    return PowerGym(PowerGymConfig(system=system, data=str(data)))


def _tap_level(policy: str) -> int:
    if policy in POLICIES:
        return NUM_TAPS - 1
    static = re.fullmatch(r"static-(\d+)", policy)
    if static is None or int(static[1]) >= NUM_TAPS:
        raise ConfigError(f"There is no policy '{policy}': give static-0..static-32, hold, random or utility.")
    return int(static[1])


ANCHOR = Anchor(tuple(SYSTEMS), "static-0..static-32, hold, random, utility", play, compare)
