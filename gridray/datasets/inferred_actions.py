"""Actions that nobody logged, read off what the devices did next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.tasks.base import scaled_actions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.tasks.base import ActionChannel, Task

ACTION_PREFIX = "action."
"""Of points that are logged set-points; without it a name is the device's state."""
CURTAILED = 0.98
"""An inverter that gives less than this share of what it could has a limit set."""


def actions_of(
    task: Task, values: Mapping[str, NDArray[np.float64]]
) -> tuple[NDArray[np.float32], bool, dict[str, str]]:
    """Return the actions of all intervals but the last.

    A logged set-point is the action. Else: a tap change is the difference to the next interval's tap; a capacitor's
    state, a reactive and a battery's active power are those of the next interval; a limit of active power is that of
    the next interval where it is below what is available, else the rating.

    Args:
        task: whose actions they are.
        values: float64 [E] by point, NaN where there is none.

    Returns:
        actions [E - 1, num_actions], NaN where unknown; whether any was inferred; "logged", "inferred" or "unknown" by
        action.
    """
    kva = {generator.name: generator.kva for generator in task.feeder.generators}
    num = len(next(iter(values.values())))
    set_points, origin = {}, {}
    for channel in task.action_channels:
        has_log = f"{ACTION_PREFIX}{channel.name}" in values
        known = values[f"{ACTION_PREFIX}{channel.name}"][:-1] if has_log else _inferred(channel, values, kva)
        origin[channel.name] = "logged" if has_log else "unknown" if known is None else "inferred"
        set_points[channel.name] = np.full(num - 1, np.nan) if known is None else known
    actions = scaled_actions(task.action_channels, {name: np.nan_to_num(row) for name, row in set_points.items()})
    is_unknown = np.isnan(np.stack([set_points[channel.name] for channel in task.action_channels], axis=1))
    return np.where(is_unknown, np.float32(np.nan), actions), "inferred" in origin.values(), origin


def _inferred(
    channel: ActionChannel, values: Mapping[str, NDArray[np.float64]], kva: Mapping[str, float]
) -> NDArray[np.float64] | None:
    device, _, quantity = channel.name.rpartition(".")
    if quantity == "tap_change" and f"{device}.tap" in values:
        tap = np.rint(values[f"{device}.tap"])
        changes: NDArray[np.float64] = np.diff(tap)
        return changes
    if channel.name not in values:
        return None
    after = values[channel.name][1:]
    if channel.kind == "switch":
        return np.rint(after)
    name = device.partition(".")[2]
    if quantity == "kw" and f"{device}.available" in values:
        is_limited = after < CURTAILED * values[f"{device}.available"][1:]
        limit = np.where(is_limited, after * kva.get(name, 1.0), channel.high)
        return np.where(np.isnan(after), np.nan, limit)
    return after * kva.get(name, 1.0)
