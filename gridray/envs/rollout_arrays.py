"""Rollouts of many environments as arrays, and where their episodes begin and end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class RolloutArrays:
    """Arrays [num_rows, ...] by name that grow as rows are written.

    An environment's rows lie side by side in memory: an episode is a slice.
    num_rows: rows that are complete; the writer counts.
    """

    def __init__(self, capacity: int) -> None:
        """Begin with room for `capacity` rows."""
        self.num_rows = 0
        self._capacity = capacity
        self._arrays: dict[str, NDArray[Any]] = {}

    def write(self, row: int, **values: Any) -> None:
        """Write a row of these arrays."""
        for name, value in values.items():
            given = np.asarray(value)
            array = self._arrays.get(name)
            if array is None:
                rows = self._capacity + 1
                shape = (given.shape[0], rows, *given.shape[1:]) if given.ndim else (rows,)
                array = self._arrays[name] = np.empty(shape, given.dtype).swapaxes(0, min(given.ndim, 1))
            if row >= len(array):
                array = self._arrays[name] = np.concatenate((array, np.empty_like(array)))
            array[row] = given

    def finished(self, *, extra: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Return the arrays, num_rows long; those named in `extra` have a row more."""
        return {name: array[: self.num_rows + (name in extra)] for name, array in self._arrays.items()}


def episode_cuts(skip: NDArray[np.bool_], ended: NDArray[np.bool_]) -> Iterator[tuple[int, int, int, bool]]:
    """Yield (environment, first row, row after the last, whether it ended) of each episode in a rollout.

    Those that ended come first, in the order of their end, then one for each environment: what goes on, empty (first
    is not before the last) where an episode has just ended or just begun.

    Args:
        skip: bool [T, E], rows that are a reset, no transition.
        ended: bool [T, E], whether the environment says that an episode ended; not read where skip.
    """
    num_rows, num_envs = skip.shape
    first = skip[0].astype(np.int64) if num_rows else np.zeros(num_envs, dtype=np.int64)
    for row, env in np.argwhere(ended & ~skip).tolist():
        yield env, int(first[env]), row + 1, True
        first[env] = row + 2
    for env in range(num_envs):
        yield env, int(first[env]), num_rows, False
