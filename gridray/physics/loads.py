"""Load branches: current and its derivative against voltage, limits included."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from gridray.physics.factorization import LANE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.network import Network

V_LOW_PU = 0.5
"""Below this voltage every load is the impedance that draws its rated power at 1 pu (OpenDSS vlowpu)."""


@njit(cache=True, nogil=True, error_model="numpy")
def relative_admittance(v: float, exponent: int, vmin: float, vmax: float) -> tuple[float, float]:
    """Return y(v) = S(v) / (S0 v^2) and dy/dv of a load whose power varies as v**exponent within vmin..vmax.

    Outside, as OpenDSS: above vmax the impedance that matches at vmax; from 0.5 pu to vmin a current linear in v;
    below, the impedance of rated power. A CVR load (model 4) takes the constant-power branches outside, which
    the caller states by exponents 0 there. OpenDSS TechNote "Load model", Load.pas (DSS C-API 0.14).
    """
    if exponent == 2:
        return 1.0, 0.0
    if v > vmax:
        return vmax ** (exponent - 2), 0.0
    if v >= vmin:
        value = v ** (exponent - 2)
        return value, (exponent - 2) * value / v
    if v <= V_LOW_PU:
        return 1.0, 0.0
    slope = (vmin ** (exponent - 1) - V_LOW_PU) / (vmin - V_LOW_PU)
    current = V_LOW_PU + slope * (v - V_LOW_PU)
    return current / v, (slope * v - current) / (v * v)


@njit(cache=True, nogil=True, error_model="numpy")
def branch_current(
    net: Network, m: int, p: float, q: float, vr: float, vi: float
) -> tuple[float, float, float, float, float, float]:
    """Return the branch's current (re, im) and its derivatives d(re,im)/d(vr), d(re,im)/d(vi), all pu.

    p, q: power drawn at rated voltage, pu; vr, vi: voltage across the branch, pu.
    """
    base = net.branch_base[m]
    magnitude = np.sqrt(vr * vr + vi * vi)
    v = magnitude / base
    vmin, vmax = net.branch_vmin[m], net.branch_vmax[m]
    exponent_p, exponent_q = net.branch_exponent_p[m], net.branch_exponent_q[m]
    if exponent_p != exponent_q and (v < vmin or v > vmax):
        exponent_p = exponent_q = 0
    y_p, slope_p = relative_admittance(v, exponent_p, vmin, vmax)
    y_q, slope_q = y_p, slope_p
    if exponent_p != exponent_q:
        y_q, slope_q = relative_admittance(v, exponent_q, vmin, vmax)
    scale = 1.0 / (base * base)
    g, b = p * y_p * scale, q * y_q * scale
    # d/d|V| of g and b, divided by |V| so that multiplying by vr or vi gives the partial derivative.
    inverse = scale / (base * magnitude) if magnitude > 0.0 else 0.0
    dg, db = p * slope_p * inverse, q * slope_q * inverse
    re, im = g * vr + b * vi, g * vi - b * vr
    along_re, along_im = dg * vr + db * vi, dg * vi - db * vr
    return re, im, g + along_re * vr, -b + along_im * vr, b + along_re * vi, g + along_im * vi


@njit(cache=True, nogil=True, error_model="numpy")
def add_load_currents(
    net: Network,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    v: NDArray[np.float64],
    mismatch: NDArray[np.float64],
) -> None:
    """Add the current drawn by every branch to mismatch [N, 2, LANE]; p, q: [num_items, LANE]; v: [N, 2, LANE]."""
    for m in range(net.branch_from.size):
        i, j, item, share = net.branch_from[m], net.branch_to[m], net.branch_item[m], net.branch_share[m]
        for e in range(LANE):
            vr, vi = v[i, 0, e], v[i, 1, e]
            if j >= 0:
                vr -= v[j, 0, e]
                vi -= v[j, 1, e]
            re, im, _, _, _, _ = branch_current(net, m, p[item, e] * share, q[item, e] * share, vr, vi)
            mismatch[i, 0, e] += re
            mismatch[i, 1, e] += im
            if j >= 0:
                mismatch[j, 0, e] -= re
                mismatch[j, 1, e] -= im


@njit(cache=True, nogil=True, error_model="numpy")
def add_load_derivatives(
    net: Network,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    v: NDArray[np.float64],
    blocks: NDArray[np.float64],
) -> None:
    """Add the derivative of every branch's current to the Jacobian's blocks [num_blocks, 4, LANE]."""
    for m in range(net.branch_from.size):
        i, j, item, share = net.branch_from[m], net.branch_to[m], net.branch_item[m], net.branch_share[m]
        jj, ij, ji = net.branch_blocks[m, 0], net.branch_blocks[m, 1], net.branch_blocks[m, 2]
        for e in range(LANE):
            vr, vi = v[i, 0, e], v[i, 1, e]
            if j >= 0:
                vr -= v[j, 0, e]
                vi -= v[j, 1, e]
            _, _, rr, ir, ri, ii = branch_current(net, m, p[item, e] * share, q[item, e] * share, vr, vi)
            blocks[i, 0, e] += rr
            blocks[i, 1, e] += ri
            blocks[i, 2, e] += ir
            blocks[i, 3, e] += ii
            if j >= 0:
                for block, sign in ((jj, 1.0), (ij, -1.0), (ji, -1.0)):
                    blocks[block, 0, e] += sign * rr
                    blocks[block, 1, e] += sign * ri
                    blocks[block, 2, e] += sign * ir
                    blocks[block, 3, e] += sign * ii


@njit(cache=True, nogil=True, error_model="numpy")
def items_power(
    net: Network, p: NDArray[np.float64], q: NDArray[np.float64], v: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the active and reactive power that all branches draw, pu, [E]; p, q: [num_items, E]; v: [N, 2, E]."""
    num_envs = v.shape[2]
    active, reactive = np.zeros(num_envs), np.zeros(num_envs)
    for m in range(net.branch_from.size):
        i, j, item, share = net.branch_from[m], net.branch_to[m], net.branch_item[m], net.branch_share[m]
        for e in range(num_envs):
            vr, vi = v[i, 0, e], v[i, 1, e]
            if j >= 0:
                vr -= v[j, 0, e]
                vi -= v[j, 1, e]
            re, im, _, _, _, _ = branch_current(net, m, p[item, e] * share, q[item, e] * share, vr, vi)
            active[e] += vr * re + vi * im
            reactive[e] += vi * re - vr * im
    return active, reactive
