"""Batteries: energy, losses both ways, ratings, and a state of charge that no rounding takes out of its bounds."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gridray.devices.checks import check_within

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Battery(NamedTuple):
    """N batteries.

    kwh: float64 [N, 1 or E], energy at state of charge 1.
    soc_min, soc_max: float64 [N, 1 or E], bounds of the state of charge, 0 <= soc_min <= soc_max <= 1.
    kva: float64 [N, 1 or E], apparent power of the inverter.
    charge_kw, discharge_kw: float64 [N, 1 or E], most active power either way at the terminals, both >= 0.
    charge_efficiency, discharge_efficiency: float64 [N, 1 or E], one way, 0..1.
    self_discharge_per_h: float64 [N, 1 or E], share of the energy lost per hour at rest, 0..1.
    """

    kwh: NDArray[np.float64]
    soc_min: NDArray[np.float64]
    soc_max: NDArray[np.float64]
    kva: NDArray[np.float64]
    charge_kw: NDArray[np.float64]
    discharge_kw: NDArray[np.float64]
    charge_efficiency: NDArray[np.float64]
    discharge_efficiency: NDArray[np.float64]
    self_discharge_per_h: NDArray[np.float64]


class BatteryStep(NamedTuple):
    """What one interval did.

    soc: float64 [N, E], state of charge at its end; kw, kvar: float64 [N, E], mean power injected.
    loss_kwh: float64 [N, E], energy lost in conversion and at rest, >= 0.
    """

    soc: NDArray[np.float64]
    kw: NDArray[np.float64]
    kvar: NDArray[np.float64]
    loss_kwh: NDArray[np.float64]


def check_battery(battery: Battery) -> None:
    """Refuse batteries that cannot be.

    Raises:
        ConfigError: a value is out of its range; the message names field, item and remedy.
    """
    check_within("Battery", "kwh", battery.kwh, 1e-6, np.inf)
    check_within("Battery", "soc_min", battery.soc_min, 0.0, 1.0)
    check_within("Battery", "soc_max", battery.soc_max, battery.soc_min, 1.0)
    for name in ("kva", "charge_kw", "discharge_kw"):
        check_within("Battery", name, getattr(battery, name), 0.0, np.inf)
    for name in ("charge_efficiency", "discharge_efficiency"):
        check_within("Battery", name, getattr(battery, name), 1e-3, 1.0)
    check_within("Battery", "self_discharge_per_h", battery.self_discharge_per_h, 0.0, 1.0)


@njit(cache=True, nogil=True, error_model="numpy")
def power_range_kw(
    battery: Battery, soc: NDArray[np.float64], step_h: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least (charging) and the most power that the energy and the ratings allow for step_h, kW, [N, E]."""
    return _range_kw(battery, _at_rest(battery, soc, step_h), step_h)


@njit(cache=True, nogil=True, error_model="numpy")
def step_battery(
    battery: Battery, soc: NDArray[np.float64], kw: NDArray[np.float64], kvar: NDArray[np.float64], step_h: float
) -> BatteryStep:
    """Return what these set-points (injected, one signed power, so never charge and discharge at once) come to.

    soc' = rest(soc) - (kw / discharge_efficiency if kw > 0 else kw charge_efficiency) step_h / kwh, power cut first to
    what energy and ratings allow, reactive power after it to the kVA circle. Energy is conserved:
    (soc - soc') kwh = kw step_h + loss_kwh.

    Args:
        battery: the batteries.
        soc: state of charge within its bounds, [N, E].
        kw: active power set-point, [N, E].
        kvar: reactive power set-point, [N, E].
        step_h: length of the interval, h.
    """
    stored = _at_rest(battery, soc, step_h)
    least, most = _range_kw(battery, stored, step_h)
    kw = np.clip(kw, least, most)
    drawn_kw = np.where(kw > 0.0, kw / battery.discharge_efficiency, kw * battery.charge_efficiency)
    # The power was cut to what fits: only its rounding is left to clip.
    after = np.clip(stored - drawn_kw * step_h / battery.kwh, battery.soc_min, battery.soc_max)
    most_kvar = np.sqrt(np.maximum((battery.kva - kw) * (battery.kva + kw), 0.0))
    loss_kwh = (drawn_kw - kw) * step_h + (soc - stored) * battery.kwh
    return BatteryStep(after, kw, np.clip(kvar, -most_kvar, most_kvar), loss_kwh)


@njit(cache=True, nogil=True, error_model="numpy")
def _at_rest(battery: Battery, soc: NDArray[np.float64], step_h: float) -> NDArray[np.float64]:
    """Return the state of charge after self-discharge, which ends at soc_min."""
    kept = soc * (1.0 - battery.self_discharge_per_h) ** step_h
    return np.maximum(kept, np.minimum(soc, battery.soc_min))


@njit(cache=True, nogil=True, error_model="numpy")
def _range_kw(
    battery: Battery, stored: NDArray[np.float64], step_h: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    room_kwh = np.maximum(battery.soc_max - stored, 0.0) * battery.kwh
    left_kwh = np.maximum(stored - battery.soc_min, 0.0) * battery.kwh
    least = -np.minimum(np.minimum(battery.charge_kw, battery.kva), room_kwh / battery.charge_efficiency / step_h)
    most = np.minimum(np.minimum(battery.discharge_kw, battery.kva), left_kwh * battery.discharge_efficiency / step_h)
    return least, most
