"""The network of a trained policy of devices as arrays: what `gridray.algorithms.device_networks` learns, in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from gridray.algorithms.device_layout import NUM_LOGITS, RELATIONS
from gridray.tasks.view_layout import KINDS, MAX_ACTIONS, WIDTH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.algorithms.actions import ActionGrid
    from gridray.algorithms.device_layout import DeviceLayout

_EMBED, _LAYER, _HEAD = "actor.mean.encoder.embed", "actor.mean.encoder.layers", "actor.mean.head.kinds"


class DeviceNetwork:
    """Set-points of the devices of a layout; whether they hear each other follows from the weights' shapes."""

    def __init__(
        self, weights: Mapping[str, NDArray[np.float32]], layout: DeviceLayout, grid: ActionGrid | None
    ) -> None:
        """Take the arrays of each device's kind out of those of all kinds."""
        self.observation_size = layout.num_observations
        self.action_size = len(layout.slot_of_action)
        self._layout, self._grid = layout, grid
        self._embed = [weights[f"{_EMBED}.{part}"][0, layout.kind_index] for part in ("weight", "bias")]
        self._head = [weights[f"{_HEAD}.{part}"][0, layout.kind_index] for part in ("weight", "bias")]
        num_layers = sum(name.startswith(_LAYER) for name in weights) // 2
        self._layers = [[weights[f"{_LAYER}.{i}.{part}"][0] for part in ("weight", "bias")] for i in range(num_layers)]
        receiver, sender, share = layout.messages()
        shape = (len(RELATIONS) * layout.num_devices, layout.num_devices)
        self._means = csr_array((share, (receiver, sender)), shape=shape)

    def seen(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what is standardised, the views [n, D, WIDTH] of observations."""
        return self._layout.views(observations)

    def outputs(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what `LearnedPolicy` makes actions of, [n, num_outputs]."""
        hidden = np.maximum(np.matmul(views.transpose(1, 0, 2), self._embed[0]) + self._embed[1], np.float32(0.0))
        for kernel, bias in self._layers:
            heard = hidden if len(kernel) == hidden.shape[2] else self._with_neighbours(hidden)
            hidden = np.maximum(heard @ kernel + bias, np.float32(0.0))
        outputs = np.matmul(hidden, self._head[0]) + self._head[1]
        # [n, D * MAX_ACTIONS, outputs of a slot]
        per_slot = outputs.shape[2] // MAX_ACTIONS
        slots = outputs.transpose(1, 0, 2).reshape(len(views), len(hidden) * MAX_ACTIONS, per_slot)
        order = self._layout.slot_of_action
        if self._grid is None:
            actions: NDArray[np.float32] = slots[:, order, 0]
            return actions
        logits = slots[:, order[self._grid.discrete], 1 : 1 + self._grid.values.shape[1]]
        return np.concatenate((slots[:, order[self._grid.continuous], 0], logits.reshape(len(views), -1)), axis=1)

    def _with_neighbours(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        means = self._means @ hidden.reshape(len(hidden), -1)
        return np.concatenate((hidden, *means.reshape(len(RELATIONS), *hidden.shape)), axis=2)


def device_weight_shapes(
    hidden_sizes: tuple[int, ...], *, is_graph: bool, is_mixed: bool
) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every array of a policy of devices; no feeder is in them."""
    first, *others = hidden_sizes
    heard = 1 + len(RELATIONS) if is_graph else 1
    shapes: dict[str, tuple[int, ...]] = {f"normaliser.observation_{part}": (WIDTH,) for part in ("mean", "std")}
    layers = {f"{_LAYER}.{i}": (heard * hidden_sizes[i], size) for i, size in enumerate(others)}
    for name, (width, next_width) in layers.items():
        shapes |= {f"{name}.weight": (1, width, next_width), f"{name}.bias": (1, 1, next_width)}
    num_outputs = MAX_ACTIONS * (1 + NUM_LOGITS if is_mixed else 1)
    for name, width, next_width in ((_EMBED, WIDTH, first), (_HEAD, hidden_sizes[-1], num_outputs)):
        shapes |= {
            f"{name}.weight": (1, len(KINDS), width, next_width),
            f"{name}.bias": (1, len(KINDS), 1, next_width),
        }
    return shapes
