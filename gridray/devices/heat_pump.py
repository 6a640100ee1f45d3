"""Heat pumps and air conditioners: a house of one resistance and one capacity, a thermostat, an efficiency."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

KELVIN = 273.15


class HeatPump(NamedTuple):
    """N heat pumps, each with its house.

    kw: float64 [N, 1 or E], electric power when on.
    resistance_k_per_kw, capacity_kwh_per_k: float64 [N, 1 or E], of the house.
    is_cooling: bool [N, 1 or E], an air conditioner.
    supply_c: float64 [N, 1 or E], temperature of the water or air it supplies, degC.
    quality: float64 [N, 1 or E], share of Carnot's efficiency, about 0.45.
    least_lift_k: float64 [N, 1 or E], smallest difference of temperatures that counts, about 15 K.
    power_factor: float64 [N, 1 or E], lagging, 0..1.
    """

    kw: NDArray[np.float64]
    resistance_k_per_kw: NDArray[np.float64]
    capacity_kwh_per_k: NDArray[np.float64]
    is_cooling: NDArray[np.bool_]
    supply_c: NDArray[np.float64]
    quality: NDArray[np.float64]
    least_lift_k: NDArray[np.float64]
    power_factor: NDArray[np.float64]


class Comfort(NamedTuple):
    """What people want.

    set_point_c: float64 [N, 1 or E], degC.
    band_k: float64 [N, 1 or E], width of the thermostat's hysteresis.
    low_c, high_c: float64 [N, 1 or E], bounds of comfort, degC.
    """

    set_point_c: NDArray[np.float64]
    band_k: NDArray[np.float64]
    low_c: NDArray[np.float64]
    high_c: NDArray[np.float64]


def cop(heat_pump: HeatPump, outdoor_c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return heat (or cold) per electric energy, [N, E]: quality T_supply / |T_supply - T_outdoor|, T in kelvin.

    Carnot's efficiency with a second-law quality (Ruhnau et al., "Time series of heat demand and heat pump
    efficiency", Scientific Data 6, 2019, discuss it against measured heat pumps).
    """
    lift = _sign(heat_pump) * (heat_pump.supply_c - outdoor_c)
    ratio: NDArray[np.float64] = heat_pump.quality * (heat_pump.supply_c + KELVIN)
    return ratio / np.maximum(lift, heat_pump.least_lift_k)


def thermostat(
    heat_pump: HeatPump, comfort: Comfort, indoor_c: NDArray[np.float64], is_on: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Tell which heat pumps run, bool [N, E]: on beyond half the band, off beyond the other half, else as before."""
    missing_k = _sign(heat_pump) * (comfort.set_point_c - indoor_c)
    half = 0.5 * comfort.band_k
    return (missing_k > half) | (is_on & (missing_k >= -half))


def step_house(
    heat_pump: HeatPump,
    indoor_c: NDArray[np.float64],
    outdoor_c: NDArray[np.float64],
    gain_kw: NDArray[np.float64],
    duty: NDArray[np.float64],
    step_h: float,
) -> NDArray[np.float64]:
    """Return the indoor temperature after the interval, degC, [N, E].

    C dT/dt = (T_outdoor - T) / R + gain + heat, solved exactly: T' = T_end + (T - T_end) exp(-step / (R C)) with
    T_end = T_outdoor + R (gain + heat).

    Args:
        heat_pump: the heat pumps and houses.
        indoor_c: temperature at the start, [N, E].
        outdoor_c: outside, [N or 1, E].
        gain_kw: heat of sun, people and devices, [N or 1, E].
        duty: share of the interval that the heat pump runs, 0..1, [N, E].
        step_h: length of the interval, h.
    """
    heat_kw = _sign(heat_pump) * duty * heat_pump.kw * cop(heat_pump, outdoor_c)
    end_c = outdoor_c + heat_pump.resistance_k_per_kw * (gain_kw + heat_kw)
    kept = np.exp(-step_h / (heat_pump.resistance_k_per_kw * heat_pump.capacity_kwh_per_k))
    after: NDArray[np.float64] = end_c + (indoor_c - end_c) * kept
    return after


def injected_kw_kvar(heat_pump: HeatPump, duty: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return active and reactive power injected (negative: drawn), [N, E], at this share of the interval running."""
    kw = -duty * heat_pump.kw
    return kw, kw * np.sqrt(1.0 - heat_pump.power_factor**2) / heat_pump.power_factor


def discomfort_kh(comfort: Comfort, indoor_c: NDArray[np.float64], step_h: float) -> NDArray[np.float64]:
    """Return how far outside its bounds of comfort each house is, times the interval, kelvin-hours, [N, E]."""
    outside = np.maximum(np.maximum(comfort.low_c - indoor_c, indoor_c - comfort.high_c), 0.0)
    return outside * step_h


def _sign(heat_pump: HeatPump) -> NDArray[np.float64]:
    """Return 1 where it heats, -1 where it cools."""
    return np.where(heat_pump.is_cooling, -1.0, 1.0)
