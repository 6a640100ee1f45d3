"""Sparse LU of 2x2 real blocks over a lane of environments."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

from gridray.physics.lanes import less_product, load, store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gridray.physics.lanes import Block


@njit(cache=True, nogil=True, error_model="numpy")
def factorize(
    blocks: NDArray[np.float64], start: NDArray[np.int64], column: NDArray[np.int64], target: NDArray[np.int64]
) -> None:
    """Factorise in place: A = L D U with unit L, diagonal blocks replaced by their inverses.

    Right-looking elimination without pivoting, Golub and Van Loan, Matrix Computations, section 3.2; blocks are
    row-major 2x2 matrices, element c of block k in row 4 k + c of [4 num_blocks, LANE], the pattern is an
    EliminationPattern's.
    """
    num_rows = start.size - 1
    num_entries = column.size
    t = 0
    for k in range(num_rows):
        a, b, c, d = load_block(blocks, k)
        scale = 1.0 / (a * d - b * c)
        negative = 0.0 - scale
        p, q, r, s = d * scale, b * negative, c * negative, a * scale
        _store_block(blocks, k, (p, q, r, s))
        for entry in range(start[k], start[k + 1]):
            lower = num_rows + num_entries + entry
            a, b, c, d = load_block(blocks, lower)
            product = (a * p + b * r, a * q + b * s, c * p + d * r, c * q + d * s)
            _store_block(blocks, lower, product)
            for other in range(start[k], start[k + 1]):
                _subtract_product(blocks, target[t], product, num_rows + other)
                t += 1


@njit(cache=True, nogil=True, error_model="numpy")
def load_block(blocks: NDArray[np.float64], k: int) -> Block:
    """Return the four lanes of block k, row by row."""
    return load(blocks, 4 * k), load(blocks, 4 * k + 1), load(blocks, 4 * k + 2), load(blocks, 4 * k + 3)


@njit(cache=True, nogil=True, error_model="numpy")
def _store_block(blocks: NDArray[np.float64], k: int, block: Block) -> None:
    for c in range(4):
        store(blocks, 4 * k + c, block[c])


@njit(cache=True, nogil=True, error_model="numpy")
def _subtract_product(blocks: NDArray[np.float64], i: int, left: Block, right: int) -> None:
    a, b, c, d = left
    e, f, g, h = load_block(blocks, right)
    store(blocks, 4 * i, less_product(less_product(load(blocks, 4 * i), a, e), b, g))
    store(blocks, 4 * i + 1, less_product(less_product(load(blocks, 4 * i + 1), a, f), b, h))
    store(blocks, 4 * i + 2, less_product(less_product(load(blocks, 4 * i + 2), c, e), d, g))
    store(blocks, 4 * i + 3, less_product(less_product(load(blocks, 4 * i + 3), c, f), d, h))


@njit(cache=True, nogil=True, error_model="numpy")
def substitute(
    blocks: NDArray[np.float64],
    start: NDArray[np.int64],
    column: NDArray[np.int64],
    x: NDArray[np.float64],
    first: int,
) -> None:
    """Solve in place for places first.. of x [2 num_places, LANE] with the factors that `factorize` left in blocks."""
    num_rows = start.size - 1
    num_entries = column.size
    for k in range(num_rows):
        re, im = load(x, 2 * (first + k)), load(x, 2 * (first + k) + 1)
        for entry in range(start[k], start[k + 1]):
            row = 2 * (first + column[entry])
            a, b, c, d = load_block(blocks, num_rows + num_entries + entry)
            store(x, row, less_product(less_product(load(x, row), a, re), b, im))
            store(x, row + 1, less_product(less_product(load(x, row + 1), c, re), d, im))
    for k in range(num_rows - 1, -1, -1):
        re, im = load(x, 2 * (first + k)), load(x, 2 * (first + k) + 1)
        for entry in range(start[k], start[k + 1]):
            row = 2 * (first + column[entry])
            a, b, c, d = load_block(blocks, num_rows + entry)
            other_re, other_im = load(x, row), load(x, row + 1)
            re = less_product(less_product(re, a, other_re), b, other_im)
            im = less_product(less_product(im, c, other_re), d, other_im)
        a, b, c, d = load_block(blocks, k)
        store(x, 2 * (first + k), a * re + b * im)
        store(x, 2 * (first + k) + 1, c * re + d * im)


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
