"""Networks of the offline learners: scales of the data, plain MLPs, twin critics."""

from __future__ import annotations

import math
from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from gridray.algorithms.products import dense
from gridray.algorithms.sampled_values import mean_log_sum_exp

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


class Layer(nn.Linear):
    """A linear layer, with a ReLU where it is a hidden one."""

    def __init__(self, num_inputs: int, num_outputs: int, *, is_hidden: bool) -> None:
        super().__init__(num_inputs, num_outputs)
        self.is_hidden = is_hidden

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs [n, num_outputs]."""
        return dense(inputs, self.weight.t(), self.bias, is_hidden=self.is_hidden)


class Mlp(SplitNetwork):
    """Linear layers with ReLU between them; [n, sizes[0]] to [n, sizes[-1]]."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        last = len(sizes) - 2
        self.layers = nn.ModuleList(Layer(*pair, is_hidden=index < last) for index, pair in enumerate(pairwise(sizes)))

    def features(self, inputs: Tensor) -> Tensor:
        """Return what the last layer is given."""
        hidden = inputs
        for layer in self.layers[:-1]:
            hidden = layer(hidden)
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
    """Two Q functions side by side.

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
        return self._values(observations, actions, self._parts())

    def frozen(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return Q values [2, n] that pass gradients to the actions and none to the critics."""
        return self._values(observations, actions, [[weight.detach() for weight in part] for part in self._parts()])

    def mean_log_sum_exp(self, observations: Tensor, actions: Tensor, densities: Tensor) -> Tensor:
        """Return log sum exp(Q - log density) over sampled actions; see `Critic`."""
        return mean_log_sum_exp([*self.kernels], [*self.biases], (observations, actions, densities))

    def _parts(self) -> Sequence[Iterable[Tensor]]:
        return self.kernels, self.biases, self.gains, self.shifts

    def _values(self, observations: Tensor, actions: Tensor, parts: Sequence[Iterable[Tensor]]) -> Tensor:
        inputs = torch.cat((observations, actions), dim=1)
        kernels = [kernel.unbind() for kernel in parts[0]]
        biases, gains, shifts = ([weight.squeeze(1).unbind() for weight in part] for part in parts[1:])
        values = []
        for critic in range(2):
            hidden = inputs
            for index in range(len(kernels) - 1):
                hidden = dense(hidden, kernels[index][critic], biases[index][critic], is_hidden=True)
                if gains:
                    scales = gains[index][critic], shifts[index][critic]
                    hidden = functional.layer_norm(hidden, hidden.shape[-1:], *scales)
            values.append(dense(hidden, kernels[-1][critic], biases[-1][critic], is_hidden=False).squeeze(1))
        return torch.stack(values)


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
