"""Newton iteration on the nodal currents with every environment's own Jacobian: any taps, switches and islands."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from gridray.physics.factorization import factorize, substitute
from gridray.physics.loads import lane_current, linearise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.network import Network

LANE = 16
"""Environments solved side by side."""
SLOW_CONTRACTION = 0.1
"""An environment whose correction shrinks by less than this factor gets a fresh Jacobian."""


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def newton(
    net: Network,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    u: NDArray[np.float64],
    source_pu: NDArray[np.float64],
    alive: NDArray[np.bool_],
    v: NDArray[np.float64],
    tolerance: float,
    max_iterations: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Solve Y V + I(V) = I_source for every environment, starting from and overwriting v.

    V <- J^-1 (I_source + G V - I(V)) with J = Y + G and G the derivative of the branches' currents, rectangular
    coordinates (da Costa et al., IEEE Trans. Power Syst. 14(4), 1999). A Jacobian serves until an environment's
    correction shrinks slowly, then that environment's is taken anew. Environments do not influence each other: a row
    of a batch equals the environment solved alone.

    Args:
        net: the feeder.
        p: active power of the items at rated voltage, pu, [num_items, num_envs].
        q: reactive power likewise.
        u: controls, [num_controls, num_envs].
        source_pu: the source's voltage over its nominal one, [num_envs].
        alive: nodes connected to the source, [N, num_envs]; the others get zero voltage.
        v: node voltages, pu, [N, 2, num_envs].
        tolerance: largest last correction of a voltage, pu.
        max_iterations: iterations after which an environment is given up.

    Returns:
        iterations, int64 [num_envs], and converged, bool [num_envs].
    """
    num_envs, num_nodes, num_branches = v.shape[2], net.start.size - 1, net.branch_from.size
    iterations = np.zeros(num_envs, dtype=np.int64)
    converged = np.zeros(num_envs, dtype=np.bool_)
    lane = min(LANE, num_envs)
    lane_p, lane_q = np.empty((p.shape[0], lane)), np.empty((q.shape[0], lane))
    lane_u, lane_v = np.empty((u.shape[0], lane)), np.empty((num_nodes, 2, lane))
    lane_source, lane_alive = np.empty(lane), np.empty((num_nodes, lane))
    blocks = np.empty((num_nodes + 2 * net.column.size, 4, lane))
    derivative = np.empty((num_branches, 4, lane))
    for first in range(0, num_envs, lane):
        for e in range(lane):
            env = min(first + e, num_envs - 1)
            lane_source[e] = source_pu[env]
            for i in range(p.shape[0]):
                lane_p[i, e], lane_q[i, e] = p[i, env], q[i, env]
            for i in range(u.shape[0]):
                lane_u[i, e] = u[i, env]
            for k in range(num_nodes):
                lane_alive[k, e] = 1.0 if alive[k, env] else 0.0
                lane_v[k, 0, e], lane_v[k, 1, e] = v[k, 0, env] * lane_alive[k, e], v[k, 1, env] * lane_alive[k, e]
        count, done = _solve_lane(
            net, lane_p, lane_q, lane_u, lane_source, lane_alive, lane_v, blocks, derivative, tolerance, max_iterations
        )
        for e in range(min(lane, num_envs - first)):
            for k in range(num_nodes):
                v[k, 0, first + e], v[k, 1, first + e] = lane_v[k, 0, e], lane_v[k, 1, e]
            iterations[first + e], converged[first + e] = count[e], done[e]
    return iterations, converged


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _solve_lane(
    net: Network,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    u: NDArray[np.float64],
    source: NDArray[np.float64],
    alive: NDArray[np.float64],
    v: NDArray[np.float64],
    blocks: NDArray[np.float64],
    derivative: NDArray[np.float64],
    tolerance: float,
    max_iterations: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    lane = v.shape[2]
    count, done = np.zeros(lane, dtype=np.int64), np.zeros(lane, dtype=np.bool_)
    x = np.empty_like(v)
    previous, largest = np.full(lane, np.inf), np.empty(lane)
    is_stale = np.ones(lane, dtype=np.bool_)
    for _ in range(max_iterations):
        if is_stale.any():
            _derivatives(net, p, q, v, is_stale, derivative)
            _jacobian(net, u, alive, derivative, blocks)
            factorize(blocks, net.start, net.column, net.target)
            is_stale[:] = False
        _right_side(net, p, q, source, alive, v, derivative, x)
        substitute(blocks, net.start, net.column, x, 0)
        _largest(x, v, largest)
        for e in range(lane):
            if done[e]:
                continue
            for k in range(v.shape[0]):
                v[k, 0, e], v[k, 1, e] = x[k, 0, e], x[k, 1, e]
            count[e] += 1
            done[e] = largest[e] < tolerance
            is_stale[e] = not done[e] and count[e] > 1 and not largest[e] < SLOW_CONTRACTION * previous[e]
            previous[e] = largest[e]
        if done.all():
            break
    return count, done


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _derivatives(
    net: Network,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    v: NDArray[np.float64],
    is_stale: NDArray[np.bool_],
    derivative: NDArray[np.float64],
) -> None:
    for m in range(net.branch_from.size):
        i, j, item, share = net.branch_from[m], net.branch_to[m], net.branch_item[m], net.branch_share[m]
        for e in range(v.shape[2]):
            if is_stale[e]:
                vr, vi = v[i, 0, e], v[i, 1, e]
                if j >= 0:
                    vr -= v[j, 0, e]
                    vi -= v[j, 1, e]
                rr, ri, ir, ii = linearise(net.branch_curve[m], p[item, e] * share, q[item, e] * share, vr, vi)
                derivative[m, 0, e], derivative[m, 1, e] = rr, ri
                derivative[m, 2, e], derivative[m, 3, e] = ir, ii


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _jacobian(
    net: Network,
    u: NDArray[np.float64],
    alive: NDArray[np.float64],
    derivative: NDArray[np.float64],
    blocks: NDArray[np.float64],
) -> None:
    """J = Y + G; the row and column of a dead node are the identity's."""
    blocks[:] = 0.0
    for m in range(net.y_g.size):
        block, g, b = net.y_block[m], net.y_g[m], net.y_b[m]
        for e in range(blocks.shape[2]):
            blocks[block, 0, e] += g
            blocks[block, 1, e] -= b
            blocks[block, 2, e] += b
            blocks[block, 3, e] += g
    for t in range(net.term_entry.size):
        block, control = net.y_block[net.term_entry[t]], net.term_control[t]
        for e in range(blocks.shape[2]):
            factor = u[control, e] if net.term_exponent[t] == 1 else u[control, e] * u[control, e]
            g, b = net.term_g[t] * factor, net.term_b[t] * factor
            blocks[block, 0, e] += g
            blocks[block, 1, e] -= b
            blocks[block, 2, e] += b
            blocks[block, 3, e] += g
    for m in range(net.branch_from.size):
        i, j = net.branch_from[m], net.branch_to[m]
        for e in range(blocks.shape[2]):
            for c in range(4):
                blocks[i, c, e] += derivative[m, c, e]
                if j >= 0:
                    blocks[j, c, e] += derivative[m, c, e]
                    blocks[net.branch_blocks[m, 0], c, e] -= derivative[m, c, e]
                    blocks[net.branch_blocks[m, 1], c, e] -= derivative[m, c, e]
    _isolate(net, alive, blocks)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _isolate(net: Network, alive: NDArray[np.float64], blocks: NDArray[np.float64]) -> None:
    num_nodes, num_entries = net.start.size - 1, net.column.size
    for k in range(num_nodes):
        for e in range(blocks.shape[2]):
            if alive[k, e] == 0.0:
                blocks[k, 0, e], blocks[k, 1, e], blocks[k, 2, e], blocks[k, 3, e] = 1.0, 0.0, 0.0, 1.0
        for s in range(net.start[k], net.start[k + 1]):
            j = net.column[s]
            for e in range(blocks.shape[2]):
                if alive[k, e] * alive[j, e] == 0.0:
                    blocks[num_nodes + s, :, e] = 0.0
                    blocks[num_nodes + num_entries + s, :, e] = 0.0


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _right_side(
    net: Network,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    source: NDArray[np.float64],
    alive: NDArray[np.float64],
    v: NDArray[np.float64],
    derivative: NDArray[np.float64],
    x: NDArray[np.float64],
) -> None:
    """I_source + G V - I(V) at every node; nothing at dead ones."""
    dv, current = np.empty((1, 2, x.shape[2])), np.empty((2, x.shape[2]))
    for k in range(net.source_re.size):
        for e in range(x.shape[2]):
            x[k, 0, e], x[k, 1, e] = net.source_re[k] * source[e], net.source_im[k] * source[e]
    for m in range(net.branch_from.size):
        i, j, item = net.branch_from[m], net.branch_to[m], net.branch_item[m]
        for e in range(x.shape[2]):
            dv[0, 0, e], dv[0, 1, e] = v[i, 0, e], v[i, 1, e]
        if j >= 0:
            for e in range(x.shape[2]):
                dv[0, 0, e] -= v[j, 0, e]
                dv[0, 1, e] -= v[j, 1, e]
        lane_current(net.branch_curve, m, p, q, item, net.branch_share[m], dv, 0, current)
        for e in range(x.shape[2]):
            re = derivative[m, 0, e] * dv[0, 0, e] + derivative[m, 1, e] * dv[0, 1, e] - current[0, e]
            im = derivative[m, 2, e] * dv[0, 0, e] + derivative[m, 3, e] * dv[0, 1, e] - current[1, e]
            x[i, 0, e] += re * alive[i, e]
            x[i, 1, e] += im * alive[i, e]
            if j >= 0:
                x[j, 0, e] -= re * alive[j, e]
                x[j, 1, e] -= im * alive[j, e]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _largest(x: NDArray[np.float64], v: NDArray[np.float64], largest: NDArray[np.float64]) -> None:
    largest[:] = 0.0
    for k in range(x.shape[0]):
        for e in range(x.shape[2]):
            size = max(abs(x[k, 0, e] - v[k, 0, e]), abs(x[k, 1, e] - v[k, 1, e]))
            # Written so that NaN wins: a failed environment must not look converged.
            if not size <= largest[e]:
                largest[e] = size
