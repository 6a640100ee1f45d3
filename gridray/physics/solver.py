"""Solve states by a shared Jacobian, then each environment's own, then continuation in the load."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.physics.branches import IMPEDANCE_CURVE
from gridray.physics.buffers import aligned_empty
from gridray.physics.chord import chord
from gridray.physics.compiled import KW_PER_PU
from gridray.physics.islands import is_part_dead, reached
from gridray.physics.lanes import LANE
from gridray.physics.newton import newton
from gridray.physics.state import STATUSES, GridState, take

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder

SMALLEST_CONTINUATION_STEP = 1e-3
"""Share of the load at which continuation stops: what lies beyond has no solution that it can reach."""
ENOUGH_ITERATIONS = 20
"""With fewer allowed, failure says nothing about loadability, and continuation is not tried."""


def solve_state(
    grid: CompiledFeeder,
    state: GridState,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 50,
    num_threads: int = 1,
) -> GridState:
    """Return the solved state; the search starts from the state's voltages, which stay as they are."""
    return solve_from(grid, state, tolerance, max_iterations, num_threads, is_warm=True)


class _Problem(NamedTuple):
    """What Newton's kernel reads, per unit, environments last; v is overwritten."""

    p: NDArray[np.float64]
    q: NDArray[np.float64]
    u: NDArray[np.float64]
    source_pu: NDArray[np.float64]
    alive: NDArray[np.bool_]
    v: NDArray[np.float64]


def solve_from(
    grid: CompiledFeeder, state: GridState, tolerance: float, max_iterations: int, num_threads: int, *, is_warm: bool
) -> GridState:
    """Solve; each thread takes whole lanes of environments. Not is_warm: the state's v is empty."""
    num_envs = len(state.source_pu)
    v = aligned_empty((grid.num_nodes, 2, num_envs))
    if num_threads == 1 or num_envs <= LANE:
        return _solve_part(grid, state, v, tolerance, max_iterations, is_warm=is_warm)
    size = -(-num_envs // (num_threads * LANE)) * LANE
    slices = [slice(first, first + size) for first in range(0, num_envs, size)]

    def solve_slice(of: slice) -> GridState:
        part = GridState._make(array[..., of] for array in state)
        return _solve_part(grid, part, v[..., of], tolerance, max_iterations, is_warm=is_warm)

    with ThreadPoolExecutor(num_threads) as pool:
        solved = list(pool.map(solve_slice, slices))
    results = {
        name: np.concatenate([getattr(part, name) for part in solved]) for name in ("iterations", "converged", "status")
    }
    return state._replace(v=v, **results)


def _solve_part(
    grid: CompiledFeeder,
    state: GridState,
    v: NDArray[np.float64],
    tolerance: float,
    max_iterations: int,
    *,
    is_warm: bool,
) -> GridState:
    """Try the shared Jacobian, then each environment's own, then continuation; fill v."""
    is_changed = (state.switch_closed != grid.nominal_switch_closed[:, None]).any(axis=0)
    num_envs = len(is_changed)
    iterations, converged = np.zeros(num_envs, dtype=np.int64), np.zeros(num_envs, dtype=np.bool_)
    alive, is_dead = grid.nominal_alive, grid.nominal_dead
    if not is_changed.any():
        iterations, converged = _chord(grid, state, v, tolerance, max_iterations, is_warm=is_warm)
    else:
        alive = reached(grid.connectivity, state.switch_closed)
        is_dead = is_part_dead(grid.connectivity, state.switch_closed)
        v[:] = state.v if is_warm else grid.nominal_v[:, :, None]
        if not is_changed.all():
            kept = np.flatnonzero(~is_changed)
            part = take(state._replace(v=v), kept)
            part_v = aligned_empty(part.v.shape)
            iterations[kept], converged[kept] = _chord(grid, part, part_v, tolerance, max_iterations, is_warm=is_warm)
            v[:, :, kept] = part_v
    status = np.zeros(num_envs, dtype=np.int8)
    if not converged.all():
        _solve_singly(grid, _problem(grid, state, alive, v), (iterations, converged, status), tolerance, max_iterations)
    status[converged & is_dead] = STATUSES.index("dead island")
    return state._replace(v=v, iterations=iterations, converged=converged, status=status)


def _solve_singly(
    grid: CompiledFeeder,
    problem: _Problem,
    results: tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int8]],
    tolerance: float,
    max_iterations: int,
) -> None:
    """Solve what has not converged with each environment's own Jacobian; overwrite v and the results."""
    iterations, converged, status = results
    is_lost = ~np.isfinite(problem.v).all(axis=(0, 1))
    problem.v[:, :, is_lost] = grid.nominal_v[:, :, None]
    attempts = (_newton, _newton_from_no_load, _newton_from_fixed_point, _continue)
    for attempt in attempts if max_iterations >= ENOUGH_ITERATIONS else attempts[:2]:
        failed = np.flatnonzero(~converged)
        if not len(failed):
            break
        part = _rows(problem, failed)
        more, solved, reason = attempt(grid, part, tolerance, max_iterations)
        iterations[failed] += more
        converged[failed] = solved
        status[failed] = np.where(solved, 0, reason)
        problem.v[:, :, failed] = np.where(solved | np.isfinite(part.v).all(axis=(0, 1)), part.v, 0.0)


def _chord(
    grid: CompiledFeeder,
    state: GridState,
    v: NDArray[np.float64],
    tolerance: float,
    max_iterations: int,
    *,
    is_warm: bool,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    return chord(grid.chord, state, grid.capacitor_kvar, v, is_warm, tolerance, max_iterations)


def _problem(grid: CompiledFeeder, state: GridState, alive: NDArray[np.bool_], v: NDArray[np.float64]) -> _Problem:
    capacitors = -grid.capacitor_kvar[:, None] * state.capacitor_states
    p = np.concatenate((state.items_kw, np.zeros_like(capacitors)))
    q = np.concatenate((state.items_kvar, capacitors))
    u = np.concatenate((1.0 / state.taps, state.switch_closed))
    alive = np.broadcast_to(alive, (len(alive), v.shape[2]))
    return _Problem(p / KW_PER_PU, q / KW_PER_PU, u, state.source_pu, alive, v)


def _rows(problem: _Problem, rows: NDArray[np.int64]) -> _Problem:
    return _Problem._make(np.ascontiguousarray(array[..., rows]) for array in problem)


def _newton(
    grid: CompiledFeeder, problem: _Problem, tolerance: float, max_iterations: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int8]]:
    iterations, converged = newton(grid.network, grid.network, *problem, tolerance, max_iterations)
    return iterations, converged, np.full(len(converged), STATUSES.index("not converged"), dtype=np.int8)


def _newton_from_no_load(
    grid: CompiledFeeder, problem: _Problem, tolerance: float, max_iterations: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int8]]:
    problem.v[:] = grid.no_load_v[:, :, None]
    return _newton(grid, problem, tolerance, max_iterations)


def _newton_from_fixed_point(
    grid: CompiledFeeder, problem: _Problem, tolerance: float, max_iterations: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int8]]:
    """Start from where OpenDSS's iteration ends, whose derivatives are those of impedances of rated power.

    The Jacobian of constant power in wye is singular where a neutral that nothing grounds lies in the middle.
    """
    problem.v[:] = grid.no_load_v[:, :, None]
    curve = grid.network.branch_curve.copy()
    curve[:, 1:] = IMPEDANCE_CURVE
    impedances = grid.network._replace(branch_curve=curve)
    few, _ = newton(grid.network, impedances, *problem, tolerance, max_iterations)
    more, converged, status = _newton(grid, problem, tolerance, max_iterations)
    return few + more, converged, status


def _continue(
    grid: CompiledFeeder, problem: _Problem, tolerance: float, max_iterations: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int8]]:
    """Raise the load from nothing in steps that adapt; where even the smallest fails, loadability ends.

    The environment's last solved state below full load is left in v. Without a solution even at no load, the reason
    is not loadability. A step starts near its solution or fails: it gets no more than ENOUGH_ITERATIONS.
    """
    num_envs = problem.v.shape[2]
    few = min(max_iterations, ENOUGH_ITERATIONS)
    share, step = np.zeros(num_envs), np.full(num_envs, 0.25)
    count = np.zeros(num_envs, dtype=np.int64)
    problem.v[:] = grid.no_load_v[:, :, None]
    idle = problem._replace(p=0.0 * problem.p, q=0.0 * problem.q)
    more, has_start, _ = _newton(grid, idle, tolerance, max_iterations)
    count += more
    while len(rows := np.flatnonzero(has_start & (share < 1.0) & (step >= SMALLEST_CONTINUATION_STEP))):
        part = _rows(problem, rows)
        trial = np.minimum(share[rows] + step[rows], 1.0)
        part = part._replace(p=part.p * trial, q=part.q * trial)
        more, solved, _ = _newton(grid, part, tolerance, few)
        count[rows] += more
        share[rows] = np.where(solved, trial, share[rows])
        step[rows] *= np.where(solved, 1.5, 0.5)
        problem.v[:, :, rows[solved]] = part.v[:, :, solved]
    beyond, unsolved = STATUSES.index("beyond loadability"), STATUSES.index("not converged")
    return count, share >= 1.0, np.where(has_start, beyond, unsolved).astype(np.int8)
