"""The networks that algorithms are made of, in one shape: each algorithm asks for its parts and knows no sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from torch import nn

from gridray.algorithms.actors import DeterministicActor, GaussianActor, MixedActor, SquashedActor
from gridray.algorithms.networks import Mlp, Normalisation, TwinCritic

if TYPE_CHECKING:
    from gridray.algorithms.actions import ActionGrid
    from gridray.algorithms.actors import LikelihoodActor
    from gridray.algorithms.device_layout import DeviceLayout
    from gridray.algorithms.networks import Critic


class Architecture(Protocol):
    """Where an algorithm's networks come from.

    observation_size, action_size: of the task; layout: of its devices, where the networks are over them.
    """

    @property
    def observation_size(self) -> int:
        """Number of observations."""
        ...

    @property
    def action_size(self) -> int:
        """Number of actions."""
        ...

    @property
    def layout(self) -> DeviceLayout | None:
        """Devices of the task."""
        ...

    def normalisation(self, *, has_cost: bool = False) -> Normalisation:
        """Return scales that change nothing yet."""
        ...

    def likelihood_actor(self) -> LikelihoodActor:
        """Return the actor of an algorithm that only needs likelihoods."""
        ...

    def deterministic_actor(self) -> DeterministicActor:
        """Return an actor with one action per observation."""
        ...

    def squashed_actor(self) -> SquashedActor:
        """Return a soft actor."""
        ...

    def twin_critic(self, *, layer_norm: bool = False) -> Critic:
        """Return twin critics."""
        ...

    def value(self) -> nn.Module:
        """Return a value function, normalised observations to [n, 1]."""
        ...


class FlatArchitecture(NamedTuple):
    """MLPs on one vector of observations: for one feeder.

    grid: of a mixed head, which alone can choose.
    """

    observation_size: int
    action_size: int
    hidden_sizes: tuple[int, ...]
    grid: ActionGrid | None = None
    layout: None = None

    def normalisation(self, *, has_cost: bool = False) -> Normalisation:
        """Return scales that change nothing yet."""
        return Normalisation(self.observation_size, has_cost=has_cost)

    def likelihood_actor(self) -> LikelihoodActor:
        """Return a mixed actor where there is a grid, else a Gaussian one."""
        if self.grid is None:
            return GaussianActor(self._mlp(self.action_size), (self.action_size,))
        return MixedActor(self._mlp(self.grid.num_outputs), (len(self.grid.continuous),), self.grid)

    def deterministic_actor(self) -> DeterministicActor:
        """Return an actor with one action per observation."""
        return DeterministicActor(self._mlp(self.action_size))

    def squashed_actor(self) -> SquashedActor:
        """Return a soft actor."""
        mean = self._mlp(self.action_size)
        width = (self.observation_size, *self.hidden_sizes)[-1]
        return SquashedActor(mean, nn.Linear(width, self.action_size))

    def twin_critic(self, *, layer_norm: bool = False) -> TwinCritic:
        """Return twin critics."""
        return TwinCritic(self.observation_size, self.action_size, self.hidden_sizes, layer_norm=layer_norm)

    def value(self) -> Mlp:
        """Return a value function."""
        return self._mlp(1)

    def _mlp(self, num_outputs: int) -> Mlp:
        return Mlp((self.observation_size, *self.hidden_sizes, num_outputs))
