"""Sparse LU of 2x2 real blocks over a lane of environments; arrays are [block, 4, lane]."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LANE = 64
"""Environments solved side by side with shared factors: long lanes make the loops' overhead small."""


@njit(cache=True, nogil=True, error_model="numpy")
def factorize(
    blocks: NDArray[np.float64], start: NDArray[np.int64], column: NDArray[np.int64], target: NDArray[np.int64]
) -> None:
    """Factorise in place: A = L D U with unit L, diagonal blocks replaced by their inverses.

    Right-looking elimination without pivoting, Golub and Van Loan, Matrix Computations, section 3.2; blocks are
    row-major 2x2 matrices [num_blocks, 4, lane], the pattern is an EliminationPattern's.
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
    """Solve in place for x [num_rows, 2, lane] with the factors that `factorize` left in blocks."""
    num_rows = start.size - 1
    num_entries = column.size
    for k in range(num_rows):
        for q in range(start[k], start[k + 1]):
            subtract_image(x[column[q]], blocks[num_rows + num_entries + q], x[k])
    for k in range(num_rows - 1, -1, -1):
        for q in range(start[k], start[k + 1]):
            subtract_image(x[k], blocks[num_rows + q], x[column[q]])
        _apply(blocks[k], x[k])


@njit(cache=True, nogil=True, error_model="numpy")
def _invert(a: NDArray[np.float64]) -> None:
    for e in range(a.shape[1]):
        scale = 1.0 / (a[0, e] * a[3, e] - a[1, e] * a[2, e])
        first = a[0, e]
        a[0, e] = a[3, e] * scale
        a[1, e] = -a[1, e] * scale
        a[2, e] = -a[2, e] * scale
        a[3, e] = first * scale


@njit(cache=True, nogil=True, error_model="numpy")
def _scale_right(a: NDArray[np.float64], d: NDArray[np.float64]) -> None:
    for e in range(a.shape[1]):
        a0, a1, a2, a3 = a[0, e], a[1, e], a[2, e], a[3, e]
        a[0, e] = a0 * d[0, e] + a1 * d[2, e]
        a[1, e] = a0 * d[1, e] + a1 * d[3, e]
        a[2, e] = a2 * d[0, e] + a3 * d[2, e]
        a[3, e] = a2 * d[1, e] + a3 * d[3, e]


@njit(cache=True, nogil=True, error_model="numpy")
def _subtract_product(c: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    for e in range(a.shape[1]):
        c[0, e] -= a[0, e] * b[0, e] + a[1, e] * b[2, e]
        c[1, e] -= a[0, e] * b[1, e] + a[1, e] * b[3, e]
        c[2, e] -= a[2, e] * b[0, e] + a[3, e] * b[2, e]
        c[3, e] -= a[2, e] * b[1, e] + a[3, e] * b[3, e]


@njit(cache=True, nogil=True, error_model="numpy")
def subtract_image(y: NDArray[np.float64], a: NDArray[np.float64], x: NDArray[np.float64]) -> None:
    """Y -= a x for a 2x2 block a [4, lane] and vectors [2, lane]."""
    for e in range(a.shape[1]):
        y[0, e] -= a[0, e] * x[0, e] + a[1, e] * x[1, e]
        y[1, e] -= a[2, e] * x[0, e] + a[3, e] * x[1, e]


@njit(cache=True, nogil=True, error_model="numpy")
def _apply(a: NDArray[np.float64], x: NDArray[np.float64]) -> None:
    for e in range(a.shape[1]):
        first = a[0, e] * x[0, e] + a[1, e] * x[1, e]
        x[1, e] = a[2, e] * x[0, e] + a[3, e] * x[1, e]
        x[0, e] = first


@njit(cache=True, nogil=True, error_model="numpy")
def factorize_shared(
    blocks: NDArray[np.float64],
    start: NDArray[np.int64],
    column: NDArray[np.int64],
    target: NDArray[np.int64],
    num_places: int,
) -> None:
    """Eliminate the first places of one matrix [num_blocks, 4]; the rest is left as the Schur complement."""
    num_rows = start.size - 1
    num_entries = column.size
    t = 0
    for k in range(num_places):
        a, b, c, d = blocks[k, 0], blocks[k, 1], blocks[k, 2], blocks[k, 3]
        scale = 1.0 / (a * d - b * c)
        blocks[k, 0], blocks[k, 1], blocks[k, 2], blocks[k, 3] = d * scale, -b * scale, -c * scale, a * scale
        for q in range(start[k], start[k + 1]):
            multiply(blocks[num_rows + num_entries + q], blocks[k], blocks[num_rows + num_entries + q])
        for q in range(start[k], start[k + 1]):
            for r in range(start[k], start[k + 1]):
                lower, upper = blocks[num_rows + num_entries + q], blocks[num_rows + r]
                to = blocks[target[t]]
                to[0] -= lower[0] * upper[0] + lower[1] * upper[2]
                to[1] -= lower[0] * upper[1] + lower[1] * upper[3]
                to[2] -= lower[2] * upper[0] + lower[3] * upper[2]
                to[3] -= lower[2] * upper[1] + lower[3] * upper[3]
                t += 1


@njit(cache=True, nogil=True, error_model="numpy")
def multiply(a: NDArray[np.float64], b: NDArray[np.float64], product: NDArray[np.float64]) -> None:
    """Set product = a b for 2x2 blocks [4]; product may be a or b."""
    p0, p1 = a[0] * b[0] + a[1] * b[2], a[0] * b[1] + a[1] * b[3]
    p2, p3 = a[2] * b[0] + a[3] * b[2], a[2] * b[1] + a[3] * b[3]
    product[0], product[1], product[2], product[3] = p0, p1, p2, p3
