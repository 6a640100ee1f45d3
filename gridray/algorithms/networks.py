"""Networks of the offline learners: scales of the data, plain MLPs, twin critics in one batched product."""

from __future__ import annotations

import math
from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from gridray.algorithms.sampled_values import mean_log_sum_exp

if TYPE_CHECKING:
    from collections.abc import Sequence

OBSERVATION_LIMIT = 10.0
ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Normalisation(nn.Module):
    """Statistics of the data as buffers, so that they travel with the weights."""

    observation_mean: Tensor
    observation_std: Tensor
    reward_mean: Tensor
    reward_std: Tensor
    cost_std: Tensor

    def __init__(self, observation_size: int, *, has_cost: bool = False) -> None:
        """Begin with scales that change nothing."""
        super().__init__()
        self.register_buffer("observation_mean", torch.zeros(observation_size))
        self.register_buffer("observation_std", torch.ones(observation_size))
        self.register_buffer("reward_mean", torch.zeros(1))
        self.register_buffer("reward_std", torch.ones(1))
        if has_cost:
            self.register_buffer("cost_std", torch.ones(1))

    def observations(self, raw: Tensor) -> Tensor:
        """Return standardised observations, clipped: far outside the data a network's answer means nothing."""
        return ((raw - self.observation_mean) / self.observation_std).clamp(-OBSERVATION_LIMIT, OBSERVATION_LIMIT)

    def prepare(self, raw: Tensor) -> Tensor:
        """Return the task's observations [n, observation_size] in the form that all networks read them: as they are."""
        return raw

    def rewards(self, raw: Tensor) -> Tensor:
        """Return standardised rewards."""
        return (raw - self.reward_mean) / self.reward_std


class SplitNetwork(nn.Module):
    """A network whose last layer can be left out."""

    def features(self, inputs: Tensor) -> Tensor:
        """Return what the last layer is given."""
        raise NotImplementedError

    def last(self, hidden: Tensor) -> Tensor:
        """Return the last layer's output."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the last layer's output of the inputs."""
        return self.last(self.features(inputs))


class Mlp(SplitNetwork):
    """Linear layers with ReLU between them; [n, sizes[0]] to [n, sizes[-1]]."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))

    def features(self, inputs: Tensor) -> Tensor:
        """Return what the last layer is given."""
        hidden = inputs
        for layer in self.layers[:-1]:
            hidden = torch.relu_(layer(hidden))
        return hidden

    def last(self, hidden: Tensor) -> Tensor:
        """Return the last layer's output."""
        output: Tensor = self.layers[-1](hidden)
        return output


class Critic(nn.Module):
    """Two Q functions side by side; called with normalised observations and actions [n, action_size], gives [2, n]."""

    def frozen(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return Q values [2, n] that pass gradients to the actions and none to the critics."""
        raise NotImplementedError

    def mean_log_sum_exp(self, observations: Tensor, actions: Tensor, densities: Tensor) -> Tensor:
        """Return log sum exp(Q - log density) over S actions per row, mean over rows, summed over both critics.

        Args:
            observations: normalised; only the critics' weights get gradients.
            actions: [n, S, action_size].
            densities: [n, S], logs of the densities that the actions were drawn from.
        """
        raise NotImplementedError


class TwinCritic(Critic):
    """Two Q functions side by side, each layer one batched product.

    kernels: per layer float32 [2, inputs, outputs]; biases: per layer float32 [2, 1, outputs].
    gains, shifts: per hidden layer float32 [2, 1, outputs], of the layer normalisation after its ReLU, if there is one.
    """

    def __init__(
        self, observation_size: int, action_size: int, hidden_sizes: Sequence[int], *, layer_norm: bool = False
    ) -> None:
        super().__init__()
        sizes = (observation_size + action_size, *hidden_sizes, 1)
        self.kernels = nn.ParameterList()
        self.biases = nn.ParameterList()
        self.gains = nn.ParameterList()
        self.shifts = nn.ParameterList()
        for num_inputs, num_outputs in pairwise(sizes):
            # The same bound as nn.Linear's.
            bound = 1.0 / math.sqrt(num_inputs)
            self.kernels.append(torch.empty(2, num_inputs, num_outputs).uniform_(-bound, bound))
            self.biases.append(torch.empty(2, 1, num_outputs).uniform_(-bound, bound))
        if layer_norm:
            for size in hidden_sizes:
                self.gains.append(torch.ones(2, 1, size))
                self.shifts.append(torch.zeros(2, 1, size))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return Q values [2, n]."""
        return self._values(observations, actions, [list(part) for part in self._parts()])

    def frozen(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return Q values [2, n] that pass gradients to the actions and none to the critics."""
        return self._values(observations, actions, [[weight.detach() for weight in part] for part in self._parts()])

    def mean_log_sum_exp(self, observations: Tensor, actions: Tensor, densities: Tensor) -> Tensor:
        """Return log sum exp(Q - log density) over sampled actions; see `Critic`."""
        return mean_log_sum_exp([*self.kernels], [*self.biases], (observations, actions, densities))

    def _parts(self) -> tuple[nn.ParameterList, ...]:
        return self.kernels, self.biases, self.gains, self.shifts

    def _values(self, observations: Tensor, actions: Tensor, parts: list[list[Tensor]]) -> Tensor:
        kernels, biases, gains, shifts = parts
        inputs = torch.cat((observations, actions), dim=1).expand(2, -1, -1)
        hidden = torch.baddbmm(biases[0], inputs, kernels[0])
        for index, (kernel, bias) in enumerate(zip(kernels[1:], biases[1:], strict=True)):
            hidden = torch.relu_(hidden)
            if gains:
                scaled = functional.layer_norm(hidden, hidden.shape[-1:])
                hidden = torch.addcmul(shifts[index], scaled, gains[index])
            hidden = torch.baddbmm(bias, hidden, kernel)
        return hidden.squeeze(2)


class Targets:
    """Copies of networks that follow them slowly; pairs: target network and the network it follows."""

    def __init__(self, *pairs: tuple[nn.Module, nn.Module]) -> None:
        self._targets: list[Tensor] = [weight for target, _ in pairs for weight in target.parameters()]
        self._sources: list[Tensor] = [weight for _, source in pairs for weight in source.parameters()]

    def follow(self, rate: float) -> None:
        """Move every target weight by this share towards its source."""
        with torch.no_grad():
            torch._foreach_lerp_(self._targets, self._sources, rate)  # torch's only batched lerp


def frozen_copy(network: ModuleT) -> ModuleT:
    """Return a copy that no optimiser trains."""
    return deepcopy(network).requires_grad_(requires_grad=False)
