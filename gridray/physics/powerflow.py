"""Batched three-phase power flow: the public call."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.errors import ConfigError
from gridray.physics.buffers import aligned_empty
from gridray.physics.chord import chord
from gridray.physics.compiled import KW_PER_PU
from gridray.physics.islands import is_part_dead, reached
from gridray.physics.lanes import LANE
from gridray.physics.measure import PowerFlow
from gridray.physics.newton import newton
from gridray.physics.state import STATUSES, GridState, take

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gridray.physics.compiled import CompiledFeeder

SMALLEST_CONTINUATION_STEP = 1e-3
"""Share of the load at which continuation stops: what lies beyond has no solution that it can reach."""
LARGEST_TAP = 2.0
"""Ratio over nominal that no transformer has; above it, steps were given for ratios."""
ENOUGH_ITERATIONS = 20
"""With fewer allowed, failure says nothing about loadability, and continuation is not tried."""


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
        generator_kw: active power injected by the generators; default nominal (batteries 0). Taken as given: what an
            inverter can give is `gridray.devices.inverter.limit_power`'s to say.
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
    if not 0.0 < tolerance < 1.0:
        raise ConfigError(f"tolerance is {tolerance}: give the largest last correction in pu, such as 1e-8.")
    if num_threads < 1:
        raise ConfigError(f"num_threads is {num_threads}: give 1 or more.")
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
    _check_controls(arrays)
    by_item = {
        name: (array if len(array) == num_envs else np.broadcast_to(array, (num_envs, array.shape[1]))).T
        for name, array in arrays.items()
    }
    state = GridState(
        items_kw=_drawn(by_item["load_kw"], by_item["generator_kw"]),
        items_kvar=_drawn(by_item["load_kvar"], by_item["generator_kvar"]),
        taps=by_item["taps"].copy(),
        capacitor_states=by_item["capacitor_states"].copy(),
        switch_closed=by_item["switch_closed"].copy(),
        source_pu=by_item["source_pu"][0].copy(),
        v=np.empty((grid.num_nodes, 2, 0)),
        iterations=np.zeros(num_envs, dtype=np.int64),
        converged=np.zeros(num_envs, dtype=np.bool_),
        status=np.zeros(num_envs, dtype=np.int8),
    )
    solved = _solve(grid, state, tolerance, max_iterations, num_threads, is_warm=False)
    return PowerFlow(grid, solved)


def _check_controls(arrays: Mapping[str, NDArray[np.float64]]) -> None:
    """Refuse positions that no device has."""
    taps, source_pu = arrays["taps"], arrays["source_pu"]
    if not ((taps > 0.0) & (taps <= LARGEST_TAP)).all():
        wrong = taps[~((taps > 0.0) & (taps <= LARGEST_TAP))][0]
        raise ConfigError(f"taps has {wrong:g}: a tap is a ratio, such as 1.00625 for one step, not a number of steps.")
    for name in ("capacitor_states", "switch_closed"):
        if not ((arrays[name] == 0.0) | (arrays[name] == 1.0)).all():
            wrong = arrays[name][(arrays[name] != 0.0) & (arrays[name] != 1.0)][0]
            raise ConfigError(f"{name} has {wrong:g}: give 1 (closed) or 0 (open).")
    if not (source_pu > 0.0).all():
        raise ConfigError(f"source_pu has {source_pu.min():g}: give a voltage above 0, such as 1.0.")


def _drawn(loads: NDArray[np.float64], generators: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the power that loads and generators draw, [num_loads + num_generators, E].

    In memory an environment's powers stay together, as they came: turning them would cost as much as an iteration.
    """
    items = aligned_empty((loads.shape[1], len(loads) + len(generators))).T
    items[: len(loads)] = loads
    np.negative(generators, out=items[len(loads) :])
    return items


def solve_state(
    grid: CompiledFeeder,
    state: GridState,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 50,
    num_threads: int = 1,
) -> GridState:
    """Return the solved state; the search starts from the state's voltages, which stay as they are."""
    return _solve(grid, state, tolerance, max_iterations, num_threads, is_warm=True)


class _Problem(NamedTuple):
    """What Newton's kernel reads, per unit, environments last; v is overwritten."""

    p: NDArray[np.float64]
    q: NDArray[np.float64]
    u: NDArray[np.float64]
    source_pu: NDArray[np.float64]
    alive: NDArray[np.bool_]
    v: NDArray[np.float64]


def _solve(
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
    attempts = (_newton, _newton_from_no_load, _continue)
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
    columns = {key: _column(name, key, value) for key, value in given.items()}
    num_rows = max((len(column) for column in columns.values()), default=1)
    array = np.repeat(default[None, :], num_rows, axis=0)
    for key, column in columns.items():
        if len(column) not in {1, num_rows}:
            raise ConfigError(f"{name}['{key}'] has {len(column)} rows but another has {num_rows}: give both the same.")
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"{name} names '{key}', which this feeder has not.{hint}")
        array[:, names.index(key)] = column
    return array


def _column(name: str, key: str, value: ArrayLike) -> NDArray[np.float64]:
    try:
        column = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}['{key}'] is {value!r}: give a number, or one for each environment.") from error
    if column.ndim != 1:
        raise ConfigError(f"{name}['{key}'] has shape {column.shape}: give a number, or one for each environment.")
    return column
