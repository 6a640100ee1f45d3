"""TD3+BC: the deterministic actor that maximises Q and stays near the data.

Fujimoto and Gu, "A minimalist approach to offline reinforcement learning", NeurIPS 2021. The gradient passes through
the action, so that whole steps and switches are treated as real numbers, which the task rounds; a task of levels is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gridray.algorithms.gradient import Networks, Step
from gridray.algorithms.networks import Targets, frozen_copy
from gridray.algorithms.settings import ValueSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridray.algorithms.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class Td3Settings(ValueSettings):
    """Settings of algorithms with a deterministic actor.

    policy_delay: updates of the critics for one of the actor and the targets.
    target_noise: standard deviation of the noise on the target actor's action.
    target_noise_limit: the noise is clipped to this.
    """

    policy_delay: int = 2
    target_noise: float = 0.2
    target_noise_limit: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        self.check_at_least_one("policy_delay")
        self.check_not_negative("target_noise", "target_noise_limit")


@dataclass(frozen=True, kw_only=True)
class Td3BcConfig(Td3Settings):
    """Settings of TD3+BC.

    value_weight: weight of the critics' value, which is divided by its mean size, against the squared distance to the
        data's action (the paper's alpha).
    """

    value_weight: float = 2.5

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        self.check_not_negative("value_weight")


class Td3Networks(Networks):
    """Actor and twin critics with their targets; a subclass adds the penalties that keep the actor near the data."""

    def __init__(self, architecture: Architecture, config: Td3Settings, *, layer_norm: bool) -> None:
        super().__init__()
        self.normaliser = architecture.normalisation()
        self.actor = architecture.deterministic_actor()
        self.critic = architecture.twin_critic(layer_norm=layer_norm)
        self.target_actor = frozen_copy(self.actor)
        self.target_critic = frozen_copy(self.critic)
        self._td3 = config
        self._targets = Targets((self.target_critic, self.critic), (self.target_actor, self.actor))

    def actor_loss(self, actions: Tensor, values: Tensor, data_actions: Tensor) -> Tensor:
        """Return the actor's loss; values [2, n] are those of its actions [n, action_size]."""
        raise NotImplementedError

    def next_penalty(self, batch: Mapping[str, Tensor], next_actions: Tensor) -> Tensor | float:
        """Return what is subtracted from the value [n] of the next actions."""
        del batch, next_actions
        return 0.0

    def losses(self, batch: Mapping[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Return the critics' loss, and every policy_delay updates the actor's, means over the batch."""
        config = self._td3
        observations = self.normaliser.observations(batch["obs"])
        with torch.no_grad():
            following = self.normaliser.observations(batch["new_obs"])
            next_actions = self.target_actor.greedy(following)
            noise = torch.randn(next_actions.shape, generator=step.generator, device=next_actions.device)
            noise = (config.target_noise * noise).clamp(-config.target_noise_limit, config.target_noise_limit)
            next_actions = (next_actions + noise).clamp(-1.0, 1.0)
            next_value = self.target_critic(following, next_actions).amin(dim=0)
            next_value = next_value - self.next_penalty(batch, next_actions)
            rewards = self.normaliser.rewards(batch["rewards"])
            returns = rewards + config.discount * (1.0 - batch["terminateds"]) * next_value
        # The sum of both critics' mean squared errors.
        errors = self.critic(observations, batch["actions"]) - returns
        losses = {"critic_loss": errors.square().mean(dim=1).sum()}
        if self._moves_actor(step.num_updates):
            actions = self.actor.greedy(observations)
            losses["actor_loss"] = self.actor_loss(actions, self.critic.frozen(observations, actions), batch["actions"])
        return losses

    def follow(self, num_updates: int) -> None:
        """Move the targets, as often as the actor moves."""
        if self._moves_actor(num_updates):
            self._targets.follow(self._td3.target_rate)

    def _moves_actor(self, num_updates: int) -> bool:
        return (num_updates + 1) % self._td3.policy_delay == 0


class Td3BcNetworks(Td3Networks):
    """TD3+BC's actor loss: -value_weight * Q / mean |Q| + (action - data)^2, of the first critic."""

    def __init__(self, architecture: Architecture, config: Td3BcConfig) -> None:
        super().__init__(architecture, config, layer_norm=False)
        self._config = config

    def actor_loss(self, actions: Tensor, values: Tensor, data_actions: Tensor) -> Tensor:
        """Return the paper's equation 3 with the weight of equation 5, with the sign of a loss."""
        first = values[0]
        weight = self._config.value_weight / first.detach().abs().mean().clamp(min=1e-8)
        return (actions - data_actions).square().mean() - weight * first.mean()
