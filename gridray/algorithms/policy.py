"""A trained controller: arrays and a NumPy forward pass, no learner and no torch."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.errors import GridRayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_OBSERVATION_LIMIT = np.float32(10.0)
_MEAN, _STD = "normaliser.observation_mean", "normaliser.observation_std"


class LearnedPolicy:
    """Mean of a Gaussian actor; implements `Policy`.

    weights: normaliser.observation_mean, normaliser.observation_std float32 [observation_size];
    actor.mean.layers.N.weight float32 [outputs, inputs], actor.mean.layers.N.bias float32 [outputs].
    """

    def __init__(self, name: str, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Take exactly the arrays that `policy_weight_shapes` names."""
        self.name = name
        self.weights = dict(weights)
        num_layers = (len(weights) - 2) // 2
        self._layers = [
            (np.ascontiguousarray(weights[_layer(index, "weight")].T), weights[_layer(index, "bias")])
            for index in range(num_layers)
        ]

    @classmethod
    def from_weights(cls, name: str, weights: Mapping[str, NDArray[Any]]) -> LearnedPolicy:
        """Pick the policy's arrays out of a learner's weights; critics and values stay behind."""
        return cls(name, {key: array for key, array in weights.items() if key.startswith((_MEAN, _STD, "actor.mean."))})

    @property
    def observation_size(self) -> int:
        """Number of observations."""
        return len(self.weights[_MEAN])

    @property
    def action_size(self) -> int:
        """Number of actions."""
        return len(self._layers[-1][1])

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return actions float32 [n, action_size] in [-1, 1] for observations [n, observation_size]; rng is not used.

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
        actions: NDArray[np.float32] = np.tanh(hidden @ kernel + bias)
        return actions


def policy_weight_shapes(
    observation_size: int, action_size: int, hidden_sizes: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every array of a policy with these sizes."""
    shapes: dict[str, tuple[int, ...]] = {_MEAN: (observation_size,), _STD: (observation_size,)}
    sizes = (observation_size, *hidden_sizes, action_size)
    for index, (num_inputs, num_outputs) in enumerate(pairwise(sizes)):
        shapes[_layer(index, "weight")] = (num_outputs, num_inputs)
        shapes[_layer(index, "bias")] = (num_outputs,)
    return shapes


def _layer(index: int, part: str) -> str:
    return f"actor.mean.layers.{index}.{part}"
