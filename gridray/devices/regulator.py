"""Tap delays of regulators: how many taps of a wanted change are made in an interval."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TapTiming(NamedTuple):
    """Delays of N regulators.

    delay_s: float64 [N, 1 or E], time outside the band before the first tap.
    tap_delay_s: float64 [N, 1 or E], time between further taps, > 0.
    """

    delay_s: NDArray[np.float64]
    tap_delay_s: NDArray[np.float64]


class TapTimer(NamedTuple):
    """Timers of N regulators.

    waited_s: float64 [N, E], time outside the band on one side, less tap_delay_s per tap made.
    direction: float64 [N, E], side of the last wanted change: 1 raises, -1 lowers, 0 none.
    """

    waited_s: NDArray[np.float64]
    direction: NDArray[np.float64]


def fresh_timer(num_items: int, num_envs: int) -> TapTimer:
    """Return regulators within their bands."""
    return TapTimer(np.zeros((num_items, num_envs)), np.zeros((num_items, num_envs)))


def timed_taps(
    timing: TapTiming, timer: TapTimer, steps: NDArray[np.float64], step_s: float
) -> tuple[NDArray[np.float64], TapTimer]:
    """Return the taps made by the end of an interval in which each regulator wants `steps` (whole, signed), [N, E].

    After t seconds outside the band 1 + floor((t - delay) / tap_delay) taps are due, none before the delay (OpenDSS,
    RegControl's Delay and TapDelay). A change of side, or a return into the band, starts the timer anew.
    """
    direction = np.sign(steps)
    is_same = (direction == timer.direction) & (direction != 0.0)
    waited_s = np.where(is_same, timer.waited_s, 0.0) + np.where(direction != 0.0, step_s, 0.0)
    due = np.floor((waited_s - timing.delay_s) / timing.tap_delay_s) + 1.0
    made = np.minimum(np.maximum(due, 0.0) * (waited_s >= timing.delay_s), np.abs(steps))
    is_done = made == np.abs(steps)
    waited_s = np.where(is_done, 0.0, waited_s - made * timing.tap_delay_s)
    return made * direction, TapTimer(waited_s, np.where(is_done, 0.0, direction))
