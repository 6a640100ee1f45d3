"""Behaviour cloning: the actor that makes the recorded actions most likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gridray.algorithms.gradient import Networks
from gridray.algorithms.networks import GaussianActor, Normalisation
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BcConfig:
    """Settings of behaviour cloning.

    hidden_sizes: widths of the actor's hidden layers.
    learning_rate: step size of Adam.
    device: torch device, such as "cpu" or "cuda".
    """

    hidden_sizes: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.hidden_sizes, default=1) < 1:
            raise ConfigError(f"hidden_sizes is {list(self.hidden_sizes)}: give widths of 1 or more")
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}: give a number above 0")


class BcNetworks(Networks):
    """Actor and its negative log-likelihood."""

    def __init__(self, observation_size: int, action_size: int, config: BcConfig) -> None:
        super().__init__()
        self.normaliser = Normalisation(observation_size)
        self.actor = GaussianActor(observation_size, action_size, config.hidden_sizes)

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean negative log-likelihood of the batch's actions, in nats."""
        observations = self.normaliser.observations(batch["obs"])
        return {"actor_loss": -self.actor.log_likelihood(observations, batch["actions"]).mean()}
