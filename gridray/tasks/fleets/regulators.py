"""Step voltage regulators that take tap changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.physics.controls import MAX_STEP, TAP_STEP
from gridray.physics.measure import control_voltages
from gridray.tasks.base import ActionChannel, ObservationChannel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.tasks.twin import TwinState

MAX_TAP_CHANGE = 4
"""Tap steps that one action may move a regulator."""


class RegulatorState(NamedTuple):
    """Taps are the grid's: nothing of its own."""


class Regulators:
    """Every regulator of the feeder; an action moves its tap by whole steps, cut at its ends."""

    kind = "regulator"
    quantities = ("tap_operations",)

    def __init__(self, feeder: Feeder, grid: CompiledFeeder) -> None:
        """Take the regulators of a compiled feeder."""
        self._grid = grid
        self.names = grid.tap_names
        windings = {transformer.name: transformer.windings for transformer in feeder.transformers}
        self.buses = tuple(windings[name][1].bus for name in self.names)
        self.action_channels = tuple(
            ActionChannel(f"regulator.{name}.tap_change", "step", -MAX_TAP_CHANGE, MAX_TAP_CHANGE, "integer")
            for name in self.names
        )
        self.observation_channels = tuple(
            channel
            for name in self.names
            for channel in (
                ObservationChannel(f"regulator.{name}.tap", "step", 0.0, 1.0 / MAX_STEP),
                ObservationChannel(f"regulator.{name}.control_v", "V", 120.0, 1.0 / 6.0),
            )
        )

    def new_state(self, num_envs: int) -> RegulatorState:  # noqa: ARG002
        """Return nothing."""
        return RegulatorState()

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> RegulatorState:  # noqa: ARG002
        """Do nothing."""
        return RegulatorState()

    def act(
        self, state: TwinState, set_points: NDArray[np.float64]
    ) -> tuple[RegulatorState, dict[str, NDArray[np.float64]]]:
        """Move the taps."""
        steps = np.rint((state.grid.taps - 1.0) / TAP_STEP)
        moved = np.clip(steps + set_points, -MAX_STEP, MAX_STEP)
        state.grid = state.grid._replace(taps=1.0 + moved * TAP_STEP)
        return RegulatorState(), {"tap_operations": np.abs(moved - steps).sum(axis=0)}

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return tap and control voltage of each."""
        steps = (state.grid.taps - 1.0) / TAP_STEP
        seen = control_voltages(self._grid, state.grid, state.v)
        return np.stack((steps, seen), axis=1).reshape(len(self.observation_channels), -1)
