"""Customers that leave out part of their load on request and take it back later."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.devices.controllable_load import ControllableLoad, step_load
from gridray.tasks.base import ActionChannel, ObservationChannel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.tasks.twin import Loads, TwinState

LONGEST_OWED_H = 4.0
"""Hours of the most that may be left out which may be owed at a time."""


class FlexibleState(NamedTuple):
    """base_kw, base_kvar: float64 [N, E], what the customers would draw; owed_kwh: float64 [N, E]."""

    base_kw: NDArray[np.float64]
    base_kvar: NDArray[np.float64]
    owed_kwh: NDArray[np.float64]


class FlexibleLoads:
    """Loads of the feeder of which a share may be left out; a set-point is the power left out."""

    kind = "flexible_load"
    quantities = ("shed_kwh",)

    def __init__(
        self, feeder: Feeder, loads: Loads, numbers: Sequence[int], share: float, rebound: float, step_h: float
    ) -> None:
        """Take loads by their number in the feeder.

        Args:
            feeder: whose loads they are.
            loads: the customers.
            numbers: of the flexible loads.
            share: most of each that may be left out.
            rebound: energy that comes back per energy left out.
            step_h: length of an interval, h.
        """
        self._rows = np.array(numbers, dtype=np.int64)
        self.names = tuple(feeder.loads[n].name for n in numbers)
        self.buses = tuple(feeder.loads[n].bus for n in numbers)
        self._step_h = step_h
        most_kw = share * loads.kw[self._rows][:, None]
        one = np.ones_like(most_kw)
        self.load = ControllableLoad(share * one, rebound * one, most_kw, LONGEST_OWED_H * most_kw)
        self.action_channels = tuple(
            ActionChannel(f"flexible_load.{name}.shed_kw", "kW", 0.0, float(kw), "continuous")
            for name, kw in zip(self.names, most_kw[:, 0], strict=True)
        )
        self.observation_channels = tuple(
            channel
            for name, kw in zip(self.names, most_kw[:, 0], strict=True)
            for channel in (
                ObservationChannel(f"flexible_load.{name}.base_kw", "kW", 0.0, share / float(kw)),
                ObservationChannel(f"flexible_load.{name}.owed_kwh", "kWh", 0.0, 1.0 / (LONGEST_OWED_H * float(kw))),
            )
        )

    def new_state(self, num_envs: int) -> FlexibleState:
        """Return customers who owe nothing."""
        return FlexibleState(*(np.zeros((len(self.names), num_envs)) for _ in range(3)))

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> FlexibleState:  # noqa: ARG002
        """Take what the customers would draw."""
        own: FlexibleState = state.fleets[self.kind]
        base_kw, base_kvar = state.grid.items_kw[self._rows], state.grid.items_kvar[self._rows]
        return own._replace(base_kw=base_kw, base_kvar=base_kvar)

    def act(
        self, state: TwinState, set_points: NDArray[np.float64]
    ) -> tuple[FlexibleState, dict[str, NDArray[np.float64]]]:
        """Leave out what is asked, or take back what is owed; reactive power follows."""
        own: FlexibleState = state.fleets[self.kind]
        done = step_load(self.load, own.owed_kwh, own.base_kw, set_points, self._step_h)
        share = np.divide(-done.kw, own.base_kw, out=np.ones_like(done.kw), where=own.base_kw > 0.0)
        state.grid.items_kw[self._rows], state.grid.items_kvar[self._rows] = -done.kw, share * own.base_kvar
        own = own._replace(owed_kwh=done.owed_kwh)
        return own, {"shed_kwh": done.shed_kw.sum(axis=0) * self._step_h}

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return what each would draw and owes."""
        own: FlexibleState = state.fleets[self.kind]
        return np.stack((own.base_kw, own.owed_kwh), axis=1).reshape(len(self.observation_channels), len(state.t))
