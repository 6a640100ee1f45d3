"""Training steps of which a unit of the data, such as a day, can change little, and that noise hides.

Abadi et al., "Deep learning with differential privacy", CCS 2016, with units in place of examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gridray.algorithms.gradient import Step
from gridray.errors import ConfigError
from gridray.federated.privacy.accounting import Budget, Mechanism, Unit
from gridray.federated.privacy.clipping import clipped_gradients, network_of
from gridray.federated.privacy.units import SecretBatches, unit_of_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from gridray.algorithms.gradient import GradientLearner
    from gridray.federated.privacy.noise import SecretStream

SUPPORTED = frozenset({"bc", "iql", "rebrac", "td3_bc"})
"""Algorithms whose losses are means over rows and keep nothing."""


@dataclass(frozen=True, kw_only=True)
class DpSgdConfig:
    """Noise inside a client's training.

    unit: what is protected: transition, day or feeder-year.
    epsilon, delta: budget of one unit over the whole run; training ends before it is passed.
    noise_multiplier: standard deviation of the noise over clip.
    clip: largest norm of one unit's gradient.
    units_per_batch: units in a batch on average.
    rows_per_unit: transitions drawn from each of them.
    reward_std: public guess of the rewards' standard deviation, by which they are divided.
    """

    unit: Unit = Unit.DAY
    epsilon: float
    delta: float = 1e-5
    noise_multiplier: float
    clip: float = 1.0
    units_per_batch: int = 16
    rows_per_unit: int = 16
    reward_std: float = 1.0

    def __post_init__(self) -> None:
        if self.unit is Unit.UTILITY:
            raise ConfigError("Noise inside a client protects transition, day or feeder-year, not 'utility'")
        for name in ("clip", "reward_std"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"DP-SGD has {name} {getattr(self, name)}: give a number above 0")
        if min(self.units_per_batch, self.rows_per_unit) < 1:
            raise ConfigError("DP-SGD needs units_per_batch and rows_per_unit of 1 or more")
        if self.unit is Unit.TRANSITION and self.rows_per_unit != 1:
            raise ConfigError(f"A transition is one row: give rows_per_unit 1, it is {self.rows_per_unit}")
        # Both classes check what they share with this one.
        _ = self.budget, Mechanism(noise_multiplier=self.noise_multiplier)

    @property
    def budget(self) -> Budget:
        """What one unit may lose over the run."""
        return Budget(unit=self.unit, epsilon=self.epsilon, delta=self.delta)


class PrivateTraining:
    """Takes noisy steps of a learner on its dataset."""

    def __init__(
        self,
        learner: GradientLearner,
        columns: Mapping[str, NDArray[Any]],
        config: DpSgdConfig,
        stream: SecretStream,
    ) -> None:
        """Group the rows by unit.

        Args:
            learner: its normaliser must not come from this data: give it public numbers.
            columns: a dataset's columns with eps_id, rows first.
            config: units, clip and noise.
            stream: the client's own secret; whoever knows it can subtract the noise.

        Raises:
            ConfigError: the data has fewer units than a batch, or delta is too large for so many.
        """
        self._learner = learner
        if learner.name not in SUPPORTED:
            raise ConfigError(
                f"DP-SGD cannot train {learner.name!r}: its losses keep statistics of a batch, which noise on "
                f"gradients does not hide; give one of {', '.join(sorted(SUPPORTED))}"
            )
        self._columns = learner.prepared(columns)
        self._config = config
        self._stream = stream
        unit_of_row = unit_of_rows(config.unit, columns)
        num_units = int(unit_of_row.max()) + 1
        if num_units < config.units_per_batch:
            raise ConfigError(
                f"The dataset has {num_units} units ({config.unit}), a batch needs {config.units_per_batch}: give "
                "fewer units_per_batch, or a smaller unit"
            )
        config.budget.check_delta(num_units)
        rate = config.units_per_batch / num_units
        self.mechanism = Mechanism(noise_multiplier=config.noise_multiplier, sampling_rate=rate)
        self._batches = SecretBatches(unit_of_row, sampling_rate=rate, rows_per_unit=config.rows_per_unit)

    def step(self, *purpose: str) -> None:
        """Take one step; the same purpose draws the same batch and the same noise.

        Losses are not returned: they would tell about the data without noise.
        """
        rows = torch.from_numpy(self._batches.draw(self._stream, *purpose))
        batch = {name: column[rows] for name, column in self._columns.items()}
        networks, step = self._learner.networks, self._learner.next_step
        gradients = clipped_gradients(networks, lambda unit: networks.losses(unit, step), batch, self._config.clip)
        self._learner.descend(self._noisy(self._moving(gradients), *purpose))

    def _moving(self, gradients: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the gradients of the networks that this step moves: some move their actor every other step only.

        Which these are follows from a made-up row, not from the data.
        """
        row = {name: torch.zeros_like(column[:1]) for name, column in self._columns.items()}
        step = Step(self._learner.next_step.num_updates, torch.Generator())
        with torch.no_grad():
            moves_actor = "actor_loss" in self._learner.networks.losses(row, step)
        return {name: gradient for name, gradient in gradients.items() if moves_actor or network_of(name) != "actor"}

    def _noisy(self, gradients: Mapping[str, Tensor], *purpose: str) -> dict[str, Tensor]:
        """Return (sum of clipped gradients + noise) / expected number of units."""
        scale = self._config.noise_multiplier * self._config.clip
        sizes = [gradient.numel() for gradient in gradients.values()]
        noise = torch.from_numpy(self._stream.normal(sum(sizes), "noise", *purpose)).float()
        parts = zip(gradients.items(), torch.split(noise, sizes), strict=True)
        return {
            name: (gradient + scale * part.view_as(gradient)) / self._config.units_per_batch
            for (name, gradient), part in parts
        }
