"""Lanes compute what NumPy computes, environment by environment."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from gridray.physics.buffers import aligned_empty
from gridray.physics.lanes import (
    LANE,
    all_true,
    fill,
    less_product,
    load,
    magnitude,
    plus_product,
    power,
    select,
    square_root,
    store,
    stream,
)


@njit
def _arithmetic(x: np.ndarray, out: np.ndarray) -> None:
    a, b = load(x, 0), load(x, 1)
    store(out, 0, a + b)
    store(out, 1, a - 2.0)
    store(out, 2, 3.0 * b)
    store(out, 3, a / b)
    store(out, 4, plus_product(a, b, 0.5))
    store(out, 5, less_product(1.0, a, b))
    store(out, 6, square_root(magnitude(a)))
    store(out, 7, power(magnitude(a), 1.3))
    store(out, 8, select(a > b, a, 7.0))
    store(out, 9, select(a <= 0.25, fill(-1.0), b))
    store(out, 10, 4)


def test_arithmetic_equals_numpy() -> None:
    x = aligned_empty((2, LANE))
    x[:] = np.random.default_rng(0).normal(size=x.shape)
    a, b = x
    out = aligned_empty((11, LANE))
    _arithmetic(x, out)
    expected = np.stack(
        [
            a + b,
            a - 2.0,
            3.0 * b,
            a / b,
            a + b * 0.5,
            1.0 - a * b,
            np.sqrt(np.abs(a)),
            np.abs(a) ** 1.3,
            np.where(a > b, a, 7.0),
            np.where(a <= 0.25, -1.0, b),
            np.full(LANE, 4.0),
        ]
    )
    np.testing.assert_allclose(out, expected, rtol=1e-15, atol=1e-15)


@njit
def _all_above(x: np.ndarray, limit: float) -> bool:
    return all_true(load(x, 0) > limit)


@pytest.mark.parametrize("environment", [0, 7, LANE - 1])
def test_one_environment_or_nan_is_enough_to_deny(environment: int) -> None:
    x = aligned_empty((1, LANE))
    x[:] = 1.0
    assert _all_above(x, 0.5)
    x[0, environment] = 0.25
    assert not _all_above(x, 0.5)
    x[0, environment] = np.nan
    assert not _all_above(x, 0.5)


@njit
def _stream_row(x: np.ndarray, to: np.ndarray) -> None:
    stream(to.ctypes.data, load(x, 0))


def test_streamed_lane_arrives() -> None:
    x, to = aligned_empty((1, LANE)), aligned_empty((1, 1, LANE))
    x[0], to[:] = np.arange(LANE), 0.0
    _stream_row(x, to)
    np.testing.assert_array_equal(to[0, 0], np.arange(LANE))
