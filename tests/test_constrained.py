"""Learning under a budget of a cost: the budget is kept, and the multiplier is what keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from transitions import learner_of

from gridray.algorithms.batches import InMemoryBatches, normaliser_of_rows
from gridray.errors import GridRayError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.algorithms.base import Learner

COST = "cost_effort"


def paid_and_costly(num_rows: int) -> dict[str, NDArray[Any]]:
    """Return random actions of which the first is paid for what it is, and costs its positive part."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1.0, 1.0, (num_rows, 2)).astype(np.float32)
    observations = rng.normal(size=(2, num_rows, 3)).astype(np.float32)
    return {
        "obs": observations[0],
        "actions": actions,
        "rewards": actions[:, 0],
        "new_obs": observations[1],
        "terminateds": np.zeros(num_rows, dtype=np.bool_),
        COST: np.maximum(actions[:, 0], 0.0),
    }


def trained(name: str, **config: object) -> tuple[float, Learner]:
    """Return the mean cost of a step of the learnt policy, and the learner."""
    data = paid_and_costly(4000)
    learner = learner_of(name, discount=0.5, temperature=5.0, target_rate=0.05, **config)
    learner.set_normaliser(normaliser_of_rows([data], COST))
    own = {column: data[column] for column in learner.columns}
    batches = InMemoryBatches(own, batch_size=64, seed=0, device="cpu")
    for _ in range(500):
        learner.update(batches.draw())
    actions = learner.policy().act(data["obs"][:500], np.random.default_rng(0))
    return float(np.maximum(actions[:, 0], 0.0).mean()), learner


def test_budget_is_kept_where_reward_alone_would_break_it() -> None:
    free, _ = trained("iql")
    kept, learner = trained("iql_lagrange", cost="effort", budget=0.1 * 24, budget_steps=24, multiplier_rate=0.02)
    assert free > 0.4
    assert kept < 0.2
    assert learner.get_weights()["multiplier"][0] > 0.1


def test_multiplier_stays_at_nothing_within_the_budget() -> None:
    cost, learner = trained("iql_lagrange", cost="effort", budget=0.9)
    assert learner.get_weights()["multiplier"][0] == 0.0
    assert cost > 0.4


def test_greater_cost_critic_counts() -> None:
    learner = learner_of("iql_lagrange", cost="effort")
    data = {name: column[:32] for name, column in paid_and_costly(64).items()}
    weights = learner.get_weights()
    low, high = weights["cost_critic.biases.2"].copy(), weights["cost_critic.biases.2"].copy()
    high[1] += 100.0
    excess = []
    for biases in (low, high):
        learner.set_weights(weights | {"cost_critic.biases.2": biases})
        learner.update(data)
        excess.append(learner.get_weights()["multiplier"][0])
    assert excess[1] > excess[0]


def test_unnamed_cost_is_refused() -> None:
    data = paid_and_costly(8)
    with pytest.raises(GridRayError, match="no column 'cost_voltage_violation_pu'"):
        learner_of("iql_lagrange").update(data)
