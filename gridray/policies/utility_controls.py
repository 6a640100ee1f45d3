"""What utilities do today: regulators and capacitors follow local controls, everything else runs as it likes."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from gridray.physics.controls import steps_into_band
from gridray.policies.restoration import Restoration
from gridray.tasks.base import neutral_set_points, physical_observations, scaled_actions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.base import Task

CAPACITOR_ON_PU, CAPACITOR_OFF_PU = 0.975, 1.045
"""Usual settings of a voltage-controlled bank: close below, open above, on the mean of its phases."""


class UtilityControls:
    """Regulators with line-drop compensation, voltage-controlled capacitors, the rest as `Hold` leaves it.

    Inverters give all there is at unity power factor, cars charge as they come, batteries rest; after a fault switches
    restore supply. Where a task does not command regulators or capacitors, the twin runs their controls.
    """

    name = "utility_controls"

    def __init__(self, task: Task) -> None:
        """Take settings from the task's feeder."""
        self._channels, self._actions = task.observation_channels, task.action_channels
        self._sensing = task.grid.sensing
        self._names = [channel.name for channel in task.observation_channels]
        self._taps = self._columns("regulator.", ".tap")
        self._control_v = self._columns("regulator.", ".control_v")
        self._is_above = regulators_above(task)
        self._is_commanded = bool(self._taps)
        self._rank = np.array([int(row.sum()) for row in self._is_above], dtype=np.int64)
        self._capacitors = [
            (capacitor.name, [self._names.index(f"vmag_pu.{capacitor.bus}.{phase}") for phase in capacitor.phases])
            for capacitor in task.feeder.capacitors
            if any(channel.name == f"capacitor.{capacitor.name}.state" for channel in task.action_channels)
        ]
        has_faults = any(name.startswith("zone.") and name.endswith(".repair_h") for name in self._names)
        self._restoration = Restoration(task, self._names) if has_faults else None

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """Return the local controls' actions, float32 [num_envs, num_actions]."""
        seen = physical_observations(self._channels, observations)
        return scaled_actions(self._actions, self.set_points(seen))

    def set_points(self, seen: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return set-points by action name for physical observations [num_envs, num_observations]."""
        values = neutral_set_points(self._actions, len(seen))
        if self._is_commanded:
            values |= self._tap_changes(seen)
        for name, columns in self._capacitors:
            v = seen[:, columns].mean(axis=1)
            state = np.where(v < CAPACITOR_ON_PU, 1.0, np.where(v > CAPACITOR_OFF_PU, 0.0, np.nan))
            values[f"capacitor.{name}.state"] = state
        if self._restoration is not None:
            states = self._restoration.positions(seen)
            values |= {f"switch.{n}.state": row for n, row in zip(self._restoration.names, states, strict=True)}
        return values

    def _tap_changes(self, seen: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        steps = np.rint(seen[:, self._taps]).T
        control_v = seen[:, self._control_v].T
        changes = np.zeros_like(steps)
        for rank in range(self._rank.max(initial=0) + 1):
            # A regulator further down waits, and acts on what those above it have left of the error.
            expected = control_v + self._is_above @ changes * self._sensing.step_v[:, None]
            moved = steps_into_band(self._sensing, expected, steps)
            changes = np.where(self._rank[:, None] == rank, moved, changes)
        names = [self._names[column].removesuffix(".tap") for column in self._taps]
        return {f"{name}.tap_change": changes[row] for row, name in enumerate(names)}

    def _columns(self, prefix: str, suffix: str) -> list[int]:
        return [i for i, name in enumerate(self._names) if name.startswith(prefix) and name.endswith(suffix)]


def regulators_above(task: Task) -> NDArray[np.float64]:
    """Return 1 where regulator [row] is fed through [column] on the phase it measures, [num_taps, num_taps]."""
    feeder = task.feeder
    names = task.grid.tap_names
    windings = {t.name: t.windings for t in feeder.transformers if t.name in names}
    graph = nx.Graph()
    for line in feeder.lines:
        if not line.is_open:
            graph.add_edge(line.from_bus, line.to_bus)
    graph.add_edges_from((t.windings[0].bus, t.windings[1].bus) for t in feeder.transformers)
    above = np.zeros((len(names), len(names)))
    for row, name in enumerate(names):
        path = nx.shortest_path(graph, feeder.source.bus, windings[name][0].bus)
        passed = set(pairwise(path))
        phase = windings[name][1].phases[0]
        for column, other in enumerate(names):
            first, second = windings[other]
            above[row, column] = float((first.bus, second.bus) in passed and phase in second.phases)
    return above
