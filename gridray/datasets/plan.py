"""Which episode is recorded when and into which shard: decided by the settings, whoever records."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import numpy as np

from gridray.profiles.processes import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

FIRST_DATE = np.datetime64(Clock.start, "D")
"""Date of day 0 of the series, whose local mean time counts as UTC."""


class PlannedShard(NamedTuple):
    """One Parquet file: its place in the folder of shards, the day it holds and the numbers of its episodes."""

    file: str
    day: int
    episodes: NDArray[np.int64]


class ShardPlan:
    """Episodes in order of their days, cut into shards of one day each."""

    def __init__(
        self,
        *,
        utility: str,
        allowed_days: NDArray[np.int64],
        num_episodes: int,
        episodes_per_shard: int,
        seed: int,
    ) -> None:
        """Draw the days; those of fewer episodes come first in those of more."""
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, 0)))
        self.days: NDArray[np.int64] = allowed_days[(rng.random(num_episodes) * len(allowed_days)).astype(np.int64)]
        order = np.argsort(self.days, kind="stable")
        starts = np.flatnonzero(np.diff(self.days[order], prepend=-1))
        self.shards: list[PlannedShard] = []
        for first, last in zip(starts, [*starts[1:], num_episodes], strict=True):
            day = int(self.days[order[first]])
            for part, start in enumerate(range(first, last, episodes_per_shard)):
                file = f"{day_folder(utility, FIRST_DATE + day)}/shard-{part:06d}.parquet"
                self.shards.append(PlannedShard(file, day, order[start : min(start + episodes_per_shard, last)]))

    def blocks(self, todo: Iterable[int], num_envs: int) -> list[list[int]]:
        """Return runs of the shards `todo`, each of at most num_envs episodes where shards are not larger."""
        return _cut(list(todo), num_envs, lambda shard: len(self.shards[shard].episodes))


def day_folder(utility: str, date: np.datetime64) -> str:
    """Return the folder of a utility's day, `utility=north/day=2024-01-05`, as Hive lays out partitions."""
    return f"utility={quote(utility, safe='') or '_'}/day={date}"


def _cut(items: list[int], size: int, weight: Callable[[int], int]) -> list[list[int]]:
    runs: list[list[int]] = []
    total = size
    for item in items:
        if not runs or total + weight(item) > size:
            runs.append([])
            total = 0
        runs[-1].append(item)
        total += weight(item)
    return runs
