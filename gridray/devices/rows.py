"""Environments of a state taken out, or put back after their reset."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

State = TypeVar("State", bound=NamedTuple)
"""A named tuple of arrays, the environment axis last."""


def take_rows(state: State, rows: NDArray[np.int64]) -> State:
    """Return a copy of these environments."""
    return type(state)._make(np.ascontiguousarray(array[..., rows]) for array in state)


def put_rows(state: State, rows: NDArray[np.int64], part: State) -> None:
    """Overwrite these environments in place with those of `part`."""
    for name in state._fields:
        getattr(state, name)[..., rows] = getattr(part, name)
