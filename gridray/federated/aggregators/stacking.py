"""Updates of a round as one matrix, so that every rule is arithmetic on rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from gridray.federated.updates import ClientUpdate, Weights

# Columns worked on at a time: a block of ten clients in double precision stays in the second-level cache.
_BLOCK = 8192


class Stacked(NamedTuple):
    """One row per client, in order of client name, so that results do not depend on the order of arrival.

    current: float [num_values], the global weights.
    rows: float [num_clients, num_values], the clients' weights.
    shares: float64 [num_clients], each client's share of all samples.
    """

    current: NDArray[Any]
    rows: NDArray[Any]
    shares: NDArray[np.float64]


def in_order(updates: Sequence[ClientUpdate]) -> list[ClientUpdate]:
    """Return the updates in order of client name, the order of rows."""
    return sorted(updates, key=lambda update: update.client)


def stacked(weights: Weights, updates: Sequence[ClientUpdate]) -> Stacked:
    """Stack global weights and updates; the dtype is the widest of the arrays."""
    ordered = in_order(updates)
    samples = np.array([update.num_samples for update in ordered], dtype=np.float64)
    current = flattened(weights, weights)
    rows = np.empty((len(ordered), current.size), dtype=current.dtype)
    for row, update in zip(rows, ordered, strict=True):
        np.concatenate([np.ravel(update.weights[name]) for name in weights], out=row)
    return Stacked(current=current, rows=rows, shares=samples / samples.sum())


def flattened(arrays: Weights, template: Weights) -> NDArray[Any]:
    """Return the arrays that the template names as one vector [num_values]."""
    return np.concatenate([np.ravel(arrays[name]) for name in template])


def unstacked(vector: NDArray[Any], template: Weights) -> dict[str, NDArray[Any]]:
    """Return a vector [num_values] as arrays of the template's names, shapes and dtypes."""
    bounds = np.cumsum([array.size for array in template.values()])[:-1]
    parts = np.split(vector, bounds)
    return {
        name: part.reshape(array.shape).astype(array.dtype)
        for (name, array), part in zip(template.items(), parts, strict=True)
    }


def weighted_mean(rows: NDArray[Any], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of rows [n, num_values] by shares [n] that sum to 1.

    Differences to the first row are averaged, so that equal rows give exactly that row back.
    """
    mean = np.empty(rows.shape[1])
    for block in _blocks(rows.shape[1]):
        first = rows[0, block].astype(np.float64)
        mean[block] = first + shares[1:] @ (rows[1:, block] - first)
    return mean


def gram(rows: NDArray[Any], centre: NDArray[Any]) -> NDArray[np.float64]:
    """Return the inner products [n, n] of rows [n, num_values] about a centre [num_values]."""
    products = np.zeros((len(rows), len(rows)))
    for block in _blocks(rows.shape[1]):
        shifted = rows[:, block] - centre[block].astype(np.float64)
        products += shifted @ shifted.T
    return products


def coordinate_median(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the median of each column of rows [n, num_values]; of an even number, the mean of the middle two."""
    return trimmed_mean(rows, (len(rows) - 1) // 2)


def trimmed_mean(rows: NDArray[Any], num_trimmed: int) -> NDArray[np.float64]:
    """Return the mean of each column of rows [n, num_values] without its num_trimmed least and greatest values."""
    num_kept = len(rows) - 2 * num_trimmed
    shares = np.full(num_kept, 1.0 / num_kept)
    mean = np.empty(rows.shape[1])
    for block in _blocks(rows.shape[1]):
        kept = np.sort(rows[:, block], axis=0)[num_trimmed : num_trimmed + num_kept]
        mean[block] = weighted_mean(kept, shares)
    return mean


def _blocks(num_values: int) -> Iterator[slice]:
    for start in range(0, num_values, _BLOCK):
        yield slice(start, min(start + _BLOCK, num_values))
