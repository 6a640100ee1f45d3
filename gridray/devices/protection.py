"""Protection: thermal limits and inverse-time relays of branches, voltage trips of IEEE 1547-2018."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

INVERSE_CURVES = {"standard": (0.14, 0.02), "very": (13.5, 1.0), "extremely": (80.0, 2.0)}
"""k and alpha of the inverse-time characteristics A, B and C of IEC 60255-151."""
TRIP_TABLES = {
    "II": ((1.2, 1.1, 0.7, 0.45), (0.16, 2.0, 10.0, 0.16)),
    "III": ((1.2, 1.1, 0.88, 0.5), (0.16, 13.0, 21.0, 2.0)),
}
"""Voltage, pu, and clearing time, s, of OV2, OV1, UV1, UV2: defaults of IEEE 1547-2018 tables 12 and 13."""
RETURN_LOW_PU, RETURN_HIGH_PU, RETURN_S = 0.917, 1.05, 300.0
"""Enter service criteria of IEEE 1547-2018 table 4, defaults."""


class Relay(NamedTuple):
    """Overcurrent relays of N branches.

    pickup_a: float64 [N, 1 or E], current above which they time.
    multiplier: float64 [N, 1 or E], time multiplier setting.
    k_s, alpha: float64 [N, 1 or E], of the characteristic, see INVERSE_CURVES.
    """

    pickup_a: NDArray[np.float64]
    multiplier: NDArray[np.float64]
    k_s: NDArray[np.float64]
    alpha: NDArray[np.float64]


class VoltageTrip(NamedTuple):
    """Must-trip settings of N devices, axis 0: OV2, OV1, UV1, UV2.

    v_pu: float64 [4, N or 1, 1 or E]; clearing_s: float64 [4, N or 1, 1 or E].
    """

    v_pu: NDArray[np.float64]
    clearing_s: NDArray[np.float64]


class TripState(NamedTuple):
    """Where N devices stand.

    outside_s: float64 [4, N, E], time beyond each of the settings.
    is_tripped: bool [N, E]; good_s: float64 [N, E], time since the voltage allows a return.
    """

    outside_s: NDArray[np.float64]
    is_tripped: NDArray[np.bool_]
    good_s: NDArray[np.float64]


def loading(current_a: NDArray[np.float64], rating_a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return current over rating, [N, E]."""
    return current_a / rating_a


def thermal_image(
    heat: NDArray[np.float64], loading: NDArray[np.float64], time_constant_s: NDArray[np.float64], step_s: float
) -> NDArray[np.float64]:
    """Return the heat of branches after the interval, [N, E]; at 1 they are as hot as their rating allows.

    tau dh/dt = loading^2 - h, solved exactly over the interval (thermal replica of IEC 60255-149).
    """
    return heat + (loading**2 - heat) * -np.expm1(-step_s / time_constant_s)


def overload_s(counted_s: NDArray[np.float64], loading: NDArray[np.float64], step_s: float) -> NDArray[np.float64]:
    """Return how long each branch has been above its rating without a break, s, [N, E]."""
    return np.where(loading > 1.0, counted_s + step_s, 0.0)


def inverse_time_s(relay: Relay, current_a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the time to trip at constant current, s, [N, E]: multiplier k / ((I / pickup)^alpha - 1), or infinite."""
    ratio = current_a / relay.pickup_a
    is_above = ratio > 1.0
    excess = np.where(is_above, ratio, 2.0) ** relay.alpha - 1.0
    return np.where(is_above, relay.multiplier * relay.k_s / excess, np.inf)


def step_relay(
    relay: Relay, progress: NDArray[np.float64], current_a: NDArray[np.float64], step_s: float
) -> NDArray[np.float64]:
    """Return how far each relay is, [N, E]; it trips at 1 (the integral of dt / t(I) of IEC 60255-151).

    It resets at once when the current falls to the pickup, as a static relay does.
    """
    time_s = inverse_time_s(relay, current_a)
    return np.where(np.isinf(time_s), 0.0, progress + step_s / time_s)


def voltage_trip(category: Literal["II", "III"]) -> VoltageTrip:
    """Return the default must-trip settings of an abnormal operating performance category, for all devices.

    Raises:
        ConfigError: there is no such category here.
    """
    if category not in TRIP_TABLES:
        raise ConfigError(f"Trip category '{category}' has no settings: give one of {sorted(TRIP_TABLES)}.")
    v_pu, clearing_s = TRIP_TABLES[category]
    return VoltageTrip(np.array(v_pu)[:, None, None], np.array(clearing_s)[:, None, None])


def connected(num_items: int, num_envs: int) -> TripState:
    """Return devices in service at normal voltage."""
    shape = (num_items, num_envs)
    return TripState(np.zeros((4, *shape)), np.zeros(shape, dtype=np.bool_), np.zeros(shape))


def step_trip(
    trip: VoltageTrip, state: TripState, low_pu: NDArray[np.float64], high_pu: NDArray[np.float64], step_s: float
) -> TripState:
    """Return the state after an interval at these voltages of each device's lowest and highest phase, [N, E].

    A device trips when a phase has been beyond a setting for the clearing time without a break, and returns when all
    have been within 0.917..1.05 pu for 300 s.
    """
    is_beyond = np.concatenate((high_pu > trip.v_pu[:2], low_pu < trip.v_pu[2:]))
    outside_s = np.where(is_beyond, state.outside_s + step_s, 0.0)
    trips = (outside_s >= trip.clearing_s - 1e-9).any(axis=0)
    is_good = (low_pu >= RETURN_LOW_PU) & (high_pu <= RETURN_HIGH_PU)
    good_s = np.where(is_good & state.is_tripped & ~trips, state.good_s + step_s, 0.0)
    stays_out = state.is_tripped & (good_s < RETURN_S - 1e-9)
    return TripState(outside_s, trips | stays_out, good_s)
