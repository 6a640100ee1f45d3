"""A policy for some kinds of devices, beside the controls that the utility has for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError
from gridray.policies.utility_controls import UtilityControls
from gridray.tasks.base import device_kinds

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from gridray.policies.base import Policy
    from gridray.tasks.base import Task


class WithControls:
    """A policy whose set-points count for devices of these kinds; all others follow the utility's controls.

    For a policy that learnt what some devices can do from data in which the others were left to their controls: on
    another feeder it is these controls, made for that feeder, that know its taps and capacitors.
    """

    def __init__(self, policy: Policy, task: Task, kinds: Collection[str]) -> None:
        """Take settings of the controls from the task's feeder.

        Args:
            policy: acts on the task, all of whose observations it sees.
            task: what it acts on.
            kinds: of devices that it commands, as their actions' names begin, such as "pv".

        Raises:
            ConfigError: the task commands no device of any of these kinds.
        """
        own = device_kinds(task.action_channels)
        if not set(kinds) & set(own):
            raise ConfigError(
                f"kinds is {sorted(kinds)}, but '{task.name}' has no such device here: "
                f"give some of {', '.join(dict.fromkeys(own))}."
            )
        self.name = policy.name
        self._policy, self._controls = policy, UtilityControls(task)
        self._is_own = np.array([kind in kinds for kind in own])

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return actions, float32 [num_envs, num_actions]."""
        return np.where(self._is_own, self._policy.act(observations, rng), self._controls.act(observations, rng))
