"""A trained controller: arrays and a NumPy forward pass, no learner and no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gridray.errors import GridRayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.algorithms.actions import ActionGrid

Head = Literal["tanh", "clip", "mixed"]
"""How a network's outputs become actions: squashed, clipped to [-1, 1], or tanh and choices by an action grid."""

_OBSERVATION_LIMIT = np.float32(10.0)
_MEAN, _STD = "normaliser.observation_mean", "normaliser.observation_std"


class LearnedPolicy:
    """The greedy action of an actor; implements `Policy`.

    head: see `Head`; grid: of a mixed head, else None.
    weights: normaliser.observation_mean, normaliser.observation_std float32 [observation_size];
    actor.mean.layers.N.weight float32 [outputs, inputs], actor.mean.layers.N.bias float32 [outputs].
    """

    def __init__(
        self,
        name: str,
        weights: Mapping[str, NDArray[np.float32]],
        *,
        head: Head = "tanh",
        grid: ActionGrid | None = None,
    ) -> None:
        """Take exactly the arrays that `policy_weight_shapes` names."""
        if (head == "mixed") != (grid is not None):
            raise GridRayError(f"Policy '{name}' has head '{head}': a mixed head, and no other, has an action grid")
        self.name = name
        self.head = head
        self.grid = grid
        self.weights = dict(weights)
        num_layers = (len(weights) - 2) // 2
        self._layers = [
            (np.ascontiguousarray(weights[_layer(index, "weight")].T), weights[_layer(index, "bias")])
            for index in range(num_layers)
        ]

    @classmethod
    def from_weights(
        cls, name: str, weights: Mapping[str, NDArray[Any]], *, grid: ActionGrid | None = None
    ) -> LearnedPolicy:
        """Pick the policy's arrays out of a learner's weights; critics and values stay behind."""
        own = {key: array for key, array in weights.items() if key.startswith((_MEAN, _STD, "actor.mean."))}
        return cls(name, own, head="tanh" if grid is None else "mixed", grid=grid)

    @property
    def observation_size(self) -> int:
        """Number of observations."""
        return len(self.weights[_MEAN])

    @property
    def action_size(self) -> int:
        """Number of actions."""
        grid = self.grid
        return len(self._layers[-1][1]) if grid is None else len(grid.continuous) + len(grid.discrete)

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
        hidden = (observations.astype(np.float32, copy=False) - self.weights[_MEAN]) / self.weights[_STD]
        hidden = np.clip(hidden, -_OBSERVATION_LIMIT, _OBSERVATION_LIMIT)
        for kernel, bias in self._layers[:-1]:
            hidden = np.maximum(hidden @ kernel + bias, np.float32(0.0))
        kernel, bias = self._layers[-1]
        outputs: NDArray[np.float32] = hidden @ kernel + bias
        if self.grid is not None:
            return _mixed_actions(outputs, self.grid)
        return np.clip(outputs, -1.0, 1.0) if self.head == "clip" else np.tanh(outputs)


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
    logits = outputs[:, num_real:].reshape(-1, *shape)
    choices = np.where(np.arange(shape[1]) < grid.num_choices[:, None], logits, -np.inf).argmax(axis=2)
    actions[:, grid.discrete] = grid.values[np.arange(shape[0]), choices]
    return actions


def _layer(index: int, part: str) -> str:
    return f"actor.mean.layers.{index}.{part}"
