"""Implicit Q-learning: no action outside the data is ever valued.

Kostrikov, Nair and Levine, "Offline reinforcement learning with implicit Q-learning", ICLR 2022.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gridray.algorithms.gradient import Networks
from gridray.algorithms.networks import GaussianActor, Mlp, Normalisation, TwinCritic
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class IqlConfig:
    """Settings of implicit Q-learning.

    hidden_sizes: widths of the hidden layers of actor, critics and value function.
    learning_rate: step size of Adam.
    discount: weight of the next interval's value; 0.95 looks some 20 intervals ahead (5 h of 15 min).
    expectile: in (0.5, 1); nearer to 1 comes nearer to the best action in the data.
    temperature: how sharply the actor prefers actions of high advantage, in units of the rewards' standard deviation.
    max_advantage_weight: upper limit of an action's weight.
    target_rate: share by which the target critics move to the critics per update.
    actor_decay_updates: updates over which the actor's step size falls to 0 along a cosine; none: it stays.
    device: torch device, such as "cpu" or "cuda".
    """

    hidden_sizes: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    discount: float = 0.95
    expectile: float = 0.7
    temperature: float = 3.0
    max_advantage_weight: float = 100.0
    target_rate: float = 5e-3
    actor_decay_updates: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.hidden_sizes, default=1) < 1:
            raise ConfigError(f"hidden_sizes is {list(self.hidden_sizes)}: give widths of 1 or more")
        for name in ("learning_rate", "temperature", "max_advantage_weight"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0")
        if not 0.0 <= self.discount < 1.0:
            raise ConfigError(f"discount is {self.discount}: give a number from 0 to below 1")
        if not 0.0 < self.expectile < 1.0:
            raise ConfigError(f"expectile is {self.expectile}: give a number between 0 and 1")
        if not 0.0 < self.target_rate <= 1.0:
            raise ConfigError(f"target_rate is {self.target_rate}: give a number above 0, up to 1")
        if self.actor_decay_updates is not None and self.actor_decay_updates < 1:
            raise ConfigError(f"actor_decay_updates is {self.actor_decay_updates}: give 1 or more, or leave it out")


class IqlNetworks(Networks):
    """Actor, twin critics with their targets, value function, and the three losses."""

    def __init__(self, observation_size: int, action_size: int, config: IqlConfig) -> None:
        super().__init__()
        self.normaliser = Normalisation(observation_size)
        self.actor = GaussianActor(observation_size, action_size, config.hidden_sizes)
        self.critic = TwinCritic(observation_size, action_size, config.hidden_sizes)
        self.target_critic = deepcopy(self.critic).requires_grad_(requires_grad=False)
        self.value = Mlp((observation_size, *config.hidden_sizes, 1))
        self._config = config
        self._target_pairs: tuple[list[Tensor], list[Tensor]] = (
            list(self.target_critic.parameters()),
            list(self.critic.parameters()),
        )

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the losses of value function, critics and actor, means over the batch."""
        config = self._config
        observations = self.normaliser.observations(batch["obs"])
        actions = batch["actions"]
        with torch.no_grad():
            next_value = self.value(self.normaliser.observations(batch["new_obs"])).squeeze(1)
            rewards = self.normaliser.rewards(batch["rewards"])
            returns = rewards + config.discount * (1.0 - batch["terminateds"]) * next_value
            target = self.target_critic(observations, actions).amin(dim=0)
        advantage = target - self.value(observations).squeeze(1)
        above = advantage.detach() > 0.0
        expectile = torch.where(above, config.expectile, 1.0 - config.expectile)
        weight = torch.exp(config.temperature * advantage.detach()).clamp_(max=config.max_advantage_weight)
        log_likelihood = self.actor.log_likelihood(observations, actions)
        return {
            "value_loss": (expectile * advantage.square()).mean(),
            # The sum of both critics' mean squared errors.
            "critic_loss": (self.critic(observations, actions) - returns).square().mean(dim=1).sum(),
            "actor_loss": -(weight * log_likelihood).mean(),
        }

    def actor_rate(self, num_updates: int) -> float:
        """Return the cosine's value, or 1 without decay."""
        decay = self._config.actor_decay_updates
        return 1.0 if decay is None else 0.5 * (1.0 + math.cos(math.pi * min(num_updates / decay, 1.0)))

    def follow(self) -> None:
        """Move the target critics towards the critics."""
        targets, sources = self._target_pairs
        with torch.no_grad():
            torch._foreach_lerp_(targets, sources, self._config.target_rate)  # torch's only batched lerp
