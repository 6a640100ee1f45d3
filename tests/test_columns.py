"""Environments are copied between arrays as NumPy's own indexing does it, whatever the layout in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gridray.physics.columns import copy_columns, put_columns, take_columns


@pytest.mark.parametrize("dtype", [np.float64, np.complex128, np.int8, np.bool_])
@pytest.mark.parametrize("shape", [(7,), (3, 7), (3, 2, 7), (0, 7)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_columns_are_those_of_indexing(dtype: Any, shape: tuple[int, ...], order: Any) -> None:  # noqa: ANN401
    rng = np.random.default_rng(0)
    source, target = (np.asarray(rng.normal(size=shape).astype(dtype), order=order) for _ in range(2))
    columns, places = np.array([6, 0, 0, 3]), np.array([1, 2, 5, 0])
    taken = take_columns(source, columns)
    np.testing.assert_array_equal(taken, source[..., columns])
    assert taken.dtype == source.dtype
    expected = target.copy()
    expected[..., places] = source[..., columns]
    copied = target.copy(order="K")
    copy_columns(source, columns, copied, places)
    np.testing.assert_array_equal(copied, expected)
    put_columns(target, places, taken)
    np.testing.assert_array_equal(target, expected)
