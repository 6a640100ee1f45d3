"""Look ahead on copies of the twin: greedy for one interval, or over a horizon that recedes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError
from gridray.policies.search import SearchSpace, action_space, actions_of, coordinate_search, points_of
from gridray.policies.utility_controls import UtilityControls
from gridray.tasks.base import has_levels
from gridray.tasks.fork import fork

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.tasks.base import Task
    from gridray.tasks.twin import TwinState

MOST_ROWS = 8192
"""Candidates that are stepped together, times environments."""


class LookAhead:
    """Searches set-points on copies of the twin; what is tried there is what would happen: forecasts are perfect.

    A plan has `num_blocks` actions, each held for an equal part of the horizon; taps and switches move at its start
    only. The search begins at the utility's action or the rest of the last plan, whichever is better.
    """

    name = "look_ahead"

    def __init__(self, task: Task, *, horizon: int, num_blocks: int = 1, sizes: Sequence[float] = (0.5, 0.2)) -> None:
        """Look `horizon` intervals ahead; `sizes` are those of `coordinate_search`.

        Raises:
            ConfigError: blocks are not 1..horizon in number, or the task acts by levels.
        """
        if not 1 <= num_blocks <= horizon:
            raise ConfigError(f"num_blocks is {num_blocks} and horizon {horizon}: give 1 <= num_blocks <= horizon.")
        if has_levels(task.action_channels):
            raise ConfigError(f"Task '{task.name}' acts by levels: look-ahead searches set-points in [-1, 1] only.")
        self._task = task
        self._base = UtilityControls(task)
        self._channels = task.action_channels
        self._sizes = tuple(sizes)
        self._block = np.arange(horizon) * num_blocks // horizon
        low, high, is_whole = action_space(self._channels)
        self._space = SearchSpace(np.tile(low, num_blocks), np.tile(high, num_blocks), np.tile(is_whole, num_blocks))
        self._moves_once = np.array([channel.kind in {"integer", "switch"} for channel in self._channels])
        self._plan: NDArray[np.float64] | None = None
        self._next_t = -1

    def act_on(self, state: TwinState, rng: np.random.Generator) -> NDArray[np.float32]:
        """Return the first action of the best plan found, float32 [num_envs, num_actions]."""
        num_envs, num_channels = len(state.t), len(self._channels)
        base = points_of(self._channels, self._base.act(self._task.observe(state), rng))
        later = np.where(self._moves_once, 0.0, base)
        num_blocks = len(self._space.low) // num_channels
        start = np.concatenate([base] + [later] * (num_blocks - 1), axis=1)

        def score(plans: NDArray[np.float64]) -> NDArray[np.float64]:
            return self._returns(state, plans)

        if self._plan is not None and self._plan.shape == start.shape and (state.t == self._next_t).all():
            blocks = self._plan.reshape(num_envs, num_blocks, num_channels)
            kept = np.where(self._moves_once, 0.0, blocks).reshape(start.shape)
            values = score(np.stack((start, kept)))
            start = np.where((values[1] > values[0])[:, None], kept, start)
        self._plan, _ = coordinate_search(score, start, self._space, self._sizes)
        self._next_t = int(state.t[0]) + 1
        return actions_of(self._channels, self._plan[:, :num_channels])

    def _returns(self, state: TwinState, plans: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the rewards' sum over the horizon of plans [K, E, blocks * C], or to the end of the day; [K, E]."""
        num_plans, num_envs = plans.shape[:2]
        num_steps = min(len(self._block), self._task.num_steps - int(state.t.max()))
        rows = np.tile(np.arange(num_envs), num_plans)
        points = plans.reshape(len(rows), -1, len(self._channels))
        total = np.zeros(len(rows))
        for first in range(0, len(rows), MOST_ROWS):
            part = slice(first, first + MOST_ROWS)
            copies = fork(state, rows[part])
            for step in range(num_steps):
                acted = points[part, self._block[step]]
                if step and self._block[step] == self._block[step - 1]:
                    acted = np.where(self._moves_once, 0.0, acted)
                total[part] += self._task.step(copies, actions_of(self._channels, acted)).rewards
        return total.reshape(num_plans, num_envs)


class Greedy(LookAhead):
    """Best of the present interval, whatever comes after."""

    name = "greedy"

    def __init__(self, task: Task) -> None:
        """Look one interval ahead."""
        super().__init__(task, horizon=1, sizes=(0.5, 0.5, 0.25, 0.1))


class RecedingHorizon(LookAhead):
    """Plan some hours ahead with perfect forecasts, take the first action, plan again."""

    name = "receding_horizon"

    def __init__(self, task: Task) -> None:
        """Look four hours ahead in two blocks, at most eight intervals."""
        horizon = min(max(task.num_steps // 6, 2), 8)
        super().__init__(task, horizon=horizon, num_blocks=2, sizes=(0.4, 0.15))
