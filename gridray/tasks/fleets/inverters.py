"""PV and wind generators behind inverters: what the weather gives, cut and accompanied by reactive power."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.tasks.base import ActionChannel, ObservationChannel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.feeders.components import Generator
    from gridray.tasks.twin import TwinState

REACTIVE_SHARE = 0.44
"""Reactive power of an inverter over its rating, IEEE 1547-2018 category B."""


class InverterState(NamedTuple):
    """available_kw, kw, kvar: float64 [N, E], what the weather offers and what is injected."""

    available_kw: NDArray[np.float64]
    kw: NDArray[np.float64]
    kvar: NDArray[np.float64]


class Inverters:
    """Generators of one kind; set-points are a limit of active power and a reactive power within kVA."""

    quantities = ("curtailed_kwh",)

    def __init__(
        self,
        kind: str,
        generators: Sequence[Generator],
        first_item: int,
        available_pu: NDArray[np.float32],
        step_h: float,
    ) -> None:
        """Take generators whose first is item `first_item` of the grid.

        Args:
            kind: such as "pv".
            generators: the feeder's, in its order.
            first_item: row of the first one in GridState.items_kw.
            available_pu: float32 [num_series_steps, N], power that the weather offers over the rating.
            step_h: length of an interval, h.
        """
        self.kind = kind
        self.names = tuple(generator.name for generator in generators)
        self.buses = tuple(generator.bus for generator in generators)
        self._items = slice(first_item, first_item + len(generators))
        self._kw = np.array([generator.kw for generator in generators])[:, None]
        self._kva = np.array([generator.kva for generator in generators])[:, None]
        self._available_pu = available_pu
        self._step_h = step_h
        self.action_channels = tuple(
            channel
            for generator in generators
            for channel in inverter_actions(kind, generator.name, 0.0, generator.kw, generator.kva)
        )
        self.observation_channels = tuple(
            ObservationChannel(f"{kind}.{name}.{quantity}", "pu of kVA", 0.0, 1.0)
            for name in self.names
            for quantity in ("available", "kw", "kvar")
        )

    def new_state(self, num_envs: int) -> InverterState:
        """Return inverters that give nothing yet."""
        zero = np.zeros((len(self.names), num_envs))
        return InverterState(zero, zero, zero)

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> InverterState:
        """Take the weather; at the start of an episode all of it is injected, later no more than the last set-point."""
        own: InverterState = state.fleets[self.kind]
        available = np.minimum(self._kw * self._available_pu[step].T, self._kw)
        kw = np.where(state.t == 0, available, np.minimum(own.kw, available))
        return self._inject(state, InverterState(available, kw, own.kvar))

    def act(
        self, state: TwinState, set_points: NDArray[np.float64]
    ) -> tuple[InverterState, dict[str, NDArray[np.float64]]]:
        """Follow the set-points."""
        own: InverterState = state.fleets[self.kind]
        kw = np.minimum(set_points[::2], own.available_kw)
        most = np.sqrt(np.maximum(self._kva**2 - kw**2, 0.0))
        own = own._replace(kw=kw, kvar=np.clip(set_points[1::2], -most, most))
        curtailed = (own.available_kw - kw).sum(axis=0) * self._step_h
        return self._inject(state, own), {"curtailed_kwh": curtailed}

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return what is available and what is injected, pu of kVA."""
        own: InverterState = state.fleets[self.kind]
        seen: NDArray[np.float64] = np.stack(own, axis=1) / self._kva[:, None]
        return seen.reshape(len(self.observation_channels), -1)

    def _inject(self, state: TwinState, own: InverterState) -> InverterState:
        state.grid.items_kw[self._items] = -own.kw
        state.grid.items_kvar[self._items] = -own.kvar
        return own


def inverter_actions(
    kind: str, name: str, least_kw: float, most_kw: float, kva: float
) -> tuple[ActionChannel, ActionChannel]:
    """Return the channels of an inverter's active and reactive power."""
    kvar = REACTIVE_SHARE * kva
    return (
        ActionChannel(f"{kind}.{name}.kw", "kW", least_kw, most_kw, "continuous"),
        ActionChannel(f"{kind}.{name}.kvar", "kvar", -kvar, kvar, "continuous"),
    )
