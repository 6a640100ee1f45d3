"""Small learners, and transitions of no particular task for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.algorithms.registry import make_learner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.algorithms.base import Learner

OBSERVATIONS, ACTIONS = 3, 2
SMALL = {"hidden_sizes": [16, 16], "learning_rate": 3e-3}


def learner_of(name: str, seed: int = 0, **config: object) -> Learner:
    return make_learner(name, observation_size=OBSERVATIONS, action_size=ACTIONS, config={**SMALL, **config}, seed=seed)


def transitions(num_rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "obs": rng.normal(size=(num_rows, OBSERVATIONS)).astype(np.float32),
        "actions": rng.uniform(-1.0, 1.0, (num_rows, ACTIONS)).astype(np.float32),
        "rewards": rng.normal(size=num_rows).astype(np.float32),
        "new_obs": rng.normal(size=(num_rows, OBSERVATIONS)).astype(np.float32),
        "terminateds": rng.random(num_rows) < 0.2,
        "truncateds": np.zeros(num_rows, dtype=np.bool_),
        "new_actions": rng.uniform(-1.0, 1.0, (num_rows, ACTIONS)).astype(np.float32),
        "has_new_actions": (rng.random(num_rows) < 0.9).astype(np.float32),
        "cost_voltage_violation_pu": rng.exponential(size=num_rows).astype(np.float32),
    }
