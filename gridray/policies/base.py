"""What every controller is: utility controls, droop, random, trained; and what only a reference may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Policy(Protocol):
    """Controller that maps a batch of observations to a batch of actions."""

    name: str

    def act(self, observations: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return actions in [-1, 1], float32 [num_envs, num_actions], for observations [num_envs, num_observations]."""
        ...


@runtime_checkable
class TwinPolicy(Protocol):
    """Controller that reads the twin's state itself and may step copies of it: a reference, never to be deployed."""

    name: str

    def act_on(self, state: Any, rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ANN401
        """Return actions in [-1, 1], float32 [num_envs, num_actions], for a state of the task, which stays as it is."""
        ...


def observed(policy: str, names: Sequence[str], wanted: str) -> int:
    """Return where among the names of a task's observations the one is that a policy reads.

    Raises:
        ConfigError: the task does not observe it.
    """
    if wanted not in names:
        raise ConfigError(
            f"Policy '{policy}' reads '{wanted}', which the task does not observe: set mode of observation to full or "
            "metered; local views are made of either when a policy is trained."
        )
    return names.index(wanted)
