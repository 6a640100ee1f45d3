"""Conservative Q-learning on soft actor-critic: values of actions outside the data are pushed down.

Kumar et al., "Conservative Q-learning for offline reinforcement learning", NeurIPS 2020: CQL(H) with a fixed weight,
10 samples each of the uniform distribution and of the actor at s and at s', and the actor's mean action, without
entropy, in the critics' target. Haarnoja et al., arXiv:1812.05905, for the actor and its entropy's weight. Whole steps
and switches are treated as real numbers, which the task rounds; a task of levels is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gridray.algorithms.actors import SquashedActor, squashed_sample
from gridray.algorithms.gradient import Networks, Step
from gridray.algorithms.networks import Targets, frozen_copy
from gridray.algorithms.settings import ValueSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridray.algorithms.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class CqlConfig(ValueSettings):
    """Settings of conservative Q-learning.

    actor_learning_rate: step size of the actor; learning_rate is that of the rest.
    conservative_weight: weight of the conservative term against the squared error.
    num_action_samples: actions drawn of each of the three distributions.
    target_entropy: the actor's entropy is held at this, nats; none: minus the number of action components.
    """

    actor_learning_rate: float = 1e-4
    conservative_weight: float = 5.0
    num_action_samples: int = 10
    target_entropy: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        self.check_positive("actor_learning_rate")
        self.check_not_negative("conservative_weight")
        self.check_at_least_one("num_action_samples")


class CqlNetworks(Networks):
    """Actor, twin critics with their targets, weight of the entropy, and the four losses."""

    def __init__(self, architecture: Architecture, config: CqlConfig) -> None:
        super().__init__()
        self.normaliser = architecture.normalisation()
        self.actor: SquashedActor = architecture.squashed_actor()
        self.critic = architecture.twin_critic()
        self.target_critic = frozen_copy(self.critic)
        self.log_entropy_weight = nn.Parameter(torch.zeros(1))
        self._config = config
        self._target_entropy = (
            -float(architecture.action_size) if config.target_entropy is None else config.target_entropy
        )
        self._targets = Targets((self.target_critic, self.critic))

    def losses(self, batch: Mapping[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Return the losses of critics (squared error, conservative), actor and entropy's weight."""
        config = self._config
        observations = self.normaliser.observations(batch["obs"])
        following = self.normaliser.observations(batch["new_obs"])
        mean, log_std = self.actor.distribution(observations)
        with torch.no_grad():
            next_mean, next_log_std = self.actor.distribution(following)
            next_value = self.target_critic(following, torch.tanh(next_mean)).amin(dim=0)
            rewards = self.normaliser.rewards(batch["rewards"])
            returns = rewards + config.discount * (1.0 - batch["terminateds"]) * next_value
        noise = torch.randn(mean.shape, generator=step.generator, device=mean.device)
        own = squashed_sample(mean, log_std, noise)
        least = self.critic.frozen(observations, own.actions).amin(dim=0)
        entropy_weight = self.log_entropy_weight.exp()
        data_values = self.critic(observations, batch["actions"])
        spread = torch.stack((torch.cat((mean, next_mean), dim=1), torch.cat((log_std, next_log_std), dim=1))).detach()
        others = self._log_sum_exp(observations, spread, step.generator)
        return {
            # The sums over both critics of means over the batch.
            "critic_loss": (data_values - returns).square().mean(dim=1).sum(),
            "conservative_loss": config.conservative_weight * (others - data_values.mean(dim=1).sum()),
            "actor_loss": (entropy_weight.detach() * own.log_density - least).mean(),
            "entropy_loss": -(entropy_weight * (own.log_density.detach().mean() + self._target_entropy)).sum(),
        }

    def actor_rate(self, num_updates: int) -> float:
        """Return the actor's share of the learning rate."""
        del num_updates
        return self._config.actor_learning_rate / self._config.learning_rate

    def follow(self, num_updates: int) -> None:
        """Move the target critics towards the critics."""
        del num_updates
        self._targets.follow(self._config.target_rate)

    def _log_sum_exp(self, observations: Tensor, spread: Tensor, generator: torch.Generator) -> Tensor:
        """Return log sum exp(Q - log density) over the sampled actions, summed over critics, mean over the batch.

        spread: [2, n, 2 * action_size], means and logs of the standard deviations at s and at s'.
        """
        num_samples, num_rows, size = self._config.num_action_samples, len(observations), spread.shape[2] // 2
        # [n, 2 states, samples, size]
        mean, log_std = spread.view(2, num_rows, 2, 1, size)
        options: dict[str, Any] = {"generator": generator, "device": observations.device}
        drawn = squashed_sample(mean, log_std, torch.randn(num_rows, 2, num_samples, size, **options))
        uniform = torch.rand(num_rows, num_samples, size, **options).mul_(2.0).sub_(1.0)
        actions = torch.cat((drawn.actions.flatten(1, 2), uniform), dim=1)
        uniform_density = torch.full((num_rows, num_samples), -size * math.log(2.0), device=observations.device)
        densities = torch.cat((drawn.log_density.flatten(1, 2), uniform_density), dim=1)
        return self.critic.mean_log_sum_exp(observations, actions, densities)
