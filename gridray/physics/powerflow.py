"""Batched three-phase power flow: the public call."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.errors import ConfigError
from gridray.physics.compiled import BASE_VA
from gridray.physics.newton import newton

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gridray.physics.compiled import CompiledFeeder

KW_PER_PU = BASE_VA / 1e3


class GridState(NamedTuple):
    """What the solver reads and returns, for E environments; the only thing that changes.

    items_kw, items_kvar: float64 [num_loads + num_generators, E], power drawn at rated voltage (generators negative).
    taps: float64 [num_taps, E], pu; capacitor_states: float64 [num_capacitors, E], 0 or 1.
    v: float64 [N, 2, E], voltages in elimination order, pu; iterations int64 [E]; converged bool [E].
    """

    items_kw: NDArray[np.float64]
    items_kvar: NDArray[np.float64]
    taps: NDArray[np.float64]
    capacitor_states: NDArray[np.float64]
    v: NDArray[np.float64]
    iterations: NDArray[np.int64]
    converged: NDArray[np.bool_]


def solve(  # noqa: PLR0913
    grid: CompiledFeeder,
    *,
    load_kw: ArrayLike | None = None,
    load_kvar: ArrayLike | None = None,
    generator_kw: ArrayLike | None = None,
    generator_kvar: ArrayLike | None = None,
    taps: ArrayLike | None = None,
    capacitor_states: ArrayLike | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 50,
) -> GridState:
    """Solve the power flow of one or many environments, from the no-load voltages.

    Args:
        grid: the compiled feeder.
        load_kw: active power of the loads at rated voltage; default nominal.
        load_kvar: reactive power likewise.
        generator_kw: active power injected by the generators; default 0.
        generator_kvar: reactive power likewise.
        taps: regulator taps, pu; default nominal.
        capacitor_states: 1 closed, 0 open; default nominal.
        tolerance: largest last correction of a voltage, pu.
        max_iterations: after that many iterations an environment is given up (converged is False).

    Each array is (num_items,) or (num_envs, num_items) in the order of the grid's names.

    Raises:
        ConfigError: an array has the wrong shape or a value that is not finite.
    """
    columns = {
        "load_kw": (load_kw, grid.load_kw),
        "load_kvar": (load_kvar, grid.load_kvar),
        "generator_kw": (generator_kw, np.zeros(len(grid.generator_names))),
        "generator_kvar": (generator_kvar, np.zeros(len(grid.generator_names))),
        "taps": (taps, grid.nominal_taps),
        "capacitor_states": (capacitor_states, grid.nominal_capacitor_states),
    }
    arrays = {name: _checked(name, given, default) for name, (given, default) in columns.items()}
    num_envs = max(len(array) for array in arrays.values())
    for name, array in arrays.items():
        if len(array) not in {1, num_envs}:
            raise ConfigError(f"{name} has {len(array)} rows but another array has {num_envs}: give both the same.")
    by_item = {name: np.broadcast_to(a, (num_envs, a.shape[1])).T for name, a in arrays.items()}
    state = GridState(
        items_kw=np.concatenate((by_item["load_kw"], -by_item["generator_kw"])),
        items_kvar=np.concatenate((by_item["load_kvar"], -by_item["generator_kvar"])),
        taps=by_item["taps"].copy(),
        capacitor_states=by_item["capacitor_states"].copy(),
        v=np.repeat(grid.no_load_v[:, :, None], num_envs, axis=2),
        iterations=np.zeros(num_envs, dtype=np.int64),
        converged=np.zeros(num_envs, dtype=np.bool_),
    )
    return solve_state(grid, state, tolerance=tolerance, max_iterations=max_iterations)


def solve_state(
    grid: CompiledFeeder, state: GridState, *, tolerance: float = 1e-8, max_iterations: int = 50
) -> GridState:
    """Solve from the state's voltages; an environment that fails is tried once more from the no-load voltages."""
    p, q = state.items_kw / KW_PER_PU, state.items_kvar / KW_PER_PU
    u = np.concatenate((1.0 / state.taps, state.capacitor_states))
    v = state.v.copy()
    iterations, converged = newton(grid.network, p, q, u, v, tolerance, max_iterations)
    if not converged.all():
        failed = np.flatnonzero(~converged)
        again = np.repeat(grid.no_load_v[:, :, None], len(failed), axis=2)
        p, q, u = (np.ascontiguousarray(a[:, failed]) for a in (p, q, u))
        more, solved = newton(grid.network, p, q, u, again, tolerance, max_iterations)
        v[:, :, failed] = again
        iterations[failed] += more
        converged[failed] = solved
    return state._replace(v=v, iterations=iterations, converged=converged)


def take(state: GridState, rows: NDArray[np.int64]) -> GridState:
    """Return a copy of the state's environments of these indices."""
    return GridState._make(np.ascontiguousarray(array[..., rows]) for array in state)


def put(state: GridState, rows: NDArray[np.int64], part: GridState) -> None:
    """Overwrite the state's environments of these indices."""
    for target, source in zip(state, part, strict=True):
        target[..., rows] = source


def _checked(name: str, given: ArrayLike | None, default: NDArray[np.float64]) -> NDArray[np.float64]:
    plain = np.asarray(default if given is None else given, dtype=np.float64)
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
