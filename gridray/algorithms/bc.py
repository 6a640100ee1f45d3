"""Behaviour cloning: the actor that makes the recorded actions most likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gridray.algorithms.gradient import Networks, Step
from gridray.algorithms.settings import ActionHead, NetworkSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gridray.algorithms.actors import LikelihoodActor
    from gridray.algorithms.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class BcConfig(NetworkSettings):
    """Settings of behaviour cloning.

    action_head: "mixed" makes whole steps, switches and levels choices; "continuous" treats them as real numbers.
    """

    action_head: ActionHead = "continuous"


class BcNetworks(Networks):
    """Actor and its negative log-likelihood."""

    has_mixed_actions: ClassVar[bool] = True
    actor: LikelihoodActor
    columns = ("obs", "actions")

    def __init__(self, architecture: Architecture, config: BcConfig) -> None:
        super().__init__()
        del config
        self.normaliser = architecture.normalisation()
        self.actor = architecture.likelihood_actor()

    def losses(self, batch: Mapping[str, Tensor], step: Step) -> dict[str, Tensor]:
        """Return the mean negative log-likelihood of the batch's actions, in nats."""
        del step
        observations = self.normaliser.observations(batch["obs"])
        return {"actor_loss": -self.actor.log_likelihood(observations, batch["actions"]).mean()}
