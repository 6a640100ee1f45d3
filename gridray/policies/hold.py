"""Do nothing: what happens where nobody sends a set-point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.tasks.base import scaled_actions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.base import Task


class Hold:
    """Every device at its channel's neutral set-point: taps and switches stay, storage rests, power is not limited."""

    name = "hold"

    def __init__(self, task: Task) -> None:
        """Act on this task."""
        self._action = scaled_actions(task.action_channels, {})[0]

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """Return the same action for all, float32 [num_envs, num_actions]."""
        return np.repeat(self._action[None, :], len(observations), axis=0)
