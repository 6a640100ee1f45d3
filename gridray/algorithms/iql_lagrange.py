"""Implicit Q-learning under a budget of a named cost: a multiplier prices the cost in the actor's weights.

The reward's side is IQL (see `gridray.algorithms.iql`). A pair of cost critics learns what the present policy costs, as
fitted Q evaluation does, and the greater of the two counts: never optimism about a cost. The actor's weights are
exp(temperature * (A_r - multiplier * A_c) / (1 + multiplier)), with A_c(s, a) = Q_c(s, a) - Q_c(s, policy(s)); the
multiplier rises while the policy's mean cost per step is above the budget and falls below it (dual gradient ascent, as
in Tessler et al., "Reward constrained policy optimization", ICLR 2019). The actor still learns from the data's actions
only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gridray.algorithms.base import TRAINING_COLUMNS
from gridray.algorithms.iql import IqlConfig, IqlNetworks
from gridray.algorithms.networks import Targets, frozen_copy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gridray.algorithms.architecture import Architecture
    from gridray.algorithms.gradient import Step


@dataclass(frozen=True, kw_only=True)
class IqlLagrangeConfig(IqlConfig):
    """Settings of implicit Q-learning under a budget.

    cost: name of the cost, without `cost_`, as the dataset's card lists it.
    budget: the most of it that `budget_steps` steps together may have, in its own unit, on average: for a budget per
        day give the day's number of steps.
    multiplier_rate: step size of the multiplier per update, for an excess of one standard deviation of the cost.
    max_multiplier: upper limit of the multiplier, in standard deviations of the reward per one of the cost.
    """

    cost: str = "voltage_violation_pu"
    budget: float = 0.0
    budget_steps: int = 1
    multiplier_rate: float = 0.01
    max_multiplier: float = 20.0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        self.check_not_negative("budget")
        self.check_at_least_one("budget_steps")
        self.check_positive("multiplier_rate", "max_multiplier")


class IqlLagrangeNetworks(IqlNetworks):
    """IQL's networks, twin cost critics with their targets, and the multiplier."""

    multiplier: Tensor

    def __init__(self, architecture: Architecture, config: IqlLagrangeConfig) -> None:
        super().__init__(architecture, config)
        self.normaliser = architecture.normalisation(has_cost=True)
        self.cost_critic = architecture.twin_critic()
        self.target_cost_critic = frozen_copy(self.cost_critic)
        self.register_buffer("multiplier", torch.zeros(1))
        self.cost_column = f"cost_{config.cost}"
        self.columns = (*TRAINING_COLUMNS, self.cost_column)
        self._settings = config
        self._cost_targets = Targets((self.target_cost_critic, self.cost_critic))
        self._excess = torch.zeros(1)

    def losses(self, batch: Mapping[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Return IQL's losses and that of the cost critics, means over the batch."""
        del step
        observations = self.normaliser.observations(batch["obs"])
        losses, advantage = self.value_losses(batch, observations)
        cost_loss, extra_cost = self._cost(batch, observations)
        priced = (advantage - self.multiplier * extra_cost) / (1.0 + self.multiplier)
        log_likelihood = self.actor.log_likelihood(observations, batch["actions"])
        actor_loss = -(self.action_weight(priced) * log_likelihood).mean()
        return losses | {"cost_critic_loss": cost_loss, "actor_loss": actor_loss}

    def follow(self, num_updates: int) -> None:
        """Move all target critics, and the multiplier by the excess over the budget."""
        super().follow(num_updates)
        self._cost_targets.follow(self._settings.target_rate)
        self.multiplier.add_(self._settings.multiplier_rate * self._excess).clamp_(0.0, self._settings.max_multiplier)

    def reports(self) -> dict[str, Tensor]:
        """Return the multiplier, and the cost expected over the steps of the budget, in the unit of the cost."""
        config = self._settings
        expected = self._excess * self.normaliser.cost_std * config.budget_steps + config.budget
        return {"multiplier": self.multiplier.squeeze(), "expected_cost": expected.squeeze()}

    def _cost(self, batch: Mapping[str, Tensor], observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cost critics' loss, and by how much each action [n] costs more than the policy's."""
        config, column = self._settings, self.cost_column or ""
        actions = self.actor.seen_by_critics(batch["actions"])
        with torch.no_grad():
            following = self.normaliser.observations(batch["new_obs"])
            next_cost = self.target_cost_critic(following, self.actor.greedy(following)).amax(dim=0)
            costs = batch[column] / self.normaliser.cost_std
            totals = costs + config.discount * (1.0 - batch["terminateds"]) * next_cost
            policy_cost = self.cost_critic(observations, self.actor.greedy(observations)).amax(dim=0)
            budget = config.budget / config.budget_steps / self.normaliser.cost_std
            self._excess = (1.0 - config.discount) * policy_cost.mean() - budget
        values = self.cost_critic(observations, actions)
        extra = values.detach().amax(dim=0) - policy_cost
        return (values - totals).square().mean(dim=1).sum(), extra
