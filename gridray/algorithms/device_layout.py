"""What a policy of devices must know of a feeder: how its views are made, its set-points, its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

import networkx as nx
import numpy as np

from gridray.errors import ConfigError
from gridray.tasks.local_views import fill_views
from gridray.tasks.view_layout import KINDS, MAX_ACTIONS, WIDTH, Layout, fed_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.feeders.feeder import Feeder
    from gridray.tasks.base import Task
    from gridray.tasks.twin_task import TwinTask

RELATIONS = ("upstream", "downstream", "beside")
"""What a neighbour is: the nearest device towards the source, one whose nearest this is, one at the same bus."""

NUM_LOGITS = 16
"""Choices that a set-point may have in a policy of devices, the same on every feeder."""


class DeviceLayout(NamedTuple):
    """D devices with A set-points in a task's observations; nothing of it is learnt.

    num_observations: of the task.
    source, static, group_start, group_column: of the views, see `gridray.tasks.view_layout.Layout`.
    kind_index: int64 [D], index into KINDS.
    action_index: int64 [D, MAX_ACTIONS], column of the task's actions, -1 where the device has fewer.
    edges: int64 [3, num_edges], index into RELATIONS, device, and its neighbour in that relation.
    """

    num_observations: int
    source: NDArray[np.int64]
    static: NDArray[np.float32]
    group_start: NDArray[np.int64]
    group_column: NDArray[np.int64]
    kind_index: NDArray[np.int64]
    action_index: NDArray[np.int64]
    edges: NDArray[np.int64]

    @property
    def num_devices(self) -> int:
        """Number of devices."""
        return len(self.kind_index)

    @property
    def slot_of_action(self) -> NDArray[np.int64]:
        """Which of the devices' D * MAX_ACTIONS slots each action of the task is, int64 [A]."""
        slots = self.action_index.ravel()
        order = np.argsort(slots, kind="stable")
        return order[slots[order] >= 0]

    def views(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the views, float32 [n, D, WIDTH], of observations [n, num_observations]."""
        return fill_views(Layout(self.source, self.static, self.group_start, self.group_column), observations)

    def messages(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return receiver (relation * D + device), sender, and share of the mean of each message along an edge."""
        relation, device, neighbour = self.edges
        receiver = relation * self.num_devices + device
        count = np.bincount(receiver, minlength=1)
        return receiver, neighbour, (1.0 / count[receiver]).astype(np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all fields as arrays by name."""
        return {name: np.asarray(value) for name, value in self._asdict().items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> DeviceLayout:
        """Return the layout that `arrays` gave, from anywhere: it is checked.

        Raises:
            ConfigError: an array is missing or unknown, of another shape or type, or points nowhere.
        """
        if arrays.keys() != set(cls._fields):
            raise ConfigError(f"A layout of devices has the arrays {', '.join(cls._fields)}, not {', '.join(arrays)}")
        for name, array in arrays.items():
            wanted = np.float32 if name == "static" else np.int64
            if array.dtype != wanted:
                raise ConfigError(f"Layout of devices: {name} is {array.dtype}, it must be {np.dtype(wanted)}")
        num_devices, num_actions = len(arrays["kind_index"].ravel()), int((arrays["action_index"] >= 0).sum())
        shapes = {
            "num_observations": (),
            "source": (num_devices, WIDTH),
            "static": (num_devices, WIDTH),
            "group_start": (arrays["group_start"].size,),
            "group_column": (arrays["group_column"].size,),
            "kind_index": (num_devices,),
            "action_index": (num_devices, MAX_ACTIONS),
            "edges": (3, arrays["edges"].size // 3),
        }
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ConfigError(f"Layout of devices: {name} has shape {arrays[name].shape}, it must be {shape}")
        num_observations, starts = int(arrays["num_observations"]), arrays["group_start"]
        num_places = num_observations + 3 * (len(starts) - 1)
        is_whole = (
            len(starts) > 0
            and starts[0] == 0
            and starts[-1] == len(arrays["group_column"])
            and bool((np.diff(starts) >= 0).all())
            and bool(np.isfinite(arrays["static"]).all())
            and sorted(arrays["action_index"][arrays["action_index"] >= 0].tolist()) == list(range(num_actions))
            and _within(arrays["source"], -1, num_places)
            and _within(arrays["group_column"], 0, num_observations)
            and _within(arrays["kind_index"], 0, len(KINDS))
            and _within(arrays["action_index"], -1, num_actions)
            and _within(arrays["edges"][0], 0, len(RELATIONS))
            and _within(arrays["edges"][1:], 0, num_devices)
        )
        if not is_whole:
            raise ConfigError("Layout of devices points to what is not there: make it anew from the task")
        return cls(num_observations, *(arrays[name] for name in cls._fields[1:]))


def device_layout(task: Task) -> DeviceLayout:
    """Return the layout of a task's devices.

    Raises:
        ConfigError: the task is on no twin and has no devices with views, or a set-point that none of them has.
    """
    if not hasattr(task, "view_layout"):
        raise ConfigError(f"Task '{task.name}' has no devices with local views: use policy: flat")
    twin_task = cast("TwinTask", task)
    local, layout = twin_task.local_views, twin_task.view_layout
    return DeviceLayout(
        num_observations=len(task.observation_channels),
        source=layout.source,
        static=layout.static,
        group_start=layout.group_start,
        group_column=layout.group_column,
        kind_index=local.kind_index,
        action_index=local.action_index,
        edges=_edges(task.feeder, local.device_buses),
    )


def _edges(feeder: Feeder, buses: tuple[str, ...]) -> NDArray[np.int64]:
    """Return relation, device and neighbour of all pairs of neighbours along the feeder, int64 [3, num_edges].

    Buses without devices only make the way longer: views have the voltages of what lies between.
    """
    tree, at = fed_tree(feeder), {bus: [i for i, other in enumerate(buses) if other == bus] for bus in buses}
    nearest: dict[str, str | None] = {}
    for bus in nx.dfs_preorder_nodes(tree, feeder.source.bus):
        above = next(iter(tree.predecessors(bus)), None)
        nearest[bus] = above if above is None or above in at else nearest[above]
    edges = []
    for device, bus in enumerate(buses):
        edges += [(2, device, other) for other in at[bus] if other != device]
        above = nearest.get(bus)
        if above is not None:
            edges += [pair for other in at[above] for pair in ((0, device, other), (1, other, device))]
    return np.array(sorted(edges), dtype=np.int64).reshape(-1, 3).T.copy()


def _within(array: NDArray[Any], first: int, end: int) -> bool:
    return array.size == 0 or bool(array.min() >= first and array.max() < end)
