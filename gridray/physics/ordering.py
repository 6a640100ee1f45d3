"""Elimination order and fill pattern of the nodal matrix, found once per feeder."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


class EliminationPattern(NamedTuple):
    """Symbolic LU factorisation of a structurally symmetric matrix of `n` rows.

    order: int64 [n], the original row eliminated at each place.
    start: int64 [n + 1], place k owns the off-diagonal entries start[k]..start[k+1].
    column: int64 [num_entries], the later place that entry couples to, ascending within a place.
    target: int64 [num_updates], block that each elimination update changes, in the order kernels visit them;
        blocks 0..n-1 are diagonal, n + q is the upper and n + num_entries + q the lower one of entry q.
    """

    order: NDArray[np.int64]
    start: NDArray[np.int64]
    column: NDArray[np.int64]
    target: NDArray[np.int64]


def eliminate(num_rows: int, pairs: Iterable[tuple[int, int]]) -> EliminationPattern:
    """Order rows by minimum degree (George and Liu, 1989) and record the fill and every update."""
    neighbours: list[set[int]] = [set() for _ in range(num_rows)]
    for i, j in pairs:
        if i != j:
            neighbours[i].add(j)
            neighbours[j].add(i)
    order, later_rows = _minimum_degree(neighbours)
    place = np.empty(num_rows, dtype=np.int64)
    place[order] = np.arange(num_rows)
    columns = [np.sort(place[list(rows)]) if rows else np.empty(0, dtype=np.int64) for rows in later_rows]
    start = np.concatenate(([0], np.cumsum([len(c) for c in columns]))).astype(np.int64)
    column = np.concatenate([*columns, np.empty(0, dtype=np.int64)]).astype(np.int64)
    return EliminationPattern(np.array(order, dtype=np.int64), start, column, _update_targets(start, columns))


def _minimum_degree(neighbours: list[set[int]]) -> tuple[list[int], list[list[int]]]:
    """Return the elimination order and, per place, the rows still coupled when it is eliminated."""
    heap = [(len(rows), row) for row, rows in enumerate(neighbours)]
    heapq.heapify(heap)
    done = [False] * len(neighbours)
    order: list[int] = []
    later_rows: list[list[int]] = []
    while heap:
        degree, row = heapq.heappop(heap)
        if done[row] or degree != len(neighbours[row]):
            continue
        done[row] = True
        rows = neighbours[row]
        order.append(row)
        later_rows.append(sorted(rows))
        for other in rows:
            neighbours[other] |= rows
            neighbours[other] -= {other, row}
            heapq.heappush(heap, (len(neighbours[other]), other))
    return order, later_rows


def _update_targets(start: NDArray[np.int64], columns: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    num_rows = len(columns)
    num_entries = int(start[-1])
    entry_of = {(k, int(j)): int(start[k]) + q for k, c in enumerate(columns) for q, j in enumerate(c)}
    target = []
    for column in columns:
        for i in column.tolist():
            for j in column.tolist():
                if i == j:
                    target.append(i)
                elif i < j:
                    target.append(num_rows + entry_of[i, j])
                else:
                    target.append(num_rows + num_entries + entry_of[j, i])
    return np.array(target, dtype=np.int64)
