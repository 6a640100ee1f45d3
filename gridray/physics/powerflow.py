"""Batched three-phase power flow: the public call."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.errors import ConfigError
from gridray.physics.chord import chord
from gridray.physics.compiled import KW_PER_PU
from gridray.physics.factorization import LANE
from gridray.physics.islands import is_part_dead, reached
from gridray.physics.measure import PowerFlow
from gridray.physics.newton import newton
from gridray.physics.state import STATUSES, GridState

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gridray.physics.compiled import CompiledFeeder

SMALLEST_CONTINUATION_STEP = 1e-3
"""Share of the load at which continuation stops: what lies beyond has no solution that it can reach."""
ENOUGH_ITERATIONS = 20
"""With fewer allowed, failure says nothing about loadability, and continuation is not tried."""


class _Problem(NamedTuple):
    """What the kernels read, per unit, environments last; v is overwritten."""

    p: NDArray[np.float64]
    q: NDArray[np.float64]
    u: NDArray[np.float64]
    source_pu: NDArray[np.float64]
    alive: NDArray[np.bool_]
    v: NDArray[np.float64]

    def rows(self, rows: NDArray[np.int64]) -> _Problem:
        return _Problem._make(np.ascontiguousarray(array[..., rows]) for array in self)


def solve(  # noqa: PLR0913
    grid: CompiledFeeder,
    *,
    load_kw: ArrayLike | Mapping[str, ArrayLike] | None = None,
    load_kvar: ArrayLike | Mapping[str, ArrayLike] | None = None,
    generator_kw: ArrayLike | Mapping[str, ArrayLike] | None = None,
    generator_kvar: ArrayLike | Mapping[str, ArrayLike] | None = None,
    taps: ArrayLike | Mapping[str, ArrayLike] | None = None,
    capacitor_states: ArrayLike | Mapping[str, ArrayLike] | None = None,
    switch_closed: ArrayLike | Mapping[str, ArrayLike] | None = None,
    source_pu: ArrayLike | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 50,
    num_threads: int = 1,
) -> PowerFlow:
    """Solve the power flow of one or many environments, from the voltages at typical load.

    Args:
        grid: the compiled feeder.
        load_kw: active power of the loads at rated voltage; default nominal.
        load_kvar: reactive power likewise.
        generator_kw: active power injected by the generators; default nominal (batteries 0).
        generator_kvar: reactive power likewise.
        taps: regulator taps, pu; default nominal.
        capacitor_states: 1 closed, 0 open; default nominal.
        switch_closed: 1 closed, 0 open; default nominal.
        source_pu: source voltage over its nominal one, a number or (num_envs,); default 1.
        tolerance: largest last correction of a voltage, pu.
        max_iterations: after that many iterations an environment is given up (converged is False).
        num_threads: threads that share the environments.

    Each array is (num_items,) or (num_envs, num_items) in the order of the grid's names, or a dict of name to value
    or (num_envs,) values, the others being nominal.

    Raises:
        ConfigError: an array has the wrong shape or a value that is not finite, or a name is unknown.
    """
    columns = {
        "load_kw": (load_kw, grid.load_names, grid.load_kw),
        "load_kvar": (load_kvar, grid.load_names, grid.load_kvar),
        "generator_kw": (generator_kw, grid.generator_names, grid.generator_kw),
        "generator_kvar": (generator_kvar, grid.generator_names, grid.generator_kvar),
        "taps": (taps, grid.tap_names, grid.nominal_taps),
        "capacitor_states": (capacitor_states, grid.capacitor_names, grid.nominal_capacitor_states),
        "switch_closed": (switch_closed, grid.switch_names, grid.nominal_switch_closed),
        "source_pu": (None if source_pu is None else np.reshape(source_pu, (-1, 1)), ("source",), np.ones(1)),
    }
    arrays = {name: _checked(name, *column) for name, column in columns.items()}
    num_envs = max(len(array) for array in arrays.values())
    for name, array in arrays.items():
        if len(array) not in {1, num_envs}:
            raise ConfigError(f"{name} has {len(array)} rows but another array has {num_envs}: give both the same.")
    if not (arrays["taps"] > 0.0).all():
        raise ConfigError(f"taps has {arrays['taps'].min()}: a tap is a ratio above 0, such as 1.00625.")
    by_item = {name: np.broadcast_to(array, (num_envs, array.shape[1])).T for name, array in arrays.items()}
    state = GridState(
        items_kw=np.concatenate((by_item["load_kw"], -by_item["generator_kw"])),
        items_kvar=np.concatenate((by_item["load_kvar"], -by_item["generator_kvar"])),
        taps=by_item["taps"].copy(),
        capacitor_states=by_item["capacitor_states"].copy(),
        switch_closed=by_item["switch_closed"].copy(),
        source_pu=by_item["source_pu"][0].copy(),
        v=np.empty((grid.num_nodes, 2, num_envs)),
        iterations=np.zeros(num_envs, dtype=np.int64),
        converged=np.zeros(num_envs, dtype=np.bool_),
        status=np.zeros(num_envs, dtype=np.int8),
    )
    solved = _solve(grid, state, tolerance, max_iterations, num_threads, is_warm=False)
    return PowerFlow(grid, solved)


def solve_state(
    grid: CompiledFeeder,
    state: GridState,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 50,
    num_threads: int = 1,
) -> GridState:
    """Solve from the state's voltages."""
    return _solve(grid, state._replace(v=state.v.copy()), tolerance, max_iterations, num_threads, is_warm=True)


def _solve(
    grid: CompiledFeeder, state: GridState, tolerance: float, max_iterations: int, num_threads: int, *, is_warm: bool
) -> GridState:
    """Overwrite the state's voltages; each thread takes whole lanes of environments."""
    num_envs = state.v.shape[2]
    if num_threads == 1 or num_envs <= LANE:
        return _solve_part(grid, state, tolerance, max_iterations, is_warm=is_warm)
    size = -(-num_envs // (num_threads * LANE)) * LANE
    parts = [GridState._make(a[..., first : first + size] for a in state) for first in range(0, num_envs, size)]
    with ThreadPoolExecutor(num_threads) as pool:
        solved = list(pool.map(lambda part: _solve_part(grid, part, tolerance, max_iterations, is_warm=is_warm), parts))
    results = {
        name: np.concatenate([getattr(part, name) for part in solved]) for name in ("iterations", "converged", "status")
    }
    return state._replace(**results)


def _solve_part(
    grid: CompiledFeeder, state: GridState, tolerance: float, max_iterations: int, *, is_warm: bool
) -> GridState:
    """Try the shared Jacobian, then each environment's own, then continuation."""
    is_changed = (state.switch_closed != grid.nominal_switch_closed[:, None]).any(axis=0)
    seen = state.switch_closed if is_changed.any() else grid.nominal_switch_closed[:, None]
    problem = _problem(grid, state, reached(grid.connectivity, seen))
    num_envs = state.v.shape[2]
    if not is_warm and is_changed.any():
        problem.v[:] = grid.nominal_v[:, :, None]
    iterations, converged = np.zeros(num_envs, dtype=np.int64), np.zeros(num_envs, dtype=np.bool_)
    kept = np.flatnonzero(~is_changed)
    if len(kept) == num_envs:
        iterations, converged = _chord(grid, problem, tolerance, max_iterations, is_warm=is_warm)
    elif len(kept):
        part = problem.rows(kept)
        iterations[kept], converged[kept] = _chord(grid, part, tolerance, max_iterations, is_warm=is_warm)
        problem.v[:, :, kept] = part.v
    if not converged.all():
        is_lost = ~np.isfinite(problem.v).all(axis=(0, 1))
        problem.v[:, :, is_lost] = grid.nominal_v[:, :, None]
    status = np.zeros(num_envs, dtype=np.int8)
    attempts = (_newton, _newton_from_no_load, _continue)
    for attempt in attempts if max_iterations >= ENOUGH_ITERATIONS else attempts[:2]:
        failed = np.flatnonzero(~converged)
        if not len(failed):
            break
        part = _per_environment(problem, num_envs).rows(failed)
        more, solved, reason = attempt(grid, part, tolerance, max_iterations)
        iterations[failed] += more
        converged[failed] = solved
        status[failed] = np.where(solved, 0, reason)
        problem.v[:, :, failed] = np.where(solved | np.isfinite(part.v).all(axis=(0, 1)), part.v, 0.0)
    is_dead = is_part_dead(grid.connectivity, seen)
    status[converged & is_dead] = STATUSES.index("dead island")
    return state._replace(iterations=iterations, converged=converged, status=status)


def _problem(grid: CompiledFeeder, state: GridState, alive: NDArray[np.bool_]) -> _Problem:
    capacitors = -grid.capacitor_kvar[:, None] * state.capacitor_states
    p = np.concatenate((state.items_kw, np.zeros_like(capacitors)))
    q = np.concatenate((state.items_kvar, capacitors))
    p /= KW_PER_PU
    q /= KW_PER_PU
    u = np.concatenate((1.0 / state.taps, state.switch_closed))
    return _Problem(p, q, u, state.source_pu, alive, state.v)


def _per_environment(problem: _Problem, num_envs: int) -> _Problem:
    return problem._replace(alive=np.broadcast_to(problem.alive, (len(problem.alive), num_envs)))


def _chord(
    grid: CompiledFeeder, problem: _Problem, tolerance: float, max_iterations: int, *, is_warm: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    p, q, u, source_pu, _, v = problem
    return chord(grid.network, grid.chord, p, q, u, source_pu, v, is_warm, tolerance, max_iterations)


def _newton(
    grid: CompiledFeeder, problem: _Problem, tolerance: float, max_iterations: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int8]]:
    iterations, converged = newton(grid.network, *problem, tolerance, max_iterations)
    return iterations, converged, np.full(len(converged), STATUSES.index("not converged"), dtype=np.int8)


def _newton_from_no_load(
    grid: CompiledFeeder, problem: _Problem, tolerance: float, max_iterations: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int8]]:
    problem.v[:] = grid.no_load_v[:, :, None]
    return _newton(grid, problem, tolerance, max_iterations)


def _continue(
    grid: CompiledFeeder, problem: _Problem, tolerance: float, max_iterations: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int8]]:
    """Raise the load from nothing in steps that adapt; where even the smallest fails, loadability ends.

    The environment's last solved state below full load is left in v. Without a solution even at no load, the reason
    is not loadability.
    """
    num_envs = problem.v.shape[2]
    share, step = np.zeros(num_envs), np.full(num_envs, 0.25)
    count = np.zeros(num_envs, dtype=np.int64)
    problem.v[:] = grid.no_load_v[:, :, None]
    idle = problem._replace(p=0.0 * problem.p, q=0.0 * problem.q)
    more, has_start, _ = _newton(grid, idle, tolerance, max_iterations)
    count += more
    while len(rows := np.flatnonzero(has_start & (share < 1.0) & (step >= SMALLEST_CONTINUATION_STEP))):
        part = problem.rows(rows)
        trial = np.minimum(share[rows] + step[rows], 1.0)
        part = part._replace(p=part.p * trial, q=part.q * trial)
        more, solved, _ = _newton(grid, part, tolerance, max_iterations)
        count[rows] += more
        share[rows] = np.where(solved, trial, share[rows])
        step[rows] *= np.where(solved, 1.5, 0.5)
        problem.v[:, :, rows[solved]] = part.v[:, :, solved]
    beyond, unsolved = STATUSES.index("beyond loadability"), STATUSES.index("not converged")
    return count, share >= 1.0, np.where(has_start, beyond, unsolved).astype(np.int8)


def _checked(
    name: str, given: ArrayLike | Mapping[str, ArrayLike] | None, names: tuple[str, ...], default: NDArray[np.float64]
) -> NDArray[np.float64]:
    if isinstance(given, Mapping):
        given = _by_name(name, given, names, default)
    try:
        plain = np.asarray(default if given is None else given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is not an array of numbers ({error}): give a number for each name.") from error
    array = np.atleast_2d(plain)
    if array.ndim != 2 or array.shape[1] != len(default):
        raise ConfigError(
            f"{name} has shape {plain.shape}: give ({len(default)},) or (num_envs, {len(default)}), "
            "in the order of the grid's names."
        )
    if not np.isfinite(array).all():
        row, item = np.argwhere(~np.isfinite(array))[0]
        raise ConfigError(f"{name}[{row}, {item}] is {array[row, item]}: give a finite number.")
    return array


def _by_name(
    name: str, given: Mapping[str, ArrayLike], names: tuple[str, ...], default: NDArray[np.float64]
) -> NDArray[np.float64]:
    columns = {key: np.atleast_1d(np.asarray(value, dtype=np.float64)) for key, value in given.items()}
    array = np.repeat(default[None, :], max((len(c) for c in columns.values()), default=1), axis=0)
    for key, column in columns.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"{name} names '{key}', which this feeder has not.{hint}")
        array[:, names.index(key)] = column
    return array
