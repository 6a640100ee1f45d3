"""Memory of results, used again: pages that the system must provide first cost more than solving into them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALIGNMENT = 8
"""Doubles in a cache line."""
SMALLEST = 1 << 13
"""Doubles that a block must have to be kept."""
MOST_KEPT = 1 << 27
"""Bytes that are kept at most, 128 MiB."""
_free: dict[int, NDArray[np.float64]] = {}


class _Lease:
    """Owner of a block as long as any array looks at it; then the block is free again."""

    def __init__(self, block: NDArray[np.float64]) -> None:
        self._block = block
        self.__array_interface__: dict[str, Any] = block.__array_interface__

    def __del__(self, free: dict[int, NDArray[np.float64]] = _free, most: int = MOST_KEPT) -> None:
        # At the interpreter's end this module's names are gone, its defaults are not.
        if sum(block.nbytes for block in free.copy().values()) + self._block.nbytes <= most:
            free[id(self._block)] = self._block


def aligned_empty(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return an array, not initialised, that begins at a cache line."""
    size = math.prod(shape)
    raw = np.empty(size + ALIGNMENT) if size < SMALLEST else np.asarray(_Lease(_block(size + ALIGNMENT)))
    skip = (-(raw.ctypes.data // 8)) % ALIGNMENT
    return raw[skip : skip + size].reshape(shape)


def _block(size: int) -> NDArray[np.float64]:
    """Return a free block of at least this size and at most twice it, or a new one."""
    for key, block in reversed(_free.copy().items()):
        # Another thread may have taken it meanwhile.
        if size <= block.size <= 2 * size and _free.pop(key, None) is not None:
            return block
    return np.empty(size)
