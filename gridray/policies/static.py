"""The best setting that never changes, found on training days."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError
from gridray.physics.controls import MAX_STEP
from gridray.policies.search import SearchSpace, action_space, coordinate_search
from gridray.tasks.base import physical_observations, scaled_actions, set_points
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.tasks.base import Task

NUM_DAYS = 8
"""Training days of the search, spread over the year."""
SIZES = (0.5, 0.5, 0.25, 0.25, 0.12, 0.06)


class StaticSetting:
    """Regulators at a tap, switches at a position, set-points at a value, all day long.

    A setting is a point [num_actions]: the tap -16..16 for a regulator, 1 or -1 for a switch, else the action. A
    regulator moves to its tap as fast as the task lets it.
    """

    name = "static"

    def __init__(self, task: Task, setting: NDArray[np.float64] | None = None) -> None:
        """Take a setting, or find the best one on the training days of a task that names which days these are."""
        self._channels, self._actions = task.observation_channels, task.action_channels
        names = [channel.name for channel in task.observation_channels]
        self._seen = {
            column: names.index(channel.name.removesuffix("_change"))
            for column, channel in enumerate(task.action_channels)
            if channel.kind == "integer" and channel.name.removesuffix("_change") in names
        }
        self.setting = best_setting(task) if setting is None else setting

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """Return actions towards the setting, float32 [num_envs, num_actions]."""
        settings = np.broadcast_to(self.setting, (len(observations), len(self._actions)))
        return self.towards(settings, observations)

    def towards(self, settings: NDArray[np.float64], observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return actions towards a setting of each row, [num_envs, num_actions]."""
        seen = physical_observations(self._channels, observations)
        decoded = set_points(self._actions, settings)
        values = {}
        for column, channel in enumerate(self._actions):
            target = decoded[:, column]
            if column in self._seen:
                target = np.clip(settings[:, column] - np.rint(seen[:, self._seen[column]]), channel.low, channel.high)
            elif channel.kind == "integer":
                target = np.zeros(len(settings))
            values[channel.name] = target
        return scaled_actions(self._actions, values)


def best_setting(task: Task, *, num_days: int = NUM_DAYS, sizes: Sequence[float] = SIZES) -> NDArray[np.float64]:
    """Return the setting of the highest mean return over training days, by coordinate search; [num_actions].

    Raises:
        ConfigError: the task's configuration does not tell training days from held-out ones.
    """
    config = task.config_dict()
    if "days" not in config:
        raise ConfigError(f"Task '{task.name}' has no training days: a static setting must not be found on test days.")
    trained = make_task(task.name, config | {"days": "train"})
    days = trained.allowed_days()
    days = days[np.unique(np.linspace(0, len(days) - 1, num_days).round().astype(np.int64))]
    start = _start(trained)
    policy = StaticSetting(trained, start)

    def score(settings: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the mean return of settings [K, 1, C] over the days, [K, 1]."""
        rows = np.repeat(settings[:, 0], len(days), axis=0)
        state = trained.new_state(len(rows))
        trained.reset(state, np.arange(len(rows)), np.tile(days, len(settings)), np.zeros(len(rows), dtype=np.uint64))
        total = np.zeros(len(rows))
        for _ in range(trained.num_steps):
            total += trained.step(state, policy.towards(rows, trained.observe(state))).rewards
        means: NDArray[np.float64] = total.reshape(len(settings), len(days)).mean(axis=1, keepdims=True)
        return means

    found, _ = coordinate_search(score, start[None], _space(trained), sizes)
    setting: NDArray[np.float64] = found[0]
    return setting


def _space(task: Task) -> SearchSpace:
    low, high, is_whole = action_space(task.action_channels)
    is_tap = np.array([channel.kind == "integer" for channel in task.action_channels])
    return SearchSpace(np.where(is_tap, -MAX_STEP, low), np.where(is_tap, MAX_STEP, high), is_whole)


def _start(task: Task) -> NDArray[np.float64]:
    """Return taps in the middle, switches as they are (keep), and what devices do if left alone."""
    start: NDArray[np.float64] = scaled_actions(task.action_channels, {})[0].astype(np.float64)
    start[[channel.kind == "integer" for channel in task.action_channels]] = 0.0
    return start
