"""Switched capacitor banks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.tasks.base import ActionChannel, ObservationChannel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.tasks.twin import TwinState


class CapacitorState(NamedTuple):
    """Positions are the grid's: nothing of its own."""


class Capacitors:
    """Every bank of the feeder; an action closes it, opens it or keeps it."""

    kind = "capacitor"
    quantities = ("capacitor_operations",)

    def __init__(self, feeder: Feeder) -> None:
        """Take the banks of a feeder."""
        self.names = tuple(capacitor.name for capacitor in feeder.capacitors)
        self.buses = tuple(capacitor.bus for capacitor in feeder.capacitors)
        self.action_channels = tuple(
            ActionChannel(f"capacitor.{name}.state", "1", 0.0, 1.0, "switch") for name in self.names
        )
        self.observation_channels = tuple(
            ObservationChannel(f"capacitor.{name}.state", "1", 0.5, 2.0) for name in self.names
        )

    def new_state(self, num_envs: int) -> CapacitorState:  # noqa: ARG002
        """Return nothing."""
        return CapacitorState()

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> CapacitorState:  # noqa: ARG002
        """Do nothing."""
        return CapacitorState()

    def act(
        self, state: TwinState, set_points: NDArray[np.float64]
    ) -> tuple[CapacitorState, dict[str, NDArray[np.float64]]]:
        """Switch; NaN keeps."""
        before = state.grid.capacitor_states
        after = np.where(np.isnan(set_points), before, set_points)
        state.grid = state.grid._replace(capacitor_states=after)
        return CapacitorState(), {"capacitor_operations": np.abs(after - before).sum(axis=0)}

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return the positions."""
        return state.grid.capacitor_states
