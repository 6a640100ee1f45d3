"""What every learner is: one algorithm that federation, training and sweeps can drive without knowing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch.nn import Parameter

    from gridray.algorithms.policy import LearnedPolicy
    from gridray.algorithms.settings import Shape

Weights = dict[str, NDArray[Any]]
GradientTerm: TypeAlias = "Callable[[Mapping[str, Parameter]], None]"
"""Changes the gradients of parameters, given by weight name, in place."""
BATCH_COLUMNS = ("obs", "actions", "rewards", "new_obs", "terminateds", "truncateds")
TRAINING_COLUMNS = ("obs", "actions", "rewards", "new_obs", "terminateds")
"""What every algorithm reads; the value of the state after a truncation counts in full."""
NEXT_ACTIONS, HAS_NEXT_ACTIONS = "new_actions", "has_new_actions"
"""Columns made from the row after: its actions, and 1 where the episode goes on in it, else 0."""
# Observations come scaled to about 1: a feature that hardly moves in the data is not blown up beyond this.
MIN_OBSERVATION_STD = 0.02


class Normaliser(NamedTuple):
    """What a learner subtracts and divides by.

    observation_mean: float32 [width], as of `Learner.observation_rows`.
    observation_std: float32 [width], all > 0.
    reward_mean: subtracted from every reward; keep 0 where episodes terminate, else it changes what is optimal.
    reward_std: every reward is divided by it, > 0.
    cost_std: every cost is divided by it where an algorithm reads one, > 0.
    """

    observation_mean: NDArray[np.float32]
    observation_std: NDArray[np.float32]
    reward_mean: float
    reward_std: float
    cost_std: float = 1.0


class Learner(Protocol):
    """One offline algorithm; weights are named arrays, and all of them may be averaged over clients.

    shape: whether its policy is for one feeder or for any.
    columns: those that `update` reads; `gridray.algorithms.batches.load_columns` loads them.
    cost_column: the one of them that is a cost, if there is one.
    """

    name: str
    observation_size: int
    action_size: int
    shape: Shape
    hidden_sizes: tuple[int, ...]
    columns: tuple[str, ...]
    cost_column: str | None

    def update(self, batch: Mapping[str, Any]) -> dict[str, float]:
        """Take one gradient step on a batch of transitions and return the losses before it, those that it lowered.

        Args:
            batch: arrays or tensors: obs, new_obs float32 [n, observation_size], actions float32 [n, action_size]
                in [-1, 1], or levels, rewards float32 [n], terminateds bool [n], and what else `columns` names;
                other columns may be there and are not used.

        Raises:
            GridRayError: a column is missing, of another width or not finite, or a loss is not finite.
        """
        ...

    def get_weights(self) -> Weights:
        """Return copies of all weights, the normaliser included."""
        ...

    def set_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take these weights; names and shapes must be those of `get_weights`.

        Raises:
            GridRayError: a weight is missing, unknown, or of another shape.
        """
        ...

    def set_normaliser(self, normaliser: Normaliser) -> None:
        """Take mean and standard deviation of observations and rewards, as `normaliser_of` makes them."""
        ...

    def observation_rows(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the rows [m, width] whose statistics the normaliser has, of raw observations [n, observation_size].

        They are the observations, or for policies of devices the views of all devices.
        """
        ...

    def get_training_state(self) -> Weights:
        """Return copies of what else an exact continuation needs: moments, count of updates, random state."""
        ...

    def set_training_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take the state that `get_training_state` returned."""
        ...

    def reset_optimiser(self) -> None:
        """Forget the optimiser's moments; the count of updates goes on."""
        ...

    def set_gradient_terms(self, terms: Sequence[GradientTerm]) -> None:
        """Change gradients before every step, in this order; replaces what was set before."""
        ...

    def state_values(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the present critics think the policy gets from raw observations [n, observation_size], [n].

        Raises:
            GridRayError: the algorithm has no critics.
        """
        ...

    def policy(self) -> LearnedPolicy:
        """Return the greedy policy of the present weights; later updates do not change it."""
        ...


def normaliser_of(
    observation_mean: NDArray[np.floating],
    observation_std: NDArray[np.floating],
    reward_mean: float,
    reward_std: float,
    cost_std: float = 1.0,
) -> Normaliser:
    """Return the normaliser of these statistics, with a floor under each standard deviation."""
    return Normaliser(
        np.asarray(observation_mean, dtype=np.float32),
        np.maximum(np.asarray(observation_std, dtype=np.float32), np.float32(MIN_OBSERVATION_STD)),
        float(reward_mean),
        float(reward_std) if reward_std > 1e-8 else 1.0,
        float(cost_std) if cost_std > 1e-8 else 1.0,
    )
