"""Configuration of a federation."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gridray.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """One utility.

    dataset: directory of its offline dataset, as the utility's node sees it; relative to the working directory.
    resource: Ray custom resource that only this utility's nodes have, such as `utility_north`; none: any node.
    num_cpus: logical CPUs its actor group holds.
    """

    name: str
    dataset: Path
    resource: str | None = None
    num_cpus: float = 0.5

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ConfigError(f"Client name {self.name!r} is not valid: use letters, digits, '_' and '-'")
        if self.num_cpus <= 0:
            raise ConfigError(f"Client {self.name!r} has num_cpus {self.num_cpus}: give a number above 0")


@dataclass(frozen=True, kw_only=True)
class FederateConfig:
    """A federation: who takes part, what they train, and the rules of a round.

    learner: configuration of the algorithm, the same at every client.
    local_updates: gradient steps of each client in each round.
    min_clients: updates needed to close a round; by default more than half of the clients.
    timeout_s: longest wait for a client's round, seconds; later updates are left out of that round.
    max_update_mib: largest update accepted, MiB.
    """

    algorithm: str
    clients: tuple[ClientConfig, ...]
    rounds: int = 20
    local_updates: int = 100
    batch_size: int = 256
    learner: dict[str, Any] = field(default_factory=dict)
    aggregator: str = "fedavg"
    min_clients: int | None = None
    timeout_s: float = 600.0
    max_update_mib: float = 256.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.clients:
            raise ConfigError("Federation has no clients: list at least one under 'clients'")
        name, count = Counter(client.name for client in self.clients).most_common(1)[0]
        if count > 1:
            raise ConfigError(f"Client name {name!r} is given {count} times: names are unique")
        for key in ("rounds", "local_updates", "batch_size", "timeout_s", "max_update_mib"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"Federation has {key} {getattr(self, key)}: give a positive number")
        if self.seed < 0:
            raise ConfigError(f"Federation has seed {self.seed}: give 0 or more")
        if not 1 <= self.quorum <= len(self.clients):
            raise ConfigError(f"Federation has min_clients {self.min_clients}: give 1 to {len(self.clients)}")

    @property
    def quorum(self) -> int:
        """Updates needed to close a round."""
        return len(self.clients) // 2 + 1 if self.min_clients is None else self.min_clients
