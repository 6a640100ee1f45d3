"""Piecewise linear curves, each item and environment with points of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Curve(NamedTuple):
    """Points of piecewise linear curves, level outside them.

    x, y: float64 [K, N, 1 or E] (or [K, 1, 1], the same for all), x not decreasing; units as of the curve's use.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]


def curve(x: Sequence[float], y: Sequence[float]) -> Curve:
    """Return one curve for all items and environments."""
    return Curve(np.array(x, dtype=np.float64)[:, None, None], np.array(y, dtype=np.float64)[:, None, None])


def evaluate(curve: Curve, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return y at x, [N, E]: of points at the same x the last counts."""
    y: NDArray[np.float64] = np.where(x < curve.x[0], curve.y[0], curve.y[-1])
    for left in range(len(curve.x) - 1):
        x0, x1 = curve.x[left], curve.x[left + 1]
        share = (x - x0) / np.where(x1 > x0, x1 - x0, 1.0)
        between = curve.y[left] + share * (curve.y[left + 1] - curve.y[left])
        y = np.where((x >= x0) & (x < x1), between, y)
    return y
