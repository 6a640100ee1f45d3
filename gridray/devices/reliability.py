"""Interruptions of customers and what they add up to: SAIDI, SAIFI, CAIDI, MAIFI and energy not supplied."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOMENTARY_MIN = 5.0
"""Interruptions longer than this are sustained (IEEE 1366-2012, clause 2)."""


class Interruptions(NamedTuple):
    """Interruptions since the start, of L loads.

    out_min: float64 [L, E], length of the interruption that goes on, min, 0 if supplied.
    sustained: float64 [E], customers interrupted for more than 5 min, counted per interruption.
    momentary: float64 [E], customers interrupted for 5 min or less, counted per interruption when it ends.
    customer_min: float64 [E], minutes without supply of customers in sustained interruptions.
    unserved_kwh: float64 [E], energy not supplied in all interruptions.
    """

    out_min: NDArray[np.float64]
    sustained: NDArray[np.float64]
    momentary: NDArray[np.float64]
    customer_min: NDArray[np.float64]
    unserved_kwh: NDArray[np.float64]


class ReliabilityIndices(NamedTuple):
    """Indices of IEEE 1366-2012 over the time counted.

    saidi_min: float64 [E], customer minutes of interruption per customer served.
    saifi: float64 [E], sustained interruptions per customer served.
    caidi_min: float64 [E], minutes per sustained interruption, 0 if there was none.
    maifi: float64 [E], momentary interruptions per customer served.
    ens_kwh: float64 [E], energy not supplied.
    """

    saidi_min: NDArray[np.float64]
    saifi: NDArray[np.float64]
    caidi_min: NDArray[np.float64]
    maifi: NDArray[np.float64]
    ens_kwh: NDArray[np.float64]


def no_interruptions(num_loads: int, num_envs: int) -> Interruptions:
    """Return counts of a system where everybody is supplied."""
    zero = np.zeros(num_envs)
    return Interruptions(np.zeros((num_loads, num_envs)), zero, zero.copy(), zero.copy(), zero.copy())


def count_interruptions(
    counts: Interruptions,
    customers: NDArray[np.float64],
    is_supplied: NDArray[np.bool_],
    demand_kw: NDArray[np.float64],
    step_min: float,
) -> Interruptions:
    """Return the counts after one step.

    Args:
        counts: before the step.
        customers: served at each load, [L, 1 or E].
        is_supplied: whether each load's bus is energised, bool [L, E].
        demand_kw: what each load would draw, >= 0, [L, E].
        step_min: length of the step, min.
    """
    out_min = np.where(is_supplied, 0.0, counts.out_min + step_min)
    is_long, was_long = out_min > MOMENTARY_MIN, counts.out_min > MOMENTARY_MIN
    # An interruption's first minutes count from the moment at which it turns out to be a sustained one.
    added_min = np.where(is_long, np.where(was_long, step_min, out_min), 0.0)
    ended_short = is_supplied & (counts.out_min > 0.0) & ~was_long
    return Interruptions(
        out_min,
        counts.sustained + (customers * (is_long & ~was_long)).sum(axis=0),
        counts.momentary + (customers * ended_short).sum(axis=0),
        counts.customer_min + (customers * added_min).sum(axis=0),
        counts.unserved_kwh + (demand_kw * ~is_supplied).sum(axis=0) * step_min / 60.0,
    )


def reliability_indices(counts: Interruptions, customers: NDArray[np.float64]) -> ReliabilityIndices:
    """Return the indices for these customers per load, [L, 1 or E].

    SAIFI = sum of customers interrupted / customers served, SAIDI = sum of customer minutes / customers served,
    CAIDI = SAIDI / SAIFI, MAIFI as SAIFI for momentary ones (IEEE 1366-2012, clause 3).
    """
    served = customers.sum(axis=0)
    caidi_min = np.divide(
        counts.customer_min, counts.sustained, out=np.zeros_like(counts.customer_min), where=counts.sustained > 0.0
    )
    return ReliabilityIndices(
        counts.customer_min / served,
        counts.sustained / served,
        caidi_min,
        counts.momentary / served,
        counts.unserved_kwh,
    )
