"""Loads of a feeder over time, from the load shapes that its file gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from gridray.errors import FeederError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder

FIXED_KVAR = (6, 7)
"""Load models whose reactive power nothing multiplies."""


def load_series(
    feeder: Feeder, times_h: NDArray[np.float64], *, kind: Literal["daily", "yearly"] = "daily"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return kW and kvar of every load, float64 [num_times, num_loads] each.

    As OpenDSS's LoadShape: the value of interval k holds after k - 1 and up to k intervals, hour 0 taking the last
    one, and a shape repeats. Without a shape of reactive power kvar keeps its share of kW; the kvar of models 6 and 7
    are fixed; a load without a shape stays nominal.

    Args:
        feeder: the feeder.
        times_h: hours since the shapes' start, [num_times].
        kind: which of a load's shapes to follow; in place of a yearly one that is missing, the daily one.

    Raises:
        FeederError: a load names a shape that the feeder has not.
    """
    shapes = {shape.name: shape for shape in feeder.shapes}
    kw = np.tile([load.kw for load in feeder.loads], (len(times_h), 1)).astype(np.float64)
    kvar = np.tile([load.kvar for load in feeder.loads], (len(times_h), 1)).astype(np.float64)
    for column, load in enumerate(feeder.loads):
        name = load.daily if kind == "daily" else load.yearly or load.daily
        if name is None:
            continue
        if name not in shapes:
            raise FeederError(f"Load '{load.name}' follows shape '{name}', which is not there: define it.")
        shape = shapes[name]
        index = np.round(np.asarray(times_h) / shape.interval_h).astype(np.int64) - 1
        p = np.array(shape.p_mult)[index % len(shape.p_mult)]
        kw[:, column] = p if shape.is_actual else p * load.kw
        if load.model in FIXED_KVAR:
            continue
        if shape.q_mult is None and shape.is_actual:
            kvar[:, column] = p * (load.kvar / load.kw if load.kw else 0.0)
        elif shape.q_mult is None:
            kvar[:, column] = p * load.kvar
        else:
            q = np.array(shape.q_mult)[index % len(shape.q_mult)]
            kvar[:, column] = q if shape.is_actual else q * load.kvar
    return kw, kvar
