"""Copies of environments: what look-ahead steps ahead of the twin, so that the twin itself stays where it is."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gridray.devices.random_streams import EnvStreams

if TYPE_CHECKING:
    from numpy.typing import NDArray

State = TypeVar("State")


def fork(state: State, rows: NDArray[np.int64]) -> State:
    """Return a copy of the state with these environments; a row may come many times, once for each candidate.

    The copies go on with the same random numbers as their original: what is tried in one is what would have happened.

    Args:
        state: arrays with the environment axis last, in named tuples, dataclasses and dicts of any depth.
        rows: int64 [num_copies], indices of the environments to copy.

    Raises:
        TypeError: the state holds something else.
    """
    copied: State = _copy(state, np.asarray(rows, dtype=np.int64))
    return copied


def _copy(value: Any, rows: NDArray[np.int64]) -> Any:  # noqa: ANN401  # any part of a state
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value[..., rows])
    if isinstance(value, EnvStreams):
        return EnvStreams(value.seeds[rows], value.blocks[rows], value.purpose)
    if isinstance(value, dict):
        return {key: _copy(item, rows) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_copy(item, rows) for item in value))
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{field.name: _copy(getattr(value, field.name), rows) for field in fields(value)})
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"A state holds a {type(value).__name__}, which has no environments to copy: use arrays.")
