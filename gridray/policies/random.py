"""Uniform random actions: the floor of every comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.base import Task


class RandomPolicy:
    """Draws every action uniformly from [-1, 1]."""

    name = "random"

    def __init__(self, task: Task) -> None:
        """Act on this task."""
        self._num_actions = len(task.action_channels)

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return random actions, float32 [num_envs, num_actions]."""
        return rng.uniform(-1.0, 1.0, (len(observations), self._num_actions)).astype(np.float32)
