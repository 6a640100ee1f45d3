"""Elimination order and fill pattern of the nodal matrix, found once per feeder."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

PASSIVE_FILL = 3
"""A passive row is eliminated first if that makes at most so many couplings more than it removes."""


class EliminationPattern(NamedTuple):
    """Symbolic LU factorisation of a structurally symmetric matrix of `n` rows.

    order: int64 [n], the original row eliminated at each place; passive rows first, the tail's last.
    num_passive: rows eliminated first because nothing in them ever changes.
    first_tail: place of the tail's first row.
    start: int64 [n + 1], place k owns the off-diagonal entries start[k]..start[k+1].
    column: int64 [num_entries], the later place that entry couples to, ascending within a place.
    target: int64 [num_updates], block that each elimination update changes, in the order kernels visit them;
        blocks 0..n-1 are diagonal, n + q is the upper and n + num_entries + q the lower one of entry q.
    """

    order: NDArray[np.int64]
    num_passive: int
    first_tail: int
    start: NDArray[np.int64]
    column: NDArray[np.int64]
    target: NDArray[np.int64]

    def blocks(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the block of each (row place, column place)."""
        return _blocks(self.start, self.column, rows, columns)


def eliminate(
    num_rows: int, pairs: Iterable[tuple[int, int]], *, active: Iterable[int] = (), tail: Iterable[int] = ()
) -> EliminationPattern:
    """Order rows by minimum degree (George and Liu, 1989) and record the fill and every update.

    Args:
        num_rows: rows of the matrix.
        pairs: coupled rows; (i, j) stands for (j, i) too.
        active: rows whose diagonal or right side changes between solutions; the others may go first.
        tail: rows that must come last.
    """
    neighbours: list[set[int]] = [set() for _ in range(num_rows)]
    for i, j in pairs:
        if i != j:
            neighbours[i].add(j)
            neighbours[j].add(i)
    last = set(tail)
    passive = _minimum_degree(neighbours, set(range(num_rows)) - set(active) - last, max_extra_fill=PASSIVE_FILL)
    middle = _minimum_degree(neighbours, set(range(num_rows)) - last - passive.keys())
    end = _minimum_degree(neighbours, last)
    later = passive | middle | end
    order = np.array([*_postorder(passive, later), *_postorder(middle, later), *end], dtype=np.int64)
    place = np.empty(num_rows, dtype=np.int64)
    place[order] = np.arange(num_rows)
    columns = [np.sort(place[later[row]]) for row in order.tolist()]
    start = np.concatenate(([0], np.cumsum([len(c) for c in columns]))).astype(np.int64)
    column = np.concatenate([*columns, np.empty(0, dtype=np.int64)]).astype(np.int64)
    target = update_targets(start, column)
    return EliminationPattern(order, len(passive), len(passive) + len(middle), start, column, target)


def _minimum_degree(
    neighbours: list[set[int]], candidates: set[int], max_extra_fill: int | None = None
) -> dict[int, list[int]]:
    """Eliminate the candidates; return, in order, each with the rows still coupled to it.

    With max_extra_fill a row that would add more couplings than its degree plus that many stays.
    """
    heap = [(len(neighbours[row]), row) for row in candidates]
    heapq.heapify(heap)
    later: dict[int, list[int]] = {}
    while heap:
        degree, row = heapq.heappop(heap)
        rows = neighbours[row]
        if row in later or degree != len(rows):
            continue
        if max_extra_fill is not None and _fill(neighbours, rows) > degree + max_extra_fill:
            continue
        later[row] = sorted(rows)
        for other in rows:
            neighbours[other] |= rows
            neighbours[other] -= {other, row}
            if other in candidates:
                heapq.heappush(heap, (len(neighbours[other]), other))
    return later


def _fill(neighbours: list[set[int]], rows: set[int]) -> int:
    """Count the couplings that eliminating the neighbour of `rows` would add between them."""
    return sum(len(rows - neighbours[row]) - 1 for row in rows) // 2


def _postorder(part: dict[int, list[int]], later: dict[int, list[int]]) -> list[int]:
    """Reorder rows so that each follows its children of the elimination tree closely: cache locality, equal fill."""
    rank = {row: r for r, row in enumerate(later)}
    children: dict[int, list[int]] = {row: [] for row in part}
    roots: list[int] = []
    for row, rows in part.items():
        parent = min(rows, key=rank.__getitem__, default=-1)
        (children[parent] if parent in part else roots).append(row)
    order = []
    stack = roots
    while stack:
        row = stack.pop()
        order.append(row)
        stack += children[row]
    return order[::-1]


def update_targets(start: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the target of every update, place by place, for each pair of its columns."""
    rows, columns = [], []
    for k in range(len(start) - 1):
        own = column[start[k] : start[k + 1]]
        rows.append(np.repeat(own, len(own)))
        columns.append(np.tile(own, len(own)))
    empty = np.empty(0, dtype=np.int64)
    return _blocks(start, column, np.concatenate([*rows, empty]), np.concatenate([*columns, empty]))


def _blocks(
    start: NDArray[np.int64], column: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    num_rows, num_entries = len(start) - 1, len(column)
    keys = np.repeat(np.arange(num_rows), np.diff(start)) * num_rows + column
    entry = np.searchsorted(keys, np.minimum(rows, columns) * num_rows + np.maximum(rows, columns))
    upper_or_lower = num_rows + entry + np.where(rows > columns, num_entries, 0)
    blocks: NDArray[np.int64] = np.where(rows == columns, rows, upper_or_lower)
    return blocks
