"""Actors: what a policy's distribution over actions is, given its observation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from gridray.algorithms.actions import ActionGrid
    from gridray.algorithms.networks import SplitNetwork

LOG_STD_LIMITS = (-5.0, 2.0)


class Actor(nn.Module):
    """What all actors have: `mean`, the network that decides the greedy action, with [n, num_outputs] outputs."""

    mean: nn.Module
    grid: ActionGrid | None = None

    def __init__(self, mean: nn.Module) -> None:
        super().__init__()
        self.mean = mean

    def greedy(self, observations: Tensor) -> Tensor:
        """Return the actions [n, action_size] that are taken when the policy is used, as critics see them."""
        return torch.tanh(self.mean(observations))


class DeterministicActor(Actor):
    """One action per observation: the tanh of the network's output."""


class SpreadActor(Actor):
    """An actor with the spread of each real number, which does not depend on the observation."""

    shared: Tensor | None

    def __init__(self, mean: nn.Module, spreads: tuple[int, ...], shared: Tensor | None = None) -> None:
        """Begin with a standard deviation of 1.

        Args:
            mean: the network.
            spreads: shape of the logs of the standard deviations.
            shared: int64 [num_real], which of them each real number has, where they are shared.
        """
        super().__init__(mean)
        self.log_std = nn.Parameter(torch.zeros(spreads))
        self.register_buffer("shared", shared, persistent=False)

    def spread(self) -> Tensor:
        """Return the log of the standard deviation of each real number, [num_real]."""
        return self.log_std if self.shared is None else self.log_std.flatten().index_select(0, self.shared)


class GaussianActor(SpreadActor):
    """Gaussian with a tanh mean that depends on the observation and a spread that does not."""

    def seen_by_critics(self, actions: Tensor) -> Tensor:
        """Return the data's actions as critics see them: as they are."""
        return actions

    def log_likelihood(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return log p(action | observation) [n], summed over the action's components."""
        return gaussian_log_density(actions, torch.tanh(self.mean(observations)), self.spread())

    def log_likelihoods(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same of the real numbers, which are all, and of the choices: 0."""
        real = self.log_likelihood(observations, actions)
        return real, torch.zeros_like(real)


class MixedActor(SpreadActor):
    """Real numbers and choices together: Gaussians as above, and categorical distributions, all independent.

    The network's outputs are the means of the C real numbers, then K logits for each of the D choices. A critic sees a
    choice as a number from -1 (first) to 1 (last).
    """

    code: Tensor
    is_no_choice: Tensor
    continuous: Tensor
    discrete: Tensor
    order: Tensor

    def __init__(
        self, mean: nn.Module, spreads: tuple[int, ...], grid: ActionGrid, shared: Tensor | None = None
    ) -> None:
        super().__init__(mean, spreads, shared)
        self.grid = grid
        last = torch.from_numpy(grid.num_choices - 1).float()
        numbers = (grid.offset, grid.scale, grid.first)
        self.register_buffer("code", torch.stack([*map(torch.from_numpy, numbers), last]), persistent=False)
        is_no_choice = torch.arange(grid.values.shape[1])[None, :] > last[:, None]
        self.register_buffer("is_no_choice", is_no_choice, persistent=False)
        continuous, discrete = torch.from_numpy(grid.continuous), torch.from_numpy(grid.discrete)
        self.register_buffer("continuous", continuous, persistent=False)
        self.register_buffer("discrete", discrete, persistent=False)
        self.register_buffer("order", torch.argsort(torch.cat((continuous, discrete))), persistent=False)

    def seen_by_critics(self, actions: Tensor) -> Tensor:
        """Return the data's actions with each choice as a number from -1 to 1."""
        return self._join(actions.index_select(1, self.continuous), self._choices(actions))

    def greedy(self, observations: Tensor) -> Tensor:
        """Return means and likeliest choices, as critics see them."""
        means, logits = self._outputs(observations)
        return self._join(torch.tanh(means), logits.argmax(dim=2).float())

    def log_likelihood(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Return log p(action | observation) [n]: densities of the real numbers, probabilities of the choices."""
        real, chosen = self.log_likelihoods(observations, actions)
        return real + chosen

    def log_likelihoods(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log density of the real numbers and the log probability of the choices, both [n]."""
        means, logits = self._outputs(observations)
        chosen = functional.log_softmax(logits, dim=2).gather(2, self._choices(actions).long().unsqueeze(2))
        real = gaussian_log_density(actions.index_select(1, self.continuous), torch.tanh(means), self.spread())
        return real, chosen.sum(dim=(1, 2))

    def _outputs(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.mean(observations)
        num_real, shape = len(self.continuous), self.is_no_choice.shape
        logits = outputs[:, num_real:].reshape(len(outputs), *shape)
        return outputs[:, :num_real], logits.masked_fill(self.is_no_choice, -math.inf)

    def _choices(self, actions: Tensor) -> Tensor:
        """Return the number of each choice, float32 [n, D]."""
        offset, scale, first, last = self.code
        steps = torch.trunc(torch.addcmul(offset, actions.index_select(1, self.discrete), scale)) - first
        return torch.minimum(steps.clamp_(min=0.0), last)

    def _join(self, real: Tensor, choices: Tensor) -> Tensor:
        scaled = 2.0 * choices / self.code[3].clamp(min=1.0) - 1.0
        return torch.cat((real, scaled), dim=1).index_select(1, self.order)


LikelihoodActor = GaussianActor | MixedActor


class Sample(NamedTuple):
    """actions [..., action_size] in (-1, 1), and their log densities [...]."""

    actions: Tensor
    log_density: Tensor


class SquashedActor(Actor):
    """Tanh of a Gaussian whose mean and spread both depend on the observation (as soft actor-critic's)."""

    mean: SplitNetwork

    def __init__(self, mean: SplitNetwork, log_std: nn.Module) -> None:
        """Take the network of the mean, and one that makes logs of spreads of what its last layer is given."""
        super().__init__(mean)
        self.log_std = log_std

    def distribution(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log of the standard deviation before the tanh, both [n, action_size]."""
        hidden = self.mean.features(observations)
        return self.mean.last(hidden), self.log_std(hidden).clamp(*LOG_STD_LIMITS)


def squashed_sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> Sample:
    """Return tanh(mean + std * noise) and its log density; noise is standard normal, gradients pass to mean and std."""
    raw = mean + log_std.exp() * noise
    density = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
    # log(1 - tanh(x)^2), in the form that does not overflow.
    squash = 2.0 * (math.log(2.0) - raw - functional.softplus(-2.0 * raw))
    return Sample(torch.tanh(raw), (density - squash).sum(dim=-1))


def gaussian_log_density(values: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Return the log density [n] of values [n, size] under independent Gaussians; log_std [size] is limited."""
    limited = log_std.clamp(*LOG_STD_LIMITS)
    scaled = (values - mean) * torch.exp(-limited)
    return -0.5 * scaled.square().sum(dim=1) - limited.sum() - 0.5 * values.shape[1] * math.log(2.0 * math.pi)
