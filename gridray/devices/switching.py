"""Wear limits of switched equipment: operations per day and dead times of taps, capacitors and switches."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OperationLimits(NamedTuple):
    """How often N items may move.

    per_day: float64 [N, 1 or E], most operations in a day, infinite if not limited; a tap step is one operation.
    dead_time_s: float64 [N, 1 or E], rest between two operations at least, >= 0.
    """

    per_day: NDArray[np.float64]
    dead_time_s: NDArray[np.float64]


class OperationState(NamedTuple):
    """What N items did.

    used: float64 [N, E], operations since the day began; rested_s: float64 [N, E], time since the last one.
    """

    used: NDArray[np.float64]
    rested_s: NDArray[np.float64]


def fresh_operations(num_items: int, num_envs: int) -> OperationState:
    """Return items that have not moved today and are long at rest."""
    return OperationState(np.zeros((num_items, num_envs)), np.full((num_items, num_envs), np.inf))


def operations_left(limits: OperationLimits, state: OperationState) -> NDArray[np.float64]:
    """Return how many operations the day still allows, [N, E]."""
    return np.maximum(limits.per_day - state.used, 0.0)


def can_operate(limits: OperationLimits, state: OperationState) -> NDArray[np.bool_]:
    """Tell which items may move now, bool [N, E]: the mask of valid actions."""
    return (operations_left(limits, state) >= 1.0) & (state.rested_s >= limits.dead_time_s)


def operate(
    limits: OperationLimits, state: OperationState, change: NDArray[np.float64], step_s: float
) -> tuple[NDArray[np.float64], OperationState]:
    """Return what of a wanted change is made now and the state after the interval.

    Args:
        limits: of the items.
        state: before the interval.
        change: whole numbers: steps of a tap, or 1 closes and -1 opens, [N, E].
        step_s: length of the interval that begins with the change, s.
    """
    most = np.where(can_operate(limits, state), np.floor(operations_left(limits, state)), 0.0)
    made = np.clip(change, -most, most)
    return made, counted(state, made, step_s)


def counted(state: OperationState, made: NDArray[np.float64], step_s: float) -> OperationState:
    """Return the state after an interval of step_s that began with these changes, [N, E]."""
    rested_s = np.where(made != 0.0, 0.0, state.rested_s) + step_s
    return OperationState(state.used + np.abs(made), rested_s)


def new_day(state: OperationState, is_midnight: NDArray[np.bool_]) -> OperationState:
    """Return the state with the counts of these environments, bool [E], at 0."""
    return state._replace(used=np.where(is_midnight, 0.0, state.used))
