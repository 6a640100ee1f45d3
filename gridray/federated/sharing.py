"""Which weights leave a client, which come back, and by what rule they are joined."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gridray.errors import ConfigError
from gridray.federated.aggregators.grouped import REST, group_of, grouped
from gridray.federated.aggregators.registry import make_aggregator

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gridray.federated.aggregators.base import Aggregator

FIXED = "fixed"
LOCAL = "local"
TARGET = "target_"
"""Prefix of the names of target networks; what follows is the network that they go after."""


@dataclass(frozen=True, kw_only=True)
class RuleConfig:
    """How one network group is joined.

    rule: name of an aggregator; `local`: each client keeps its own (FedPer); `fixed`: all keep the first one.
    settings: of the aggregator.
    """

    rule: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """Rules by network group, a prefix of weights' names that ends at a dot; REST is for all others.

    target_networks: what they become when global weights arrive: `average`, joined as any other network; `keep`, each
        client's own goes on; `copy`, that of the network they go after. They are sent only to be averaged.
    """

    rules: Mapping[str, RuleConfig]
    target_networks: Literal["average", "keep", "copy"]

    def sent(self, names: Iterable[str]) -> list[str]:
        """Return the names of the weights that clients send."""
        return [name for name in self.broadcast(names) if self._rule(name) != FIXED]

    def broadcast(self, names: Iterable[str]) -> list[str]:
        """Return the names of the weights that clients get: those that they send, and the fixed ones."""
        averaged = self.target_networks == "average"
        return [name for name in names if self._rule(name) != LOCAL and (averaged or not name.startswith(TARGET))]

    def aggregator(self, num_clients: int) -> Aggregator:
        """Return the aggregator over all groups that are sent.

        Raises:
            ConfigError: a rule or setting does not exist.
        """
        return grouped(
            {
                group: make_aggregator(choice.rule, choice.settings, num_clients=num_clients)
                for group, choice in self.rules.items()
                if choice.rule not in {FIXED, LOCAL}
            }
        )

    def controlled(self, names: Iterable[str], num_clients: int) -> list[str]:
        """Return the names of the sent weights whose rule uses control variates."""
        uses = {
            group
            for group, choice in self.rules.items()
            if choice.rule not in {FIXED, LOCAL}
            and make_aggregator(choice.rule, choice.settings, num_clients=num_clients).has_controls
        }
        return [name for name in self.sent(names) if group_of(name, self.rules) in uses]

    def check(self, names: Iterable[str]) -> None:
        """Refuse groups that name nothing, and a federation that shares nothing.

        Raises:
            ConfigError: names the group and the networks there are.
        """
        names = list(names)
        for group in self.rules:
            if group != REST and not any(group_of(name, [group]) == group for name in names):
                networks = ", ".join(sorted({name.partition(".")[0] for name in names}))
                raise ConfigError(f"Group {group!r} names no weight: networks of this algorithm are {networks}")
        if not self.sent(names):
            raise ConfigError("No weight is sent, all are 'local' or 'fixed': give at least one group a rule")

    def _rule(self, name: str) -> str:
        return self.rules[group_of(name, self.rules)].rule
