"""Blocks of memory serve again, never two arrays at once."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from gridray.physics.buffers import SMALLEST, aligned_empty


@pytest.mark.parametrize("shape", [(3, 2, 5), (1,), (SMALLEST, 3), (2, SMALLEST, 16)])
def test_array_has_its_shape_and_begins_at_a_cache_line(shape: tuple[int, ...]) -> None:
    array = aligned_empty(shape)
    assert array.shape == shape
    assert array.dtype == np.float64
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.ctypes.data % 64 == 0


def test_memory_is_used_again_when_no_view_is_left() -> None:
    array = aligned_empty((7 * SMALLEST,))
    address, view = array.ctypes.data, array[::2]
    del array
    other = aligned_empty((7 * SMALLEST,))
    assert other.ctypes.data != address
    del view
    assert aligned_empty((7 * SMALLEST,)).ctypes.data == address


def test_two_arrays_never_share_a_block() -> None:
    def fill_many(value: int) -> bool:
        is_own = True
        for _ in range(200):
            array = aligned_empty((SMALLEST + 1,))
            array[:] = value
            is_own &= bool((array == value).all())
        return is_own

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(fill_many, range(4)))


def test_interpreter_ends_in_silence() -> None:
    code = "from gridray.physics.buffers import aligned_empty; import builtins; builtins.kept = aligned_empty((99999,))"
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not ended.stderr
