"""Loads that can be shed or shifted: what is left out now comes back later, in part or whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ControllableLoad(NamedTuple):
    """N loads.

    share: float64 [N, 1 or E], most of the load that may be left out, 0..1.
    rebound: float64 [N, 1 or E], energy that comes back per energy left out: 0 sheds, 1 shifts, above 1 pays for it.
    payback_kw: float64 [N, 1 or E], most power with which it comes back, >= 0.
    owed_kwh_max: float64 [N, 1 or E], most energy that may be owed at a time, >= 0.
    """

    share: NDArray[np.float64]
    rebound: NDArray[np.float64]
    payback_kw: NDArray[np.float64]
    owed_kwh_max: NDArray[np.float64]


class LoadStep(NamedTuple):
    """What one interval did.

    kw: float64 [N, E], mean power injected (<= 0: drawn).
    shed_kw: float64 [N, E], power left out, >= 0.
    owed_kwh: float64 [N, E], energy that has still to come back, >= 0.
    """

    kw: NDArray[np.float64]
    shed_kw: NDArray[np.float64]
    owed_kwh: NDArray[np.float64]


def step_load(
    load: ControllableLoad,
    owed_kwh: NDArray[np.float64],
    base_kw: NDArray[np.float64],
    shed_kw: NDArray[np.float64],
    step_h: float,
) -> LoadStep:
    """Return what leaving out shed_kw (>= 0) of base_kw (drawn, >= 0) comes to, all [N, E].

    owed' = owed + (rebound shed - back) step_h; energy comes back as fast as payback_kw allows whenever nothing is
    left out (the rebound of O'Connell et al., "Benefits and challenges of electrical demand response", 2014).
    """
    room_kw = np.maximum(load.owed_kwh_max - owed_kwh, 0.0) / step_h
    most_kw = np.minimum(load.share * base_kw, np.where(load.rebound > 0.0, room_kw, np.inf))
    most_kw = np.minimum(most_kw, room_kw / np.maximum(load.rebound, 1e-12))
    shed_kw = np.clip(shed_kw, 0.0, most_kw)
    back_kw = np.where(shed_kw > 0.0, 0.0, np.minimum(owed_kwh / step_h, load.payback_kw))
    owed_kwh = np.maximum(owed_kwh + (load.rebound * shed_kw - back_kw) * step_h, 0.0)
    return LoadStep(-(base_kw - shed_kw + back_kw), shed_kw, owed_kwh)
