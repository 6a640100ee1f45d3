"""What a federation's noise protects, in which unit, and how much of the budget is spent.

Figures are upper bounds from privacy loss distributions (Koskela et al., 2020) as `dp-accounting` computes them, for
neighbours that differ by one unit added or removed. Sampling counts only where it is secret: a client's draw of its own
days is; which utility took part in a round is not, and no amplification is claimed for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from dp_accounting import gaussian_mechanism
from dp_accounting.pld import privacy_loss_distribution

from gridray.errors import ConfigError

# Steps of the discretised privacy loss: where noise is large a step's loss is small, and asks for the finer one.
_COARSE_LOSS_STEP, _FINE_LOSS_STEP = 1e-3, 1e-4
_LARGE_NOISE = 2.0


class Unit(StrEnum):
    """What can be added or removed without an outside observer noticing."""

    TRANSITION = "transition"
    DAY = "day"
    FEEDER_YEAR = "feeder-year"
    UTILITY = "utility"


class Spent(NamedTuple):
    """A guarantee: (epsilon, delta)-differential privacy of one unit."""

    epsilon: float
    delta: float
    unit: Unit

    def __str__(self) -> str:
        """Return the figure; an epsilon is never shown without its unit."""
        return f"epsilon {self.epsilon:.3g} per {self.unit} (delta {self.delta:g})"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much may be spent over a whole run.

    epsilon, delta: of one unit; delta must be below 1 / number of units, or a mechanism that publishes one unit in full
        would pass.
    """

    unit: Unit
    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ConfigError(f"Privacy budget has epsilon {self.epsilon}: give a number above 0")
        if not 0 < self.delta < 1:
            raise ConfigError(f"Privacy budget has delta {self.delta}: give a number between 0 and 1, such as 1e-5")

    def check_delta(self, num_units: int) -> None:
        """Refuse a delta that would let one unit of so many be published.

        Raises:
            ConfigError: delta is not below 1 / num_units.
        """
        if self.delta * num_units >= 1:
            raise ConfigError(
                f"Privacy budget has delta {self.delta:g} for {num_units} units ({self.unit}): one of them could be "
                f"published whole; give a delta well below {1 / num_units:.2g}"
            )


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """A Gaussian mechanism that is applied again and again.

    noise_multiplier: standard deviation of the noise over the clip norm of one unit.
    sampling_rate: probability that a unit takes part in one application; below 1 only where the draw is secret.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0

    def __post_init__(self) -> None:
        if not self.noise_multiplier > 0:
            raise ConfigError(f"noise_multiplier is {self.noise_multiplier}: give a number above 0")
        if not 0 < self.sampling_rate <= 1:
            raise ConfigError(f"sampling_rate is {self.sampling_rate}: give a number above 0, up to 1")

    def spent(self, num_steps: int, budget: Budget) -> Spent:
        """Return what so many applications spend, at the budget's delta and in its unit."""
        epsilon = 0.0 if num_steps == 0 else _epsilon(self, num_steps, budget.delta)
        return Spent(epsilon, budget.delta, budget.unit)

    def allows(self, num_steps: int, budget: Budget) -> bool:
        """Tell whether so many applications in all stay within the budget."""
        return self.spent(num_steps, budget).epsilon <= budget.epsilon

    def max_steps(self, budget: Budget, *, at_most: int) -> int:
        """Return how many applications the budget allows, up to at_most."""
        if self.allows(at_most, budget):
            return at_most
        allowed, too_many = 0, at_most
        while too_many - allowed > 1:
            middle = (allowed + too_many) // 2
            allowed, too_many = (middle, too_many) if self.allows(middle, budget) else (allowed, middle)
        return allowed


def gaussian_noise_multiplier(budget: Budget, num_rounds: int) -> float:
    """Return the smallest noise multiplier with which every unit may take part in all rounds.

    Gaussian noise of num_rounds rounds composes exactly into one Gaussian (Dong, Roth and Su, 2022, corollary 3.3).
    """
    return float(gaussian_mechanism.get_sigma_gaussian(budget.epsilon, budget.delta) * np.sqrt(num_rounds))


def sampled_noise_multiplier(budget: Budget, num_steps: int, sampling_rate: float) -> float:
    """Return a noise multiplier, at most 1 % above the smallest, for so many secretly sampled steps.

    Raises:
        ConfigError: not even a noise multiplier of 1000 is enough.
    """

    def is_enough(noise_multiplier: float) -> bool:
        return Mechanism(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate).allows(num_steps, budget)

    enough = 1.0
    while not is_enough(enough):
        enough *= 2.0
        if enough > 1000:
            raise ConfigError(
                f"No noise multiplier up to 1000 keeps {num_steps} steps within epsilon {budget.epsilon:g} per "
                f"{budget.unit}: give fewer steps, a smaller batch or a larger epsilon"
            )
    too_little = enough / 2.0 if enough > 1.0 else 0.3
    while enough > 1.01 * too_little:
        middle = float(np.sqrt(enough * too_little))
        too_little, enough = (too_little, middle) if is_enough(middle) else (middle, enough)
    return enough


def noise_to_clip(noise_multiplier: float, *, num_clients: int, num_values: int) -> float:
    """Return the norm of the noise on the mean update over the clip norm: above about 1 an update drowns."""
    return noise_multiplier * float(np.sqrt(num_values)) / num_clients


def check_utility_budget(
    budget: Budget, *, num_clients: int, num_rounds: int, num_values: int, max_noise_to_clip: float
) -> float:
    """Return the noise multiplier that the budget asks for, if training can survive it.

    Args:
        budget: of one utility over the run.
        num_clients: utilities whose updates are averaged.
        num_rounds: rounds that every utility may take part in.
        num_values: length of an update.
        max_noise_to_clip: refuse above this norm of the noise over the clip.

    Raises:
        ConfigError: gives the figure, and what would do instead.
    """
    noise_multiplier = gaussian_noise_multiplier(budget, num_rounds)
    ratio = noise_to_clip(noise_multiplier, num_clients=num_clients, num_values=num_values)
    if ratio > max_noise_to_clip:
        needed = int(np.ceil(num_clients * ratio / max_noise_to_clip))
        raise ConfigError(
            f"{num_clients} utilities, {num_rounds} rounds and {num_values} values cannot have epsilon "
            f"{budget.epsilon:g} per {budget.unit} (delta {budget.delta:g}): the noise on the mean would have "
            f"{ratio:.3g} times the norm of the clip (noise multiplier {noise_multiplier:.3g}), the limit is "
            f"{max_noise_to_clip:g}. It takes {needed} utilities; or protect days inside each client "
            "(unit: day), or share fewer values"
        )
    return noise_multiplier


@lru_cache(maxsize=1024)
def _epsilon(mechanism: Mechanism, num_steps: int, delta: float) -> float:
    if mechanism.sampling_rate == 1.0:
        sigma = mechanism.noise_multiplier / np.sqrt(num_steps)
        return float(gaussian_mechanism.get_epsilon_gaussian(sigma, delta))
    return float(_step_losses(mechanism).self_compose(num_steps).get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)
def _step_losses(mechanism: Mechanism) -> privacy_loss_distribution.PrivacyLossDistribution:
    is_large = mechanism.noise_multiplier >= _LARGE_NOISE
    return privacy_loss_distribution.from_gaussian_mechanism(
        mechanism.noise_multiplier,
        sampling_prob=mechanism.sampling_rate,
        value_discretization_interval=_FINE_LOSS_STEP if is_large else _COARSE_LOSS_STEP,
    )
