"""The learner that all gradient algorithms share: batches in, one fused Adam step, named arrays out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gridray.algorithms.policy import LearnedPolicy
from gridray.errors import GridRayError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.algorithms.base import Normaliser, Weights
    from gridray.algorithms.networks import GaussianActor, Normalisation

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class AlgorithmConfig(Protocol):
    """Settings that every algorithm has."""

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Widths of the hidden layers of each network."""
        ...

    @property
    def learning_rate(self) -> float:
        """Step size of Adam."""
        ...

    @property
    def device(self) -> str:
        """Torch device of networks and batches."""
        ...


class Networks(nn.Module):
    """Networks and losses of one algorithm; a subclass adds its own networks."""

    normaliser: Normalisation
    actor: GaussianActor

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return named scalar losses; their sum is minimised, and no network is in two of them."""
        raise NotImplementedError

    def actor_rate(self, num_updates: int) -> float:
        """Return the factor on the actor's learning rate after so many updates."""
        del num_updates
        return 1.0

    def follow(self) -> None:
        """Move target networks, if there are any, after a gradient step."""


class GradientLearner:
    """One algorithm's networks with their optimiser; implements `Learner`."""

    def __init__(self, name: str, networks: Networks, config: AlgorithmConfig) -> None:
        """Move the networks to the configured device and give them an optimiser."""
        self.name = name
        self.hidden_sizes = config.hidden_sizes
        self.observation_size = len(networks.normaliser.observation_mean)
        self.action_size = len(networks.actor.log_std)
        self._networks = networks.to(config.device)
        self._device = torch.device(config.device)
        self._learning_rate = config.learning_rate
        actor = list(networks.actor.parameters())
        others = [
            parameter
            for name, parameter in networks.named_parameters()
            if parameter.requires_grad and not name.startswith("actor.")
        ]
        groups = [{"params": part} for part in (actor, others) if part]
        self._optimiser = torch.optim.Adam(groups, lr=config.learning_rate, fused=True)
        self._num_updates = 0

    def update(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """Take one gradient step; see `Learner.update`."""
        tensors = self._tensors(batch)
        losses = self._networks.losses(tensors)
        values = dict(zip(losses, torch.stack([loss.detach() for loss in losses.values()]).tolist(), strict=True))
        for name, value in values.items():
            if not math.isfinite(value):
                raise GridRayError(
                    f"{self.name}: {name} is {value} after {self._num_updates} updates, it must be finite: "
                    "lower learning_rate, or look for outliers in the dataset's rewards"
                )
        self._optimiser.param_groups[0]["lr"] = self._learning_rate * self._networks.actor_rate(self._num_updates)
        self._optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._networks.follow()
        self._num_updates += 1
        return values

    def get_weights(self) -> Weights:
        """Return copies of all weights."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self._networks.state_dict().items()}

    def set_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take weights of the same names and shapes."""
        own = self._networks.state_dict()
        if missing := sorted(own.keys() - weights.keys()):
            raise GridRayError(f"Weights lack {missing[0]!r}: give every array of a {self.name} learner")
        if unknown := sorted(weights.keys() - own.keys()):
            raise GridRayError(f"Weights have {unknown[0]!r}, which a {self.name} learner does not know: leave it out")
        for name, tensor in own.items():
            if weights[name].shape != tuple(tensor.shape):
                raise GridRayError(
                    f"Weight {name!r} has shape {weights[name].shape}, this learner's has {tuple(tensor.shape)}: "
                    "use the same observation_size, action_size and hidden_sizes"
                )
        for name, tensor in own.items():
            tensor.copy_(torch.tensor(weights[name]))

    def set_normaliser(self, normaliser: Normaliser) -> None:
        """Take the statistics as weights."""
        values = {
            f"normaliser.{name}": np.atleast_1d(np.asarray(value, dtype=np.float32))
            for name, value in normaliser._asdict().items()
        }
        self.set_weights(self.get_weights() | values)

    def get_training_state(self) -> Weights:
        """Return Adam's moments by weight name, and the count of updates."""
        state: Weights = {"num_updates": np.array([self._num_updates], dtype=np.int64)}
        for name, parameter in self._networks.named_parameters():
            for key, tensor in self._optimiser.state.get(parameter, {}).items():
                state[f"{key}.{name}"] = np.atleast_1d(tensor.cpu().numpy().copy())
        return state

    def set_training_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take Adam's moments and the count of updates."""
        self._num_updates = int(state["num_updates"][0])
        self._optimiser.state.clear()
        for name, parameter in self._networks.named_parameters():
            if f"step.{name}" in state:
                arrays = {key: torch.tensor(state[f"{key}.{name}"], device=self._device) for key in _MOMENTS}
                arrays["step"] = arrays["step"].reshape(())
                self._optimiser.state[parameter] = arrays

    def policy(self) -> LearnedPolicy:
        """Return the greedy policy of the present weights."""
        return LearnedPolicy.from_weights(self.name, self.get_weights())

    def _tensors(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        widths = {"obs": self.observation_size, "new_obs": self.observation_size, "actions": self.action_size}
        tensors = {}
        for name in ("obs", "actions", "rewards", "new_obs", "terminateds"):
            if name not in batch:
                raise GridRayError(f"Batch has no column {name!r}: its columns are {', '.join(batch)}")
            tensor = torch.as_tensor(batch[name]).to(self._device, torch.float32)
            if name in widths and tensor.shape[1:] != (widths[name],):
                raise GridRayError(
                    f"Column {name!r} of the batch has shape {tuple(tensor.shape)}, "
                    f"this learner needs [n, {widths[name]}]: train and data must be of one task"
                )
            tensors[name] = tensor
        # One sum per column finds NaN and infinity at the cost of reading it once.
        sums = torch.stack([tensor.sum() for tensor in tensors.values()]).tolist()
        for name, total in zip(tensors, sums, strict=True):
            if not math.isfinite(total):
                raise GridRayError(f"Column {name!r} of the batch has NaN or infinite values: record the data anew")
        return tensors
