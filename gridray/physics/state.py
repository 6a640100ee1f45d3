"""What the solver reads and returns: the only thing that changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gridray.physics.buffers import aligned_empty
from gridray.physics.columns import copy_columns, put_columns, take_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder

STATUSES = ("converged", "dead island", "beyond loadability", "not converged", "controls hunt")
"""Names of GridState.status; in a dead island voltages are zero, the rest of the feeder is solved."""


class GridState(NamedTuple):
    """State of E environments, the environment axis last.

    items_kw, items_kvar: float64 [num_loads + num_generators, E], power drawn at rated voltage (generators negative).
    taps: float64 [num_taps, E], pu; capacitor_states: float64 [num_capacitors, E], 0 or 1.
    switch_closed: float64 [num_switches, E], 0 or 1; source_pu: float64 [E], source voltage over its nominal one.
    v: float64 [N, 2, E], voltages in elimination order, pu; iterations int64 [E]; converged bool [E].
    status: int8 [E], index into STATUSES.
    """

    items_kw: NDArray[np.float64]
    items_kvar: NDArray[np.float64]
    taps: NDArray[np.float64]
    capacitor_states: NDArray[np.float64]
    switch_closed: NDArray[np.float64]
    source_pu: NDArray[np.float64]
    v: NDArray[np.float64]
    iterations: NDArray[np.int64]
    converged: NDArray[np.bool_]
    status: NDArray[np.int8]


def nominal_state(grid: CompiledFeeder, num_envs: int) -> GridState:
    """Return environments with everything at its nominal value, voltages solved."""
    kw = np.concatenate((grid.load_kw, -grid.generator_kw))
    kvar = np.concatenate((grid.load_kvar, -grid.generator_kvar))
    kw, kvar, taps, capacitors, switches = (
        np.repeat(array[:, None], num_envs, axis=1)
        for array in (kw, kvar, grid.nominal_taps, grid.nominal_capacitor_states, grid.nominal_switch_closed)
    )
    v = aligned_empty((grid.num_nodes, 2, num_envs))
    v[:] = grid.nominal_v[:, :, None]
    return GridState(
        items_kw=kw,
        items_kvar=kvar,
        taps=taps,
        capacitor_states=capacitors,
        switch_closed=switches,
        source_pu=np.ones(num_envs),
        v=v,
        iterations=np.zeros(num_envs, dtype=np.int64),
        converged=np.ones(num_envs, dtype=np.bool_),
        status=np.zeros(num_envs, dtype=np.int8),
    )


def take(state: GridState, rows: NDArray[np.int64]) -> GridState:
    """Return a copy of the state's environments of these indices."""
    return GridState._make(take_columns(array, rows) for array in state)


def put(state: GridState, rows: NDArray[np.int64], part: GridState) -> None:
    """Overwrite the state's environments of these indices."""
    for name in GridState._fields:
        put_columns(getattr(state, name), rows, getattr(part, name))


def copy(source: GridState, source_rows: NDArray[np.int64], state: GridState, rows: NDArray[np.int64]) -> None:
    """Overwrite environments `rows` of the state with environments `source_rows` of another."""
    for name in GridState._fields:
        copy_columns(getattr(source, name), source_rows, getattr(state, name), rows)
