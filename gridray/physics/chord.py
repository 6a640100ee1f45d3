"""Chord iteration with one Jacobian for all environments: loads, capacitors and taps change, switches do not."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from gridray.physics.assembly import BASE_VA
from gridray.physics.factorization import factorize, substitute
from gridray.physics.lanes import (
    LANE,
    empty_lanes,
    empty_short_lanes,
    fill,
    get,
    lane_of,
    load,
    magnitude,
    plus_product,
    select,
    store,
    stream,
)
from gridray.physics.loads import TINY, lane_current

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.lanes import Lane
    from gridray.physics.network import Chord
    from gridray.physics.state import GridState

KW_PER_PU = BASE_VA / 1e3
LARGE = 100_000
"""Voltages of a batch that are too many for a core's cache, which they then leave to the work."""
LEAST_RELAXATION, MOST_RELAXATION = 0.5, 2.0
"""Bounds of the share of a change that an iteration moves by."""
PATIENCE = 25
"""Iterations after which an environment whose correction grows is left to Newton's method."""


class _Workspace(NamedTuple):
    """One lane's numbers, arrays [rows, LANE]; two rows (real, imaginary) a branch or place, four a block of the tail.

    p, q: items; u: taps; source: one row; v: the branches' voltages; change: their last change (float32: it only says
    where to go on); x: places; tail: factors; relaxation (share of the change to move by), trend (see `_measure`),
    largest (change), previous (largest change): a row each; num_iterations: int64 [LANE]; is_done, is_given_up: bool
    [LANE].
    """

    p: NDArray[np.float64]
    q: NDArray[np.float64]
    u: NDArray[np.float64]
    source: NDArray[np.float64]
    v: NDArray[np.float64]
    change: NDArray[np.float32]
    x: NDArray[np.float64]
    tail: NDArray[np.float64]
    relaxation: NDArray[np.float64]
    trend: NDArray[np.float64]
    largest: NDArray[np.float64]
    previous: NDArray[np.float64]
    num_iterations: NDArray[np.int64]
    is_done: NDArray[np.bool_]
    is_given_up: NDArray[np.bool_]


@njit(cache=True, nogil=True, error_model="numpy")
def chord(
    shared: Chord,
    state: GridState,
    capacitor_kvar: NDArray[np.float64],
    v: NDArray[np.float64],
    is_warm: bool,  # noqa: FBT001
    tolerance: float,
    max_iterations: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Solve as `newton.newton` does, all switches as compiled, with the Jacobian of the typical state.

    V <- J^-1 (I_source + G V - I(V)): as the network is linear, only the branches' currents are evaluated. The
    factors are shared but for the tail, the regulators' terminals, which are eliminated last. Convergence is that of
    the branches' voltages, on which all others depend linearly. A row of a batch equals the environment alone.

    Args:
        shared: the feeder at typical load.
        state: powers, taps, capacitors and source; v to start from if is_warm. Not read else.
        capacitor_kvar: rated power of the capacitors, [num_capacitors].
        v: filled with the node voltages, pu, [N, 2, num_envs].
        is_warm: start from the state's voltages, else from the typical ones.
        tolerance: largest last correction of a branch's voltage, pu.
        max_iterations: iterations after which an environment is given up.

    Returns:
        iterations, int64 [num_envs], and converged, bool [num_envs]. An environment that converges slowly is returned
        as not converged, its v as far as it got.
    """
    num_envs, num_nodes, num_branches = v.shape[2], v.shape[0], shared.branch_far.size
    num_items, num_capacitors = state.items_kw.shape[0], capacitor_kvar.size
    iterations = np.zeros(num_envs, dtype=np.int64)
    converged = np.zeros(num_envs, dtype=np.bool_)
    work = _Workspace(
        empty_lanes(num_items + num_capacitors),
        empty_lanes(num_items + num_capacitors),
        empty_lanes(state.taps.shape[0]),
        empty_lanes(1),
        empty_lanes(2 * num_branches),
        empty_short_lanes(2 * num_branches),
        empty_lanes(2 * num_nodes),
        empty_lanes(4 * shared.tail_blocks.shape[0]),
        empty_lanes(1),
        empty_lanes(1),
        empty_lanes(1),
        empty_lanes(1),
        np.empty(LANE, np.int64),
        np.empty(LANE, np.bool_),
        np.empty(LANE, np.bool_),
    )
    for first in range(0, num_envs, LANE):
        _load_powers(state, capacitor_kvar, first, work)
        has_same_taps = _load_controls(state, first, work)
        _start(shared, state.v, first, is_warm, work)
        if first == 0 or not has_same_taps:
            _tail_factors(shared, work.u, work.tail)
        _iterate(shared, work, tolerance, max_iterations)
        _fill_passive(shared, work)
        for e in range(min(LANE, num_envs - first)):
            iterations[first + e], converged[first + e] = work.num_iterations[e], work.is_done[e]
        _write(work.x, first, v)
    return iterations, converged


@njit(cache=True, nogil=True, error_model="numpy")
def _load_powers(state: GridState, capacitor_kvar: NDArray[np.float64], first: int, work: _Workspace) -> None:
    num_items = state.items_kw.shape[0]
    for row in range(num_items):
        store(work.p, row, lane_of(state.items_kw[row], first) * (1.0 / KW_PER_PU))
        store(work.q, row, lane_of(state.items_kvar[row], first) * (1.0 / KW_PER_PU))
    for c in range(capacitor_kvar.size):
        store(work.p, num_items + c, 0.0)
        store(work.q, num_items + c, lane_of(state.capacitor_states[c], first) * (-capacitor_kvar[c] / KW_PER_PU))


@njit(cache=True, nogil=True, error_model="numpy")
def _load_controls(state: GridState, first: int, work: _Workspace) -> bool:
    """Copy the source's voltage and the taps; return whether these were there already."""
    is_same = True
    last = state.source_pu.size - 1
    for e in range(LANE):
        work.source[0, e] = state.source_pu[min(first + e, last)]
    for i in range(state.taps.shape[0]):
        for e in range(LANE):
            value = 1.0 / state.taps[i, min(first + e, last)]
            is_same &= work.u[i, e] == value
            work.u[i, e] = value
    return is_same


@njit(cache=True, nogil=True, error_model="numpy")
def _write(x: NDArray[np.float64], first: int, v: NDArray[np.float64]) -> None:
    address = v.ctypes.data + 8 * first
    is_aligned = address % 64 == 0 and v.strides[0] % 64 == 0 and v.strides[1] % 64 == 0
    width = min(LANE, v.shape[2] - first)
    if width == LANE and is_aligned and v.size > LARGE:
        for row in range(x.shape[0]):
            stream(address + row // 2 * v.strides[0] + row % 2 * v.strides[1], load(x, row))
        return
    for k in range(v.shape[0]):
        for c in range(2):
            for e in range(width):
                v[k, c, first + e] = x[2 * k + c, e]


@njit(cache=True, nogil=True, error_model="numpy")
def _start(
    shared: Chord,
    v: NDArray[np.float64],
    first: int,
    is_warm: bool,  # noqa: FBT001
    work: _Workspace,
) -> None:
    for b in range(shared.branch_near.size):
        near, far = shared.branch_near[b], shared.branch_far[b]
        for c in range(2):
            store(work.change, 2 * b + c, 0.0)
            store(work.v, 2 * b + c, shared.branch_v[b, c])
            if is_warm:
                for e in range(LANE):
                    env = min(first + e, v.shape[2] - 1)
                    work.v[2 * b + c, e] = v[near, c, env] - (v[far, c, env] if far >= 0 else 0.0)
    store(work.relaxation, 0, 0.0)
    store(work.previous, 0, np.inf)
    work.num_iterations[:] = 0
    work.is_done[:] = False
    work.is_given_up[:] = False


@njit(cache=True, nogil=True, error_model="numpy")
def _tail_factors(shared: Chord, u: NDArray[np.float64], tail: NDArray[np.float64]) -> None:
    for k in range(shared.tail_blocks.shape[0]):
        for c in range(4):
            store(tail, 4 * k + c, shared.tail_blocks[k, c])
    for t in range(shared.tail_term_block.size):
        k = 4 * shared.tail_term_block[t]
        factor = load(u, shared.tail_term_control[t])
        if shared.tail_term_exponent[t] == 2:
            factor = factor * factor
        g, b = shared.tail_term_g[t] * factor, shared.tail_term_b[t] * factor
        store(tail, k, load(tail, k) + g)
        store(tail, k + 1, load(tail, k + 1) - b)
        store(tail, k + 2, load(tail, k + 2) + b)
        store(tail, k + 3, load(tail, k + 3) + g)
    factorize(tail, shared.tail_start, shared.tail_column, shared.tail_target)


@njit(cache=True, nogil=True, error_model="numpy")
def _iterate(shared: Chord, work: _Workspace, tolerance: float, max_iterations: int) -> None:
    """Iterate until every environment has converged or given up; x holds the voltages of the places not passive."""
    for _ in range(max_iterations):
        _inject(shared, work)
        _forward(shared, work.x)
        substitute(work.tail, shared.tail_start, shared.tail_column, work.x, shared.first_tail)
        for k in range(shared.first_tail - 1, shared.num_passive - 1, -1):
            _substitute_backward(shared, work.x, k, load(work.x, 2 * k), load(work.x, 2 * k + 1))
        _measure(shared, work)
        is_finished = True
        for e in range(LANE):
            if work.is_done[e] or work.is_given_up[e]:
                continue
            work.num_iterations[e] += 1
            largest, previous = work.largest[0, e], work.previous[0, e]
            is_slow = not largest < previous
            work.is_done[e] = largest < tolerance
            work.is_given_up[e] = is_slow and (work.num_iterations[e] > PATIENCE or not largest < np.inf)
            if work.is_done[e] or work.is_given_up[e]:
                # Its branch voltages stay as they are, so that further rounds give it the same x.
                work.relaxation[0, e] = 0.0
                continue
            if work.num_iterations[e] == 1 or is_slow:
                work.relaxation[0, e] = 1.0
            else:
                better = -work.relaxation[0, e] * work.trend[0, e]
                work.relaxation[0, e] = min(max(better, LEAST_RELAXATION), MOST_RELAXATION)
            work.previous[0, e] = largest
            is_finished = False
        if is_finished:
            break


@njit(cache=True, nogil=True, error_model="numpy")
def _inject(shared: Chord, work: _Workspace) -> None:
    """Move the branches' voltages; put into x what J V equals there."""
    x, source, relaxation = work.x, load(work.source, 0), load(work.relaxation, 0)
    for i in range(2 * shared.num_passive, 2 * shared.rhs.shape[0]):
        store(x, i, get(shared.rhs, i) * source)
    for b in range(shared.branch_near.size):
        vr, vi = _move(work, 2 * b, relaxation), _move(work, 2 * b + 1, relaxation)
        re, im = _branch_current(shared, work, b, vr, vi)
        near, far = 2 * get(shared.branch_near, b), 2 * get(shared.branch_far, b)
        store(x, near, load(x, near) + re)
        store(x, near + 1, load(x, near + 1) + im)
        if far >= 0:
            store(x, far, load(x, far) - re)
            store(x, far + 1, load(x, far + 1) - im)


@njit(cache=True, nogil=True, error_model="numpy")
def _forward(shared: Chord, x: NDArray[np.float64]) -> None:
    """Multiply x by L^-1."""
    for k in range(shared.num_passive, shared.rhs.shape[0]):
        first, last = get(shared.forward_start, k), get(shared.forward_start, k + 1)
        if first < last:
            number = load(x, 2 * k), load(x, 2 * k + 1)
            re, im = _plus_blocks(shared.forward_block, shared.forward_column, first, last, x, number)
            store(x, 2 * k, re)
            store(x, 2 * k + 1, im)


@njit(cache=True, nogil=True, error_model="numpy")
def _plus_blocks(
    block: NDArray[np.float64],
    column: NDArray[np.int64],
    first: int,
    last: int,
    x: NDArray[np.float64],
    number: tuple[Lane, Lane],
) -> tuple[Lane, Lane]:
    """Return the complex number plus the products of blocks first..last with what x holds in their columns."""
    re, im = number
    for s in range(first, last):
        i = 2 * get(column, s)
        other_re, other_im = load(x, i), load(x, i + 1)
        re = plus_product(plus_product(re, get(block, 4 * s), other_re), get(block, 4 * s + 1), other_im)
        im = plus_product(plus_product(im, get(block, 4 * s + 2), other_re), get(block, 4 * s + 3), other_im)
    return re, im


@njit(cache=True, nogil=True, error_model="numpy")
def _move(work: _Workspace, row: int, relaxation: Lane) -> Lane:
    """Move a branch's voltage by a share of its last change."""
    moved = plus_product(load(work.v, row), relaxation, load(work.change, row))
    store(work.v, row, moved)
    return moved


@njit(cache=True, nogil=True, error_model="numpy")
def _branch_current(shared: Chord, work: _Workspace, b: int, vr: Lane, vi: Lane) -> tuple[Lane, Lane]:
    """Return G V - I(V)."""
    item, weight = get(shared.branch_item, b), get(shared.branch_weight, b)
    p, q = load(work.p, item) * weight, load(work.q, item) * weight
    re, im = lane_current(shared.curves, get(shared.branch_curve, b), get(shared.branch_scale, b), p, q, vr, vi)
    g = shared.derivative
    return (
        plus_product(plus_product(-1.0 * re, get(g, 4 * b), vr), get(g, 4 * b + 1), vi),
        plus_product(plus_product(-1.0 * im, get(g, 4 * b + 2), vr), get(g, 4 * b + 3), vi),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _measure(shared: Chord, work: _Workspace) -> None:
    """Measure how the branches' voltages would change; set `largest`, and `trend` to f' . (f - f') / |f - f'|^2.

    With f this change and f' the last one, -trend times the last relaxation is Aitken's next (Irons and Tuck, A version
    of the Aitken accelerator for computer iteration, 1969).
    """
    x = work.x
    along, across, largest = fill(0.0), fill(TINY), fill(0.0)
    for b in range(shared.branch_near.size):
        near, far = 2 * get(shared.branch_near, b), 2 * get(shared.branch_far, b)
        for c in range(2):
            change = load(x, near + c) - load(work.v, 2 * b + c)
            if far >= 0:
                change = change - load(x, far + c)
            last = load(work.change, 2 * b + c)
            difference = change - last
            store(work.change, 2 * b + c, change)
            along = plus_product(along, difference, last)
            across = plus_product(across, difference, difference)
            size = magnitude(change)
            largest = select(size > largest, size, largest)
    store(work.trend, 0, along / across)
    # NaN in any change makes it NaN: a failed environment must not look converged.
    store(work.largest, 0, plus_product(largest, 0.0, across))


@njit(cache=True, nogil=True, error_model="numpy")
def _substitute_backward(shared: Chord, x: NDArray[np.float64], k: int, first: Lane, second: Lane) -> None:
    diagonal = shared.diagonal
    re = plus_product(get(diagonal, 4 * k) * first, get(diagonal, 4 * k + 1), second)
    im = plus_product(get(diagonal, 4 * k + 2) * first, get(diagonal, 4 * k + 3), second)
    start, end = get(shared.backward_start, k), get(shared.backward_start, k + 1)
    re, im = _plus_blocks(shared.backward_block, shared.backward_column, start, end, x, (re, im))
    store(x, 2 * k, re)
    store(x, 2 * k + 1, im)


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_passive(shared: Chord, work: _Workspace) -> None:
    source = load(work.source, 0)
    for k in range(shared.num_passive - 1, -1, -1):
        _substitute_backward(shared, work.x, k, get(shared.rhs, 2 * k) * source, get(shared.rhs, 2 * k + 1) * source)
