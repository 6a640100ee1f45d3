"""Settled starts of days, kept: where a day always starts the same, it need be solved only once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.physics.columns import take_columns
from gridray.physics.controls import settle
from gridray.physics.state import GridState, put, take

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.physics.compiled import CompiledFeeder

INPUTS = ("items_kw", "items_kvar", "taps", "capacitor_states", "switch_closed", "source_pu")


class DayStarts:
    """What `settle` returned for the start of each day, one per day.

    A start is used again only for exactly the inputs that it was solved for; once a day comes with others (its devices
    start at random), nothing is kept any more.
    """

    def __init__(self, grid: CompiledFeeder, tolerance: float) -> None:
        """Begin with nothing kept; tolerance: of the solver, pu."""
        self._grid, self._tolerance = grid, tolerance
        self._row: dict[int, int] = {}
        self._given: GridState | None = None
        self._solved: GridState | None = None
        self._is_random = False

    def settled(self, days: NDArray[np.int64], state: GridState) -> tuple[GridState, NDArray[np.int64]]:
        """Return settled states of days' starts, and which of their environments is the start of each day here."""
        if self._is_random:
            return settle(self._grid, state, tolerance=self._tolerance), np.arange(len(days))
        new, first = np.unique(days, return_index=True)
        is_new = np.array([day not in self._row for day in new.tolist()])
        if is_new.any():
            self._keep(new[is_new], take(state, first[is_new]))
        rows = np.array([self._row[day] for day in days.tolist()])
        if self._given is None or self._solved is None or not _is_same(self._given, rows, state):
            self._is_random, self._given, self._solved = True, None, None
            return settle(self._grid, state, tolerance=self._tolerance), np.arange(len(days))
        return self._solved, rows

    def _keep(self, days: NDArray[np.int64], given: GridState) -> None:
        # Settling moves the taps that it is given.
        solved = settle(self._grid, take(given, np.arange(len(days))), tolerance=self._tolerance)
        last = len(self._row)
        rows = np.arange(last, last + len(days))
        self._given, self._solved = _with_room(self._given, given, rows), _with_room(self._solved, solved, rows)
        put(self._given, rows, given)
        put(self._solved, rows, solved)
        self._row |= dict(zip(days.tolist(), rows.tolist(), strict=True))


def _with_room(kept: GridState | None, part: GridState, rows: NDArray[np.int64]) -> GridState:
    """Return arrays that have these rows, twice as many where there were too few."""
    number = 0 if kept is None else kept.source_pu.shape[-1]
    if kept is not None and rows[-1] < number:
        return kept
    room = max(2 * number, int(rows[-1]) + 1)
    grown = GridState._make(np.zeros((*array.shape[:-1], room), dtype=array.dtype) for array in part)
    if kept is not None:
        put(grown, np.arange(number), kept)
    return grown


def _is_same(given: GridState, rows: NDArray[np.int64], state: GridState) -> bool:
    return all(np.array_equal(take_columns(getattr(given, name), rows), getattr(state, name)) for name in INPUTS)
