"""From what every step of a day reports to one number a day: totals, shares of time, depths, durations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.tasks.constraints import RANGE_A_PU

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Series = Mapping[str, NDArray[np.float64]]
    Days = dict[str, NDArray[np.float64]]

LEVEL_SUFFIXES = ("_pu", "_percent", "_share")
"""Units of costs that are no amounts: how far beyond a limit something is."""
AMOUNT_SUFFIXES = ("_kwh", "_operations", "_eur")
DEAD_PU = 1e-6
"""Voltage below which a node is without supply: its customers are interrupted, and no band is violated."""


def voltage_series(vmag_pu: NDArray[np.float64]) -> Days:
    """Return violation_share and violation_depth_pu of a step, [D], from voltages [D, num_nodes]: ANSI range A."""
    depth = np.maximum(np.maximum(RANGE_A_PU[0] - vmag_pu, vmag_pu - RANGE_A_PU[1]), 0.0)
    depth = np.where(vmag_pu > DEAD_PU, depth, 0.0)
    return {"violation_share": (depth > 0.0).mean(axis=1), "violation_depth_pu": depth.max(axis=1)}


def voltage_indicators(series: Series, step_h: float) -> Days:
    """Return share, mean and greatest depth, hours and longest run of violations of each day, [D] each.

    Args:
        series: violation_share and violation_depth_pu, float64 [T, D].
        step_h: length of a step, h.
    """
    is_violated = series["violation_share"] > 0.0
    return {
        "violation_share": series["violation_share"].mean(axis=0),
        "violation_depth_pu": series["violation_depth_pu"].mean(axis=0),
        "deepest_violation_pu": series["violation_depth_pu"].max(axis=0),
        "violation_hours": is_violated.sum(axis=0) * step_h,
        "longest_violation_hours": longest_run(is_violated) * step_h,
    }


def cost_indicators(costs: Series, step_h: float) -> Days:
    """Return a task's costs per day: the total of an amount; of a level its share of steps, depth and duration.

    A level "x_pu" becomes "x_pu.share" (of the steps above 0), "x_pu.depth" (mean over these), "x_pu.hours" and
    "x_pu.longest_hours".
    """
    found: Days = {}
    for name, values in costs.items():
        if not name.endswith(LEVEL_SUFFIXES):
            found[name] = values.sum(axis=0)
            continue
        is_above = values > 0.0
        count = is_above.sum(axis=0)
        found[f"{name}.share"] = is_above.mean(axis=0)
        found[f"{name}.depth"] = values.sum(axis=0) / np.maximum(count, 1)
        found[f"{name}.hours"] = count * step_h
        found[f"{name}.longest_hours"] = longest_run(is_above) * step_h
    return found


def other_indicators(indicators: Series, step_h: float) -> Days:
    """Return what a task reports beside its costs: totals of amounts, means of the rest, and the feeder's exchange."""
    found: Days = {}
    for name, values in indicators.items():
        if name == "converged":
            found["unconverged_share"] = 1.0 - values.mean(axis=0)
        elif name == "source_kw":
            found["import_kwh"] = np.maximum(values, 0.0).sum(axis=0) * step_h
            found["export_kwh"] = np.maximum(-values, 0.0).sum(axis=0) * step_h
            found["peak_kw"] = values.max(axis=0)
        elif name == "grid_losses_kw":
            found["losses_kwh"] = values.sum(axis=0) * step_h
        elif name not in {"violation_share", "violation_depth_pu"}:
            found[name] = values.sum(axis=0) if name.endswith(AMOUNT_SUFFIXES) else values.mean(axis=0)
    return found


def longest_run(is_true: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the longest unbroken run of True in each column of [T, D], in steps."""
    longest = run = np.zeros(is_true.shape[1])
    for row in is_true:
        run = np.where(row, run + 1.0, 0.0)
        longest = np.maximum(longest, run)
    return longest
