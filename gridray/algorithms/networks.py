"""Networks of the offline learners: plain MLPs, twin critics in one batched product, a Gaussian actor."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

OBSERVATION_LIMIT = 10.0
LOG_STD_LIMITS = (-5.0, 2.0)


class Normalisation(nn.Module):
    """Statistics of the data as buffers, so that they travel with the weights."""

    observation_mean: Tensor
    observation_std: Tensor
    reward_mean: Tensor
    reward_std: Tensor

    def __init__(self, observation_size: int) -> None:
        super().__init__()
        self.register_buffer("observation_mean", torch.zeros(observation_size))
        self.register_buffer("observation_std", torch.ones(observation_size))
        self.register_buffer("reward_mean", torch.zeros(1))
        self.register_buffer("reward_std", torch.ones(1))

    def observations(self, raw: Tensor) -> Tensor:
        """Return standardised observations, clipped: far outside the data a network's answer means nothing."""
        return ((raw - self.observation_mean) / self.observation_std).clamp_(-OBSERVATION_LIMIT, OBSERVATION_LIMIT)

    def rewards(self, raw: Tensor) -> Tensor:
        """Return standardised rewards."""
        return (raw - self.reward_mean) / self.reward_std


class Mlp(nn.Module):
    """Linear layers with ReLU between them; [n, sizes[0]] to [n, sizes[-1]]."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the last layer's output."""
        hidden = inputs
        for layer in self.layers[:-1]:
            hidden = torch.relu_(layer(hidden))
        output: Tensor = self.layers[-1](hidden)
        return output


class TwinCritic(nn.Module):
    """Two Q functions side by side, each layer one batched product.

    kernels: per layer float32 [2, inputs, outputs]; biases: per layer float32 [2, 1, outputs].
    """

    def __init__(self, observation_size: int, action_size: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        sizes = (observation_size + action_size, *hidden_sizes, 1)
        self.kernels = nn.ParameterList()
        self.biases = nn.ParameterList()
        for num_inputs, num_outputs in pairwise(sizes):
            # The same bound as nn.Linear's.
            bound = 1.0 / math.sqrt(num_inputs)
            self.kernels.append(torch.empty(2, num_inputs, num_outputs).uniform_(-bound, bound))
            self.biases.append(torch.empty(2, 1, num_outputs).uniform_(-bound, bound))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return Q values [2, n]."""
        hidden = torch.cat((observations, actions), dim=1).expand(2, -1, -1)
        last = len(self.kernels) - 1
        for index, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, kernel)
            if index < last:
                hidden = torch.relu_(hidden)
        return hidden.squeeze(2)


class GaussianActor(nn.Module):
    """Gaussian with a tanh mean that depends on the observation and a spread that does not."""

    def __init__(self, observation_size: int, action_size: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        self.mean = Mlp((observation_size, *hidden_sizes, action_size))
        self.log_std = nn.Parameter(torch.zeros(action_size))

    def log_likelihood(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return log p(action | observation) [n], summed over the action's components."""
        log_std = self.log_std.clamp(*LOG_STD_LIMITS)
        scaled = (actions - torch.tanh(self.mean(observations))) * torch.exp(-log_std)
        constant = 0.5 * actions.shape[1] * math.log(2.0 * math.pi)
        return -0.5 * scaled.square().sum(dim=1) - log_std.sum() - constant
