"""Batteries behind inverters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.devices.battery import Battery, check_battery, step_battery
from gridray.tasks.base import ObservationChannel
from gridray.tasks.fleets.inverters import inverter_actions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.feeders.components import Generator
    from gridray.tasks.base import ActionChannel
    from gridray.tasks.twin import TwinState

EFFICIENCY = 0.95
"""One way."""
FIRST_SOC = 0.5
"""State of charge at the start of an episode."""


class BatteryState(NamedTuple):
    """kw, kvar: float64 [N, E], injected; soc: float64 [N, E], 0..1."""

    kw: NDArray[np.float64]
    kvar: NDArray[np.float64]
    soc: NDArray[np.float64]


class Batteries:
    """Batteries; set-points are active power (positive discharges) within energy and kVA, and reactive power."""

    kind = "battery"
    quantities = ("cycled_kwh", "injected_kwh")

    def __init__(self, generators: Sequence[Generator], first_item: int, step_h: float) -> None:
        """Take batteries whose first is item `first_item` of the grid; step_h: length of an interval, h."""
        self.names = tuple(generator.name for generator in generators)
        self.buses = tuple(generator.bus for generator in generators)
        self._items = slice(first_item, first_item + len(generators))
        self._step_h = step_h
        kw, kva, kwh = (
            np.array([getattr(generator, field) for generator in generators])[:, None] for field in ("kw", "kva", "kwh")
        )
        one, zero = np.ones_like(kw), np.zeros_like(kw)
        self.battery = Battery(
            kwh=kwh,
            soc_min=zero,
            soc_max=one,
            kva=kva,
            charge_kw=kw,
            discharge_kw=kw,
            charge_efficiency=EFFICIENCY * one,
            discharge_efficiency=EFFICIENCY * one,
            self_discharge_per_h=zero,
        )
        check_battery(self.battery)
        self.action_channels: tuple[ActionChannel, ...] = tuple(
            channel
            for generator in generators
            for channel in inverter_actions(
                "battery", generator.name, (-generator.kw, generator.kw), 0.0, generator.kva
            )
        )
        self.observation_channels = tuple(
            channel
            for name in self.names
            for channel in (
                ObservationChannel(f"battery.{name}.kw", "pu of kVA", 0.0, 1.0),
                ObservationChannel(f"battery.{name}.kvar", "pu of kVA", 0.0, 1.0),
                ObservationChannel(f"battery.{name}.soc", "1", 0.5, 2.0),
            )
        )

    def new_state(self, num_envs: int) -> BatteryState:
        """Return batteries at rest, half full."""
        zero = np.zeros((len(self.names), num_envs))
        return BatteryState(zero, zero.copy(), np.full_like(zero, FIRST_SOC))

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> BatteryState:  # noqa: ARG002
        """Go on as told last."""
        own: BatteryState = state.fleets[self.kind]
        return self._inject(state, own)

    def act(
        self, state: TwinState, set_points: NDArray[np.float64]
    ) -> tuple[BatteryState, dict[str, NDArray[np.float64]]]:
        """Charge or discharge."""
        own: BatteryState = state.fleets[self.kind]
        done = step_battery(self.battery, own.soc, set_points[::2], set_points[1::2], self._step_h)
        own = self._inject(state, BatteryState(done.kw, done.kvar, done.soc))
        return own, {
            "cycled_kwh": np.abs(done.kw).sum(axis=0) * self._step_h,
            "injected_kwh": done.kw.sum(axis=0) * self._step_h,
        }

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return injected power, pu of kVA, and state of charge."""
        own: BatteryState = state.fleets[self.kind]
        kva = self.battery.kva
        return np.stack((own.kw / kva, own.kvar / kva, own.soc), axis=1).reshape(
            len(self.observation_channels), len(state.t)
        )

    def stored_kwh(self, state: TwinState) -> NDArray[np.float64]:
        """Return the energy in all batteries, kWh, [E]."""
        own: BatteryState = state.fleets[self.kind]
        total: NDArray[np.float64] = (own.soc * self.battery.kwh).sum(axis=0)
        return total

    def _inject(self, state: TwinState, own: BatteryState) -> BatteryState:
        state.grid.items_kw[self._items] = -own.kw
        state.grid.items_kvar[self._items] = -own.kvar
        return own
