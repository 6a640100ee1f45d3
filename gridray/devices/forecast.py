"""Forecasts whose error grows with the lead time as stated and changes little from one issue to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gridray.devices.checks import check_within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.devices.random_streams import EnvStreams


class ForecastError(NamedTuple):
    """Errors of forecasts of N series for leads 1..H steps.

    std: float64 [H, N, 1 or E], standard deviation of the error at each lead, in the series' unit.
    lead_correlation: float64, of the scaled errors of one issue at neighbouring leads, 0..1.
    issue_correlation: float64, of the scaled errors of two issues in a row for the same target time, 0..1.
    low, high: float64 [N, 1 or E], bounds of the series; forecasts are clipped to them.
    """

    std: NDArray[np.float64]
    lead_correlation: float
    issue_correlation: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def grown_std(std_1: NDArray[np.float64], std_end: NDArray[np.float64], num_leads: int) -> NDArray[np.float64]:
    """Return standard deviations [H, N, 1 or E] that grow with the root of the lead from std_1 to std_end."""
    share = (np.arange(num_leads) / max(num_leads - 1, 1))[:, None, None]
    std: NDArray[np.float64] = np.sqrt(std_1**2 + share * (std_end**2 - std_1**2))
    return std


def start_errors(error: ForecastError, streams: EnvStreams) -> NDArray[np.float64]:
    """Return scaled errors of a first issue, [H, N, E], each standard normal, AR(1) over the leads.

    Raises:
        ConfigError: a correlation is not in 0..1.
    """
    for name in ("lead_correlation", "issue_correlation"):
        check_within("ForecastError", name, np.array([getattr(error, name)]), 0.0, 1.0)
    return _auto_regressive(error, streams)


def next_errors(error: ForecastError, scaled: NDArray[np.float64], streams: EnvStreams) -> NDArray[np.float64]:
    """Return scaled errors of the next issue, [H, N, E], again standard normal and AR(1) over the leads.

    The error for a target time is r times that of the issue before plus sqrt(1 - r^2) of fresh AR(1) noise, r the
    issue correlation: forecasts of one time are revised, not made up anew. The farthest target was in no issue yet:
    its part of the issue before continues that one's AR(1).
    """
    lead, issue = error.lead_correlation, error.issue_correlation
    farthest = lead * scaled[-1] + np.sqrt(1.0 - lead**2) * streams.normal(scaled.shape[1])
    before = np.concatenate((scaled[1:], farthest[None]))
    revised: NDArray[np.float64] = issue * before + np.sqrt(1.0 - issue**2) * _auto_regressive(error, streams)
    return revised


def forecast(error: ForecastError, scaled: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the forecast of `truth` (what will be at leads 1..H), both [H, N, E]: truth + std scaled, clipped."""
    values: NDArray[np.float64] = np.clip(truth + error.std * scaled, error.low, error.high)
    return values


def _auto_regressive(error: ForecastError, streams: EnvStreams) -> NDArray[np.float64]:
    values = streams.normal(*error.std.shape[:2])
    _correlate(values, error.lead_correlation)
    return values


@njit(cache=True, nogil=True)
def _correlate(values: NDArray[np.float64], correlation: float) -> None:
    """Turn white noise [H, N, E] into AR(1) over the leads in place: z_h = r z_(h-1) + sqrt(1 - r^2) e_h."""
    fresh = np.sqrt(1.0 - correlation**2)
    for lead in range(1, values.shape[0]):
        for item in range(values.shape[1]):
            for env in range(values.shape[2]):
                values[lead, item, env] = correlation * values[lead - 1, item, env] + fresh * values[lead, item, env]
