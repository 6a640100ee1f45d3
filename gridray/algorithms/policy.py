"""A trained controller: arrays and a NumPy forward pass, no learner and no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gridray.algorithms.actions import action_grid
from gridray.algorithms.device_policy import DeviceNetwork
from gridray.errors import GridRayError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gridray.algorithms.actions import ActionGrid
    from gridray.algorithms.device_layout import DeviceLayout
    from gridray.tasks.base import ActionChannel

Head = Literal["tanh", "clip", "mixed"]
"""How a network's outputs become actions: squashed, clipped to [-1, 1], or tanh and choices by an action grid."""

_OBSERVATION_LIMIT = np.float32(10.0)
_MEAN, _STD = "normaliser.observation_mean", "normaliser.observation_std"


class LearnedPolicy:
    """The greedy action of an actor; implements `Policy`.

    head: see `Head`; grid: of a mixed head, else None; layout: of the devices, for a policy of devices, else None.
    weights: normaliser.observation_mean, normaliser.observation_std float32 [observation_size];
    actor.mean.layers.N.weight float32 [outputs, inputs], actor.mean.layers.N.bias float32 [outputs]; those of a policy
    of devices are in `gridray.algorithms.device_policy`.
    """

    def __init__(
        self,
        name: str,
        weights: Mapping[str, NDArray[np.float32]],
        *,
        head: Head = "tanh",
        grid: ActionGrid | None = None,
        layout: DeviceLayout | None = None,
    ) -> None:
        """Take exactly the arrays that `policy_weight_shapes` names."""
        if (head == "mixed") != (grid is not None):
            raise GridRayError(f"Policy '{name}' has head '{head}': a mixed head, and no other, has an action grid")
        self.name = name
        self.head = head
        self.grid = grid
        self.weights = dict(weights)
        self._network = _Mlp(weights, grid) if layout is None else DeviceNetwork(weights, layout, grid)

    @classmethod
    def from_weights(
        cls,
        name: str,
        weights: Mapping[str, NDArray[Any]],
        *,
        grid: ActionGrid | None = None,
        layout: DeviceLayout | None = None,
    ) -> LearnedPolicy:
        """Pick the policy's arrays out of a learner's weights; critics and values stay behind."""
        own = {key: array for key, array in weights.items() if key.startswith((_MEAN, _STD, "actor.mean."))}
        return cls(name, own, head="tanh" if grid is None else "mixed", grid=grid, layout=layout)

    def on(self, layout: DeviceLayout, channels: Sequence[ActionChannel]) -> LearnedPolicy:
        """Return this policy of devices for another feeder's devices and the channels of their actions."""
        grid = None if self.grid is None else action_grid(channels)
        return LearnedPolicy(self.name, self.weights, head=self.head, grid=grid, layout=layout)

    @property
    def observation_size(self) -> int:
        """Number of observations."""
        return self._network.observation_size

    @property
    def action_size(self) -> int:
        """Number of actions."""
        return self._network.action_size

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return actions float32 [n, action_size] for observations [n, observation_size]; rng is not used.

        Actions are in [-1, 1], and levels are whole numbers.

        Raises:
            GridRayError: the observations are of another width, or one is NaN or infinite.
        """
        del rng
        if observations.ndim != 2 or observations.shape[1] != self.observation_size:
            raise GridRayError(
                f"Policy '{self.name}' got shape {observations.shape}: give [n, {self.observation_size}]"
            )
        if not np.isfinite(observations).all():
            row, column = np.argwhere(~np.isfinite(observations))[0]
            value = observations[row, column]
            raise GridRayError(
                f"Observation {column} in row {row} is {value}: policy '{self.name}' needs finite values"
            )
        seen = self._network.seen(observations.astype(np.float32, copy=False))
        scaled = (seen - self.weights[_MEAN]) / self.weights[_STD]
        outputs = self._network.outputs(np.clip(scaled, -_OBSERVATION_LIMIT, _OBSERVATION_LIMIT))
        if self.grid is not None:
            return _mixed_actions(outputs, self.grid)
        return np.clip(outputs, -1.0, 1.0) if self.head == "clip" else np.tanh(outputs)


class _Mlp:
    """Linear layers with ReLU between them."""

    def __init__(self, weights: Mapping[str, NDArray[np.float32]], grid: ActionGrid | None) -> None:
        num_layers = (len(weights) - 2) // 2
        self._layers = [
            (np.ascontiguousarray(weights[_layer(index, "weight")].T), weights[_layer(index, "bias")])
            for index in range(num_layers)
        ]
        self.observation_size = len(weights[_MEAN])
        num_outputs = len(self._layers[-1][1])
        self.action_size = num_outputs if grid is None else len(grid.continuous) + len(grid.discrete)

    def seen(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what is standardised."""
        return observations

    def outputs(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the last layer's output [n, num_outputs]."""
        for kernel, bias in self._layers[:-1]:
            hidden = np.maximum(hidden @ kernel + bias, np.float32(0.0))
        kernel, bias = self._layers[-1]
        outputs: NDArray[np.float32] = hidden @ kernel + bias
        return outputs


def policy_weight_shapes(
    observation_size: int, num_outputs: int, hidden_sizes: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every array of a policy; num_outputs is action_size, unless the head is mixed."""
    shapes: dict[str, tuple[int, ...]] = {_MEAN: (observation_size,), _STD: (observation_size,)}
    sizes = (observation_size, *hidden_sizes, num_outputs)
    for index, (width, next_width) in enumerate(pairwise(sizes)):
        shapes[_layer(index, "weight")] = (next_width, width)
        shapes[_layer(index, "bias")] = (next_width,)
    return shapes


def _mixed_actions(outputs: NDArray[np.float32], grid: ActionGrid) -> NDArray[np.float32]:
    num_real, shape = len(grid.continuous), grid.values.shape
    actions = np.empty((len(outputs), num_real + len(grid.discrete)), dtype=np.float32)
    actions[:, grid.continuous] = np.tanh(outputs[:, :num_real])
    logits = outputs[:, num_real:].reshape(len(outputs), *shape)
    choices = np.where(np.arange(shape[1]) < grid.num_choices[:, None], logits, -np.inf).argmax(axis=2)
    actions[:, grid.discrete] = grid.values[np.arange(shape[0]), choices]
    return actions


def _layer(index: int, part: str) -> str:
    return f"actor.mean.layers.{index}.{part}"
