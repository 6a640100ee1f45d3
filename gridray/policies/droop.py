"""Inverters on a volt-var curve, regulators and capacitors on their own controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.policies.base import observed
from gridray.policies.utility_controls import UtilityControls
from gridray.tasks.scaling import action_ranges, encode_rows, observation_scales, physical_rows

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
        self._ranges = action_ranges(task.action_channels)
        names = [channel.name for channel in task.observation_channels]
        rows = {channel.name: row for row, channel in enumerate(task.action_channels)}
        self._inverters = []
        for inverter in task.feeder.generators:
            columns = [observed(self.name, names, f"vmag_pu.{inverter.bus}.{phase}") for phase in inverter.phases]
            scales = observation_scales([task.observation_channels[column] for column in columns])
            set_by = [rows[name] for kind in ("pv", "battery") if (name := f"{kind}.{inverter.name}.kvar") in rows]
            self._inverters.append((columns, scales, set_by))

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """Return actions, float32 [num_envs, num_actions]."""
        values = self._utility.set_points(observations)
        for columns, scales, set_by in self._inverters:
            v = physical_rows(scales, observations[:, columns]).mean(axis=1)
            values[set_by] = np.interp(v, CURVE_V_PU, CURVE_Q_SHARE) * self._ranges.high[set_by, None]
        return encode_rows(self._ranges, values)
