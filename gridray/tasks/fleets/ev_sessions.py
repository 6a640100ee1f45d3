"""A year of charging sessions cut into episodes, on the episodes' steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.devices.ev_charger import EvSessions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.devices.ev_charger import EvCharger
    from gridray.profiles.ev import EvSessions as YearOfSessions
    from gridray.tasks.twin import Calendar


def episode_sessions(year: YearOfSessions, charger: EvCharger, calendar: Calendar) -> EvSessions:
    """Return the sessions of every episode, arrays [num_days, S, N]: S is the most that one point has in one.

    A car is there in the whole steps of its stay. A stay that an episode's beginning or end cuts wants the share of its
    energy that its time there has of the whole, so that the episodes of a year want what the year does; a stay of less
    than a step, and what its charger cannot give in whole steps, are left out.

    Args:
        year: sessions in hours since the first midnight, those of one point not overlapping.
        charger: the N points.
        calendar: what the episodes are.
    """
    step_h, num_steps = calendar.step_h, calendar.num_steps
    arrival = np.ceil(year.arrival_h / step_h - 1e-9).astype(np.int64) - calendar.first_step
    departure = np.floor(year.departure_h / step_h + 1e-9).astype(np.int64) - calendar.first_step
    is_whole = departure > arrival
    arrival, departure, point = arrival[is_whole], departure[is_whole], year.charger[is_whole]
    energy_kwh = year.energy_kwh[is_whole]
    num_parts = np.maximum((departure - 1) // num_steps - arrival // num_steps + 1, 1)
    of = np.repeat(np.arange(len(arrival)), num_parts)
    part = np.arange(len(of)) - np.repeat(np.cumsum(num_parts) - num_parts, num_parts)
    day = arrival[of] // num_steps + part
    begins = np.maximum(arrival[of] - day * num_steps, 0)
    ends = np.minimum(departure[of] - day * num_steps, num_steps)
    share = (ends - begins) / (departure - arrival)[of]
    most_kwh = (charger.charge_kw * charger.efficiency)[point[of], 0] * (ends - begins) * step_h
    wanted_kwh = np.minimum(energy_kwh[of] * share, most_kwh)
    is_inside = (day >= 0) & (day < calendar.num_days)
    day, of, begins, ends, wanted_kwh = (a[is_inside] for a in (day, of, begins, ends, wanted_kwh))
    return _by_episode(day, point[of], (begins, ends, wanted_kwh), (calendar.num_days, len(charger.charge_kw)))


def _by_episode(
    day: NDArray[np.int64],
    point: NDArray[np.int64],
    parts: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]],
    shape: tuple[int, int],
) -> EvSessions:
    """Put the parts of sessions into slots of their day and point."""
    begins, ends, wanted_kwh = parts
    order = np.lexsort((begins, point, day))
    key = (day * shape[1] + point)[order]
    is_first = np.concatenate(([True], key[1:] != key[:-1]))[: len(key)]
    slot = np.arange(len(key)) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1] if len(key) else key
    num_slots = int(slot.max(initial=0)) + 1
    place = (day[order], slot, point[order])
    arrival = np.zeros((shape[0], num_slots, shape[1]), dtype=np.int64)
    departure, wanted = np.zeros_like(arrival), np.zeros(arrival.shape)
    arrival[place], departure[place], wanted[place] = begins[order], ends[order], wanted_kwh[order]
    return EvSessions(arrival, departure, wanted, np.zeros_like(wanted))
