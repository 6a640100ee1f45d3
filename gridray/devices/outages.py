"""Outages of lines and transformers: they fail by chance and are repaired after a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.devices.checks import check_within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.devices.random_streams import EnvStreams

HOURS_PER_YEAR = 8760.0


class OutageRates(NamedTuple):
    """How N components fail.

    per_year: float64 [N, 1 or E], failures per year in service; for a line see `line_rate_per_year`.
    repair_h: float64 [N, 1 or E], mean time to repair, > 0.
    repair_spread: float64 [N, 1 or E], standard deviation of the repair time over its mean, >= 0.
    """

    per_year: NDArray[np.float64]
    repair_h: NDArray[np.float64]
    repair_spread: NDArray[np.float64]


class OutageStep(NamedTuple):
    """Where N components stand.

    repair_left_h: float64 [N, E], time until each is back, 0 in service.
    has_failed: bool [N, E], failed in this step.
    """

    repair_left_h: NDArray[np.float64]
    has_failed: NDArray[np.bool_]


def check_rates(rates: OutageRates) -> None:
    """Refuse rates that cannot be.

    Raises:
        ConfigError: a value is out of its range.
    """
    check_within("OutageRates", "per_year", rates.per_year, 0.0, np.inf)
    check_within("OutageRates", "repair_h", rates.repair_h, 1e-6, np.inf)
    check_within("OutageRates", "repair_spread", rates.repair_spread, 0.0, np.inf)


def line_rate_per_year(per_km_year: NDArray[np.float64], length_km: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return failures per year of lines, [N, 1 or E]."""
    return per_km_year * length_km


def step_outages(
    rates: OutageRates,
    repair_left_h: NDArray[np.float64],
    streams: EnvStreams,
    step_h: float,
    *,
    weather: float | NDArray[np.float64] = 1.0,
) -> OutageStep:
    """Return the components after one step.

    One in service fails in the step with probability 1 - exp(-rate weather step_h / 8760) (constant failure rate) and
    is out from its start for a log-normal time of mean repair_h (Billinton and Allan, "Reliability Evaluation of
    Power Systems", chapters 7 and 13). One whose repair ends in a step is back at its end.

    Args:
        rates: of the components.
        repair_left_h: time until each is back, 0 in service, [N, E].
        streams: random numbers, two per component and step.
        step_h: length of the step, h.
        weather: factor of the failure rates, [N or 1, 1 or E]: above 1 in storms.
    """
    num_items = len(repair_left_h)
    probability = -np.expm1(-rates.per_year * weather * step_h / HOURS_PER_YEAR)
    has_failed = (repair_left_h <= 0.0) & (streams.uniform(num_items) < probability)
    # Log-normal of mean m and standard deviation c m: sigma^2 = ln(1 + c^2), mu = ln m - sigma^2 / 2.
    variance = np.log1p(rates.repair_spread**2)
    time_h = rates.repair_h * np.exp(np.sqrt(variance) * streams.normal(num_items) - 0.5 * variance)
    left_h = np.where(has_failed, np.maximum(time_h, step_h), np.maximum(repair_left_h - step_h, 0.0))
    return OutageStep(left_h, has_failed)
