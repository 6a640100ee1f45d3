"""Operation budgets and dead times of the devices of a fleet that wear: taps, capacitors, switches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gridray.devices.switching import OperationLimits, OperationState, can_operate, counted, operate
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class OperationBudget:
    """How often each device of a fleet may move in an episode, and how long it rests in between; None is no limit.

    What is asked beyond is counted as refused. Enforced, it is not done either, and what is left is observed.
    """

    per_day: float | None = None
    dead_time_minutes: float = 0.0
    is_enforced: bool = True

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.per_day is not None and not self.per_day >= 0.0:
            raise ConfigError(f"per_day is {self.per_day}: give a number of operations from 0, or none.")
        if not self.dead_time_minutes >= 0.0:
            raise ConfigError(f"dead_time_minutes is {self.dead_time_minutes}: give minutes from 0.")

    @property
    def is_observed(self) -> bool:
        """Whether the devices' future depends on what they did."""
        return self.is_enforced and self.is_limited

    @property
    def is_limited(self) -> bool:
        """Whether anything can be refused."""
        return self.per_day is not None or self.dead_time_minutes > 0.0

    def limits(self, num_items: int) -> OperationLimits:
        """Return the same limits for all items."""
        per_day = np.inf if self.per_day is None else self.per_day
        return OperationLimits(np.full((num_items, 1), per_day), np.full((num_items, 1), 60.0 * self.dead_time_minutes))


NO_BUDGET = OperationBudget()


def budgeted(
    budget: OperationBudget, own: OperationState, change: NDArray[np.float64], step_h: float
) -> tuple[NDArray[np.float64], OperationState, NDArray[np.float64]]:
    """Return the change made, [N, E], the devices afterwards, and the operations refused, [E].

    Args:
        budget: of the fleet.
        own: what its devices did so far.
        change: wanted: steps of a tap, or 1 closes and -1 opens, [N, E].
        step_h: length of the interval that begins with the change, h.
    """
    step_s = 3600.0 * step_h
    if not budget.is_limited:
        return change, counted(own, change, step_s), np.zeros(change.shape[1])
    allowed, after = operate(budget.limits(len(change)), own, change, step_s)
    refused = np.abs(change - allowed).sum(axis=0)
    if not budget.is_enforced:
        return change, counted(own, change, step_s), refused
    return allowed, after, refused


def operations_ready(budget: OperationBudget, own: OperationState) -> NDArray[np.float64]:
    """Return 1 where a device may move now, else 0, [N, E]."""
    return can_operate(budget.limits(len(own.used)), own).astype(np.float64)
