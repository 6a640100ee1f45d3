"""What every controller is: utility controls, droop, random, trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Policy(Protocol):
    """Controller that maps a batch of observations to a batch of actions."""

    name: str

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return actions in [-1, 1], float32 [num_envs, num_actions], for observations [num_envs, num_observations]."""
        ...
