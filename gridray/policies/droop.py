"""Inverters on a volt-var curve, regulators and capacitors on their own controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.policies.utility_controls import UtilityControls
from gridray.tasks.base import physical_observations, scaled_actions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.base import Task

CURVE_V_PU = (0.92, 0.98, 1.02, 1.08)
CURVE_Q_SHARE = (1.0, 0.0, 0.0, -1.0)
"""IEEE 1547-2018 table 8, category B default volt-var curve; Q over the inverter's reactive capability."""


class Droop:
    """IEEE 1547 volt-var droop at every inverter, on the mean voltage of its phases, over the utility's controls."""

    name = "droop"

    def __init__(self, task: Task) -> None:
        """Take settings from the task's feeder."""
        self._utility = UtilityControls(task)
        self._channels, self._actions = task.observation_channels, task.action_channels
        names = [channel.name for channel in task.observation_channels]
        self._inverters = [
            (inverter.name, [names.index(f"vmag_pu.{inverter.bus}.{phase}") for phase in inverter.phases])
            for inverter in task.feeder.generators
        ]
        self._reactive = {channel.name: channel.high for channel in task.action_channels}

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """Return actions, float32 [num_envs, num_actions]."""
        seen = physical_observations(self._channels, observations)
        values = self._utility.set_points(seen)
        for name, columns in self._inverters:
            share = np.interp(seen[:, columns].mean(axis=1), CURVE_V_PU, CURVE_Q_SHARE)
            for kind in ("pv", "battery"):
                channel = f"{kind}.{name}.kvar"
                if channel in self._reactive:
                    values[channel] = share * self._reactive[channel]
        return scaled_actions(self._actions, values)
