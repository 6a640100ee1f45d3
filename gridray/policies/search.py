"""Coordinate search in a task's set-points, for many environments at once: what look-ahead and static settings use."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from gridray.tasks.base import ActionChannel

    Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]

PREFIXES = (1, 2, 3, 4, 6, 8, 12, 16, 32)
"""Numbers of the best single moves that are tried together."""


class SearchSpace(NamedTuple):
    """Points that a search moves through; a coordinate is an action, or a whole number where the channel is one.

    low, high: float64 [C]; is_whole: bool [C], steps of a tap, positions of a switch (-1 open, 0 keep, 1 closed).
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    is_whole: NDArray[np.bool_]


def action_space(channels: Sequence[ActionChannel]) -> SearchSpace:
    """Return the space of one action of these channels."""
    is_range = np.array([channel.kind in {"integer", "level"} for channel in channels])
    return SearchSpace(
        np.where(is_range, [np.ceil(channel.low) for channel in channels], -1.0),
        np.where(is_range, [np.floor(channel.high) for channel in channels], 1.0),
        np.array([channel.kind != "continuous" for channel in channels]),
    )


def points_of(channels: Sequence[ActionChannel], actions: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the points of actions [..., C]."""
    points = np.asarray(actions, dtype=np.float64).copy()
    for column, channel in enumerate(channels):
        if channel.kind == "integer":
            span = channel.high - channel.low
            points[..., column] = np.trunc(channel.low + (points[..., column] + 1.0) / 2.0 * span)
        elif channel.kind == "switch":
            points[..., column] = np.sign(points[..., column]) * (np.abs(points[..., column]) > 1.0 / 3.0)
    return points


def actions_of(channels: Sequence[ActionChannel], points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return actions float32 [..., C] of points: the inverse of `points_of`."""
    actions = points.astype(np.float32)
    for column, channel in enumerate(channels):
        if channel.kind == "integer":
            # The middle of what decodes to this many steps.
            steps = points[..., column]
            steps = np.sign(steps) * (np.abs(steps) + 0.5)
            span = channel.high - channel.low
            actions[..., column] = np.clip(2.0 * (steps - channel.low) / span - 1.0, -1.0, 1.0)
    return actions


def coordinate_search(
    score: Score, start: NDArray[np.float64], space: SearchSpace, sizes: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Climb from `start`, each environment for itself, and return points [E, C] and their scores [E], never worse.

    A round tries a move either way in every coordinate, then the best of these together, the best two and so on.

    Args:
        score: takes candidates [K, E, C] and returns their scores [K, E].
        start: float64 [E, C].
        space: limits of the points.
        sizes: size of the moves in each round, as a share of half the range; of whole numbers at least one.
    """
    best = np.clip(start, space.low, space.high)
    value = score(best[None])[0]
    for size in sizes:
        tries = _single_moves(best, space, size)
        scores = score(tries)
        gains = (scores - value).reshape(2, -1, len(best))
        side = gains.argmax(axis=0)
        gain = np.take_along_axis(gains, side[None], axis=0)[0]
        # [C, E, C]: the better of both moves of each coordinate, best coordinate first.
        moves = (tries - best).reshape(2, len(gain), *best.shape)
        moves = np.take_along_axis(moves, side[None, :, :, None], axis=0)[0]
        order = np.argsort(-gain, axis=0)
        moves = np.where((gain > 0.0)[:, :, None], moves, 0.0)
        together = np.take_along_axis(moves, order[:, :, None], axis=0).cumsum(axis=0)
        picked = [number - 1 for number in PREFIXES if number <= len(together)]
        candidates = best + together[picked]
        scores = score(candidates)
        winner = scores.argmax(axis=0)
        won = np.take_along_axis(scores, winner[None], axis=0)[0]
        better = won > value
        found = np.take_along_axis(candidates, winner[None, :, None], axis=0)[0]
        best, value = np.where(better[:, None], found, best), np.where(better, won, value)
    return best, value


def _single_moves(best: NDArray[np.float64], space: SearchSpace, size: float) -> NDArray[np.float64]:
    """Return the points one move away, [2 C, E, C]: all upwards, then all downwards."""
    step = size * (space.high - space.low) / 2.0
    step = np.where(space.is_whole, np.maximum(np.rint(step), 1.0), step)
    moves = np.concatenate((np.diag(step), -np.diag(step)))
    moved: NDArray[np.float64] = np.clip(best + moves[:, None, :], space.low, space.high)
    return moved
