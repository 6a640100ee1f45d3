"""A kept start is what settling anew gives, and is used for the same inputs only."""

from __future__ import annotations

from typing import Any

import numpy as np

from gridray.feeders.library import load_feeder
from gridray.physics.compiled import compile_feeder
from gridray.physics.controls import settle
from gridray.physics.state import GridState, nominal_state, take
from gridray.tasks.day_starts import DayStarts

GRID = compile_feeder(load_feeder("ieee13"))
TOLERANCE = 1e-6


def started(days: np.ndarray, shift: float = 0.0) -> GridState:
    state = nominal_state(GRID, len(days))
    state.items_kw[:] *= 0.5 + 0.02 * days + shift
    return state


def settled(starts: DayStarts, days: np.ndarray, shift: float = 0.0) -> GridState:
    solved, rows = starts.settled(days, started(days, shift))
    return take(solved, rows)


def assert_equal(first: GridState, second: GridState) -> None:
    for name in GridState._fields:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_starts_are_those_of_settling_each_anew() -> None:
    starts = DayStarts(GRID, TOLERANCE)
    for given in ([3, 3, 9], [9, 4, 3, 11, 12, 13, 14], [14], list(range(20))):
        days = np.array(given)
        assert_equal(settled(starts, days), settle(GRID, started(days), tolerance=TOLERANCE))


def test_a_day_is_solved_once() -> None:
    starts = DayStarts(GRID, TOLERANCE)
    days = np.array([1, 2, 1])
    starts.settled(days, started(days))
    kept: Any = starts._solved
    kept.v[:] += 0.5
    assert settled(starts, days).v.min() > settle(GRID, started(days)).v.min() + 0.4


def test_other_inputs_for_a_day_are_settled_anew_and_nothing_is_kept() -> None:
    starts = DayStarts(GRID, TOLERANCE)
    days = np.array([5, 6])
    starts.settled(days, started(days))
    assert_equal(settled(starts, days, 0.3), settle(GRID, started(days, 0.3), tolerance=TOLERANCE))
    assert starts._is_random
    assert starts._solved is None
    assert_equal(settled(starts, days), settle(GRID, started(days), tolerance=TOLERANCE))
