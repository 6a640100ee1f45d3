"""FEDORA at the client: TD3+BC that believes the better of two critics and stays near the global policy.

Rengarajan et al., "Federated ensemble-directed offline reinforcement learning", NeurIPS 2024, algorithm 1. The
ensemble's weights are the server's part, `gridray.federated.aggregators.fedora`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gridray.algorithms.architecture import FlatArchitecture
from gridray.algorithms.gradient import GradientLearner, Step
from gridray.algorithms.networks import frozen_copy
from gridray.algorithms.registry import task_architecture
from gridray.algorithms.td3_bc import Td3BcConfig, Td3BcNetworks
from gridray.config import parse_config
from gridray.federated.local.config import ENSEMBLE_ALGORITHM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gridray.algorithms.actors import Actor
    from gridray.algorithms.architecture import Architecture
    from gridray.algorithms.networks import Critic
    from gridray.federated.local.config import EnsembleConfig
    from gridray.tasks.base import Task


class FedoraNetworks(Td3BcNetworks):
    """TD3+BC's networks and a frozen pair, the global actor and critics, that is no part of the weights."""

    def __init__(self, architecture: Architecture, config: Td3BcConfig, ensemble: EnsembleConfig) -> None:
        super().__init__(architecture, config)
        self._ensemble = ensemble
        self._decay = 1.0
        self.take_reference(decay=1.0)

    def take_reference(self, *, decay: float) -> None:
        """Take the present actor and critics, which have just come from the server, as the global ones.

        Args:
            decay: factor on the local part of the actor's loss.
        """
        # In a tuple, so that torch does not count them among the weights.
        self._reference: tuple[Actor, Critic] = (frozen_copy(self.actor), frozen_copy(self.critic))
        self._decay = decay

    def losses(self, batch: Mapping[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Return TD3+BC's losses with the changes below."""
        with torch.no_grad():
            self._global_actions = self._reference[0].greedy(self.normaliser.observations(batch["obs"]))
        return super().losses(batch, step)

    def next_penalty(self, batch: Mapping[str, Tensor], next_actions: Tensor) -> Tensor | float:
        """Return own value minus the better of own and global value, never above 0: federated optimism."""
        if not self._ensemble.optimism:
            return 0.0
        following = self.normaliser.observations(batch["new_obs"])
        own = self.target_critic(following, next_actions).amin(dim=0)
        ours: Tensor = own - self._reference[1](following, next_actions).amin(dim=0)
        return ours.clamp(max=0.0)

    def actor_loss(self, actions: Tensor, values: Tensor, data_actions: Tensor) -> Tensor:
        """Return the decayed local loss and the squared distance to the global policy's actions."""
        distance = (actions - self._global_actions).square().mean()
        return self._decay * super().actor_loss(actions, values, data_actions) + self._ensemble.actor_anchor * distance


class FedoraClient:
    """Learner of one client and the decay of its local loss."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        task: Task | tuple[int, int],
        ensemble: EnsembleConfig,
        *,
        seed: int,
    ) -> None:
        """Make a learner whose first weights are those of a TD3+BC learner of the same seed.

        Args:
            settings: configuration of TD3+BC.
            task: what is learnt; for a flat policy, its numbers of observations and of actions are enough.
            ensemble: FEDORA's own settings.
            seed: decides first weights and random numbers.
        """
        config = parse_config(Td3BcConfig, dict(settings), where=f"algorithm '{ENSEMBLE_ALGORITHM}'")
        architecture = (
            FlatArchitecture(*task, config.hidden_sizes)
            if isinstance(task, tuple)
            else task_architecture(ENSEMBLE_ALGORITHM, config, task)
        )
        torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._networks = FedoraNetworks(architecture, config, ensemble)
        self.learner = GradientLearner(ENSEMBLE_ALGORITHM, self._networks, config, architecture, seed=seed)
        self.decay = 1.0
        self._factor = ensemble.decay
        self._global_value = 0.0

    def begin(self, value: float) -> None:
        """Begin a round with the global weights in the learner, whose value on the client's own data is given."""
        self._global_value = value
        self._networks.take_reference(decay=self.decay)

    def end(self, value: float) -> None:
        """End a round: local training that was not worth it counts less from now on."""
        if self._global_value >= value:
            self.decay *= self._factor
