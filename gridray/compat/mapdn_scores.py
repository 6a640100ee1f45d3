"""Episodes of MAPDN's tasks under simple policies, and its two metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.compat.base import Anchor, Comparison, Played, Run
from gridray.compat.mapdn import Mapdn, MapdnConfig
from gridray.compat.mapdn_data import GRIDS
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

POLICIES = ("hold", "random", "droop")
NUM_DAYS = 5
STARTS = tuple(range(0, 1920, 160))
"""Starts of the compared episodes: every eight hours of four days."""


class Episodes(NamedTuple):
    """rewards: float64 [num_episodes, num_steps]; CR: share of controlled steps; QL: mean |q|, Mvar; [num_episodes]."""

    rewards: NDArray[np.float64]
    controllable_rate: NDArray[np.float64]
    q_loss_mvar: NDArray[np.float64]


def episodes(task: Mapdn, policy: str, starts: Sequence[int], *, seed: int = 0) -> Episodes:
    """Play episodes from these 3-minute intervals: hold (no reactive power), random, or droop on each PV's bus.

    Raises:
        ConfigError: no such policy or start.
    """
    if policy not in POLICIES:
        raise ConfigError(f"There is no policy '{policy}': give one of {', '.join(POLICIES)}.")
    last = int(task.allowed_days()[-1])
    if max(starts) > last:
        raise ConfigError(f"No episode starts at interval {max(starts)}: give one of 0..{last}.")
    rng = np.random.default_rng(seed)
    state = task.new_state(len(starts))
    task.reset(state, np.arange(len(starts)), np.asarray(starts, dtype=np.int64))
    shape = (len(starts), len(task.action_channels))
    results = []
    for _ in range(task.num_steps):
        actions = np.zeros(shape, dtype=np.float32)
        if policy == "random":
            actions = rng.uniform(-1.0, 1.0, shape).astype(np.float32)
        elif policy == "droop":
            actions = task.droop(state)
        result = task.step(state, actions)
        results.append((result.rewards, result.indicators["controllable"], result.indicators["q_loss_mvar"]))
    rewards, controllable, q_loss = (np.stack(values, axis=1) for values in zip(*results, strict=True))
    return Episodes(rewards, controllable.mean(axis=1), q_loss.mean(axis=1))


def play(run: Run, data: Path | None) -> Played:
    """Return one episode, 240 rewards, CR and QL; the profile is the 3-minute interval at which it starts."""
    played = episodes(_task(run.system, data), run.policy, [run.profile], seed=run.seed)
    metrics = {"CR": float(played.controllable_rate[0]), "QL_mvar": float(played.q_loss_mvar[0])}
    return Played(played.rewards[0], metrics)


def compare(data: Path | None) -> list[Comparison]:
    """Return CR and QL of the policies; the original's scores are of its own series, which are not available."""
    rows = []
    for grid in GRIDS:
        task = _task(grid, data)
        for policy in POLICIES:
            played = episodes(task, policy, STARTS)
            for quantity, values in (
                ("CR", played.controllable_rate),
                ("QL, Mvar", played.q_loss_mvar),
                ("return", played.rewards.sum(axis=1)),
            ):
                rows.append(Comparison(grid, f"{quantity}, {policy}", np.nan, float(values.mean()), "our series"))
    return rows


def _task(grid: str, data: Path | None) -> Mapdn:
    if data is None:
        raise ConfigError("MAPDN's grids are not part of GridRay: give --data, the folder with their tables.")
    return Mapdn(MapdnConfig(grid=grid, data=str(data), num_days=NUM_DAYS))


ANCHOR = Anchor(tuple(GRIDS), ", ".join(POLICIES), play, compare)
