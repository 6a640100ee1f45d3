"""Chord iteration with one Jacobian for all environments: loads, capacitors and taps change, switches do not."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from gridray.physics.factorization import LANE, factorize, subtract_image
from gridray.physics.loads import lane_current

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.network import Chord, Network

HOPELESS_CONTRACTION = 0.7
"""An environment whose correction shrinks by less than this factor is left to Newton's method."""
PATIENCE = 4
"""Iterations before that is judged."""


@njit(cache=True, nogil=True, error_model="numpy")
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
    """Solve as `newton.newton` does, all switches as compiled, with the Jacobian of the nominal state.

    V <- J^-1 (I_source + G V - I(V)): as the network is linear, only the branches' currents are evaluated. The
    factors are shared but for the tail, the regulators' terminals, which are eliminated last. Convergence is that of
    the branches' voltages, on which all others depend linearly. A row of a batch equals the environment alone.

    Args and returns as `newton.newton`; is_warm: start from v, else from the nominal state. An environment that
    converges slowly is returned as not converged, its v as it was.
    """
    num_envs, num_nodes = v.shape[2], net.start.size - 1
    lane = min(LANE, num_envs)
    iterations = np.zeros(num_envs, dtype=np.int64)
    converged = np.zeros(num_envs, dtype=np.bool_)
    lane_p, lane_q = np.empty((p.shape[0], lane)), np.empty((q.shape[0], lane))
    lane_u, x = np.empty((u.shape[0], lane)), np.empty((num_nodes, 2, lane))
    source = np.empty(lane)
    branch_v = np.empty((net.branch_from.size, 2, lane))
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
        count, done = _iterate(net, shared, lane_p, lane_q, source, tail, branch_v, x, tolerance, max_iterations)
        _backward(shared, x, shared.num_passive - 1, -1, source)
        for e in range(width):
            iterations[first + e], converged[first + e] = count[e], done[e]
        if done.all():
            for k in range(num_nodes):
                for e in range(width):
                    v[k, 0, first + e], v[k, 1, first + e] = x[k, 0, e], x[k, 1, e]
        else:
            for e in range(width):
                if done[e]:
                    for k in range(num_nodes):
                        v[k, 0, first + e], v[k, 1, first + e] = x[k, 0, e], x[k, 1, e]
    return iterations, converged


@njit(cache=True, nogil=True, error_model="numpy")
def _load_lane(array: NDArray[np.float64], first: int, width: int, lane: NDArray[np.float64]) -> None:
    """Copy the lane's columns, the last one repeated."""
    for i in range(array.shape[0]):
        for e in range(lane.shape[1]):
            lane[i, e] = array[i, first + min(e, width - 1)]


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def _iterate(
    net: Network,
    shared: Chord,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    source: NDArray[np.float64],
    tail: NDArray[np.float64],
    branch_v: NDArray[np.float64],
    x: NDArray[np.float64],
    tolerance: float,
    max_iterations: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Iterate until every environment has converged or given up; x holds the voltages of the places not passive."""
    lane = x.shape[2]
    count, done, given_up = np.zeros(lane, np.int64), np.zeros(lane, np.bool_), np.zeros(lane, np.bool_)
    previous, largest, keep = np.full(lane, np.inf), np.empty(lane), np.zeros(lane)
    for _ in range(max_iterations):
        _right_side(net, shared, p, q, source, branch_v, x)
        _forward(shared, x)
        _solve_tail(shared, tail, x)
        _backward(shared, x, shared.first_tail - 1, shared.num_passive - 1, source)
        _largest_change(net, x, branch_v, largest)
        for e in range(lane):
            if done[e] or given_up[e]:
                continue
            count[e] += 1
            done[e] = largest[e] < tolerance
            slow = not largest[e] < HOPELESS_CONTRACTION * previous[e]
            given_up[e] = not done[e] and slow and (count[e] > PATIENCE or not largest[e] < np.inf)
            # A converged environment's branch voltages stay as they are, so that further rounds give it the same x.
            keep[e] = 1.0 if done[e] or given_up[e] else 0.0
            previous[e] = largest[e]
        if (done | given_up).all():
            break
        _update_voltages(net, x, branch_v, keep)
    return count, done


@njit(cache=True, nogil=True, error_model="numpy")
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
        for e in range(x.shape[2]):
            x[k, 0, e], x[k, 1, e] = shared.rhs[k, 0] * source[e], shared.rhs[k, 1] * source[e]
    for m in range(net.branch_from.size):
        i, j, item, dv = net.branch_from[m], net.branch_to[m], net.branch_item[m], branch_v[m]
        g0, g1 = shared.derivative[m, 0], shared.derivative[m, 1]
        g2, g3 = shared.derivative[m, 2], shared.derivative[m, 3]
        lane_current(net.branch_curve[m], p[item], q[item], net.branch_share[m], dv, current)
        for e in range(x.shape[2]):
            current[0, e] = g0 * dv[0, e] + g1 * dv[1, e] - current[0, e]
            current[1, e] = g2 * dv[0, e] + g3 * dv[1, e] - current[1, e]
        for e in range(x.shape[2]):
            x[i, 0, e] += current[0, e]
            x[i, 1, e] += current[1, e]
        if j >= 0:
            for e in range(x.shape[2]):
                x[j, 0, e] -= current[0, e]
                x[j, 1, e] -= current[1, e]


@njit(cache=True, nogil=True, error_model="numpy")
def _forward(shared: Chord, x: NDArray[np.float64]) -> None:
    for k in range(shared.num_passive, x.shape[0]):
        _subtract_row(
            x, k, shared.forward_start[k], shared.forward_start[k + 1], shared.forward_column, shared.forward_block
        )


@njit(cache=True, nogil=True, error_model="numpy")
def _backward(shared: Chord, x: NDArray[np.float64], last: int, stop: int, source: NDArray[np.float64]) -> None:
    """Substitute backward from place `last` to the one after `stop`; passive places start from their constant."""
    for k in range(last, stop, -1):
        if k < shared.num_passive:
            for e in range(x.shape[2]):
                x[k, 0, e], x[k, 1, e] = shared.rhs[k, 0] * source[e], shared.rhs[k, 1] * source[e]
        d0, d1, d2, d3 = shared.diagonal[k, 0], shared.diagonal[k, 1], shared.diagonal[k, 2], shared.diagonal[k, 3]
        for e in range(x.shape[2]):
            re = d0 * x[k, 0, e] + d1 * x[k, 1, e]
            x[k, 1, e] = d2 * x[k, 0, e] + d3 * x[k, 1, e]
            x[k, 0, e] = re
        _subtract_row(
            x, k, shared.backward_start[k], shared.backward_start[k + 1], shared.backward_column, shared.backward_block
        )


@njit(cache=True, nogil=True, error_model="numpy")
def _subtract_row(
    x: NDArray[np.float64],
    k: int,
    start: int,
    stop: int,
    column: NDArray[np.int64],
    block: NDArray[np.float64],
) -> None:
    """x[k] -= sum of block[s] x[column[s]] for s in start..stop, three at a time so that x[k] stays in registers."""
    s = start
    while s + 3 <= stop:
        _subtract_three(x[k], block[s], x[column[s]], block[s + 1], x[column[s + 1]], block[s + 2], x[column[s + 2]])
        s += 3
    while s < stop:
        _subtract_one(x[k], block[s], x[column[s]])
        s += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _subtract_three(
    y: NDArray[np.float64],
    a: NDArray[np.float64],
    u: NDArray[np.float64],
    b: NDArray[np.float64],
    v: NDArray[np.float64],
    c: NDArray[np.float64],
    w: NDArray[np.float64],
) -> None:
    a0, a1, a2, a3 = a[0], a[1], a[2], a[3]
    b0, b1, b2, b3 = b[0], b[1], b[2], b[3]
    c0, c1, c2, c3 = c[0], c[1], c[2], c[3]
    for e in range(y.shape[1]):
        re = a0 * u[0, e] + a1 * u[1, e] + b0 * v[0, e] + b1 * v[1, e] + c0 * w[0, e] + c1 * w[1, e]
        im = a2 * u[0, e] + a3 * u[1, e] + b2 * v[0, e] + b3 * v[1, e] + c2 * w[0, e] + c3 * w[1, e]
        y[0, e] -= re
        y[1, e] -= im


@njit(cache=True, nogil=True, error_model="numpy")
def _subtract_one(y: NDArray[np.float64], a: NDArray[np.float64], x: NDArray[np.float64]) -> None:
    a0, a1, a2, a3 = a[0], a[1], a[2], a[3]
    for e in range(y.shape[1]):
        y[0, e] -= a0 * x[0, e] + a1 * x[1, e]
        y[1, e] -= a2 * x[0, e] + a3 * x[1, e]


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_tail(shared: Chord, tail: NDArray[np.float64], x: NDArray[np.float64]) -> None:
    num_rows, num_entries, first = shared.tail_start.size - 1, shared.tail_column.size, shared.first_tail
    for k in range(num_rows):
        for s in range(shared.tail_start[k], shared.tail_start[k + 1]):
            subtract_image(x[first + shared.tail_column[s]], tail[num_rows + num_entries + s], x[first + k])
    for k in range(num_rows - 1, -1, -1):
        row = x[first + k]
        for s in range(shared.tail_start[k], shared.tail_start[k + 1]):
            subtract_image(row, tail[num_rows + s], x[first + shared.tail_column[s]])
        for e in range(x.shape[2]):
            re = tail[k, 0, e] * row[0, e] + tail[k, 1, e] * row[1, e]
            row[1, e] = tail[k, 2, e] * row[0, e] + tail[k, 3, e] * row[1, e]
            row[0, e] = re


@njit(cache=True, nogil=True, error_model="numpy")
def _largest_change(
    net: Network, x: NDArray[np.float64], branch_v: NDArray[np.float64], largest: NDArray[np.float64]
) -> None:
    """Set the largest change of a branch's voltage."""
    largest[:] = 0.0
    for m in range(net.branch_from.size):
        i, j = net.branch_from[m], net.branch_to[m]
        for c in range(2):
            if j >= 0:
                for e in range(x.shape[2]):
                    size = abs(x[i, c, e] - x[j, c, e] - branch_v[m, c, e])
                    largest[e] = max(largest[e], size)
            else:
                for e in range(x.shape[2]):
                    size = abs(x[i, c, e] - branch_v[m, c, e])
                    largest[e] = max(largest[e], size)


@njit(cache=True, nogil=True, error_model="numpy")
def _update_voltages(
    net: Network, x: NDArray[np.float64], branch_v: NDArray[np.float64], keep: NDArray[np.float64]
) -> None:
    for m in range(net.branch_from.size):
        i, j = net.branch_from[m], net.branch_to[m]
        for c in range(2):
            for e in range(x.shape[2]):
                new = x[i, c, e] - x[j, c, e] if j >= 0 else x[i, c, e]
                branch_v[m, c, e] = branch_v[m, c, e] if keep[e] != 0.0 else new
