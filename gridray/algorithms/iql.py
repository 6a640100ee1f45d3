"""Implicit Q-learning: no action outside the data is ever valued.

Kostrikov, Nair and Levine, "Offline reinforcement learning with implicit Q-learning", ICLR 2022.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from gridray.algorithms.gradient import Networks, Step
from gridray.algorithms.networks import Targets, frozen_copy
from gridray.algorithms.settings import ActionHead, ValueSettings
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gridray.algorithms.actors import LikelihoodActor
    from gridray.algorithms.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class IqlConfig(ValueSettings):
    """Settings of implicit Q-learning.

    expectile: in (0.5, 1); nearer to 1 comes nearer to the best action in the data.
    temperature: how sharply the actor prefers actions of high advantage, in units of the rewards' standard deviation.
    max_advantage_weight: upper limit of an action's weight.
    actor_decay_updates: updates over which the actor's step size falls to 0 along a cosine; none: it stays.
    action_head: "mixed" makes whole steps, switches and levels choices; "continuous" treats them as real numbers.
    """

    expectile: float = 0.7
    temperature: float = 3.0
    max_advantage_weight: float = 100.0
    actor_decay_updates: int | None = None
    action_head: ActionHead = "continuous"

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        self.check_positive("temperature", "max_advantage_weight")
        if not 0.0 < self.expectile < 1.0:
            raise ConfigError(f"expectile is {self.expectile}: give a number between 0 and 1")
        if self.actor_decay_updates is not None:
            self.check_at_least_one("actor_decay_updates")


class IqlNetworks(Networks):
    """Actor, twin critics with their targets, value function, and the three losses."""

    has_mixed_actions: ClassVar[bool] = True
    actor: LikelihoodActor

    def __init__(self, architecture: Architecture, config: IqlConfig) -> None:
        super().__init__()
        self.normaliser = architecture.normalisation()
        self.actor = architecture.likelihood_actor()
        self.critic = architecture.twin_critic()
        self.target_critic = frozen_copy(self.critic)
        self.value = architecture.value()
        self._config = config
        self._targets = Targets((self.target_critic, self.critic))

    def losses(self, batch: Mapping[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Return the losses of value function, critics and actor, means over the batch."""
        del step
        observations = self.normaliser.observations(batch["obs"])
        losses, advantage = self.value_losses(batch, observations)
        weight = self.action_weight(advantage)
        log_likelihood = self.actor.log_likelihood(observations, batch["actions"])
        return losses | {"actor_loss": -(weight * log_likelihood).mean()}

    def value_losses(self, batch: Mapping[str, Tensor], observations: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses of value function and critics, and the advantages [n] without gradients."""
        config = self._config
        actions = self.actor.seen_by_critics(batch["actions"])
        with torch.no_grad():
            next_value = self.value(self.normaliser.observations(batch["new_obs"])).squeeze(1)
            rewards = self.normaliser.rewards(batch["rewards"])
            returns = rewards + config.discount * (1.0 - batch["terminateds"]) * next_value
            target = self.target_critic(observations, actions).amin(dim=0)
        advantage = target - self.value(observations).squeeze(1)
        expectile = torch.where(advantage.detach() > 0.0, config.expectile, 1.0 - config.expectile)
        losses = {
            "value_loss": (expectile * advantage.square()).mean(),
            # The sum of both critics' mean squared errors.
            "critic_loss": (self.critic(observations, actions) - returns).square().mean(dim=1).sum(),
        }
        return losses, advantage.detach()

    def action_weight(self, advantage: Tensor) -> Tensor:
        """Return how much each action [n] counts in the actor's loss."""
        return torch.exp(self._config.temperature * advantage).clamp(max=self._config.max_advantage_weight)

    def actor_rate(self, num_updates: int) -> float:
        """Return the cosine's value, or 1 without decay."""
        decay = self._config.actor_decay_updates
        return 1.0 if decay is None else 0.5 * (1.0 + math.cos(math.pi * min(num_updates / decay, 1.0)))

    def follow(self, num_updates: int) -> None:
        """Move the target critics towards the critics."""
        del num_updates
        self._targets.follow(self._config.target_rate)
