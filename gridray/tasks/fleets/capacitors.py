"""Switched capacitor banks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.devices.switching import OperationState, fresh_operations
from gridray.tasks.base import ActionChannel, ObservationChannel
from gridray.tasks.fleets.operations import NO_BUDGET, OperationBudget, budgeted, operations_ready

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.tasks.twin import TwinState


class Capacitors:
    """Every bank of the feeder; an action closes it, opens it or keeps it."""

    kind = "capacitor"
    quantities = ("capacitor_operations", "refused_operations")

    def __init__(self, feeder: Feeder, step_h: float, budget: OperationBudget = NO_BUDGET) -> None:
        """Take the banks of a feeder; step_h: length of an interval, h."""
        self._step_h = step_h
        self._budget = budget
        self.names = tuple(capacitor.name for capacitor in feeder.capacitors)
        self.buses = tuple(capacitor.bus for capacitor in feeder.capacitors)
        self.action_channels = tuple(
            ActionChannel(f"capacitor.{name}.state", "1", 0.0, 1.0, "switch", None) for name in self.names
        )
        quantities = ("state", "is_ready") if budget.is_observed else ("state",)
        self.observation_channels = tuple(
            ObservationChannel(f"capacitor.{name}.{quantity}", "1", 0.5, 2.0)
            for name in self.names
            for quantity in quantities
        )

    def new_state(self, num_envs: int) -> OperationState:
        """Return banks that have not moved yet."""
        return fresh_operations(len(self.names), num_envs)

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> OperationState:  # noqa: ARG002
        """Stay as they are."""
        own: OperationState = state.fleets[self.kind]
        return own

    def act(
        self, state: TwinState, set_points: NDArray[np.float64]
    ) -> tuple[OperationState, dict[str, NDArray[np.float64]]]:
        """Switch; NaN keeps."""
        before = state.grid.capacitor_states
        wanted = np.where(np.isnan(set_points), 0.0, set_points - before)
        made, own, refused = budgeted(self._budget, state.fleets[self.kind], wanted, self._step_h)
        state.grid = state.grid._replace(capacitor_states=before + made)
        return own, {"capacitor_operations": np.abs(made).sum(axis=0), "refused_operations": refused}

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return the positions, and whether each bank may move if that is limited."""
        states = state.grid.capacitor_states
        if not self._budget.is_observed:
            return states
        ready = operations_ready(self._budget, state.fleets[self.kind])
        return np.stack((states, ready), axis=1).reshape(len(self.observation_channels), len(state.t))
