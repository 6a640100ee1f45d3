"""A policy that knows the best of each whole day in advance, and the bound that no policy passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.errors import ConfigError
from gridray.physics.controls import TAP_STEP
from gridray.policies.hold import unlimited
from gridray.policies.optimal.hindsight import BestDay, best_volt_var_day
from gridray.policies.optimal.storage import best_storage_day
from gridray.tasks.base import scaled_actions
from gridray.tasks.fleets.regulators import MAX_TAP_CHANGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from gridray.tasks.base import Task
    from gridray.tasks.twin import TwinState

PLANNERS: dict[str, Callable[[Any, int], BestDay]] = {"volt_var": best_volt_var_day, "storage": best_storage_day}
"""Task name -> what finds the best of one of its days."""


class PerfectPlan:
    """Follows the optimum of each whole day, known in advance: what the twin gives for it is a score that exists."""

    name = "perfect_plan"

    def __init__(self, task: Task) -> None:
        """Plan days as they come.

        Raises:
            ConfigError: nobody has written this task's programme.
        """
        if task.name not in PLANNERS:
            raise ConfigError(
                f"Task '{task.name}' has no optimisation bound: those with one are {', '.join(PLANNERS)}."
            )
        self._task = task
        self._days: dict[int, BestDay] = {}

    def best(self, day: int) -> BestDay:
        """Return bound and plan of a day."""
        if day not in self._days:
            self._days[day] = PLANNERS[self._task.name](self._task, day)
        return self._days[day]

    def act_on(self, state: TwinState, rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """Return the plan's actions, float32 [num_envs, num_actions]."""
        best = [self.best(int(day)).set_points for day in state.day]
        channels = self._task.action_channels
        values = {channel.name: np.full(len(best), unlimited(channel)) for channel in channels}
        values |= {name: np.array([plan[name][t] for plan, t in zip(best, state.t, strict=True)]) for name in best[0]}
        steps = np.rint((state.grid.taps - 1.0) / TAP_STEP)
        for row, name in enumerate(self._task.grid.tap_names):
            if f"regulator.{name}.tap" in values:
                change = values[f"regulator.{name}.tap"] - steps[row]
                values[f"regulator.{name}.tap_change"] = np.clip(change, -MAX_TAP_CHANGE, MAX_TAP_CHANGE)
        return scaled_actions(channels, values)
