"""Step voltage regulators that take tap changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.devices.switching import OperationState, fresh_operations
from gridray.errors import ConfigError
from gridray.physics.controls import MAX_STEP, TAP_STEP
from gridray.physics.measure import control_voltages
from gridray.tasks.base import ActionChannel, ObservationChannel
from gridray.tasks.fleets.operations import NO_BUDGET, OperationBudget, budgeted, operations_ready

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.physics.compiled import CompiledFeeder
    from gridray.tasks.twin import TwinState

MAX_TAP_CHANGE = 4
"""Tap steps that one action may move a regulator."""


class Regulators:
    """Every regulator of the feeder; an action moves its tap by whole steps, cut at its ends and by the budget."""

    kind = "regulator"
    quantities = ("tap_operations", "refused_operations")

    def __init__(
        self, feeder: Feeder, grid: CompiledFeeder, step_h: float, budget: OperationBudget = NO_BUDGET
    ) -> None:
        """Take the regulators of a compiled feeder; step_h: length of an interval, h.

        Raises:
            ConfigError: a regulator does not move by 0.00625 from 0.9 to 1.1.
        """
        for name, step in zip(grid.tap_names, grid.sensing.step_pu.tolist(), strict=True):
            if abs(step - TAP_STEP) > 1e-9:
                raise ConfigError(
                    f"Regulator '{name}' has taps of {step:g}: tasks move regulators by {TAP_STEP}; give its winding "
                    "num_taps=32, min_tap=0.9 and max_tap=1.1."
                )
        self._grid = grid
        self._step_h = step_h
        self._budget = budget
        self.names = grid.tap_names
        windings = {transformer.name: transformer.windings for transformer in feeder.transformers}
        self.buses = tuple(windings[name][1].bus for name in self.names)
        self.action_channels = tuple(
            ActionChannel(f"regulator.{name}.tap_change", "step", -MAX_TAP_CHANGE, MAX_TAP_CHANGE, "integer")
            for name in self.names
        )
        # What is seen is 0 at the regulator's own set-point, alike on all feeders, and in volts, as a tap's effect is.
        self.observation_channels = tuple(
            channel
            for name, set_point_v in zip(self.names, grid.sensing.vreg_v.tolist(), strict=True)
            for channel in (
                ObservationChannel(f"regulator.{name}.tap", "step", 0.0, 1.0 / MAX_STEP),
                ObservationChannel(f"regulator.{name}.control_v", "V", set_point_v, 1.0),
                *([ObservationChannel(f"regulator.{name}.is_ready", "1", 0.5, 2.0)] if budget.is_observed else []),
            )
        )

    def new_state(self, num_envs: int) -> OperationState:
        """Return regulators that have not moved yet."""
        return fresh_operations(len(self.names), num_envs)

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> OperationState:  # noqa: ARG002
        """Stay as they are."""
        own: OperationState = state.fleets[self.kind]
        return own

    def act(
        self, state: TwinState, set_points: NDArray[np.float64]
    ) -> tuple[OperationState, dict[str, NDArray[np.float64]]]:
        """Move the taps."""
        steps = np.rint((state.grid.taps - 1.0) / TAP_STEP)
        wanted = np.clip(steps + set_points, -MAX_STEP, MAX_STEP) - steps
        made, own, refused = budgeted(self._budget, state.fleets[self.kind], wanted, self._step_h)
        state.grid = state.grid._replace(taps=1.0 + (steps + made) * TAP_STEP)
        return own, {"tap_operations": np.abs(made).sum(axis=0), "refused_operations": refused}

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return tap and control voltage of each, and whether it may move if that is limited."""
        rows = [(state.grid.taps - 1.0) / TAP_STEP, control_voltages(self._grid, state.grid)]
        if self._budget.is_observed:
            rows.append(operations_ready(self._budget, state.fleets[self.kind]))
        return np.stack(rows, axis=1).reshape(len(self.observation_channels), len(state.t))
