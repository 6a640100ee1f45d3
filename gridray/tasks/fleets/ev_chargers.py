"""Charging sites: each is told how much it may draw, and gives it to the cars that can wait least."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gridray.devices.ev_charger import (
    EvCharger,
    EvSessions,
    check_chargers,
    is_present,
    laxity_h,
    missing_kwh,
    power_range_kw,
    step_chargers,
)
from gridray.tasks.base import ActionChannel, ObservationChannel
from gridray.tasks.fleets.ev_sessions import episode_sessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.feeders.components import Generator
    from gridray.profiles.ev import EvSessions as YearOfSessions
    from gridray.tasks.twin import Calendar, TwinState

EFFICIENCY = 0.92
"""One way, from the terminals into the car's battery."""
LONGEST_LAXITY_H = 24.0
"""Shown where there is no car."""


class EvState(NamedTuple):
    """Sessions of the episode and what they got, S a point.

    arrival, departure: int64 [S, N, E]; wanted_kwh, spare_kwh, stored_kwh: float64 [S, N, E]; kw: float64 [N, E],
    injected by each point (charging is negative).
    """

    arrival: NDArray[np.int64]
    departure: NDArray[np.int64]
    wanted_kwh: NDArray[np.float64]
    spare_kwh: NDArray[np.float64]
    stored_kwh: NDArray[np.float64]
    kw: NDArray[np.float64]

    def sessions(self) -> EvSessions:
        """Return the sessions alone."""
        return EvSessions(self.arrival, self.departure, self.wanted_kwh, self.spare_kwh)


class EvChargers:
    """Charging sites of several points; a set-point is the power of a site, shared by least laxity first.

    table: sessions of every episode, arrays [num_days, S, N].
    """

    kind = "ev"
    quantities = ("charged_kwh", "unmet_kwh")

    def __init__(
        self,
        sites: Sequence[Generator],
        first_item: int,
        year: YearOfSessions,
        point_kw: NDArray[np.float64],
        calendar: Calendar,
    ) -> None:
        """Take the sites.

        Args:
            sites: as items of the grid, in the feeder's order.
            first_item: row of the first one in GridState.items_kw.
            year: sessions of all points, the first site's points first, as many for each.
            point_kw: rating of each point, [N].
            calendar: of the episodes.
        """
        self.names = tuple(site.name for site in sites)
        self.buses = tuple(site.bus for site in sites)
        self._items = slice(first_item, first_item + len(sites))
        self._step_h = calendar.step_h
        rated = point_kw[:, None]
        self.charger = EvCharger(rated, np.zeros_like(rated), np.full_like(rated, EFFICIENCY))
        self.table = episode_sessions(year, self.charger, calendar)
        flat = EvSessions._make(np.moveaxis(array, 0, -1) for array in self.table)
        check_chargers(self.charger, flat)
        self._site_kw = point_kw.reshape(len(sites), -1).sum(axis=1)[:, None]
        self.action_channels = tuple(
            ActionChannel(f"ev.{name}.charge_kw", "kW", 0.0, float(kw), "continuous", float(kw))
            for name, kw in zip(self.names, self._site_kw[:, 0], strict=True)
        )
        self.observation_channels = tuple(
            channel
            for name, kw in zip(self.names, self._site_kw[:, 0], strict=True)
            for channel in _observed(name, float(kw), len(point_kw) // len(sites))
        )

    def new_state(self, num_envs: int) -> EvState:
        """Return sites without cars."""
        shape = (*self.table.arrival.shape[1:], num_envs)
        arrival, departure = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        wanted, spare, stored = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        return EvState(arrival, departure, wanted, spare, stored, np.zeros(shape[1:]))

    def begin(self, state: TwinState, step: NDArray[np.int64]) -> EvState:  # noqa: ARG002
        """Take the cars of the day at its start, unlimited; later go on as told last, as far as cars are there."""
        own: EvState = state.fleets[self.kind]
        (rows,) = np.nonzero(state.t == 0)
        if len(rows):
            days = state.day[rows] % len(self.table.arrival)
            for name in self.table._fields:
                getattr(own, name)[..., rows] = np.moveaxis(getattr(self.table, name)[days], 0, -1)
            own.stored_kwh[..., rows] = 0.0
            own.kw[..., rows] = -np.inf
        least, _ = power_range_kw(self.charger, own.sessions(), own.stored_kwh, state.t, self._step_h)
        return self._inject(state, own._replace(kw=np.maximum(own.kw, least)))

    def act(self, state: TwinState, set_points: NDArray[np.float64]) -> tuple[EvState, dict[str, NDArray[np.float64]]]:
        """Charge the cars that can wait least first."""
        own: EvState = state.fleets[self.kind]
        sessions = own.sessions()
        least, _ = power_range_kw(self.charger, sessions, own.stored_kwh, state.t, self._step_h)
        laxity = laxity_h(self.charger, sessions, own.stored_kwh, state.t, self._step_h)
        kw = -shared_kw(np.maximum(set_points, 0.0), -least, laxity)
        done = step_chargers(self.charger, sessions, own.stored_kwh, kw, state.t, self._step_h)
        own = self._inject(state, own._replace(stored_kwh=done.stored_kwh, kw=done.kw))
        return own, {
            "charged_kwh": -done.kw.sum(axis=0) * self._step_h,
            "unmet_kwh": np.maximum(done.unmet_kwh, 0.0).sum(axis=0),
        }

    def observe(self, state: TwinState) -> NDArray[np.float64]:
        """Return power, cars, missing energy and urgency of each site."""
        own: EvState = state.fleets[self.kind]
        sessions, num_envs = own.sessions(), len(state.t)
        least, _ = power_range_kw(self.charger, sessions, own.stored_kwh, state.t, self._step_h)
        laxity = laxity_h(self.charger, sessions, own.stored_kwh, state.t, self._step_h)
        by_site = (len(self.names), -1, num_envs)
        present = is_present(sessions, state.t).any(axis=0)
        missing = missing_kwh(sessions, own.stored_kwh, state.t)
        sums = [array.reshape(by_site).sum(axis=1) for array in (-own.kw, present, missing, -least)]
        shortest = np.clip(laxity, 0.0, LONGEST_LAXITY_H).reshape(by_site).min(axis=1)
        return np.stack([*sums, self.urgent_kw(state), shortest], axis=1).reshape(
            len(self.observation_channels), num_envs
        )

    def urgent_kw(self, state: TwinState) -> NDArray[np.float64]:
        """Return the power that cars which cannot wait a step can take at each site, kW, [num_sites, E]."""
        own: EvState = state.fleets[self.kind]
        sessions = own.sessions()
        least, _ = power_range_kw(self.charger, sessions, own.stored_kwh, state.t, self._step_h)
        laxity = laxity_h(self.charger, sessions, own.stored_kwh, state.t, self._step_h)
        urgent = np.where(laxity < self._step_h, -least, 0.0)
        total: NDArray[np.float64] = urgent.reshape(len(self.names), -1, len(state.t)).sum(axis=1)
        return total

    def _inject(self, state: TwinState, own: EvState) -> EvState:
        state.grid.items_kw[self._items] = -own.kw.reshape(len(self.names), -1, len(state.t)).sum(axis=1)
        state.grid.items_kvar[self._items] = 0.0
        return own


@njit(cache=True, nogil=True)
def shared_kw(
    total_kw: NDArray[np.float64], most_kw: NDArray[np.float64], laxity: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return each point's part of its site's power, [N, E]: those with the least laxity first, up to most_kw.

    total_kw: [num_sites, E]; most_kw, laxity: [N, E], the points of a site side by side.
    """
    num_sites, num_envs = total_kw.shape
    num_points = most_kw.shape[0] // max(num_sites, 1)
    given = np.zeros(most_kw.shape)
    is_done = np.zeros(num_points, dtype=np.bool_)
    for site in range(num_sites):
        first = site * num_points
        for env in range(num_envs):
            left = total_kw[site, env]
            is_done[:] = False
            for _ in range(num_points):
                chosen = -1
                for k in range(num_points):
                    if not is_done[k] and (chosen < 0 or laxity[first + k, env] < laxity[first + chosen, env]):
                        chosen = k
                is_done[chosen] = True
                part = min(left, most_kw[first + chosen, env])
                given[first + chosen, env] = part
                left -= part
                if left <= 0.0:
                    break
    return given


def _observed(name: str, kw: float, num_points: int) -> tuple[ObservationChannel, ...]:
    channel = ObservationChannel
    return (
        channel(f"ev.{name}.kw", "kW", 0.0, 1.0 / kw),
        channel(f"ev.{name}.present", "cars", 0.0, 1.0 / num_points),
        channel(f"ev.{name}.missing_kwh", "kWh", 0.0, 0.5 / kw),
        channel(f"ev.{name}.possible_kw", "kW", 0.0, 1.0 / kw),
        channel(f"ev.{name}.urgent_kw", "kW", 0.0, 1.0 / kw),
        channel(f"ev.{name}.least_laxity_h", "h", 0.0, 1.0 / LONGEST_LAXITY_H),
    )
