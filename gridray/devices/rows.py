"""Environments of a state or of parameters taken out, and states put back after their reset."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from gridray.physics.columns import put_columns, take_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

State = TypeVar("State", bound=NamedTuple)
"""A named tuple of arrays, the environment axis last."""
Parameters = TypeVar("Parameters", bound=NamedTuple)
"""A named tuple of arrays [..., N, 1 or E], and of what holds for all environments: [N] and numbers."""


def take_rows(state: State, rows: NDArray[np.int64]) -> State:
    """Return a copy of these environments."""
    return type(state)._make(take_columns(array, rows) for array in state)


def put_rows(state: State, rows: NDArray[np.int64], part: State) -> None:
    """Overwrite these environments in place with those of `part`."""
    for name in state._fields:
        put_columns(getattr(state, name), rows, getattr(part, name))


def take_parameters(parameters: Parameters, rows: NDArray[np.int64]) -> Parameters:
    """Return the parameters of these environments; what holds for all environments stays."""
    return type(parameters)._make(
        value[..., rows] if isinstance(value, np.ndarray) and value.ndim > 1 and value.shape[-1] > 1 else value
        for value in parameters
    )
