"""Configuration of what clients do in a round, beside their algorithm's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gridray.errors import ConfigError

ENSEMBLE_ALGORITHM = "td3_bc"
"""The algorithm whose losses FEDORA changes."""


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """FEDORA's local losses; see `gridray.federated.local.fedora`.

    optimism: whether the critic's target is the better of the local and the global critic's.
    actor_anchor: weight of the squared distance to the global policy's action.
    decay: factor on the local part of the actor's loss after each round that did not beat the global policy.
    """

    optimism: bool = True
    actor_anchor: float = 1.0
    decay: float = 0.995

    def __post_init__(self) -> None:
        if self.actor_anchor < 0:
            raise ConfigError(f"actor_anchor is {self.actor_anchor}: give 0 or more")
        if not 0 < self.decay <= 1:
            raise ConfigError(f"decay is {self.decay}: give a number above 0, up to 1")


@dataclass(frozen=True, kw_only=True)
class LocalConfig:
    """What each client does beside plain training.

    proximal: network group -> pull towards the global weights (FedProx's mu); groups that are not named have none.
    ensemble: FEDORA's losses; none: those of the algorithm.
    personal: pull of a second, personal policy towards the global weights (Ditto's lambda); none: there is none.
    target_networks: what they become when global weights arrive: `average`, joined as any other network; `keep`, the
        client's own go on; `copy`, that of the network they go after.
    optimiser: whether its moments are kept from round to round.
    holdout_share: share of the dataset's last transitions that are not trained on; values are reported on them, or on
        all where there are none.
    """

    proximal: dict[str, float] = field(default_factory=dict)
    ensemble: EnsembleConfig | None = None
    personal: float | None = None
    target_networks: Literal["average", "keep", "copy"] = "average"
    optimiser: Literal["keep", "reset"] = "keep"
    holdout_share: float = 0.0

    def __post_init__(self) -> None:
        for group, strength in self.proximal.items():
            if strength < 0:
                raise ConfigError(f"proximal of group {group!r} is {strength}: give 0 or more")
        if self.personal is not None and self.personal < 0:
            raise ConfigError(f"personal is {self.personal}: give 0 or more, or leave it out")
        if not 0 <= self.holdout_share < 1:
            raise ConfigError(f"holdout_share is {self.holdout_share}: give a number from 0 to below 1")
