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


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def factorize(
    blocks: NDArray[np.float64], start: NDArray[np.int64], column: NDArray[np.int64], target: NDArray[np.int64]
) -> None:
    """Factorise in place: A = L D U with unit L, diagonal blocks replaced by their inverses.

    Right-looking elimination without pivoting, Golub and Van Loan, Matrix Computations, section 3.2; blocks are
    row-major 2x2 matrices [num_blocks, 4, lane], the pattern is an EliminationPattern's. Rows are reached by index:
    a view of each would cost more than its arithmetic.
    """
    num_rows = start.size - 1
    num_entries = column.size
    t = 0
    for k in range(num_rows):
        for e in range(blocks.shape[2]):
            a, b, c, d = blocks[k, 0, e], blocks[k, 1, e], blocks[k, 2, e], blocks[k, 3, e]
            scale = 1.0 / (a * d - b * c)
            blocks[k, 0, e] = d * scale
            blocks[k, 1, e] = -b * scale
            blocks[k, 2, e] = -c * scale
            blocks[k, 3, e] = a * scale
        for q in range(start[k], start[k + 1]):
            i = num_rows + num_entries + q
            for e in range(blocks.shape[2]):
                a, b, c, d = blocks[i, 0, e], blocks[i, 1, e], blocks[i, 2, e], blocks[i, 3, e]
                blocks[i, 0, e] = a * blocks[k, 0, e] + b * blocks[k, 2, e]
                blocks[i, 1, e] = a * blocks[k, 1, e] + b * blocks[k, 3, e]
                blocks[i, 2, e] = c * blocks[k, 0, e] + d * blocks[k, 2, e]
                blocks[i, 3, e] = c * blocks[k, 1, e] + d * blocks[k, 3, e]
        for q in range(start[k], start[k + 1]):
            for r in range(start[k], start[k + 1]):
                _subtract_product(blocks, target[t], num_rows + num_entries + q, num_rows + r)
                t += 1


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _subtract_product(blocks: NDArray[np.float64], i: int, left: int, right: int) -> None:
    for c in range(2):
        for e in range(blocks.shape[2]):
            a, b = blocks[left, 2 * c, e], blocks[left, 2 * c + 1, e]
            blocks[i, 2 * c, e] -= a * blocks[right, 0, e] + b * blocks[right, 2, e]
            blocks[i, 2 * c + 1, e] -= a * blocks[right, 1, e] + b * blocks[right, 3, e]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def substitute(
    blocks: NDArray[np.float64],
    start: NDArray[np.int64],
    column: NDArray[np.int64],
    x: NDArray[np.float64],
    first: int,
) -> None:
    """Solve in place for x[first:] of [., 2, lane] with the factors that `factorize` left in blocks."""
    num_rows = start.size - 1
    num_entries = column.size
    for k in range(num_rows):
        for q in range(start[k], start[k + 1]):
            _subtract_image(x, first + column[q], blocks, num_rows + num_entries + q, first + k)
    for k in range(num_rows - 1, -1, -1):
        row = first + k
        for q in range(start[k], start[k + 1]):
            _subtract_image(x, row, blocks, num_rows + q, first + column[q])
        for e in range(x.shape[2]):
            re = blocks[k, 0, e] * x[row, 0, e] + blocks[k, 1, e] * x[row, 1, e]
            x[row, 1, e] = blocks[k, 2, e] * x[row, 0, e] + blocks[k, 3, e] * x[row, 1, e]
            x[row, 0, e] = re


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _subtract_image(x: NDArray[np.float64], i: int, blocks: NDArray[np.float64], block: int, j: int) -> None:
    for e in range(x.shape[2]):
        re = blocks[block, 0, e] * x[j, 0, e] + blocks[block, 1, e] * x[j, 1, e]
        im = blocks[block, 2, e] * x[j, 0, e] + blocks[block, 3, e] * x[j, 1, e]
        x[i, 0, e] -= re
        x[i, 1, e] -= im


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
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


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def multiply(a: NDArray[np.float64], b: NDArray[np.float64], product: NDArray[np.float64]) -> None:
    """Set product = a b for 2x2 blocks [4]; product may be a or b."""
    p0, p1 = a[0] * b[0] + a[1] * b[2], a[0] * b[1] + a[1] * b[3]
    p2, p3 = a[2] * b[0] + a[3] * b[2], a[2] * b[1] + a[3] * b[3]
    product[0], product[1], product[2], product[3] = p0, p1, p2, p3
