"""Model-predictive control of ANM6Easy with perfect forecasts: gym-anm's DC power flow as a linear programme."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import eye_array, kron, vstack

from gridray.compat.anm6 import DISCOUNT, HOURS, PENALTY_WEIGHT
from gridray.compat.anm6_data import (
    BASE_MVA,
    BRANCHES,
    CAPACITY_MWH,
    EFFICIENCY,
    STEPS_PER_DAY,
    STORAGE,
    load_series,
    potential_series,
)
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BEHIND = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float64)
"""Which of buses 3, 4, 5 each branch feeds."""


class PerfectForecastMpc:
    """Plan curtailment and storage over `horizon` quarters, lossless and at 1 pu, branches rated at margin x rating.

    The programme of gym_anm.agents.mpc: minimise the discounted sum of the power from the source and 100 times the
    overloads. As the network is a tree, flows follow from the injections and need no angles.
    """

    def __init__(self, *, horizon: int = 64, margin: float = 0.96) -> None:
        """Build the programme, which stays the same but for its forecasts."""
        if horizon < 1 or not 0.0 < margin <= 1.0:
            raise ConfigError(f"horizon is {horizon} and margin {margin}: give at least 1, and more than 0 up to 1.")
        self.horizon = horizon
        self._rating = np.tile(margin * BRANCHES.rating, horizon)
        weights = DISCOUNT ** np.arange(horizon)
        # Variables of a step: solar, wind, charge, discharge, five overloads, pu.
        injection = np.zeros((3, 9))
        injection[0, 0], injection[1, 1], injection[2, 2], injection[2, 3] = 1.0, 1.0, -1.0, 1.0
        overload = np.hstack((np.zeros((5, 4)), np.eye(5)))
        self._cost = np.outer(weights, -injection.sum(axis=0) + PENALTY_WEIGHT * overload.sum(axis=0)).ravel()
        steps = eye_array(horizon)
        flow = -BEHIND @ injection
        stored = np.zeros((1, 9))
        stored[0, 2], stored[0, 3] = HOURS * EFFICIENCY, -HOURS / EFFICIENCY
        sums = kron(np.tri(horizon), stored)
        self._matrix = vstack((kron(steps, flow - overload), kron(steps, -flow - overload), sums, -sums)).tocsr()
        self._loads = load_series().T / BASE_MVA
        self._potential = potential_series().T / BASE_MVA

    def plan(self, charge_mwh: float, quarter: int) -> NDArray[np.float64]:
        """Return set-points of the quarters after this one, MW and Mvar as the task's actions, [horizon, 6]."""
        at = (quarter + 1 + np.arange(self.horizon)) % STEPS_PER_DAY
        drawn = (self._loads[at] @ BEHIND.T).ravel()
        charge, capacity = charge_mwh / BASE_MVA, CAPACITY_MWH / BASE_MVA
        limit = np.concatenate(
            (
                self._rating - drawn,
                self._rating + drawn,
                np.full(self.horizon, capacity - charge),
                np.full(self.horizon, charge),
            )
        )
        high = np.full((self.horizon, 9), np.inf)
        high[:, :2], high[:, 2:4] = self._potential[at], STORAGE.max_p / BASE_MVA
        bounds = np.stack((np.zeros(high.size), high.ravel()), axis=1)
        result = linprog(self._cost, A_ub=self._matrix, b_ub=limit, bounds=bounds, method="highs")
        if result.x is None:
            raise ConfigError(f"The plan from {charge_mwh} MWh at quarter {quarter} has no solution: {result.message}")
        x = BASE_MVA * result.x.reshape(self.horizon, 9)
        powers = np.zeros((self.horizon, 6))
        powers[:, :2], powers[:, 4] = x[:, :2], x[:, 3] - x[:, 2]
        return powers
