"""Configuration of a federation."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gridray.errors import ConfigError
from gridray.federated.aggregators.grouped import REST
from gridray.federated.local.config import ENSEMBLE_ALGORITHM, LocalConfig
from gridray.federated.privacy.protection import ProtectionConfig, check_protection
from gridray.federated.sharing import FIXED, LOCAL, NORMALISER, RuleConfig, Sharing


@dataclass(frozen=True, kw_only=True)
class ClientConfig:
    """One utility.

    dataset: directory of its offline dataset, as the utility's node sees it; relative to the working directory.
    resource: Ray custom resource that only this utility's nodes have, such as `utility_north`; none: any node.
    num_cpus: logical CPUs its actor group holds.
    learner: settings of the algorithm that differ at this client; not those that change the networks' shapes.
    away: rounds in which it takes no part, each a pair of first and last.
    shared_metrics: metrics that it agrees to send; none: all.
    public_key: its identity key as it told the others outside of the federation; a member that is shown another one
        leaves the sum. Without it, members believe the coordinator, which could then pose as all the others.
    """

    name: str
    dataset: Path
    resource: str | None = None
    num_cpus: float = 0.5
    learner: dict[str, Any] = field(default_factory=dict)
    away: tuple[tuple[int, int], ...] = ()
    shared_metrics: tuple[str, ...] | None = None
    public_key: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ConfigError(f"Client name {self.name!r} is not valid: use letters, digits, '_' and '-'")
        if self.num_cpus <= 0:
            raise ConfigError(f"Client {self.name!r} has num_cpus {self.num_cpus}: give a number above 0")
        for first, last in self.away:
            if not 0 <= first <= last:
                raise ConfigError(f"Client {self.name!r} is away from {first} to {last}: give 0 <= first <= last")

    def is_away(self, round_index: int) -> bool:
        """Tell whether the client takes no part in this round."""
        return any(first <= round_index <= last for first, last in self.away)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How clients judge the global policy on their own held-out days, before the rounds that it names.

    every: rounds between two evaluations; the last weights are always evaluated.
    num_days: held-out days, spread over the year.
    patience: evaluations without a better mean return of all clients before the run stops; none: it never does.
    """

    every: int = 5
    num_days: int = 8
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("every", "num_days", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"evaluation has {name} {value}: give 1 or more")


@dataclass(frozen=True, kw_only=True)
class AsyncConfig:
    """Rounds that do not wait for all: a round closes when its buffer is full, and late updates enter the next.

    buffer_size: updates that close a round.
    """

    buffer_size: int

    def __post_init__(self) -> None:
        if self.buffer_size < 1:
            raise ConfigError(f"asynchronous has buffer_size {self.buffer_size}: give 1 or more")


@dataclass(frozen=True, kw_only=True)
class FederateConfig:
    """A federation: who takes part, what they train, and the rules of a round.

    learner: configuration of the algorithm at every client.
    local_updates: gradient steps of each client in each round.
    local_epochs: passes over the client's own data instead, so that a client with more data takes more steps.
    local: what clients do beside plain training.
    aggregator: rule for all networks that no group names, or `local` or `fixed`.
    groups: network group, a prefix of weights' names such as `critic`, -> its rule, or `local` or `fixed`. The
        normaliser is fixed by default: all clients have made it together.
    clients_per_round: clients drawn for each round; none: all.
    asynchronous: do not wait for all clients of a round; needs the rule `fedbuff`.
    min_clients: updates needed to close a round; by default more than half of those drawn.
    timeout_s: longest wait for a client's round, seconds; later updates are left out of that round.
    max_update_mib: largest update accepted, MiB.
    protection: what protects data and updates beyond that data stays at home.
    simulation_actors: actors that all clients share, to simulate many on one machine; none: each has its own.
    """

    algorithm: str
    clients: tuple[ClientConfig, ...]
    rounds: int = 20
    local_updates: int = 100
    local_epochs: float | None = None
    batch_size: int = 256
    learner: dict[str, Any] = field(default_factory=dict)
    local: LocalConfig = field(default_factory=LocalConfig)
    aggregator: str | RuleConfig = "fedavg"
    groups: dict[str, str | RuleConfig] = field(default_factory=dict)
    clients_per_round: int | None = None
    asynchronous: AsyncConfig | None = None
    evaluation: EvaluationConfig | None = None
    min_clients: int | None = None
    timeout_s: float = 600.0
    max_update_mib: float = 256.0
    simulation_actors: int | None = None
    protection: ProtectionConfig = field(default_factory=ProtectionConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.clients:
            raise ConfigError("Federation has no clients: list at least one under 'clients'")
        name, count = Counter(client.name for client in self.clients).most_common(1)[0]
        if count > 1:
            raise ConfigError(f"Client name {name!r} is given {count} times: names are unique")
        for key in (
            "rounds",
            "local_updates",
            "local_epochs",
            "batch_size",
            "timeout_s",
            "max_update_mib",
            "simulation_actors",
        ):
            value = getattr(self, key)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"Federation has {key} {value}: give a positive number")
        if self.seed < 0:
            raise ConfigError(f"Federation has seed {self.seed}: give 0 or more")
        if not 1 <= self.num_drawn <= len(self.clients):
            raise ConfigError(
                f"Federation has clients_per_round {self.clients_per_round}: give 1 to {len(self.clients)}"
            )
        if self.asynchronous is not None and self.asynchronous.buffer_size > self.num_drawn:
            raise ConfigError(
                f"asynchronous has buffer_size {self.asynchronous.buffer_size}: give 1 to {self.num_drawn}, the "
                "clients of a round"
            )
        if not 1 <= self.quorum <= self.num_drawn:
            raise ConfigError(f"Federation has min_clients {self.min_clients}: give 1 to {self.num_drawn}")
        self._check_rules()

    @property
    def num_drawn(self) -> int:
        """Clients drawn for a round."""
        return len(self.clients) if self.clients_per_round is None else self.clients_per_round

    @property
    def quorum(self) -> int:
        """Updates needed to close a round."""
        if self.asynchronous is not None:
            return self.asynchronous.buffer_size
        return self.num_drawn // 2 + 1 if self.min_clients is None else self.min_clients

    @property
    def sharing(self) -> Sharing:
        """Rules by network group, the normaliser's and the rest's included."""
        rules = {NORMALISER: FIXED, **self.groups, REST: self.aggregator}
        return Sharing(
            rules={
                group: rule if isinstance(rule, RuleConfig) else RuleConfig(rule=rule) for group, rule in rules.items()
            },
            target_networks=self.local.target_networks,
        )

    def _check_rules(self) -> None:
        if self.local.ensemble is not None and self.algorithm != ENSEMBLE_ALGORITHM:
            raise ConfigError(
                f"local.ensemble changes the losses of '{ENSEMBLE_ALGORITHM}', the algorithm is {self.algorithm!r}: "
                "leave it out, or take that algorithm; rule 'fedora' goes with any that has critics"
            )
        aggregator = self.sharing.aggregator(len(self.clients))
        if self.quorum < aggregator.min_updates:
            raise ConfigError(
                f"Federation closes rounds with {self.quorum} updates, its rules need {aggregator.min_updates}: "
                + ("raise min_clients" if aggregator.min_updates <= self.num_drawn else "take another rule or settings")
            )
        rules = {rule.rule for rule in self.sharing.rules.values()} - {FIXED, LOCAL}
        check_protection(self.protection, rules=rules, num_clients=self.num_drawn)
        if self.protection.secure_aggregation is not None:
            self.sharing.check_masked(len(self.clients))
        if self.protection.dp_sgd is not None and (aggregator.needs_value or self.local.ensemble is not None):
            raise ConfigError(
                "dp_sgd adds noise to gradients, and FEDORA's value reports and decay of local losses would tell about "
                "the data without it: take another rule, or leave dp_sgd out"
            )
        if self.protection.dp_sgd is not None and self.evaluation is not None:
            raise ConfigError(
                "Results on held-out days have no noise, and with dp_sgd no client sends them: leave evaluation out, "
                "or dp_sgd"
            )
        if self.asynchronous is not None and self.protection.changes_updates:
            raise ConfigError(
                "Asynchronous rounds cannot be masked or compressed: a late change is to weights that are no more; "
                "leave out 'asynchronous' or the protection"
            )
        if self.asynchronous is not None and aggregator.max_staleness == 0:
            raise ConfigError("Asynchronous rounds need rule 'fedbuff' for every group: give it as aggregator")
