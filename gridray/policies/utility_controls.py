"""What utilities do today: regulators and capacitors follow local controls, everything else runs as it likes."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np
from numba import njit

from gridray.physics.controls import MAX_STEP
from gridray.policies.base import observed
from gridray.policies.restoration import Restoration
from gridray.tasks.base import physical_observations
from gridray.tasks.scaling import action_ranges, encode_rows, observation_scales, physical_rows

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
        names = [channel.name for channel in task.observation_channels]
        rows = {channel.name: row for row, channel in enumerate(task.action_channels)}
        self._ranges = action_ranges(task.action_channels)
        self._sensing = task.grid.sensing
        regulators = [f"regulator.{name}" for name in task.grid.tap_names if f"regulator.{name}.tap_change" in rows]
        self._tap_rows = [rows[f"{name}.tap_change"] for name in regulators]
        self._is_above = regulators_above(task)
        # A regulator further down waits, and acts on what those above it have left of the error.
        self._order = np.argsort(self._is_above.sum(axis=1), kind="stable")
        banks = [
            (
                rows[f"capacitor.{bank.name}.state"],
                [observed(self.name, names, f"vmag_pu.{bank.bus}.{phase}") for phase in bank.phases],
            )
            for bank in task.feeder.capacitors
            if f"capacitor.{bank.name}.state" in rows
        ]
        read = [observed(self.name, names, f"{name}.{seen}") for seen in ("tap", "control_v") for name in regulators]
        self._banks = []
        for row, columns in banks:
            self._banks.append((row, slice(len(read), len(read) + len(columns))))
            read += columns
        self._channels, self._read = task.observation_channels, read
        self._read_scales = observation_scales([task.observation_channels[column] for column in read])
        has_faults = any(name.startswith("zone.") and name.endswith(".repair_h") for name in names)
        self._restoration = Restoration(task, names) if has_faults else None
        switches = self._restoration.names if self._restoration is not None else ()
        self._switch_rows = [rows[f"switch.{name}.state"] for name in switches]

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """Return the local controls' actions, float32 [num_envs, num_actions]."""
        return encode_rows(self._ranges, self.set_points(observations))

    def set_points(self, observations: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return set-points, float64 [num_actions, num_envs], for observations [num_envs, num_observations]."""
        seen = physical_rows(self._read_scales, observations[:, self._read]).T
        values = np.repeat(self._ranges.neutral[:, None], len(observations), axis=1)
        num_taps, sensing = len(self._tap_rows), self._sensing
        if num_taps:
            steps, control_v = np.rint(seen[:num_taps]), np.ascontiguousarray(seen[num_taps : 2 * num_taps])
            changes = np.zeros_like(steps)
            settings = (sensing.vreg_v, sensing.band_v, sensing.step_v)
            _steps_into_band(self._order, self._is_above, settings, control_v, steps, changes)
            values[self._tap_rows] = changes
        for row, rows in self._banks:
            v = seen[rows].mean(axis=0)
            values[row] = np.where(v < CAPACITOR_ON_PU, 1.0, np.where(v > CAPACITOR_OFF_PU, 0.0, np.nan))
        if self._restoration is not None:
            values[self._switch_rows] = self._restoration.positions(physical_observations(self._channels, observations))
        return values


@njit(cache=True, nogil=True)
def _steps_into_band(
    order: NDArray[np.int64],
    is_above: NDArray[np.float64],
    settings: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    control_v: NDArray[np.float64],
    steps: NDArray[np.float64],
    changes: NDArray[np.float64],
) -> None:
    """Find the fewest steps that bring each control's voltage into its band: what a regulator does in minutes.

    A regulator steps one tap at a time until it sees its band; one without voltage has no supply itself.

    Args:
        order: of the regulators, those above others first.
        is_above: [num_taps, num_taps], see `regulators_above`.
        settings: set-point, bandwidth and step of each control, V, float64 [num_taps] each.
        control_v: what the controls see, V, [num_taps, E].
        steps: present steps from the neutral tap, [num_taps, E].
        changes: filled with steps up or down, [num_taps, E].
    """
    vreg_v, band_v, step_v = settings
    num_taps, num_envs = steps.shape
    for row in order:
        for env in range(num_envs):
            passed = 0.0
            for other in range(num_taps):
                passed += is_above[row, other] * changes[other, env]
            missing = vreg_v[row] - (control_v[row, env] + passed * step_v[row])
            outside_v = abs(missing) - band_v[row] / 2.0
            moved = steps[row, env]
            if missing < vreg_v[row] and outside_v > 0.0:
                moved += np.sign(missing) * np.ceil(outside_v / step_v[row])
            changes[row, env] = min(max(moved, -MAX_STEP), MAX_STEP) - steps[row, env]


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
