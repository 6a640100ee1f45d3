"""ReBRAC: TD3+BC with a penalty in actor and critics each, and layer normalisation in the critics.

Tarasov et al., "Revisiting the minimalist approach to offline reinforcement learning", NeurIPS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridray.algorithms.base import HAS_NEXT_ACTIONS, NEXT_ACTIONS, TRAINING_COLUMNS
from gridray.algorithms.td3_bc import Td3Networks, Td3Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gridray.algorithms.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class ReBracConfig(Td3Settings):
    """Settings of ReBRAC; the paper's batches have 1024 transitions on locomotion, its networks three hidden layers.

    actor_penalty: weight of the actor's squared distance to the data's action, against its value over the values' mean
        size (the paper's beta_1).
    critic_penalty: weight of the target action's squared distance to the data's next action in the critics' target
        (the paper's beta_2); at the end of an episode there is none.
    """

    hidden_sizes: tuple[int, ...] = (256, 256, 256)
    actor_penalty: float = 0.01
    critic_penalty: float = 0.01

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        self.check_not_negative("actor_penalty", "critic_penalty")


class ReBracNetworks(Td3Networks):
    """ReBRAC's two penalties."""

    columns = (*TRAINING_COLUMNS, NEXT_ACTIONS, HAS_NEXT_ACTIONS)

    def __init__(self, architecture: Architecture, config: ReBracConfig) -> None:
        super().__init__(architecture, config, layer_norm=True)
        self._config = config

    def actor_loss(self, actions: Tensor, values: Tensor, data_actions: Tensor) -> Tensor:
        """Return actor_penalty * (action - data)^2 - min Q / mean |min Q|."""
        least = values.amin(dim=0)
        distance = (actions - data_actions).square().sum(dim=1)
        weight = 1.0 / least.detach().abs().mean().clamp(min=1e-8)
        return (self._config.actor_penalty * distance - weight * least).mean()

    def next_penalty(self, batch: Mapping[str, Tensor], next_actions: Tensor) -> Tensor:
        """Return critic_penalty * (next action - data)^2, [n]."""
        distance = (next_actions - batch[NEXT_ACTIONS]).square().sum(dim=1)
        return self._config.critic_penalty * batch[HAS_NEXT_ACTIONS] * distance
