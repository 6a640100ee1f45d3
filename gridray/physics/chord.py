"""Chord iteration with one Jacobian for all environments: loads, capacitors and taps change, switches do not."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from gridray.physics.factorization import LANE, factorize, substitute
from gridray.physics.loads import TINY, lane_current

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.network import Chord, Network

HOPELESS_CONTRACTION = 1.0
"""An environment whose correction shrinks by less than this factor is left to Newton's method."""
PATIENCE = 15
"""Iterations before that is judged."""


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def chord(
    net: Network,
    shared: Chord,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    u: NDArray[np.float64],
    source_pu: NDArray[np.float64],
    v: NDArray[np.float64],
    is_warm: bool,  # noqa: FBT001
    tolerance: float,
    max_iterations: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Solve as `newton.newton` does, all switches as compiled, with the Jacobian of the typical state.

    V <- J^-1 (I_source + G V - I(V)): as the network is linear, only the branches' currents are evaluated. The
    factors are shared but for the tail, the regulators' terminals, which are eliminated last. Convergence is that of
    the branches' voltages, on which all others depend linearly. A row of a batch equals the environment alone.

    Args and returns as `newton.newton`; is_warm: start from v, else from the typical state. An environment that
    converges slowly is returned as not converged, its v as far as it got.
    """
    num_envs, num_nodes = v.shape[2], net.start.size - 1
    lane = min(LANE, num_envs)
    iterations = np.zeros(num_envs, dtype=np.int64)
    converged = np.zeros(num_envs, dtype=np.bool_)
    lane_p, lane_q = np.empty((p.shape[0], lane)), np.empty((q.shape[0], lane))
    lane_u, x = np.empty((u.shape[0], lane)), np.empty((num_nodes, 2, lane))
    source = np.empty(lane)
    branch_v = np.empty((net.branch_from.size, 2, lane))
    change, image = np.empty_like(branch_v), np.empty_like(branch_v)
    tail = np.empty((shared.tail_blocks.shape[0], 4, lane))
    for first in range(0, num_envs, lane):
        width = min(lane, num_envs - first)
        _load_lane(p, first, width, lane_p)
        _load_lane(q, first, width, lane_q)
        _load_lane(u, first, width, lane_u)
        for e in range(lane):
            source[e] = source_pu[min(first + e, num_envs - 1)]
        _start(net, shared, v, first, width, is_warm, branch_v)
        _tail_factors(shared, lane_u, tail)
        count, done = _iterate(
            net, shared, lane_p, lane_q, source, tail, branch_v, change, image, x, tolerance, max_iterations
        )
        _backward(shared, x, shared.num_passive - 1, -1, source)
        for e in range(width):
            iterations[first + e], converged[first + e] = count[e], done[e]
        for k in range(num_nodes):
            for e in range(width):
                v[k, 0, first + e], v[k, 1, first + e] = x[k, 0, e], x[k, 1, e]
    return iterations, converged


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _load_lane(array: NDArray[np.float64], first: int, width: int, lane: NDArray[np.float64]) -> None:
    """Copy the lane's columns, the last one repeated."""
    for i in range(array.shape[0]):
        for e in range(lane.shape[1]):
            lane[i, e] = array[i, first + min(e, width - 1)]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _start(
    net: Network,
    shared: Chord,
    v: NDArray[np.float64],
    first: int,
    width: int,
    is_warm: bool,  # noqa: FBT001
    branch_v: NDArray[np.float64],
) -> None:
    for m in range(net.branch_from.size):
        i, j = net.branch_from[m], net.branch_to[m]
        for c in range(2):
            for e in range(branch_v.shape[2]):
                branch_v[m, c, e] = shared.branch_v[m, c]
            if is_warm:
                for e in range(branch_v.shape[2]):
                    env = first + min(e, width - 1)
                    branch_v[m, c, e] = v[i, c, env] - v[j, c, env] if j >= 0 else v[i, c, env]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _tail_factors(shared: Chord, u: NDArray[np.float64], tail: NDArray[np.float64]) -> None:
    for k in range(tail.shape[0]):
        for c in range(4):
            for e in range(tail.shape[2]):
                tail[k, c, e] = shared.tail_blocks[k, c]
    for t in range(shared.tail_term_block.size):
        k, control = shared.tail_term_block[t], shared.tail_term_control[t]
        g, b = shared.tail_term_g[t], shared.tail_term_b[t]
        for e in range(tail.shape[2]):
            factor = u[control, e] if shared.tail_term_exponent[t] == 1 else u[control, e] * u[control, e]
            tail[k, 0, e] += g * factor
            tail[k, 1, e] -= b * factor
            tail[k, 2, e] += b * factor
            tail[k, 3, e] += g * factor
    factorize(tail, shared.tail_start, shared.tail_column, shared.tail_target)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _iterate(
    net: Network,
    shared: Chord,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    source: NDArray[np.float64],
    tail: NDArray[np.float64],
    branch_v: NDArray[np.float64],
    change: NDArray[np.float64],
    image: NDArray[np.float64],
    x: NDArray[np.float64],
    tolerance: float,
    max_iterations: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Iterate until every environment has converged or given up; x holds the voltages of the places not passive."""
    lane = x.shape[2]
    count, done, given_up = np.zeros(lane, np.int64), np.zeros(lane, np.bool_), np.zeros(lane, np.bool_)
    previous, largest = np.full(lane, np.inf), np.empty(lane)
    change[:] = 0.0
    image[:] = 0.0
    weight = np.zeros(lane)
    for _ in range(max_iterations):
        _right_side(net, shared, p, q, source, branch_v, x)
        _forward(shared, x)
        substitute(tail, shared.tail_start, shared.tail_column, x, shared.first_tail)
        _backward(shared, x, shared.first_tail - 1, shared.num_passive - 1, source)
        _measure_change(net, x, branch_v, change, largest, weight)
        for e in range(lane):
            if done[e] or given_up[e]:
                weight[e] = np.nan
                continue
            count[e] += 1
            done[e] = largest[e] < tolerance
            slow = not largest[e] < HOPELESS_CONTRACTION * previous[e]
            given_up[e] = not done[e] and slow and (count[e] > PATIENCE or not largest[e] < np.inf)
            if done[e] or given_up[e]:
                # Its branch voltages stay as they are, so that further rounds give it the same x.
                weight[e] = np.nan
            elif count[e] == 1 or slow:
                weight[e] = 0.0
            previous[e] = largest[e]
        if (done | given_up).all():
            break
        _mix(branch_v, change, image, weight)
    return count, done


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _right_side(
    net: Network,
    shared: Chord,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    source: NDArray[np.float64],
    branch_v: NDArray[np.float64],
    x: NDArray[np.float64],
) -> None:
    current = np.empty((2, x.shape[2]))
    for k in range(shared.num_passive, shared.rhs.shape[0]):
        re, im = shared.rhs[k, 0], shared.rhs[k, 1]
        for e in range(x.shape[2]):
            x[k, 0, e] = re * source[e]
            x[k, 1, e] = im * source[e]
    for m in range(net.branch_from.size):
        i, j = net.branch_from[m], net.branch_to[m]
        g0, g1 = shared.derivative[m, 0], shared.derivative[m, 1]
        g2, g3 = shared.derivative[m, 2], shared.derivative[m, 3]
        lane_current(net.branch_curve, m, p, q, net.branch_item[m], net.branch_share[m], branch_v, m, current)
        for e in range(x.shape[2]):
            current[0, e] = g0 * branch_v[m, 0, e] + g1 * branch_v[m, 1, e] - current[0, e]
            current[1, e] = g2 * branch_v[m, 0, e] + g3 * branch_v[m, 1, e] - current[1, e]
        for c in range(2):
            for e in range(x.shape[2]):
                x[i, c, e] += current[c, e]
        if j >= 0:
            for c in range(2):
                for e in range(x.shape[2]):
                    x[j, c, e] -= current[c, e]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _forward(shared: Chord, x: NDArray[np.float64]) -> None:
    for k in range(shared.num_passive, x.shape[0]):
        first, last = shared.forward_start[k], shared.forward_start[k + 1]
        _subtract_row(x, k, first, last, shared.forward_column, shared.forward_block)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _backward(shared: Chord, x: NDArray[np.float64], last: int, stop: int, source: NDArray[np.float64]) -> None:
    """Substitute backward from place `last` to the one after `stop`; passive places start from their constant."""
    for k in range(last, stop, -1):
        if k < shared.num_passive:
            re, im = shared.rhs[k, 0], shared.rhs[k, 1]
            for e in range(x.shape[2]):
                x[k, 0, e] = re * source[e]
                x[k, 1, e] = im * source[e]
        d0, d1, d2, d3 = shared.diagonal[k, 0], shared.diagonal[k, 1], shared.diagonal[k, 2], shared.diagonal[k, 3]
        for e in range(x.shape[2]):
            first = d0 * x[k, 0, e] + d1 * x[k, 1, e]
            x[k, 1, e] = d2 * x[k, 0, e] + d3 * x[k, 1, e]
            x[k, 0, e] = first
        start, end = shared.backward_start[k], shared.backward_start[k + 1]
        _subtract_row(x, k, start, end, shared.backward_column, shared.backward_block)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _subtract_row(
    x: NDArray[np.float64],
    k: int,
    start: int,
    stop: int,
    column: NDArray[np.int64],
    block: NDArray[np.float64],
) -> None:
    """x[k] -= sum of block[s] x[column[s]] for s in start..stop, two at a time to spare x[k]."""
    s = start
    while s + 2 <= stop:
        i, j = column[s], column[s + 1]
        a0, a1, a2, a3 = block[s, 0], block[s, 1], block[s, 2], block[s, 3]
        b0, b1, b2, b3 = block[s + 1, 0], block[s + 1, 1], block[s + 1, 2], block[s + 1, 3]
        for e in range(x.shape[2]):
            re = a0 * x[i, 0, e] + a1 * x[i, 1, e] + (b0 * x[j, 0, e] + b1 * x[j, 1, e])
            im = a2 * x[i, 0, e] + a3 * x[i, 1, e] + (b2 * x[j, 0, e] + b3 * x[j, 1, e])
            x[k, 0, e] -= re
            x[k, 1, e] -= im
        s += 2
    if s < stop:
        i = column[s]
        a0, a1, a2, a3 = block[s, 0], block[s, 1], block[s, 2], block[s, 3]
        for e in range(x.shape[2]):
            re = a0 * x[i, 0, e] + a1 * x[i, 1, e]
            im = a2 * x[i, 0, e] + a3 * x[i, 1, e]
            x[k, 0, e] -= re
            x[k, 1, e] -= im


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _measure_change(
    net: Network,
    x: NDArray[np.float64],
    branch_v: NDArray[np.float64],
    change: NDArray[np.float64],
    largest: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    """Set `change` to that of every branch's voltage, `largest` to the largest, `weight` to Anderson's."""
    lane = x.shape[2]
    along, across = np.zeros(lane), np.full(lane, TINY)
    largest[:] = 0.0
    for m in range(net.branch_from.size):
        i, j = net.branch_from[m], net.branch_to[m]
        for c in range(2):
            if j >= 0:
                for e in range(lane):
                    difference = x[i, c, e] - x[j, c, e] - branch_v[m, c, e] - change[m, c, e]
                    change[m, c, e] += difference
                    along[e] += difference * change[m, c, e]
                    across[e] += difference * difference
            else:
                for e in range(lane):
                    difference = x[i, c, e] - branch_v[m, c, e] - change[m, c, e]
                    change[m, c, e] += difference
                    along[e] += difference * change[m, c, e]
                    across[e] += difference * difference
            for e in range(lane):
                # Written so that NaN wins: a failed environment must not look converged.
                if not abs(change[m, c, e]) <= largest[e]:
                    largest[e] = abs(change[m, c, e])
    for e in range(lane):
        weight[e] = along[e] / across[e]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _mix(
    branch_v: NDArray[np.float64],
    change: NDArray[np.float64],
    image: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> None:
    """Take the new voltages less `weight` times their difference to the ones before; none where weight is NaN."""
    for m in range(branch_v.shape[0]):
        for c in range(2):
            for e in range(branch_v.shape[2]):
                new = branch_v[m, c, e] + change[m, c, e]
                mixed = new - weight[e] * (new - image[m, c, e])
                branch_v[m, c, e] = branch_v[m, c, e] if weight[e] != weight[e] else mixed
                image[m, c, e] = new
