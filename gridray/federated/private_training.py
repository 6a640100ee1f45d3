"""A client's rounds with noise: what is spent is written down before it is spent, and a spent budget ends the run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gridray.errors import FederationError
from gridray.federated.identity import secret_key
from gridray.federated.privacy.dp_sgd import PrivateTraining
from gridray.federated.privacy.noise import SecretStream

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.algorithms.gradient import GradientLearner
    from gridray.federated.privacy.accounting import Spent
    from gridray.federated.privacy.dp_sgd import DpSgdConfig

_SPENT = "privacy.json"


class PrivateRounds:
    """Rounds of DP-SGD of one client.

    A round that is repeated from the same weights, data and settings draws the same noise and costs nothing more; any
    other draws other noise and is paid for.
    """

    def __init__(
        self, learner: GradientLearner, columns: Mapping[str, NDArray[Any]], config: DpSgdConfig, folder: Path
    ) -> None:
        """Take up the client's secret and what it spent before; folder is the client's own."""
        stream = SecretStream(secret_key(folder / "noise.key"), "dp-sgd")
        self._training = PrivateTraining(learner, columns, config, stream)
        self._config = config
        self._file = folder / _SPENT

    def max_rounds(self, num_updates: int, *, at_most: int) -> int:
        """Return how many rounds of so many updates the budget allows in all, up to at_most."""
        most_steps = self._training.mechanism.max_steps(self._config.budget, at_most=num_updates * at_most)
        return most_steps // num_updates

    def train(self, num_updates: int, round_index: int, start: str) -> None:
        """Take a round's steps.

        Args:
            num_updates: steps.
            round_index: the round.
            start: digest of all that decides the steps but the noise: weights, data and settings. The difference of two
                results with the same noise would have none.

        Raises:
            FederationError: they would pass the budget; nothing is spent.
        """
        key = f"{round_index} {start}"
        charges: dict[str, int] = {}
        if self._file.exists():
            charges = json.loads(self._file.read_text(encoding="utf-8"))
        charges[key] = num_updates
        spent = self._training.mechanism.spent(sum(charges.values()), self._config.budget)
        if spent.epsilon > self._config.epsilon:
            raise FederationError(
                f"Round {round_index} would spend {spent}, the budget is {self._config.epsilon:g}: the run ends here"
            )
        aside = self._file.with_name(f".partial-{self._file.name}")
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(charges), encoding="utf-8")
        aside.rename(self._file)
        for step in range(num_updates):
            self._training.step(key, str(step))

    def spent(self) -> Spent:
        """Return what a unit has lost so far."""
        charges = json.loads(self._file.read_text(encoding="utf-8")) if self._file.exists() else {}
        return self._training.mechanism.spent(sum(charges.values()), self._config.budget)
