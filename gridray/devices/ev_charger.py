"""EV chargers: sessions with arrival, energy wanted and departure; what can be charged, and what was missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.devices.checks import check_within
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEVER = np.int64(2**62)


class EvCharger(NamedTuple):
    """N charging points.

    charge_kw: float64 [N, 1 or E], most power drawn at the terminals, > 0.
    discharge_kw: float64 [N, 1 or E], most power given back (vehicle to grid), 0 if it cannot.
    efficiency: float64 [N, 1 or E], one way, 0..1.
    """

    charge_kw: NDArray[np.float64]
    discharge_kw: NDArray[np.float64]
    efficiency: NDArray[np.float64]


class EvSessions(NamedTuple):
    """S sessions per charging point, which do not overlap at one point.

    arrival, departure: int64 [S, N, 1 or E], steps: a car is there in steps arrival..departure - 1; none if equal.
    wanted_kwh: float64 [S, N, 1 or E], energy to be stored in its battery until it leaves, >= 0.
    spare_kwh: float64 [S, N, 1 or E], energy in its battery on arrival that may be given back meanwhile, >= 0.
    """

    arrival: NDArray[np.int64]
    departure: NDArray[np.int64]
    wanted_kwh: NDArray[np.float64]
    spare_kwh: NDArray[np.float64]


class EvStep(NamedTuple):
    """What one interval did.

    stored_kwh: float64 [S, N, E], energy stored in each session so far (negative: given back).
    kw: float64 [N, E], mean power injected (charging is negative).
    unmet_kwh: float64 [N, E], energy still missing in the cars that left at the end of the interval.
    """

    stored_kwh: NDArray[np.float64]
    kw: NDArray[np.float64]
    unmet_kwh: NDArray[np.float64]


def check_chargers(charger: EvCharger, sessions: EvSessions) -> None:
    """Refuse chargers and sessions that cannot be.

    Raises:
        ConfigError: a value is out of its range, or two sessions of a charging point overlap.
    """
    check_within("EvCharger", "charge_kw", charger.charge_kw, 1e-6, np.inf)
    check_within("EvCharger", "discharge_kw", charger.discharge_kw, 0.0, np.inf)
    check_within("EvCharger", "efficiency", charger.efficiency, 1e-3, 1.0)
    check_within("EvSessions", "wanted_kwh", sessions.wanted_kwh, 0.0, np.inf)
    check_within("EvSessions", "spare_kwh", sessions.spare_kwh, 0.0, np.inf)
    check_within("EvSessions", "departure", sessions.departure, sessions.arrival.astype(np.float64), np.inf)
    arrival, departure = np.broadcast_arrays(sessions.arrival, sessions.departure)
    is_empty = arrival == departure
    arrival, departure = np.where(is_empty, NEVER, arrival), np.where(is_empty, NEVER, departure)
    order = np.argsort(arrival, axis=0)
    arrival, departure = (np.take_along_axis(steps, order, axis=0) for steps in (arrival, departure))
    overlaps = np.argwhere(arrival[1:] < departure[:-1])
    if len(overlaps):
        s, n, e = overlaps[0].tolist()
        raise ConfigError(
            f"EvSessions: a car comes to point {n} of environment {e} in step {arrival[s + 1, n, e]}, but the one "
            f"before leaves in step {departure[s, n, e]}: give sessions that do not overlap."
        )


def is_present(sessions: EvSessions, step: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which sessions' cars are there in this step, int64 [E]: bool [S, N, E]."""
    return (sessions.arrival <= step) & (step < sessions.departure)


def missing_kwh(sessions: EvSessions, stored_kwh: NDArray[np.float64], step: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the energy that the car at each point still wants, kWh, 0 without a car, [N, E]."""
    missing = np.maximum(sessions.wanted_kwh - stored_kwh, 0.0)
    total: NDArray[np.float64] = np.where(is_present(sessions, step), missing, 0.0).sum(axis=0)
    return total


def power_range_kw(
    charger: EvCharger, sessions: EvSessions, stored_kwh: NDArray[np.float64], step: NDArray[np.int64], step_h: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least (charging) and the most power injected that cars and chargers allow, kW, [N, E]."""
    given = np.maximum(sessions.spare_kwh + stored_kwh, 0.0)
    given = np.where(is_present(sessions, step), given, 0.0).sum(axis=0)
    missing = missing_kwh(sessions, stored_kwh, step)
    least = -np.minimum(charger.charge_kw, missing / charger.efficiency / step_h)
    return least, np.minimum(charger.discharge_kw, given * charger.efficiency / step_h)


def laxity_h(
    charger: EvCharger, sessions: EvSessions, stored_kwh: NDArray[np.float64], step: NDArray[np.int64], step_h: float
) -> NDArray[np.float64]:
    """Return how long each car can still wait and be full in time, h, [N, E]; infinite without a car.

    Time to departure less time to charge what is missing at full power (least-laxity-first scheduling).
    """
    here = is_present(sessions, step)
    time_left = np.where(here, (sessions.departure - step) * step_h, 0.0).sum(axis=0)
    needed = missing_kwh(sessions, stored_kwh, step) / (charger.charge_kw * charger.efficiency)
    return np.where(here.any(axis=0), time_left - needed, np.inf)


def step_chargers(
    charger: EvCharger,
    sessions: EvSessions,
    stored_kwh: NDArray[np.float64],
    kw: NDArray[np.float64],
    step: NDArray[np.int64],
    step_h: float,
) -> EvStep:
    """Return what these set-points come to.

    Stored energy grows by -kw efficiency step_h while charging (kw < 0) and falls by kw / efficiency step_h while
    giving back; power is cut first to what cars and chargers allow.

    Args:
        charger: the charging points.
        sessions: their sessions.
        stored_kwh: energy stored in each session so far, 0 at the start of an episode, [S, N, E].
        kw: power set-point, injected (negative charges), [N, E].
        step: number of this step, int64 [E].
        step_h: length of the interval, h.
    """
    kw = np.clip(kw, *power_range_kw(charger, sessions, stored_kwh, step, step_h))
    gain_kwh = np.where(kw < 0.0, -kw * charger.efficiency, -kw / charger.efficiency) * step_h
    here = is_present(sessions, step)
    moved = np.clip(stored_kwh + gain_kwh, -sessions.spare_kwh, sessions.wanted_kwh)
    stored_kwh = np.where(here, moved, stored_kwh)
    leaves = here & (sessions.departure == step + 1)
    unmet_kwh = np.where(leaves, sessions.wanted_kwh - stored_kwh, 0.0).sum(axis=0)
    return EvStep(stored_kwh, kw, unmet_kwh)
