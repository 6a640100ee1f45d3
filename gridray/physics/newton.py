"""Newton iteration on the nodal currents with every environment's own Jacobian: any taps, switches and islands."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from gridray.physics.factorization import factorize, load_block, substitute
from gridray.physics.lanes import LANE, empty_lanes, fill, less_product, load, magnitude, plus_product, select, store
from gridray.physics.loads import lane_current, linearise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.lanes import Lane
    from gridray.physics.network import Network

SLOW_CONTRACTION = 0.1
"""An environment whose correction shrinks by less than this factor gets a fresh Jacobian."""


@njit(cache=True, nogil=True, error_model="numpy")
def newton(
    net: Network,
    slopes: Network,
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
        slopes: the feeder whose branches' derivatives are taken: the same, or one of impedances,
            which needs more iterations but no start near the solution.
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
    num_envs, num_nodes = v.shape[2], net.start.size - 1
    iterations = np.zeros(num_envs, dtype=np.int64)
    converged = np.zeros(num_envs, dtype=np.bool_)
    lane_p, lane_q, lane_u = empty_lanes(p.shape[0]), empty_lanes(q.shape[0]), empty_lanes(u.shape[0])
    lane_source, lane_alive = empty_lanes(1), empty_lanes(num_nodes)
    lane_v, x = empty_lanes(2 * num_nodes), empty_lanes(2 * num_nodes)
    blocks = empty_lanes(4 * (num_nodes + 2 * net.column.size))
    derivative = empty_lanes(4 * net.branch_from.size)
    for first in range(0, num_envs, LANE):
        for e in range(LANE):
            env = min(first + e, num_envs - 1)
            lane_source[0, e] = source_pu[env]
            for i in range(p.shape[0]):
                lane_p[i, e], lane_q[i, e] = p[i, env], q[i, env]
            for i in range(u.shape[0]):
                lane_u[i, e] = u[i, env]
            for k in range(num_nodes):
                lane_alive[k, e] = 1.0 if alive[k, env] else 0.0
                for c in range(2):
                    lane_v[2 * k + c, e] = v[k, c, env] * lane_alive[k, e]
        count, done = _solve_lane(
            net,
            slopes,
            lane_p,
            lane_q,
            lane_u,
            lane_source,
            lane_alive,
            lane_v,
            x,
            blocks,
            derivative,
            tolerance,
            max_iterations,
        )
        for e in range(min(LANE, num_envs - first)):
            for k in range(num_nodes):
                v[k, 0, first + e], v[k, 1, first + e] = lane_v[2 * k, e], lane_v[2 * k + 1, e]
            iterations[first + e], converged[first + e] = count[e], done[e]
    return iterations, converged


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_lane(
    net: Network,
    slopes: Network,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    u: NDArray[np.float64],
    source: NDArray[np.float64],
    alive: NDArray[np.float64],
    v: NDArray[np.float64],
    x: NDArray[np.float64],
    blocks: NDArray[np.float64],
    derivative: NDArray[np.float64],
    tolerance: float,
    max_iterations: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    count, done = np.zeros(LANE, dtype=np.int64), np.zeros(LANE, dtype=np.bool_)
    previous, largest, is_moving = np.full(LANE, np.inf), empty_lanes(1), empty_lanes(1)
    is_stale = np.ones(LANE, dtype=np.bool_)
    for _ in range(max_iterations):
        if is_stale.any():
            _derivatives(slopes, p, q, v, is_stale, derivative)
            _jacobian(net, u, alive, derivative, blocks)
            factorize(blocks, net.start, net.column, net.target)
            is_stale[:] = False
        _right_side(net, p, q, load(source, 0), alive, v, derivative, x)
        substitute(blocks, net.start, net.column, x, 0)
        for e in range(LANE):
            is_moving[0, e] = 0.0 if done[e] else 1.0
        _move(x, v, is_moving, largest)
        for e in range(LANE):
            if done[e]:
                continue
            count[e] += 1
            done[e] = largest[0, e] < tolerance
            is_stale[e] = not done[e] and count[e] > 1 and not largest[0, e] < SLOW_CONTRACTION * previous[e]
            previous[e] = largest[0, e]
        if done.all():
            break
    return count, done


@njit(cache=True, nogil=True, error_model="numpy")
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
        for e in range(LANE):
            if is_stale[e]:
                vr, vi = v[2 * i, e], v[2 * i + 1, e]
                if j >= 0:
                    vr -= v[2 * j, e]
                    vi -= v[2 * j + 1, e]
                rr, ri, ir, ii = linearise(net.branch_curve[m], p[item, e] * share, q[item, e] * share, vr, vi)
                derivative[4 * m, e], derivative[4 * m + 1, e] = rr, ri
                derivative[4 * m + 2, e], derivative[4 * m + 3, e] = ir, ii


@njit(cache=True, nogil=True, error_model="numpy")
def _jacobian(
    net: Network,
    u: NDArray[np.float64],
    alive: NDArray[np.float64],
    derivative: NDArray[np.float64],
    blocks: NDArray[np.float64],
) -> None:
    """J = Y + G; the row and column of a dead node are the identity's."""
    for row in range(blocks.shape[0]):
        store(blocks, row, 0.0)
    for m in range(net.y_g.size):
        _add_admittance(blocks, net.y_block[m], fill(net.y_g[m]), fill(net.y_b[m]))
    for t in range(net.term_entry.size):
        factor = load(u, net.term_control[t])
        if net.term_exponent[t] == 2:
            factor = factor * factor
        _add_admittance(blocks, net.y_block[net.term_entry[t]], net.term_g[t] * factor, net.term_b[t] * factor)
    for m in range(net.branch_from.size):
        i, j = net.branch_from[m], net.branch_to[m]
        for c in range(4):
            own = load(derivative, 4 * m + c)
            store(blocks, 4 * i + c, load(blocks, 4 * i + c) + own)
            if j >= 0:
                store(blocks, 4 * j + c, load(blocks, 4 * j + c) + own)
                for side in range(2):
                    row = 4 * net.branch_blocks[m, side] + c
                    store(blocks, row, load(blocks, row) - own)
    _isolate(net, alive, blocks)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_admittance(blocks: NDArray[np.float64], k: int, g: Lane, b: Lane) -> None:
    store(blocks, 4 * k, load(blocks, 4 * k) + g)
    store(blocks, 4 * k + 1, load(blocks, 4 * k + 1) - b)
    store(blocks, 4 * k + 2, load(blocks, 4 * k + 2) + b)
    store(blocks, 4 * k + 3, load(blocks, 4 * k + 3) + g)


@njit(cache=True, nogil=True, error_model="numpy")
def _isolate(net: Network, alive: NDArray[np.float64], blocks: NDArray[np.float64]) -> None:
    num_nodes, num_entries = net.start.size - 1, net.column.size
    for k in range(num_nodes):
        is_alive = load(alive, k)
        for c in range(4):
            identity = 1.0 if c in (0, 3) else 0.0
            store(blocks, 4 * k + c, select(is_alive > 0.0, load(blocks, 4 * k + c), identity))
        for s in range(net.start[k], net.start[k + 1]):
            both = is_alive * load(alive, net.column[s]) > 0.0
            for c in range(4):
                upper, lower = 4 * (num_nodes + s) + c, 4 * (num_nodes + num_entries + s) + c
                store(blocks, upper, select(both, load(blocks, upper), 0.0))
                store(blocks, lower, select(both, load(blocks, lower), 0.0))


@njit(cache=True, nogil=True, error_model="numpy")
def _right_side(
    net: Network,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    source: Lane,
    alive: NDArray[np.float64],
    v: NDArray[np.float64],
    derivative: NDArray[np.float64],
    x: NDArray[np.float64],
) -> None:
    """I_source + G V - I(V) at every node; nothing at dead ones."""
    for k in range(net.source_re.size):
        store(x, 2 * k, net.source_re[k] * source)
        store(x, 2 * k + 1, net.source_im[k] * source)
    for m in range(net.branch_from.size):
        i, j, item = net.branch_from[m], net.branch_to[m], net.branch_item[m]
        vr, vi = load(v, 2 * i), load(v, 2 * i + 1)
        if j >= 0:
            vr, vi = vr - load(v, 2 * j), vi - load(v, 2 * j + 1)
        scale = net.branch_curve[m, 0]
        weight = net.branch_share[m] * scale
        re, im = lane_current(net.branch_curve, m, scale, load(p, item) * weight, load(q, item) * weight, vr, vi)
        rr, ri, ir, ii = load_block(derivative, m)
        re = plus_product(plus_product(-1.0 * re, rr, vr), ri, vi)
        im = plus_product(plus_product(-1.0 * im, ir, vr), ii, vi)
        store(x, 2 * i, plus_product(load(x, 2 * i), re, load(alive, i)))
        store(x, 2 * i + 1, plus_product(load(x, 2 * i + 1), im, load(alive, i)))
        if j >= 0:
            store(x, 2 * j, less_product(load(x, 2 * j), re, load(alive, j)))
            store(x, 2 * j + 1, less_product(load(x, 2 * j + 1), im, load(alive, j)))


@njit(cache=True, nogil=True, error_model="numpy")
def _move(
    x: NDArray[np.float64], v: NDArray[np.float64], is_moving: NDArray[np.float64], largest: NDArray[np.float64]
) -> None:
    """Move v to x where it still moves; set `largest` to the largest change."""
    most, total, moves = fill(0.0), fill(0.0), load(is_moving, 0) > 0.0
    for row in range(x.shape[0]):
        change = load(x, row) - load(v, row)
        size = magnitude(change)
        most, total = select(size > most, size, most), total + size
        store(v, row, select(moves, load(x, row), load(v, row)))
    # NaN in any change makes it NaN: a failed environment must not look converged.
    store(largest, 0, plus_product(most, 0.0, total))
