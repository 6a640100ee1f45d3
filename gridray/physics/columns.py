"""Environments taken out of arrays and put back: columns of arrays whose last axis is the environments'."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from gridray.physics.buffers import aligned_empty

if TYPE_CHECKING:
    from numpy.typing import NDArray


def copy_columns(
    source: NDArray[Any], columns: NDArray[np.int64], target: NDArray[Any], target_columns: NDArray[np.int64]
) -> None:
    """Copy environments `columns` of an array [..., E] over environments `target_columns` of another, in one pass.

    NumPy's own indexing takes several times as long, as it goes over the last axis last.
    """
    if source.ndim > 1 and source.size and source.dtype == target.dtype == np.float64:
        rows, target_rows = _rows_of(source), _rows_of(target)
        if rows is not None and target_rows is not None:
            _copy(rows, columns, target_rows, target_columns)
            return
    target[..., target_columns] = source[..., columns]


def take_columns(array: NDArray[Any], columns: NDArray[np.int64]) -> NDArray[Any]:
    """Return a copy of these environments of an array [..., E]."""
    shape = (*array.shape[:-1], len(columns))
    taken = aligned_empty(shape) if array.dtype == np.float64 else np.empty(shape, dtype=array.dtype)
    copy_columns(array, columns, taken, np.arange(len(columns)))
    return taken


def put_columns(array: NDArray[Any], columns: NDArray[np.int64], part: NDArray[Any]) -> None:
    """Overwrite these environments of an array [..., E] in place."""
    copy_columns(part, np.arange(len(columns)), array, columns)


def _rows_of(array: NDArray[Any]) -> NDArray[Any] | None:
    """Return the array as [rows, E] without a copy, or nothing where memory is laid out otherwise."""
    return array.reshape(-1, array.shape[-1]) if array.flags.c_contiguous else None


@njit(cache=True, nogil=True)
def _copy(
    source: NDArray[np.float64],
    columns: NDArray[np.int64],
    target: NDArray[np.float64],
    target_columns: NDArray[np.int64],
) -> None:
    for row in range(source.shape[0]):
        for k in range(len(columns)):
            target[row, target_columns[k]] = source[row, columns[k]]
