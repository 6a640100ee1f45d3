"""Advantage-weighted regression: behaviour cloning in which actions that turned out well weigh more.

Peng et al., "Advantage-weighted regression", arXiv:1910.00177; Wang et al., "Exponentially weighted imitation learning
for batched historical data", NeurIPS 2018 (MARWIL), from which the scale of the advantages is. The value function is
that of the behaviour policy, learnt by one-step temporal differences: no whole episodes are needed, so that rows can
stream in any order. The advantage is r + discount * V(s') - V(s), or what a critic expects of it, as critics do in Nair
et al., "AWAC", arXiv:2006.09359.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from gridray.algorithms.gradient import Networks, Step
from gridray.algorithms.networks import Targets, frozen_copy
from gridray.algorithms.settings import ActionHead, ValueSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gridray.algorithms.actors import LikelihoodActor
    from gridray.algorithms.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class AwrConfig(ValueSettings):
    """Settings of advantage-weighted regression.

    temperature: how sharply the actor prefers actions of high advantage, in units of the advantages' root mean square;
        0 is behaviour cloning.
    choice_temperature: the same for actions that are choices (of a mixed head); none: that of all others. 0 clones
        them: where taps were recorded without noise there is nothing better in the data, and the error of the value
        function would only tell against whatever costs at once and spares later.
    advantage: "sampled" is what the row itself gave; "learnt" what a critic expects of such a state and action, over
        what it expects of the policy's own: chance in the row, such as a cloud, moves it less, so that small
        differences between actions count. Temperatures are in units of its own root mean square.
    max_advantage_weight: upper limit of an action's weight.
    scale_rate: share by which the advantages' mean square moves to that of a batch.
    action_head: "mixed" makes whole steps, switches and levels choices; "continuous" treats them as real numbers.
    """

    temperature: float = 1.0
    choice_temperature: float | None = None
    advantage: Literal["sampled", "learnt"] = "sampled"
    max_advantage_weight: float = 20.0
    scale_rate: float = 0.01
    action_head: ActionHead = "continuous"

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        self.check_positive("max_advantage_weight")
        self.check_not_negative("temperature")
        if self.choice_temperature is not None:
            self.check_not_negative("choice_temperature")
        self.check_share("scale_rate")


class AwrNetworks(Networks):
    """Actor, value function with its target, and the two losses."""

    has_mixed_actions: ClassVar[bool] = True
    actor: LikelihoodActor
    advantage_square: Tensor
    learnt_square: Tensor

    def __init__(self, architecture: Architecture, config: AwrConfig) -> None:
        super().__init__()
        self.normaliser = architecture.normalisation()
        self.actor = architecture.likelihood_actor()
        self.value = architecture.value()
        self.target_value = frozen_copy(self.value)
        self.register_buffer("advantage_square", torch.ones(1))
        if config.advantage == "learnt":
            self.critic = architecture.twin_critic()
            self.register_buffer("learnt_square", torch.ones(1))
        self._config = config
        self._targets = Targets((self.target_value, self.value))
        self._batch_square = torch.ones(1)
        self._learnt_batch_square = torch.ones(1)

    def losses(self, batch: Mapping[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Return the losses of value function and actor, means over the batch."""
        del step
        config = self._config
        observations = self.normaliser.observations(batch["obs"])
        with torch.no_grad():
            next_value = self.target_value(self.normaliser.observations(batch["new_obs"])).squeeze(1)
            rewards = self.normaliser.rewards(batch["rewards"])
            returns = rewards + config.discount * (1.0 - batch["terminateds"]) * next_value
        advantage = returns - self.value(observations).squeeze(1)
        value_loss = advantage.square().mean()
        self._batch_square = value_loss.detach()
        scaled = advantage.detach() / self.advantage_square.sqrt()
        losses = {"value_loss": value_loss}
        if config.advantage == "learnt":
            losses["critic_loss"], scaled = self._learnt(observations, batch["actions"], scaled)
        real, chosen = self.actor.log_likelihoods(observations, batch["actions"])
        likelihood = self._weight(scaled, config.temperature) * real
        choice_temperature = config.temperature if config.choice_temperature is None else config.choice_temperature
        likelihood = likelihood + self._weight(scaled, choice_temperature) * chosen
        return losses | {"actor_loss": -likelihood.mean()}

    def _learnt(self, observations: Tensor, actions: Tensor, sampled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the critics' loss, and what they expect of the advantages [n] beyond the policy's, in its scale."""
        expected = self.critic(observations, self.actor.seen_by_critics(actions))
        with torch.no_grad():
            gain = (expected - self.critic(observations, self.actor.greedy(observations))).mean(dim=0)
        self._learnt_batch_square = gain.square().mean()
        return (expected - sampled).square().mean(dim=1).sum(), gain / self.learnt_square.sqrt()

    def _weight(self, scaled: Tensor, temperature: float) -> Tensor:
        """Return how much each action [n] counts in the actor's loss."""
        return torch.exp(temperature * scaled).clamp_(max=self._config.max_advantage_weight)

    def follow(self, num_updates: int) -> None:
        """Move the target value function, and the scale of the advantages."""
        del num_updates
        self._targets.follow(self._config.target_rate)
        self.advantage_square.lerp_(self._batch_square, self._config.scale_rate).clamp_(min=1e-8)
        if self._config.advantage == "learnt":
            self.learnt_square.lerp_(self._learnt_batch_square, self._config.scale_rate).clamp_(min=1e-8)
