"""What a federation's configuration may ask of privacy, and the combinations that would only look private."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import ConfigError
from gridray.federated.compression import CompressionConfig
from gridray.federated.privacy.accounting import Budget, Unit, check_utility_budget
from gridray.federated.privacy.dp_sgd import DpSgdConfig
from gridray.federated.privacy.secure_messages import MIN_COHORT, default_threshold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SUM_RULES = frozenset({"fedavg", "fedadam", "fedyogi"})
"""Rules that need no more than the sum of the updates."""
WEIGHED_RULES = frozenset({"fedora"})
"""Rules that need no more than the sum of the updates, each counted by what its client says of itself."""
ROBUST_RULES = frozenset({"median", "trimmed_mean", "krum", "geometric_median", "clipped_mean"})
"""Rules that compare single updates with each other."""
MIN_GROUPS = 3


@dataclass(frozen=True, kw_only=True)
class SecureAggregationConfig:
    """Sums under masks, of which the coordinator sees nothing else.

    limit: largest absolute change of one weight in a round; a client whose update has a larger one clips it.
    threshold: members that must stay to the end of a sum; by default above two thirds.
    num_groups: 1: one sum over all; above 1: a sum for each group, of three members at least, which a robust rule
        then compares.
    """

    limit: float = 1.0
    threshold: int | None = None
    num_groups: int = 1

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ConfigError(f"Secure aggregation has limit {self.limit}: give a number above 0")
        if self.num_groups < 1:
            raise ConfigError(f"Secure aggregation has num_groups {self.num_groups}: give 1 or more")

    def threshold_of(self, num_members: int) -> int:
        """Return the threshold of a sum over so many members."""
        return default_threshold(num_members) if self.threshold is None else self.threshold


@dataclass(frozen=True, kw_only=True)
class UtilityNoiseConfig:
    """Noise on the mean update that hides whether a utility took part at all.

    epsilon, delta: budget of one utility over the whole run.
    clip: largest norm of one utility's update.
    max_noise_to_clip: the run is refused if the noise on the mean has more than this many times the norm of the clip.
    reward_std: public guess of the rewards' standard deviation, by which they are divided.
    """

    epsilon: float
    delta: float = 1e-5
    clip: float = 1.0
    max_noise_to_clip: float = 1.0
    reward_std: float = 1.0

    def __post_init__(self) -> None:
        if not self.reward_std > 0:
            raise ConfigError(f"Utility noise has reward_std {self.reward_std}: give a number above 0")
        if not (self.clip > 0 and self.max_noise_to_clip > 0):
            raise ConfigError(
                f"Utility noise has clip {self.clip} and max_noise_to_clip {self.max_noise_to_clip}: both are above 0"
            )
        _ = self.budget

    @property
    def budget(self) -> Budget:
        """What one utility may lose over the run."""
        return Budget(unit=Unit.UTILITY, epsilon=self.epsilon, delta=self.delta)


@dataclass(frozen=True, kw_only=True)
class ProtectionConfig:
    """What protects a federation; nothing, by default, but that data stays at home.

    secure_aggregation: hides single updates from the coordinator.
    utility_noise: hides from everybody whether a utility took part.
    dp_sgd: hides from everybody, the coordinator included, whether a day was in a client's data.
    compression: fewer bytes per update.
    """

    secure_aggregation: SecureAggregationConfig | None = None
    utility_noise: UtilityNoiseConfig | None = None
    dp_sgd: DpSgdConfig | None = None
    compression: CompressionConfig = field(default_factory=CompressionConfig)

    @property
    def changes_updates(self) -> bool:
        """Whether clients send changes, clipped, compressed or under masks, in place of weights."""
        has_noise = self.utility_noise is not None
        return has_noise or self.secure_aggregation is not None or self.compression.kind != "none"

    @property
    def reward_std(self) -> float | None:
        """What rewards are divided by where moments of the data would leave without noise; none where they may."""
        parts = (self.dp_sgd, self.utility_noise)
        return next((part.reward_std for part in parts if part is not None), None)

    def describe(self) -> str:
        """Return what protects the run, in words, each budget with its unit."""
        parts = []
        if self.secure_aggregation is not None:
            groups = self.secure_aggregation.num_groups
            parts.append("secure aggregation" + (f" in {groups} groups" if groups > 1 else ""))
        parts += [
            f"at most epsilon {part.epsilon:g} per {part.budget.unit} (delta {part.delta:g})"
            for part in (self.utility_noise, self.dp_sgd)
            if part is not None
        ]
        return "; ".join(parts) or "none: updates are seen by the coordinator"


def check_protection(protection: ProtectionConfig, *, rules: Iterable[str], num_clients: int) -> None:
    """Refuse combinations in which one part undoes another.

    Args:
        protection: what is asked for.
        rules: aggregators in use, by name.
        num_clients: clients of the federation.

    Raises:
        ConfigError: says what does not go together, why, and what does.
    """
    rules = sorted(set(rules))
    secure = protection.secure_aggregation
    if secure is not None:
        protection.compression.check_masked()
        _check_masked_rules(rules, secure.num_groups)
        smallest = num_clients // secure.num_groups
        if smallest < MIN_COHORT:
            raise ConfigError(
                f"{num_clients} clients in {secure.num_groups} groups leave {smallest} in a group: a sum hides its "
                f"parts only among {MIN_COHORT} or more; give fewer groups, or switch secure_aggregation off"
            )
    if protection.utility_noise is not None and (wrong := [rule for rule in rules if rule not in SUM_RULES]):
        raise ConfigError(
            f"Noise per utility is accounted for the mean of clipped updates; rule {wrong[0]!r} depends on single "
            f"updates in another way: give one of {', '.join(sorted(SUM_RULES))}"
        )
    if protection.utility_noise is not None and secure is not None and secure.num_groups > 1:
        raise ConfigError(
            "Noise per utility is accounted for one mean over all clients: give secure_aggregation num_groups 1"
        )


def check_run(protection: ProtectionConfig, *, num_clients: int, num_rounds: int, num_values: int) -> float | None:
    """Return the noise multiplier of the noise per utility, none without it, once the size of an update is known.

    Raises:
        ConfigError: the budget cannot be met by so few utilities; gives the figure.
    """
    noise = protection.utility_noise
    if noise is None:
        return None
    return check_utility_budget(
        noise.budget,
        num_clients=num_clients,
        num_rounds=num_rounds,
        num_values=num_values,
        max_noise_to_clip=noise.max_noise_to_clip,
    )


def masked_groups(names: Sequence[str], num_groups: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """Return a random split into groups whose sizes differ by one at most; the same for all who know the seed."""
    order = np.random.default_rng(seed).permutation(sorted(names)).tolist()
    return tuple(tuple(sorted(order[index::num_groups])) for index in range(num_groups))


def _check_masked_rules(rules: Sequence[str], num_groups: int) -> None:
    for rule in rules:
        if rule in ROBUST_RULES and num_groups < MIN_GROUPS:
            raise ConfigError(
                f"Rule {rule!r} compares single updates, and secure aggregation hides them: give secure_aggregation "
                f"num_groups {MIN_GROUPS} or more, so that the rule compares sums of groups of {MIN_COHORT} or more, "
                "or switch one of the two off"
            )
        if rule in WEIGHED_RULES and num_groups > 1:
            raise ConfigError(
                f"Rule {rule!r} weighs clients and not groups of them: give secure_aggregation num_groups 1"
            )
        if rule not in ROBUST_RULES | SUM_RULES | WEIGHED_RULES:
            raise ConfigError(
                f"Rule {rule!r} needs more of each client than a sum, and secure aggregation gives nothing else: give "
                f"one of {', '.join(sorted(SUM_RULES | WEIGHED_RULES))}, or switch secure_aggregation off"
            )
