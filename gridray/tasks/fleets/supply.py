"""The customers of a feeder: who has supply, and the interruptions that count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.devices.reliability import Interruptions, count_interruptions, no_interruptions, reliability_indices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.tasks.base import ActionChannel, ObservationChannel
    from gridray.tasks.fleets.switches import Switches
    from gridray.tasks.twin import Loads, TwinState


class Supply:
    """Customers per load, and IEEE 1366's indices of what they live through.

    Commands take switching_minutes from the beginning of an interval: for so long customers stay with what protection
    left them, which makes a fault that switching overcomes a momentary interruption.

    zone: int64 [num_loads], of the switches' zones, -1 for a load in none; customers: float64 [num_loads, 1].
    """

    kind = "supply"
    quantities = ("saidi_min", "saifi", "maifi", "unserved_kwh")

    def __init__(
        self,
        feeder: Feeder,
        loads: Loads,
        switches: Switches,
        customer_kw: float,
        step_minutes: int,
        switching_minutes: float,
    ) -> None:
        """Take the loads: one customer for each customer_kw of nominal power and at least one.

        Args:
            feeder: with its loads.
            loads: the customers' nominal power and series.
            switches: fleet that acts before this one.
            customer_kw: nominal power of a customer.
            step_minutes: length of an interval.
            switching_minutes: time that commands take, less than an interval.
        """
        self.names = tuple(load.name for load in feeder.loads)
        self.buses = tuple(load.bus for load in feeder.loads)
        self._switches = switches
        self.zone = np.array([switches.zones.bus_zone.get(bus, -1) for bus in self.buses], dtype=np.int64)
        self.customers = np.maximum(np.rint(loads.kw / customer_kw), 1.0)[:, None]
        self._parts_min = (switching_minutes, step_minutes - switching_minutes)
        self.action_channels: tuple[ActionChannel, ...] = ()
        self.observation_channels: tuple[ObservationChannel, ...] = ()

    def new_state(self, num_envs: int) -> Interruptions:
        """Return customers who all have supply."""
        return no_interruptions(len(self.names), num_envs)

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> Interruptions:  # noqa: ARG002
        """Do nothing: what happens in the interval depends on the commands."""
        own: Interruptions = state.fleets[self.kind]
        return own

    def act(
        self,
        state: TwinState,
        set_points: NDArray[np.float64],  # noqa: ARG002
    ) -> tuple[Interruptions, dict[str, NDArray[np.float64]]]:
        """Count the interval, before and after the switchings."""
        before: Interruptions = state.fleets[self.kind]
        switched = state.fleets[self._switches.kind]
        demand_kw = state.grid.items_kw[: len(self.names)]
        own = before
        for supplied, minutes in zip((switched.was_supplied, switched.is_supplied), self._parts_min, strict=True):
            own = count_interruptions(own, self.customers, self._has_supply(supplied), demand_kw, minutes)
        first, last = reliability_indices(before, self.customers), reliability_indices(own, self.customers)
        return own, {
            "saidi_min": last.saidi_min - first.saidi_min,
            "saifi": last.saifi - first.saifi,
            "maifi": last.maifi - first.maifi,
            "unserved_kwh": last.ens_kwh - first.ens_kwh,
        }

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return nothing."""
        return np.empty((0, len(state.t)))

    def interrupted_share(self, state: TwinState) -> NDArray[np.float64]:
        """Return the share of customers who are without supply at the end of the interval, [E]."""
        is_out = ~self._has_supply(state.fleets[self._switches.kind].is_supplied)
        share: NDArray[np.float64] = (self.customers * is_out).sum(axis=0) / self.customers.sum()
        return share

    def _has_supply(self, zones: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return zones[self.zone] & (self.zone >= 0)[:, None]
