"""Load branches: how loads, generators and capacitors draw current, limits included; its derivative."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from gridray.physics.lanes import (
    LANE,
    all_true,
    empty_lanes,
    fill,
    get,
    lane_of,
    less_product,
    load,
    plus_product,
    power,
    select,
    square_root,
    store,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.lanes import Lane
    from gridray.physics.network import Network

TINY = 1e-100
"""Keeps 1/v finite at v = 0, where every curve is an impedance."""


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def relative_admittance(curve: NDArray[np.float64], first: int, v: float) -> tuple[float, float]:
    """Return y(v) = S(v) / (S0 v^2) and dy/dv at v pu; `first` is 5 for P and 12 for Q.

    A curve is (1/base^2, v_low, v_cut, v_min, v_max, then for P and for Q: a0, a1, a2, exponent, c0, c1, y_high):
    y = a0 + a1/v + a2/v^2 (+ v^(exponent-2) if exponent is not 0) between v_min and v_max, y_high above, c0/v + c1
    below, 0 below v_cut, and 1, the impedance of rated power, below v_low. OpenDSS: Load.pas (DSS C-API 0.14).
    """
    if v <= curve[1]:
        return 1.0, 0.0
    if v <= curve[2]:
        return 0.0, 0.0
    if v <= curve[3]:
        return curve[first + 4] / v + curve[first + 5], -curve[first + 4] / (v * v)
    if v > curve[4]:
        return curve[first + 6], 0.0
    r = 1.0 / v
    y = curve[first] + r * (curve[first + 1] + r * curve[first + 2])
    slope = -r * r * (curve[first + 1] + 2.0 * r * curve[first + 2])
    exponent = curve[first + 3]
    if exponent != 0.0:
        power = v ** (exponent - 2.0)
        y += power
        slope += (exponent - 2.0) * power * r
    return y, slope


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def linearise(
    curve: NDArray[np.float64], p: float, q: float, vr: float, vi: float
) -> tuple[float, float, float, float]:
    """Return the derivative of a branch's current: d re/d vr, d re/d vi, d im/d vr, d im/d vi, pu.

    p, q: power drawn at rated voltage, pu; vr, vi: voltage across the branch, pu.
    """
    scale = curve[0]
    v = np.sqrt((vr * vr + vi * vi) * scale) + TINY
    y_p, slope_p = relative_admittance(curve, 5, v)
    y_q, slope_q = relative_admittance(curve, 12, v)
    g, b = p * y_p * scale, q * y_q * scale
    # dg/d|V| and db/d|V| over |V|, so that multiplying by vr or vi gives the partial derivative.
    dg, db = p * slope_p * scale * scale / v, q * slope_q * scale * scale / v
    along_re, along_im = dg * vr + db * vi, dg * vi - db * vr
    return g + along_re * vr, b + along_re * vi, -b + along_im * vr, g + along_im * vi


@njit(cache=True, nogil=True, error_model="numpy")
def lane_current(
    curve: NDArray[np.float64], m: int, scale: float, p: Lane, q: Lane, vr: Lane, vi: Lane
) -> tuple[Lane, Lane]:
    """Return the current of a branch, real and imaginary part, pu.

    The arithmetic of `relative_admittance`, without a square root where the curve needs none; what lies outside the
    limits is looked at only where an environment does.

    Args:
        curve: curves, [., 19]; the first column is not read.
        m: the branch's curve.
        scale: 1/base^2, what the first column holds.
        p: active power of the branch at rated voltage, times scale, pu.
        q: reactive power likewise.
        vr: voltage across it, real part, pu.
        vi: imaginary part.
    """
    y_p, y_q = _admittances(curve, m, plus_product(vr * vr, vi, vi) * scale + TINY * TINY)
    g, b = p * y_p, q * y_q
    return plus_product(g * vr, b, vi), less_product(g * vi, b, vr)


@njit(cache=True, nogil=True, error_model="numpy")
def _admittances(curve: NDArray[np.float64], m: int, square: Lane) -> tuple[Lane, Lane]:
    c = 19 * m
    inverse = 1.0 / square
    p0, p1, p2 = get(curve, c + 5), get(curve, c + 6), get(curve, c + 7)
    q0, q1, q2 = get(curve, c + 12), get(curve, c + 13), get(curve, c + 14)
    if p1 == 0.0 and q1 == 0.0:
        y_p, y_q = plus_product(p0, p2, inverse), plus_product(q0, q2, inverse)
    else:
        r = square_root(inverse)
        y_p = plus_product(plus_product(p0, p1, r), p2, inverse)
        y_q = plus_product(plus_product(q0, q1, r), q2, inverse)
    if get(curve, c + 8) != 0.0:
        y_p = y_p + power(square, 0.5 * get(curve, c + 8) - 1.0)
    if get(curve, c + 15) != 0.0:
        y_q = y_q + power(square, 0.5 * get(curve, c + 15) - 1.0)
    # Limits are compared squared; one below zero is none.
    v_min, v_max = get(curve, c + 3) * abs(get(curve, c + 3)), get(curve, c + 4) * get(curve, c + 4)
    if all_true(square > v_min) and all_true(square <= v_max):
        return y_p, y_q
    r = square_root(inverse)
    v_low, v_cut = get(curve, c + 1) * abs(get(curve, c + 1)), get(curve, c + 2) * abs(get(curve, c + 2))
    y_p, y_q = select(square > v_max, get(curve, c + 11), y_p), select(square > v_max, get(curve, c + 18), y_q)
    y_p = select(square <= v_min, plus_product(get(curve, c + 10), get(curve, c + 9), r), y_p)
    y_q = select(square <= v_min, plus_product(get(curve, c + 17), get(curve, c + 16), r), y_q)
    y_p, y_q = select(square <= v_cut, 0.0, y_p), select(square <= v_cut, 0.0, y_q)
    return select(square <= v_low, 1.0, y_p), select(square <= v_low, 1.0, y_q)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def branch_currents(
    net: Network, p: NDArray[np.float64], q: NDArray[np.float64], v: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """Return the current of every branch, pu, complex128 [B, E]; p, q: [num_items, E]; v: [N, 2, E]."""
    num_envs = v.shape[2]
    current = np.empty((net.branch_from.size, num_envs), dtype=np.complex128)
    for m in range(net.branch_from.size):
        i, j, item, curve = net.branch_from[m], net.branch_to[m], net.branch_item[m], net.branch_curve[m]
        for e in range(num_envs):
            vr, vi = v[i, 0, e], v[i, 1, e]
            if j >= 0:
                vr -= v[j, 0, e]
                vi -= v[j, 1, e]
            size = np.sqrt((vr * vr + vi * vi) * curve[0]) + TINY
            g = p[item, e] * net.branch_share[m] * curve[0] * relative_admittance(curve, 5, size)[0]
            b = q[item, e] * net.branch_share[m] * curve[0] * relative_admittance(curve, 12, size)[0]
            current[m, e] = complex(g * vr + b * vi, g * vi - b * vr)
    return current


@njit(cache=True, nogil=True, error_model="numpy")
def drawn_powers(
    net: Network,
    items: tuple[NDArray[np.float64], NDArray[np.float64]],
    capacitors: NDArray[np.float64],
    v: NDArray[np.float64],
) -> NDArray[np.complex128]:
    """Return the power drawn by loads and generators, and by capacitors, complex128 [2, E], in units of the items'.

    Voltage times the conjugate of `branch_currents`, a lane of environments at a time.

    Args:
        net: the feeder.
        items: active and reactive power at rated voltage, [num_items, E] each.
        capacitors: reactive power likewise, [num_capacitors, E].
        v: voltages, pu, [N, 2, E].
    """
    num_items, num_envs = items[0].shape[0], v.shape[2]
    drawn = np.empty((2, num_envs), dtype=np.complex128)
    total = empty_lanes(4)
    for first in range(0, num_envs, LANE):
        for row in range(4):
            store(total, row, 0.0)
        for m in range(net.branch_from.size):
            i, j, item = net.branch_from[m], net.branch_to[m], net.branch_item[m]
            weight = net.branch_share[m] * net.branch_curve[m, 0]
            if item < num_items:
                p, q = lane_of(items[0][item], first) * weight, lane_of(items[1][item], first) * weight
            else:
                p, q = fill(0.0), lane_of(capacitors[item - num_items], first) * weight
            vr, vi = lane_of(v[i, 0], first), lane_of(v[i, 1], first)
            if j >= 0:
                vr, vi = vr - lane_of(v[j, 0], first), vi - lane_of(v[j, 1], first)
            re, im = lane_current(net.branch_curve, m, net.branch_curve[m, 0], p, q, vr, vi)
            row = 0 if item < num_items else 2
            store(total, row, plus_product(plus_product(load(total, row), vr, re), vi, im))
            store(total, row + 1, less_product(plus_product(load(total, row + 1), vi, re), vr, im))
        for e in range(min(LANE, num_envs - first)):
            drawn[0, first + e] = complex(total[0, e], total[1, e])
            drawn[1, first + e] = complex(total[2, e], total[3, e])
    return drawn
