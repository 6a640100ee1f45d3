"""Sparse LU of 2x2 real blocks over a lane of environments; arrays are [block, 4, lane]."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LANE = 16
"""Environments solved side by side; a compile-time constant, so that LLVM turns lane loops into SIMD."""


@njit(cache=True, nogil=True, error_model="numpy")
def factorize(
    blocks: NDArray[np.float64], start: NDArray[np.int64], column: NDArray[np.int64], target: NDArray[np.int64]
) -> None:
    """Factorise in place: A = L D U with unit L, diagonal blocks replaced by their inverses.

    Right-looking elimination without pivoting, Golub and Van Loan, Matrix Computations, section 3.2; blocks are
    row-major 2x2 matrices [num_blocks, 4, LANE], the pattern is an EliminationPattern's.
    """
    num_rows = start.size - 1
    num_entries = column.size
    t = 0
    for k in range(num_rows):
        _invert(blocks[k])
        for q in range(start[k], start[k + 1]):
            _scale_right(blocks[num_rows + num_entries + q], blocks[k])
        for q in range(start[k], start[k + 1]):
            for r in range(start[k], start[k + 1]):
                _subtract_product(blocks[target[t]], blocks[num_rows + num_entries + q], blocks[num_rows + r])
                t += 1


@njit(cache=True, nogil=True, error_model="numpy")
def substitute(
    blocks: NDArray[np.float64], start: NDArray[np.int64], column: NDArray[np.int64], x: NDArray[np.float64]
) -> None:
    """Solve in place for x [num_rows, 2, LANE] with the factors that `factorize` left in blocks."""
    num_rows = start.size - 1
    num_entries = column.size
    for k in range(num_rows):
        for q in range(start[k], start[k + 1]):
            _subtract_image(x[column[q]], blocks[num_rows + num_entries + q], x[k])
    for k in range(num_rows - 1, -1, -1):
        for q in range(start[k], start[k + 1]):
            _subtract_image(x[k], blocks[num_rows + q], x[column[q]])
        _apply(blocks[k], x[k])


@njit(cache=True, nogil=True, error_model="numpy")
def _invert(a: NDArray[np.float64]) -> None:
    for e in range(LANE):
        scale = 1.0 / (a[0, e] * a[3, e] - a[1, e] * a[2, e])
        first = a[0, e]
        a[0, e] = a[3, e] * scale
        a[1, e] = -a[1, e] * scale
        a[2, e] = -a[2, e] * scale
        a[3, e] = first * scale


@njit(cache=True, nogil=True, error_model="numpy")
def _scale_right(a: NDArray[np.float64], d: NDArray[np.float64]) -> None:
    for e in range(LANE):
        a0, a1, a2, a3 = a[0, e], a[1, e], a[2, e], a[3, e]
        a[0, e] = a0 * d[0, e] + a1 * d[2, e]
        a[1, e] = a0 * d[1, e] + a1 * d[3, e]
        a[2, e] = a2 * d[0, e] + a3 * d[2, e]
        a[3, e] = a2 * d[1, e] + a3 * d[3, e]


@njit(cache=True, nogil=True, error_model="numpy")
def _subtract_product(c: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    for e in range(LANE):
        c[0, e] -= a[0, e] * b[0, e] + a[1, e] * b[2, e]
        c[1, e] -= a[0, e] * b[1, e] + a[1, e] * b[3, e]
        c[2, e] -= a[2, e] * b[0, e] + a[3, e] * b[2, e]
        c[3, e] -= a[2, e] * b[1, e] + a[3, e] * b[3, e]


@njit(cache=True, nogil=True, error_model="numpy")
def _subtract_image(y: NDArray[np.float64], a: NDArray[np.float64], x: NDArray[np.float64]) -> None:
    for e in range(LANE):
        y[0, e] -= a[0, e] * x[0, e] + a[1, e] * x[1, e]
        y[1, e] -= a[2, e] * x[0, e] + a[3, e] * x[1, e]


@njit(cache=True, nogil=True, error_model="numpy")
def _apply(a: NDArray[np.float64], x: NDArray[np.float64]) -> None:
    for e in range(LANE):
        first = a[0, e] * x[0, e] + a[1, e] * x[1, e]
        x[1, e] = a[2, e] * x[0, e] + a[3, e] * x[1, e]
        x[0, e] = first
