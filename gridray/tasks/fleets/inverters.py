"""PV and wind generators behind inverters: what the weather gives, cut and accompanied by reactive power."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from gridray.devices.inverter import (
    inverter,
    limit_power,
    limit_watt_var,
    volt_var_curve,
    volt_var_kvar,
    volt_watt_curve,
    volt_watt_kw,
    watt_var_curve,
)
from gridray.devices.protection import TripState, connected, step_trip, voltage_trip
from gridray.tasks.base import ActionChannel, ObservationChannel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.feeders.components import Generator
    from gridray.physics.compiled import CompiledFeeder
    from gridray.tasks.twin import TwinState

Autonomy = Literal["none", "volt_var", "volt_var_watt", "watt_var"]
Trip = Literal["none", "II", "III"]
REACTIVE_SHARE = 0.44
"""Reactive power of an inverter over its rating, IEEE 1547-2018 category B."""


class InverterState(NamedTuple):
    """What the weather offers and what is injected, and whether voltage has tripped it.

    available_kw, kw, kvar: float64 [N, E]; outside_s, is_tripped, good_s: as of `protection.TripState`, of 0 devices
    where they do not trip.
    """

    available_kw: NDArray[np.float64]
    kw: NDArray[np.float64]
    kvar: NDArray[np.float64]
    outside_s: NDArray[np.float64]
    is_tripped: NDArray[np.bool_]
    good_s: NDArray[np.float64]


class Inverters:
    """Generators of one kind; set-points are a limit of active power and a reactive power within kVA.

    With volt-var control they set their reactive power themselves, by IEEE 1547-2018's category B curve of the mean
    voltage of their phases with which the interval begins, and with volt-watt they limit their active power likewise;
    with watt-var it follows their active power by that category's curve. Then a set-point is the limit of active power
    alone. Not commanded, they have no set-points at all. With a trip category they leave the grid when the voltage of a
    phase has stayed beyond a limit in the intervals before for its clearing time, and return as the standard has it.
    """

    quantities = ("curtailed_kwh",)

    def __init__(  # noqa: PLR0913
        self,
        kind: str,
        generators: Sequence[Generator],
        grid: CompiledFeeder,
        first_item: int,
        available_pu: NDArray[np.float32],
        step_h: float,
        *,
        autonomy: Autonomy = "none",
        trip: Trip = "none",
        is_commanded: bool = True,
    ) -> None:
        """Take generators whose first is item `first_item` of the grid.

        Args:
            kind: such as "pv".
            generators: the feeder's, in its order.
            grid: compiled with them.
            first_item: row of the first one in GridState.items_kw.
            available_pu: float32 [num_series_steps, N], power that the weather offers over the rating.
            step_h: length of an interval, h.
            autonomy: which functions of voltage or power they follow by themselves.
            trip: abnormal operating performance category whose default voltage trips they have.
            is_commanded: whether there are set-points; else all is injected that weather and functions allow.
        """
        self.kind = kind
        self.names = tuple(generator.name for generator in generators)
        self.buses = tuple(generator.bus for generator in generators)
        self._items = slice(first_item, first_item + len(generators))
        self._kw = np.array([generator.kw for generator in generators])[:, None]
        self._kva = np.array([generator.kva for generator in generators])[:, None]
        self._available_pu = available_pu
        self._step_h = step_h
        self._autonomy = autonomy
        self._trip = None if trip == "none" else voltage_trip(trip)
        row = {name: n for n, name in enumerate(grid.node_names)}
        self._inverter = inverter(np.maximum(self._kva, 1e-6), "B")._replace(kw=np.maximum(self._kw, 1e-6))
        self._rows = tuple(np.array([row[f"{g.bus}.{phase}"] for phase in g.phases]) for g in generators)
        self._num_set_points = 0 if not is_commanded else 2 if autonomy == "none" else 1
        self.action_channels: tuple[ActionChannel, ...] = tuple(
            channel
            for generator in generators
            for channel in inverter_actions(kind, generator.name, (0.0, generator.kw), generator.kw, generator.kva)[
                : self._num_set_points
            ]
        )
        self.observation_channels = tuple(
            ObservationChannel(f"{kind}.{name}.{quantity}", "pu of kVA", 0.0, 1.0)
            for name in self.names
            for quantity in ("available", "kw", "kvar")
        )

    def new_state(self, num_envs: int) -> InverterState:
        """Return inverters that give nothing yet."""
        available_kw, kw, kvar = (np.zeros((len(self.names), num_envs)) for _ in range(3))
        outside_s, is_tripped, good_s = connected(0 if self._trip is None else len(self.names), num_envs)
        return InverterState(available_kw, kw, kvar, outside_s, is_tripped, good_s)

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> InverterState:
        """Take the weather; at the start of an episode all of it is injected, later no more than the last set-point."""
        own = self._tripped(state)
        available = np.minimum(self._kw * self._available_pu[step].T, self._kw)
        if self._num_set_points == 0:
            return self._inject(state, own._replace(available_kw=available, kw=available.copy()))
        kw = np.where(state.t == 0, available, np.minimum(own.kw, available))
        return self._inject(state, own._replace(available_kw=available, kw=kw))

    def act(
        self, state: TwinState, set_points: NDArray[np.float64]
    ) -> tuple[InverterState, dict[str, NDArray[np.float64]]]:
        """Follow the set-points."""
        own: InverterState = state.fleets[self.kind]
        kw = own.available_kw
        if self._num_set_points:
            kw = np.minimum(set_points[:: self._num_set_points], kw)
        if self._num_set_points == 2:
            most = np.sqrt(np.maximum(self._kva**2 - kw**2, 0.0))
            own = own._replace(kw=kw, kvar=np.clip(set_points[1::2], -most, most))
        else:
            kw, kvar = self._by_functions(state, kw)
            own = own._replace(kw=kw, kvar=kvar)
        own = self._inject(state, own)
        return own, {"curtailed_kwh": (own.available_kw - own.kw).sum(axis=0) * self._step_h}

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return what is available and what is injected, pu of kVA."""
        own: InverterState = state.fleets[self.kind]
        seen: NDArray[np.float64] = np.stack(own[:3], axis=1) / self._kva[:, None]
        return seen.reshape(len(self.observation_channels), len(state.t))

    def _by_functions(
        self, state: TwinState, kw: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return active and reactive power by their functions at the state's voltages, within the inverters' limits."""
        if self._autonomy == "none":
            return limit_power(self._inverter, kw, np.zeros_like(kw))
        if self._autonomy == "watt_var":
            return limit_watt_var(self._inverter, watt_var_curve("B"), kw)
        v_pu = np.array([state.vmag_pu[rows].mean(axis=0) for rows in self._rows]).reshape(kw.shape)
        if self._autonomy == "volt_var_watt":
            kw = np.minimum(kw, volt_watt_kw(self._inverter, volt_watt_curve(), v_pu))
        return limit_power(self._inverter, kw, volt_var_kvar(self._inverter, volt_var_curve("B"), v_pu))

    def _tripped(self, state: TwinState) -> InverterState:
        """Return the own state with the trips and returns that the last interval's voltages brought."""
        own: InverterState = state.fleets[self.kind]
        if self._trip is None or not state.t.any():
            return own
        low, high = (
            np.array([pick(state.interval_v[rows], axis=0) for rows in self._rows]).reshape(own.kw.shape)
            for pick in (np.min, np.max)
        )
        before = TripState(own.outside_s, own.is_tripped, own.good_s)
        after = step_trip(self._trip, before, low, high, 3600.0 * self._step_h)
        return own._replace(outside_s=after.outside_s, is_tripped=after.is_tripped, good_s=after.good_s)

    def _inject(self, state: TwinState, own: InverterState) -> InverterState:
        if self._trip is not None:
            own = own._replace(kw=np.where(own.is_tripped, 0.0, own.kw), kvar=np.where(own.is_tripped, 0.0, own.kvar))
        state.grid.items_kw[self._items] = -own.kw
        state.grid.items_kvar[self._items] = -own.kvar
        return own


def inverter_actions(
    kind: str, name: str, kw_range: tuple[float, float], neutral_kw: float, kva: float
) -> tuple[ActionChannel, ActionChannel]:
    """Return the channels of an inverter's active and reactive power."""
    kvar = REACTIVE_SHARE * kva
    return (
        ActionChannel(f"{kind}.{name}.kw", "kW", *kw_range, "continuous", neutral_kw),
        ActionChannel(f"{kind}.{name}.kvar", "kvar", -kvar, kvar, "continuous"),
    )
