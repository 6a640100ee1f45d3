"""Newton iteration on the nodal current mismatch, over lanes of environments."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from gridray.physics.factorization import LANE, factorize, substitute
from gridray.physics.loads import add_load_currents, add_load_derivatives

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.network import Network

SLOW_CONTRACTION = 0.1
"""An environment whose correction shrinks by less than this factor gets a fresh Jacobian."""


@njit(cache=True, nogil=True, error_model="numpy")
def newton(  # noqa: PLR0913, PLR0917
    net: Network,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    tolerance: float,
    max_iterations: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Solve I(V) = 0 for every environment, starting from and overwriting v.

    Chord-Newton in rectangular coordinates (da Costa et al., IEEE Trans. Power Syst. 14(4), 1999): the Jacobian of
    the start serves until an environment's correction shrinks slowly, then that environment's is taken anew.
    Environments do not influence each other: a row of a batch equals the environment solved alone.

    Args:
        net: the feeder.
        p: active power of loads and generators at rated voltage, pu, [num_items, num_envs].
        q: reactive power likewise.
        u: controls, [num_controls, num_envs].
        v: node voltages, pu, [N, 2, num_envs].
        tolerance: largest last correction of a voltage, pu.
        max_iterations: iterations after which an environment is given up.

    Returns:
        iterations, int64 [num_envs], and converged, bool [num_envs].
    """
    num_envs = v.shape[2]
    num_nodes = net.start.size - 1
    iterations = np.zeros(num_envs, dtype=np.int64)
    converged = np.zeros(num_envs, dtype=np.bool_)
    lane_p, lane_q = np.empty((p.shape[0], LANE)), np.empty((q.shape[0], LANE))
    lane_u, lane_v = np.empty((u.shape[0], LANE)), np.empty((num_nodes, 2, LANE))
    lane_count, lane_done = np.empty(LANE, dtype=np.int64), np.empty(LANE, dtype=np.bool_)
    for first in range(0, num_envs, LANE):
        for e in range(LANE):
            env = min(first + e, num_envs - 1)
            lane_p[:, e], lane_q[:, e], lane_u[:, e] = p[:, env], q[:, env], u[:, env]
            lane_v[:, :, e] = v[:, :, env]
        _solve_lane(net, lane_p, lane_q, lane_u, lane_v, tolerance, max_iterations, lane_count, lane_done)
        for e in range(min(LANE, num_envs - first)):
            v[:, :, first + e] = lane_v[:, :, e]
            iterations[first + e], converged[first + e] = lane_count[e], lane_done[e]
    return iterations, converged


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_lane(  # noqa: PLR0913, PLR0917
    net: Network,
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    tolerance: float,
    max_iterations: int,
    count: NDArray[np.int64],
    done: NDArray[np.bool_],
) -> None:
    num_nodes = net.start.size - 1
    y = np.empty((net.y_g.size, 2, LANE))
    blocks = np.empty((num_nodes + 2 * net.column.size, 4, LANE))
    step = np.empty((num_nodes, 2, LANE))
    linearised = v.copy()
    previous, largest = np.full(LANE, np.inf), np.empty(LANE)
    done[:] = False
    count[:] = 0
    _admittances(net, u, y)
    is_stale = True
    for _ in range(max_iterations):
        if is_stale:
            _jacobian(net, y, p, q, linearised, blocks)
            factorize(blocks, net.start, net.column, net.target)
            is_stale = False
        _mismatch(net, y, p, q, v, step)
        substitute(blocks, net.start, net.column, step)
        _largest(step, largest)
        for e in range(LANE):
            if done[e]:
                largest[e] = 0.0
                continue
            for k in range(num_nodes):
                v[k, 0, e] -= step[k, 0, e]
                v[k, 1, e] -= step[k, 1, e]
            count[e] += 1
            done[e] = largest[e] < tolerance
            if not done[e] and not largest[e] < SLOW_CONTRACTION * previous[e] and count[e] > 1:
                linearised[:, :, e] = v[:, :, e]
                is_stale = True
            previous[e] = largest[e]
        if done.all():
            break


@njit(cache=True, nogil=True, error_model="numpy")
def _admittances(net: Network, u: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    for m in range(net.y_g.size):
        for e in range(LANE):
            y[m, 0, e], y[m, 1, e] = net.y_g[m], net.y_b[m]
    for t in range(net.term_entry.size):
        m, c = net.term_entry[t], net.term_control[t]
        for e in range(LANE):
            factor = u[c, e] if net.term_exponent[t] == 1 else u[c, e] * u[c, e]
            y[m, 0, e] += net.term_g[t] * factor
            y[m, 1, e] += net.term_b[t] * factor


@njit(cache=True, nogil=True, error_model="numpy")
def _mismatch(
    net: Network,
    y: NDArray[np.float64],
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    v: NDArray[np.float64],
    mismatch: NDArray[np.float64],
) -> None:
    """Kirchhoff's current law at every node: Y V + I_load(V) - I_source."""
    for k in range(net.source_re.size):
        for e in range(LANE):
            mismatch[k, 0, e], mismatch[k, 1, e] = -net.source_re[k], -net.source_im[k]
    for m in range(net.y_g.size):
        i, j = net.y_row[m], net.y_column[m]
        for e in range(LANE):
            mismatch[i, 0, e] += y[m, 0, e] * v[j, 0, e] - y[m, 1, e] * v[j, 1, e]
            mismatch[i, 1, e] += y[m, 0, e] * v[j, 1, e] + y[m, 1, e] * v[j, 0, e]
    add_load_currents(net, p, q, v, mismatch)


@njit(cache=True, nogil=True, error_model="numpy")
def _jacobian(
    net: Network,
    y: NDArray[np.float64],
    p: NDArray[np.float64],
    q: NDArray[np.float64],
    v: NDArray[np.float64],
    blocks: NDArray[np.float64],
) -> None:
    blocks[:] = 0.0
    for m in range(net.y_g.size):
        k = net.y_block[m]
        for e in range(LANE):
            blocks[k, 0, e] += y[m, 0, e]
            blocks[k, 1, e] -= y[m, 1, e]
            blocks[k, 2, e] += y[m, 1, e]
            blocks[k, 3, e] += y[m, 0, e]
    add_load_derivatives(net, p, q, v, blocks)


@njit(cache=True, nogil=True, error_model="numpy")
def _largest(step: NDArray[np.float64], largest: NDArray[np.float64]) -> None:
    largest[:] = 0.0
    for k in range(step.shape[0]):
        for e in range(LANE):
            size = max(abs(step[k, 0, e]), abs(step[k, 1, e]))
            # Written so that NaN wins: a failed environment must not look converged.
            if not size <= largest[e]:
                largest[e] = size
