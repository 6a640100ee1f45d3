"""Load branches of a feeder: where loads, generators and capacitors draw current, and by which curve."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.feeders.components import Capacitor, Load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.feeders.components import Generator
    from gridray.feeders.feeder import Feeder

SQRT3 = 3.0**0.5
POLYNOMIALS = {
    1: ((0.0, 0.0, 1.0), (0.0, 0.0, 1.0)),
    2: ((1.0, 0.0, 0.0), (1.0, 0.0, 0.0)),
    3: ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0)),
    5: ((0.0, 1.0, 0.0), (0.0, 1.0, 0.0)),
    6: ((0.0, 0.0, 1.0), (0.0, 0.0, 1.0)),
    7: ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0)),
}
"""(a0, a1, a2) of P and of Q within the limits, by load model: y = a0 + a1/v + a2/v^2."""
IMPEDANCE_CURVE = (-1.0, -1.0, -1.0, np.inf, *2 * (1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0))
"""A curve's columns after the first: an impedance at any voltage."""


class Branches(NamedTuple):
    """Branches between two nodes, loads' first, then generators', then capacitors'.

    start, end: node of either end, int64 [B], -1 for ground; item: the item each belongs to, int64 [B];
    share: its share of the item's power, float64 [B]; curve: float64 [B, 19] (see `loads.relative_admittance`).
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    item: NDArray[np.int64]
    share: NDArray[np.float64]
    curve: NDArray[np.float64]


def load_branches(feeder: Feeder, index: Mapping[tuple[str, int], int], base_v: NDArray[np.float64]) -> Branches:
    """List the branches of all items; index gives a node's number, base_v its voltage base."""
    rows: list[tuple[int, int, int, float]] = []
    curves: list[tuple[float, ...]] = []
    items: list[Load | Generator | Capacitor] = [*feeder.loads, *feeder.generators, *feeder.capacitors]
    for number, owner in enumerate(items):
        ends, rated_v = _ends(owner)
        curve = _curve(owner)
        for first, second in ends:
            near, far = (index[owner.bus, node] if node else -1 for node in (first, second))
            if near < 0:
                near, far = far, near
            rows.append((near, far, number, 1.0 / len(ends)))
            curves.append(((base_v[near] / rated_v) ** 2, *curve))
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    start, end, item, share = columns
    return Branches(
        np.array(start, dtype=np.int64),
        np.array(end, dtype=np.int64),
        np.array(item, dtype=np.int64),
        np.array(share, dtype=np.float64),
        np.array(curves, dtype=np.float64).reshape(-1, 19),
    )


def _ends(item: Load | Generator | Capacitor) -> tuple[list[tuple[int, int]], float]:
    """Return the two nodes of each branch of an item, and a branch's rated voltage, V."""
    phases, volts = item.phases, item.kv * 1e3
    if item.connection == "wye":
        return [(phase, item.neutral) for phase in phases], volts / (SQRT3 if len(phases) > 1 else 1.0)
    if len(phases) == 2:
        return [(phases[0], phases[1])], volts
    return list(zip(phases, (*phases[1:], phases[0]), strict=True)), volts


def _curve(item: Load | Generator | Capacitor) -> tuple[float, ...]:
    """Return a curve's columns after the first."""
    is_generator = not isinstance(item, Load | Capacitor)
    # OpenDSS counts the impedance of a generator between two phases as one of three.
    size = 1.0 / 3.0 if is_generator and item.connection == "delta" and len(item.phases) == 2 else 1.0
    if isinstance(item, Capacitor) or item.model == 2:
        p = (size, 0.0, 0.0, 0.0, 0.0, size, size)
        return (-1.0, -1.0, -1.0, np.inf, *p, *p)
    if isinstance(item, Load):
        return _load_curve(item)
    # A generator outside its limits is the impedance that matches there.
    y = (*POLYNOMIALS[1][0], 0.0, 0.0, size * item.vmin_pu**-2, size * item.vmax_pu**-2)
    return (-1.0, -1.0, item.vmin_pu, item.vmax_pu, *y, *y)


def _load_curve(load: Load) -> tuple[float, ...]:
    """OpenDSS's load models 1 and 3 to 8 with their limits (Load.pas; shared reference load_model_curves.csv).

    Above vmax the impedance that matches there, below vmin a current linear in v that meets the impedance of rated
    power at vlow. CVR loads (4) and quadratic Q (3) take constant power's branches outside, fixed Q (6, 7) is then an
    impedance of rated kvar.
    """
    low, vmin, vmax = load.vlow_pu, load.vmin_pu, load.vmax_pu
    exponents, cut = (0.0, 0.0), -1.0
    p: tuple[float, ...]
    q: tuple[float, ...]
    if load.model == 4:
        p = q = (0.0, 0.0, 0.0)
        exponents = (load.cvr_watts, load.cvr_vars)
        if exponents == (1.0, 2.0):
            p, q, exponents = (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0)
    elif load.model == 8:
        p, q, cut = load.zipv[:3], load.zipv[3:6], load.zipv[6]
    else:
        p, q = POLYNOMIALS[load.model]
    outside = (p, q) if load.model in {5, 8} else ((0.0, 0.0, 1.0), (0.0, 0.0, 1.0))
    columns: list[float] = [low, cut, vmin, vmax]
    for a, exponent, out in zip((p, q), exponents, outside, strict=True):
        at_max = out[0] + out[1] / vmax + out[2] / vmax**2
        at_min = out[0] * vmin + out[1] + out[2] / vmin
        slope = (at_min - low) / (vmin - low) if vmin > low else 0.0
        below = (low - slope * low, slope)
        if load.model in {6, 7}:
            below = (0.0, vmin**-2)
        columns += [*a, exponent, *below, at_max]
    if load.model in {6, 7}:
        columns[-3:] = [0.0, 1.0, 1.0]
    return tuple(columns)
