"""A view of fixed width for every device, the same on every feeder: what one policy for many feeders reads and says."""

# mypy: disable-error-code="untyped-decorator"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from gridray.errors import ConfigError
from gridray.tasks.base import ObservationChannel
from gridray.tasks.view_layout import FEATURES, KINDS, MAX_ACTIONS, WIDTH, Layout, lay_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gridray.tasks.twin import Twin


class LocalViews:
    """Views of a task's devices, made of its (scaled) observations, and actions by device.

    num_devices: D, in the order of the twin's fleets, those with readings or set-points.
    device_names: "<kind>.<name>"; device_buses: their buses; kind_index: int64 [D], index into KINDS.
    action_index: int64 [D, MAX_ACTIONS], column of the task's actions, -1 where the device has fewer;
    action_mask: bool, likewise. layout: where the features come from.
    """

    width = WIDTH
    feature_names = FEATURES
    max_actions = MAX_ACTIONS

    def __init__(self, twin: Twin, channels: Sequence[ObservationChannel]) -> None:
        """Lay out the views of a twin's devices in observations of these channels.

        Raises:
            ConfigError: a device has more readings or set-points than a view holds.
        """
        devices = [
            (fleet.kind, name, bus)
            for fleet in twin.fleets
            if fleet.action_channels or fleet.observation_channels
            for name, bus in zip(fleet.names, fleet.buses, strict=True)
        ]
        self.num_devices = len(devices)
        self.device_names = tuple(f"{kind}.{name}" for kind, name, _ in devices)
        self.device_buses = tuple(bus for *_, bus in devices)
        self.kind_index = np.array([kind_of(kind) for kind, *_ in devices], dtype=np.int64)
        self.action_index = _actions_by_device(twin, self.device_names)
        self.action_mask = self.action_index >= 0
        self.layout: Layout = lay_out(twin, channels, self.device_names, self.device_buses, self.kind_index)

    @property
    def channels(self) -> tuple[ObservationChannel, ...]:
        """Channels of the flattened views, [D * width], scaled as they are."""
        return tuple(
            ObservationChannel(f"{device}.view.{feature}", "1", 0.0, 1.0)
            for device in self.device_names
            for feature in FEATURES
        )

    def views(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the views, float32 [E, D, width], of observations [E, num_observations]."""
        return fill_views(self.layout, observations)

    def by_device(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return actions [E, num_actions] by device, float32 [E, D, MAX_ACTIONS], 0 where a device has fewer."""
        given: NDArray[np.float32] = np.where(self.action_mask, actions[:, self.action_index], 0.0).astype(np.float32)
        return given

    def joined(self, by_device: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return actions [E, num_actions] of actions by device [E, D, MAX_ACTIONS]; what is masked is not read."""
        actions = np.empty((len(by_device), int(self.action_mask.sum())), dtype=by_device.dtype)
        actions[:, self.action_index[self.action_mask]] = by_device[:, self.action_mask]
        return actions


def fill_views(layout: Layout, observations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the views of a layout, float32 [E, D, WIDTH], of observations [E, num_observations]."""
    seen = np.ascontiguousarray(observations, dtype=np.float32)
    views = np.empty((len(seen), len(layout.source), WIDTH), dtype=np.float32)
    _fill(seen, layout.source, layout.static, layout.group_start, layout.group_column, views)
    return views


def kind_of(kind: str) -> int:
    """Return the index of a fleet's kind in KINDS; one that is not listed is the last, "other"."""
    return KINDS.index(kind) if kind in KINDS else len(KINDS) - 1


def _actions_by_device(twin: Twin, devices: Sequence[str]) -> NDArray[np.int64]:
    index = np.full((len(devices), MAX_ACTIONS), -1, dtype=np.int64)
    used = dict.fromkeys(devices, 0)
    for column, channel in enumerate(twin.action_channels):
        device = channel.name.rpartition(".")[0]
        if device not in used:
            raise ConfigError(
                f"Action '{channel.name}' names no device of the twin: name it <kind>.<device>.<quantity>."
            )
        if used[device] == MAX_ACTIONS:
            raise ConfigError(f"Device '{device}' has more than {MAX_ACTIONS} set-points: a local view holds no more.")
        index[devices.index(device), used[device]] = column
        used[device] += 1
    return index


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(
    seen: NDArray[np.float32],
    source: NDArray[np.int64],
    static: NDArray[np.float32],
    group_start: NDArray[np.int64],
    group_column: NDArray[np.int64],
    views: NDArray[np.float32],
) -> None:
    """Write views [E, D, width]; see Layout."""
    num_seen = seen.shape[1]
    row = np.zeros(num_seen + 3 * (len(group_start) - 1), dtype=np.float32)
    for env in range(seen.shape[0]):
        row[:num_seen] = seen[env]
        for group in range(len(group_start) - 1):
            first, last = group_start[group], group_start[group + 1]
            if last == first:
                continue
            low, high, total = np.inf, -np.inf, 0.0
            for k in range(first, last):
                value = row[group_column[k]]
                low, high, total = min(low, value), max(high, value), total + value
            at = num_seen + 3 * group
            row[at], row[at + 1], row[at + 2] = low, total / (last - first), high
        for device in range(source.shape[0]):
            for feature in range(source.shape[1]):
                at = source[device, feature]
                views[env, device, feature] = row[at] if at >= 0 else static[device, feature]
