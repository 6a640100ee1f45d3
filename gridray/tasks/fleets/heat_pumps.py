"""Groups of houses with heat pumps: their thermostats' set-point is commanded, and rooms stay within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.devices.heat_pump import Comfort, HeatPump, discomfort_kh, injected_kw_kvar, step_house
from gridray.tasks.base import ActionChannel, ObservationChannel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.feeders.components import Generator
    from gridray.tasks.twin import TwinState

HOUSE_KW = 3.0
"""Electric power of one house's heat pump."""
HOUSE_RESISTANCE_K_PER_KW, HOUSE_CAPACITY_KWH_PER_K = 5.0, 6.0
"""A house that loses 5 kW at 25 K and cools with a time constant of 30 h."""
SUPPLY_C, QUALITY, LEAST_LIFT_K, POWER_FACTOR = 40.0, 0.45, 15.0, 0.95
SET_POINT_C, LOW_C, HIGH_C = 21.0, 19.5, 22.5
GAIN_KW = 0.5
"""People, devices and sun, per house."""


class HeatPumpState(NamedTuple):
    """indoor_c, outdoor_c: float64 [N, E], degC; duty: float64 [N, E], share of the houses whose heat pump runs."""

    indoor_c: NDArray[np.float64]
    outdoor_c: NDArray[np.float64]
    duty: NDArray[np.float64]


class HeatPumps:
    """Groups of like houses, each as one; a set-point is that of their thermostats.

    As many run as bring the mean of the rooms to the set-point by the end of the interval; below the bounds of comfort
    all do, above none.
    Discomfort is cold: heat pumps that only heat are not blamed for summer.
    """

    kind = "heat_pump"
    quantities = ("discomfort_kh",)

    def __init__(
        self, groups: Sequence[Generator], first_item: int, outdoor_c: NDArray[np.float32], step_h: float
    ) -> None:
        """Take groups, as items of the grid, whose kva is the power of all their heat pumps.

        outdoor_c: float32 [num_series_steps], temperature outside; step_h: length of an interval, h.
        """
        self.names = tuple(group.name for group in groups)
        self.buses = tuple(group.bus for group in groups)
        self._items = slice(first_item, first_item + len(groups))
        self._outdoor_c = outdoor_c
        self._step_h = step_h
        kw = np.array([group.kva for group in groups], dtype=np.float64)[:, None]
        self._houses = kw / HOUSE_KW
        one = np.ones_like(kw)
        self.heat_pump = HeatPump(
            kw=kw,
            resistance_k_per_kw=HOUSE_RESISTANCE_K_PER_KW / self._houses,
            capacity_kwh_per_k=HOUSE_CAPACITY_KWH_PER_K * self._houses,
            is_cooling=np.zeros(kw.shape, dtype=np.bool_),
            supply_c=SUPPLY_C * one,
            quality=QUALITY * one,
            least_lift_k=LEAST_LIFT_K * one,
            power_factor=POWER_FACTOR * one,
        )
        self.comfort = Comfort(SET_POINT_C * one, (HIGH_C - LOW_C) * one, LOW_C * one, np.inf * one)
        self.action_channels = tuple(
            ActionChannel(f"heat_pump.{name}.set_point_c", "degC", LOW_C, HIGH_C, "continuous", SET_POINT_C)
            for name in self.names
        )
        self.observation_channels = tuple(
            channel
            for name in self.names
            for channel in (
                ObservationChannel(f"heat_pump.{name}.duty", "1", 0.5, 2.0),
                ObservationChannel(f"heat_pump.{name}.indoor_c", "degC", SET_POINT_C, 0.5),
                ObservationChannel(f"heat_pump.{name}.outdoor_c", "degC", 10.0, 0.1),
            )
        )

    def new_state(self, num_envs: int) -> HeatPumpState:
        """Return groups at their set-point."""
        shape = (len(self.names), num_envs)
        return HeatPumpState(np.full(shape, SET_POINT_C), np.full(shape, SET_POINT_C), np.zeros(shape))

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> HeatPumpState:
        """Take the weather and run on as in the interval before, at the start of an episode as thermostats have it."""
        own: HeatPumpState = state.fleets[self.kind]
        outdoor = np.broadcast_to(self._outdoor_c[step % len(self._outdoor_c)], own.indoor_c.shape)
        own = own._replace(outdoor_c=outdoor.astype(np.float64))
        return self._draw(state, own, np.where(state.t == 0, self._duty(own, SET_POINT_C), own.duty))

    def act(
        self, state: TwinState, set_points: NDArray[np.float64]
    ) -> tuple[HeatPumpState, dict[str, NDArray[np.float64]]]:
        """Heat towards these temperatures for the interval."""
        before: HeatPumpState = state.fleets[self.kind]
        own = self._draw(state, before, self._duty(before, set_points))
        gain_kw = GAIN_KW * self._houses
        indoor = step_house(self.heat_pump, own.indoor_c, own.outdoor_c, gain_kw, own.duty, self._step_h)
        missed = (self._houses * discomfort_kh(self.comfort, indoor, self._step_h)).sum(axis=0)
        return own._replace(indoor_c=indoor), {"discomfort_kh": missed / max(float(self._houses.sum()), 1e-9)}

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return duty and temperatures of each group."""
        own: HeatPumpState = state.fleets[self.kind]
        seen = np.stack((own.duty, own.indoor_c, own.outdoor_c), axis=1)
        return seen.reshape(len(self.observation_channels), len(state.t))

    def _duty(self, own: HeatPumpState, set_point_c: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return the share that brings rooms to the set-point by the end of the interval, beyond 0..1 if none does."""
        off, on = (
            step_house(self.heat_pump, own.indoor_c, own.outdoor_c, GAIN_KW * self._houses, duty, self._step_h)
            for duty in (np.zeros_like(own.duty), np.ones_like(own.duty))
        )
        duty: NDArray[np.float64] = (set_point_c - off) / (on - off)
        return duty

    def _draw(self, state: TwinState, own: HeatPumpState, duty: NDArray[np.float64]) -> HeatPumpState:
        duty = np.where(own.indoor_c < LOW_C, 1.0, np.where(own.indoor_c > HIGH_C, 0.0, np.clip(duty, 0.0, 1.0)))
        kw, kvar = injected_kw_kvar(self.heat_pump, duty)
        state.grid.items_kw[self._items], state.grid.items_kvar[self._items] = -kw, -kvar
        return own._replace(duty=duty)
