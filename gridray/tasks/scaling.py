"""Between physical units and what a policy sees and says, over rows of environments, in one pass each way."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.tasks.base import ActionChannel, ObservationChannel

KINDS = ("continuous", "integer", "switch", "level")
"""Kinds of action channels, by their code in a kernel."""
BLOCK = 32
"""Environments whose rows are turned into columns at once, so that both stay in cache."""


class ObservationScales(NamedTuple):
    """Of N observation channels: offset, scale: float64 [N]; what is seen is (physical - offset) * scale."""

    offset: NDArray[np.float64]
    scale: NDArray[np.float64]


class ActionRanges(NamedTuple):
    """Of N action channels: low, high, neutral: float64 [N], in the channel's unit; kind: int64 [N], index into KINDS.

    neutral: the set-point of a device that nobody commands, NaN where a switch keeps its position.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    kind: NDArray[np.int64]
    neutral: NDArray[np.float64]


def observation_scales(channels: Sequence[ObservationChannel]) -> ObservationScales:
    """Return the channels' scales as arrays."""
    return ObservationScales(
        np.array([channel.offset for channel in channels]), np.array([channel.scale for channel in channels])
    )


def action_ranges(channels: Sequence[ActionChannel]) -> ActionRanges:
    """Return the channels' ranges as arrays."""
    return ActionRanges(
        np.array([channel.low for channel in channels], dtype=np.float64),
        np.array([channel.high for channel in channels], dtype=np.float64),
        np.array([KINDS.index(channel.kind) for channel in channels], dtype=np.int64),
        np.array([np.nan if c.neutral is None else c.neutral for c in channels], dtype=np.float64),
    )


def observe_rows(scales: ObservationScales, physical: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return what a policy sees, float32 [E, N], of physical quantities [N, E]."""
    rows = np.empty((physical.shape[1], len(scales.scale)), dtype=np.float32)
    _scale(physical, scales.offset, scales.scale, rows)
    return rows


def physical_rows(scales: ObservationScales, rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return in physical units what is seen, both [E, N]."""
    physical: NDArray[np.float64] = np.asarray(rows, dtype=np.float64) / scales.scale + scales.offset
    return physical


def decode_rows(ranges: ActionRanges, actions: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return set-points [N, E], in the channels' units, of actions [E, N]; see `gridray.tasks.base.set_points`."""
    values = np.empty((len(ranges.low), len(actions)))
    _decode(np.asarray(actions, dtype=np.float64), ranges.low, ranges.high, ranges.kind, values)
    return values


def encode_rows(ranges: ActionRanges, values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return actions, float32 [E, N], of set-points [N, E]; see `gridray.tasks.base.scaled_actions`."""
    actions = np.empty((values.shape[1], len(ranges.low)), dtype=np.float32)
    _encode(values, ranges.low, ranges.high, ranges.kind, actions)
    return actions


@njit(cache=True, nogil=True, error_model="numpy")
def _scale(
    physical: NDArray[np.float64], offset: NDArray[np.float64], scale: NDArray[np.float64], rows: NDArray[np.float32]
) -> None:
    num_channels, num_envs = physical.shape
    for first in range(0, num_envs, BLOCK):
        last = min(first + BLOCK, num_envs)
        for channel in range(num_channels):
            for env in range(first, last):
                rows[env, channel] = (physical[channel, env] - offset[channel]) * scale[channel]


@njit(cache=True, nogil=True, error_model="numpy")
def _decode(
    actions: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    kind: NDArray[np.int64],
    values: NDArray[np.float64],
) -> None:
    for channel in range(values.shape[0]):
        span = high[channel] - low[channel]
        for env in range(values.shape[1]):
            given = actions[env, channel]
            if kind[channel] == 3:
                values[channel, env] = given
                continue
            given = min(max(given, -1.0), 1.0)
            value = low[channel] + (given + 1.0) / 2.0 * span
            if kind[channel] == 1:
                value = np.trunc(value)
            elif kind[channel] == 2:
                value = 1.0 if given > 1.0 / 3.0 else 0.0 if given < -1.0 / 3.0 else np.nan
            values[channel, env] = value


@njit(cache=True, nogil=True, error_model="numpy")
def _encode(
    values: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    kind: NDArray[np.int64],
    actions: NDArray[np.float32],
) -> None:
    for channel in range(values.shape[0]):
        least, most = low[channel], high[channel]
        for env in range(values.shape[1]):
            target = values[channel, env]
            if kind[channel] == 2:
                actions[env, channel] = 0.0 if np.isnan(target) else 2.0 * target - 1.0
                continue
            if kind[channel] == 3:
                actions[env, channel] = np.minimum(np.maximum(np.rint(target), least), most)
                continue
            if kind[channel] == 1:
                # The middle of the range that decodes to this many steps, so that a learner's small error keeps it.
                target = np.sign(target) * (np.abs(target) + 0.5)
            action = 2.0 * (target - least) / (most - least) - 1.0
            actions[env, channel] = np.minimum(np.maximum(action, -1.0), 1.0)
