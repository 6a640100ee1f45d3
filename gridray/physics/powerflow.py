"""Batched three-phase power flow: the public call."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from gridray.errors import ConfigError
from gridray.physics.buffers import aligned_empty
from gridray.physics.controls import settle
from gridray.physics.measure import PowerFlow
from gridray.physics.solver import solve_from
from gridray.physics.state import GridState

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from gridray.physics.compiled import CompiledFeeder

LARGEST_TAP = 2.0
"""Ratio over nominal that no transformer has; above it, steps were given for ratios."""


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
    controls: Literal["frozen", "free"] = "frozen",
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
        controls: "frozen" leaves taps and capacitors as they are; "free" lets regulators and capacitor controls act
            until they rest, as OpenDSS's static mode does (`gridray.physics.controls.settle`).
        tolerance: largest last correction of a voltage, pu.
        max_iterations: after that many iterations an environment is given up (converged is False).
        num_threads: threads that share the environments.

    Each array is (num_items,) or (num_envs, num_items) in the order of the grid's names, or a dict of name to value
    or (num_envs,) values, the others being nominal; names in any case, as in OpenDSS.

    Raises:
        ConfigError: an array has the wrong shape or a value that is not finite, or a name is unknown.
    """
    if not 0.0 < tolerance < 1.0:
        raise ConfigError(f"tolerance is {tolerance}: give the largest last correction in pu, such as 1e-8.")
    if controls not in {"frozen", "free"}:
        raise ConfigError(f"controls is {controls!r}: give 'frozen' or 'free'.")
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
        "source_pu": (None if source_pu is None else _column("source_pu", source_pu)[:, None], ("source",), np.ones(1)),
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
    solved = solve_from(grid, state, tolerance, max_iterations, num_threads, is_warm=False)
    if controls == "free":
        solved = settle(grid, solved, tolerance=tolerance, max_iterations=max_iterations, num_threads=num_threads)
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


def _checked(
    name: str, given: ArrayLike | Mapping[str, ArrayLike] | None, names: tuple[str, ...], default: NDArray[np.float64]
) -> NDArray[np.float64]:
    if isinstance(given, Mapping):
        given = _by_name(name, given, names, default)
    try:
        plain = _real(default if given is None else given)
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
    exact = {own: number for number, own in enumerate(names)}
    any_case = {own.lower(): number for own, number in exact.items()}
    columns = {key: _column(f"{name}['{key}']", value) for key, value in given.items()}
    num_rows = max((len(column) for column in columns.values()), default=1)
    array = np.repeat(default[None, :], num_rows, axis=0)
    for key, column in columns.items():
        if len(column) not in {1, num_rows}:
            raise ConfigError(f"{name}['{key}'] has {len(column)} rows but another has {num_rows}: give both the same.")
        number = exact.get(key, any_case.get(str(key).lower()))
        if number is None:
            near = difflib.get_close_matches(str(key), names, 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"{name} names '{key}', which this feeder has not.{hint}")
        array[:, number] = column
    return array


def _column(name: str, value: ArrayLike) -> NDArray[np.float64]:
    try:
        column = np.atleast_1d(_real(value))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} is {value!r}: give a number, or one for each environment.") from error
    if column.ndim != 1:
        raise ConfigError(f"{name} has shape {column.shape}: give a number, or one for each environment.")
    return column


def _real(value: ArrayLike) -> NDArray[np.float64]:
    """Return the numbers; complex ones, whose imaginary part would be lost, are none."""
    if np.iscomplexobj(value):
        raise TypeError("it is complex")
    return np.asarray(value, dtype=np.float64)
