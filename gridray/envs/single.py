"""One environment of a task, as gymnasium.Env."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

from gridray.envs.vector_env import GridVectorEnv, reset_options
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.base import Task


class GridEnv(gymnasium.Env[Any, Any]):
    """A single environment: a vector of one, without autoreset."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, task: Task) -> None:
        """Create the environment of this task."""
        self._vector = GridVectorEnv(task, 1, seed=None)
        self.task = task
        self.observation_space = self._vector.single_observation_space
        self.action_space = self._vector.single_action_space
        self._is_over = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a day; options={"day": int} names it."""
        day = reset_options(options, "day")["day"]
        observations, infos = self._vector.reset(seed=seed, options=None if day is None else {"days": [day]})
        super().reset(seed=seed)
        self._is_over = False
        return observations[0], _row(infos)

    def step(self, action: NDArray[Any]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Apply an action for one interval.

        Raises:
            ConfigError: the environment was not reset, its day is over, or the action is none of its space.
        """
        if self._is_over:
            raise ConfigError("The day is over: call reset before the next step.")
        if np.shape(action) != self.action_space.shape:
            raise ConfigError(f"The action has shape {np.shape(action)}: give {self.action_space.shape}.")
        observations, rewards, terminated, truncated, infos = self._vector.step(np.asarray(action)[None])
        self._is_over = bool(terminated[0] or truncated[0])
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _row(infos)


def _row(infos: dict[str, Any]) -> dict[str, Any]:
    return {name: values[0].item() for name, values in infos.items()}
