"""Settings that several algorithms have, with the checks on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gridray.errors import ConfigError

ActionHead = Literal["continuous", "mixed"]
Shape = Literal["flat", "local", "graph"]
"""What a policy is: one network for one feeder's observations; or one network for any device of any feeder, which sees
its local view, or besides hears its neighbours along the feeder."""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Settings of every algorithm.

    policy: "flat" for one feeder; "local" or "graph" for any, see `Shape`.
    hidden_sizes: widths of the hidden layers of each network; in a graph all but the first are rounds of messages.
    learning_rate: step size of Adam.
    max_grad_norm: the gradients of the actor, and those of all other networks, are scaled down to this norm; none: not.
    device: torch device, such as "cpu" or "cuda".
    """

    policy: Shape = "flat"
    hidden_sizes: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    max_grad_norm: float | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if min(self.hidden_sizes, default=1) < 1:
            raise ConfigError(f"hidden_sizes is {list(self.hidden_sizes)}: give widths of 1 or more")
        self.check_positive("learning_rate")
        if self.max_grad_norm is not None:
            self.check_positive("max_grad_norm")

    def check_positive(self, *names: str) -> None:
        """Refuse settings that are not above 0."""
        for name in names:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0")

    def check_not_negative(self, *names: str) -> None:
        """Refuse settings below 0."""
        for name in names:
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 0 or more")

    def check_share(self, *names: str) -> None:
        """Refuse settings that are not above 0 and up to 1."""
        for name in names:
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0, up to 1")

    def check_at_least_one(self, *names: str) -> None:
        """Refuse counts below 1."""
        for name in names:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give 1 or more")


@dataclass(frozen=True, kw_only=True)
class ValueSettings(NetworkSettings):
    """Settings of every algorithm that learns values.

    discount: weight of the next interval's value; 0.95 looks some 20 intervals ahead (5 h of 15 min).
    target_rate: share by which the target networks move to the trained ones each time.
    """

    discount: float = 0.95
    target_rate: float = 5e-3

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        super().__post_init__()
        if not 0.0 <= self.discount < 1.0:
            raise ConfigError(f"discount is {self.discount}: give a number from 0 to below 1")
        self.check_share("target_rate")
