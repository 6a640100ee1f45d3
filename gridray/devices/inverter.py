"""Inverters: apparent power limit, the voltage and power functions of IEEE 1547-2018, response and ramps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from gridray.devices.checks import check_within
from gridray.devices.curves import Curve, curve, evaluate
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Category = Literal["A", "B"]
REQUIRED_ABSORPTION = {"A": 0.25, "B": 0.44}
"""Reactive power that must be absorbed, share of kVA (IEEE 1547-2018 table 7)."""
REQUIRED_INJECTION = 0.44
"""The same for injection, both categories."""
LEAST_POWER, FULL_VAR_POWER = 0.05, 0.2
"""No reactive power is asked below the first share of rated power, all of it above the second (clause 5.2)."""
BISECTIONS = 50


class Inverter(NamedTuple):
    """Ratings of N inverters.

    kva, kw: float64 [N, 1 or E], apparent and active power ratings.
    inject_kvar, absorb_kvar: float64 [N, 1 or E], most reactive power either way, both >= 0.
    required_inject_kvar, required_absorb_kvar: float64 [N, 1 or E], what watt priority leaves to reactive power, >= 0.
    has_watt_priority: bool [N, 1 or E], beyond kVA reactive power gives way down to the required one; else active does.
    has_night_var: bool [N, 1 or E], reactive power does not depend on active power; else it is 0 below 5 % of kw and
        in proportion up to 20 %.
    """

    kva: NDArray[np.float64]
    kw: NDArray[np.float64]
    inject_kvar: NDArray[np.float64]
    absorb_kvar: NDArray[np.float64]
    required_inject_kvar: NDArray[np.float64]
    required_absorb_kvar: NDArray[np.float64]
    has_watt_priority: NDArray[np.bool_]
    has_night_var: NDArray[np.bool_]


def inverter(kva: NDArray[np.float64], category: Category) -> Inverter:
    """Return inverters [N, 1 or E] with just what IEEE 1547-2018 table 7 asks; kw = kva, var priority."""
    _check(category)
    kva = np.asarray(kva, dtype=np.float64)
    inject, absorb = REQUIRED_INJECTION * kva, REQUIRED_ABSORPTION[category] * kva
    no = np.zeros(kva.shape, dtype=np.bool_)
    return Inverter(kva, kva, inject, absorb, inject, absorb, no, no)


def check_inverter(inverter: Inverter) -> None:
    """Refuse inverters that cannot be.

    Raises:
        ConfigError: a rating is not above 0, or a reactive limit below 0.
    """
    for name in ("kva", "kw"):
        check_within("Inverter", name, getattr(inverter, name), 1e-6, np.inf)
    for name in ("inject_kvar", "absorb_kvar", "required_inject_kvar", "required_absorb_kvar"):
        check_within("Inverter", name, getattr(inverter, name), 0.0, np.inf)


def volt_var_curve(category: Category) -> Curve:
    """Return reactive power, pu of kVA, injected, over voltage, pu: the defaults of IEEE 1547-2018 table 8."""
    _check(category)
    if category == "A":
        return curve((0.9, 1.0, 1.0, 1.1), (0.25, 0.0, 0.0, -0.25))
    return curve((0.92, 0.98, 1.02, 1.08), (0.44, 0.0, 0.0, -0.44))


def watt_var_curve(category: Category) -> Curve:
    """Return reactive power, pu of kVA, over active power, pu of kW: the defaults of IEEE 1547-2018 table 9."""
    _check(category)
    return curve((-1.0, -0.5, -0.2, 0.2, 0.5, 1.0), (0.44, 0.0, 0.0, 0.0, 0.0, -REQUIRED_ABSORPTION[category]))


def volt_watt_curve(least_pu: float = 0.0) -> Curve:
    """Return most active power, pu of kW, over voltage, pu: the default of IEEE 1547-2018 table 10.

    Args:
        least_pu: least power that the device can inject; 0.2 at most counts. -1 for storage that may charge fully is
            not a default of the standard but allowed by it.
    """
    return curve((1.06, 1.1), (1.0, min(0.2, least_pu)))


def volt_var_kvar(inverter: Inverter, volt_var: Curve, v_pu: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the reactive power asked at these voltages, kvar injected, [N, E]."""
    return evaluate(volt_var, v_pu) * inverter.kva


def watt_var_kvar(inverter: Inverter, watt_var: Curve, kw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the reactive power asked at this active power, kvar injected, [N, E]."""
    return evaluate(watt_var, kw / inverter.kw) * inverter.kva


def volt_watt_kw(inverter: Inverter, volt_watt: Curve, v_pu: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the most active power allowed at these voltages, kW injected, [N, E]."""
    return evaluate(volt_watt, v_pu) * inverter.kw


def power_factor_kvar(kw: NDArray[np.float64], power_factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return kvar = kw tan(acos pf), [N, E]; a positive power factor injects reactive power, a negative one absorbs.

    Raises:
        ConfigError: a power factor is 0 or beyond 1.
    """
    size = np.abs(power_factor)
    if not ((size > 0.0) & (size <= 1.0)).all():
        raise ConfigError(f"power_factor is {np.ravel(power_factor).tolist()}: give numbers in -1..1 but not 0.")
    return kw * np.sign(power_factor) * np.sqrt(1.0 - size**2) / size


def limit_power(
    inverter: Inverter, kw: NDArray[np.float64], kvar: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (kw, kvar) [N, E] within the reactive limits and kw^2 + kvar^2 <= kva^2, by the inverter's priority.

    As OpenDER (EPRI 3002030962, section 3.9), but watt priority never raises active power above what was asked.
    """
    kvar = _within_capability(inverter, kw, kvar)
    is_beyond = kw**2 + kvar**2 > inverter.kva**2
    keeps = np.clip(kvar, -inverter.required_absorb_kvar, inverter.required_inject_kvar)
    first_kvar = np.where(inverter.has_watt_priority & is_beyond, keeps, kvar)
    kw = _cut(kw, _rest(inverter.kva, first_kvar))
    return kw, _cut(kvar, _rest(inverter.kva, kw))


def limit_power_factor(
    inverter: Inverter, kw: NDArray[np.float64], kvar: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (kw, kvar) [N, E] scaled down alike to kva, so that the power factor stays, then kvar to its limits."""
    share = np.minimum(1.0, inverter.kva / np.maximum(np.hypot(kw, kvar), 1e-12 * inverter.kva))
    kw, kvar = kw * share, kvar * share
    return kw, _cut(_within_capability(inverter, kw, kvar), _rest(inverter.kva, kw))


def limit_watt_var(
    inverter: Inverter, watt_var: Curve, kw: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (kw, kvar) [N, E] on the watt-var curve, active power cut to where the curve leaves the kva circle."""
    kvar = watt_var_kvar(inverter, watt_var, kw)
    is_beyond = kw**2 + kvar**2 > inverter.kva**2
    if is_beyond.any():
        low, high = np.zeros_like(kw), np.where(is_beyond, 1.0, 0.0)
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            fits = (kw * middle) ** 2 + watt_var_kvar(inverter, watt_var, kw * middle) ** 2 <= inverter.kva**2
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        kw = np.where(is_beyond, kw * low, kw)
        kvar = watt_var_kvar(inverter, watt_var, kw)
    return kw, _within_capability(inverter, kw, kvar)


def lag(
    previous: NDArray[np.float64], target: NDArray[np.float64], response_s: NDArray[np.float64], step_s: float
) -> NDArray[np.float64]:
    """Return the first-order answer after step_s: y + (x - y) (1 - 0.1^(step/T)), [N, E].

    T, response_s, is IEEE 1547's open loop response time: 90 % of a step are done after it; 0 follows at once.
    """
    done = 1.0 - 0.1 ** (step_s / np.maximum(response_s, 1e-9))
    return previous + (target - previous) * done


def ramp(
    previous: NDArray[np.float64],
    target: NDArray[np.float64],
    up_per_s: NDArray[np.float64],
    down_per_s: NDArray[np.float64],
    step_s: float,
) -> NDArray[np.float64]:
    """Return the target, no further from the previous value than the rates (>= 0, in its unit per s) allow, [N, E]."""
    return np.clip(target, previous - down_per_s * step_s, previous + up_per_s * step_s)


def _within_capability(inverter: Inverter, kw: NDArray[np.float64], kvar: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.abs(kw) / inverter.kw
    share = np.where(power < LEAST_POWER, 0.0, np.minimum(power / FULL_VAR_POWER, 1.0))
    share = np.where(inverter.has_night_var, 1.0, share)
    return np.clip(kvar, -inverter.absorb_kvar * share, inverter.inject_kvar * share)


def _rest(kva: NDArray[np.float64], power: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(np.maximum((kva - power) * (kva + power), 0.0))


def _cut(power: NDArray[np.float64], most: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(power, -most, most)


def _check(category: str) -> None:
    if category not in REQUIRED_ABSORPTION:
        raise ConfigError(f"Category '{category}' is not one of IEEE 1547-2018: give 'A' or 'B'.")
