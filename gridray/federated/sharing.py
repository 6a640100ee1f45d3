"""Which weights leave a client, which come back, and by what rule they are joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gridray.errors import ConfigError
from gridray.federated.aggregators.grouped import REST, group_of, grouped
from gridray.federated.aggregators.registry import make_aggregator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gridray.federated.aggregators.base import Aggregator

FIXED = "fixed"
LOCAL = "local"
NORMALISER = "normaliser"
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

    def is_whole(self, names: Iterable[str]) -> bool:
        """Tell whether clients keep nothing that decides what a policy does: all but targets is broadcast."""
        names = list(names)
        kept = set(names) - set(self.broadcast(names))
        return all(name.startswith(TARGET) for name in kept)

    def aggregator(self, num_clients: int) -> Aggregator:
        """Return the aggregator over all groups that are sent.

        Raises:
            ConfigError: a rule or setting does not exist.
        """
        rules = self._aggregators(num_clients)
        if not rules:
            raise ConfigError("No weight is sent, all are 'local' or 'fixed': give at least one group a rule")
        choices = [choice for choice in self.rules.values() if choice.rule not in {FIXED, LOCAL}]
        is_one = all(choice == choices[0] for choice in choices)
        return grouped(rules)._replace(weigh=next(iter(rules.values())).weigh if is_one else None)

    def check_masked(self, num_clients: int) -> None:
        """Refuse groups that count clients differently: one sum under masks has one count for each.

        Raises:
            ConfigError: names the rule.
        """
        rules = self._aggregators(num_clients)
        if self.aggregator(num_clients).weigh is None:
            for group, rule in rules.items():
                if rule.weigh is not None:
                    raise ConfigError(
                        f"Rule {self.rules[group].rule!r} counts clients in its own way, and a sum under masks has one "
                        "count for each: give all groups this rule and these settings, or switch secure_aggregation off"
                    )

    def controlled(self, names: Iterable[str], num_clients: int) -> list[str]:
        """Return the names of the sent weights whose rule uses control variates."""
        uses = {group for group, rule in self._aggregators(num_clients).items() if rule.has_controls}
        return [name for name in self.sent(names) if group_of(name, self.rules) in uses]

    def check(self, names: Iterable[str]) -> None:
        """Refuse groups that name nothing.

        Raises:
            ConfigError: names the group and the networks there are.
        """
        check_groups(self.rules.keys() - {REST}, names)

    def _aggregators(self, num_clients: int) -> dict[str, Aggregator]:
        return {
            group: make_aggregator(choice.rule, choice.settings, num_clients=num_clients)
            for group, choice in self.rules.items()
            if choice.rule not in {FIXED, LOCAL}
        }

    def _rule(self, name: str) -> str:
        return self.rules[group_of(name, self.rules)].rule


def check_groups(groups: Iterable[str], names: Iterable[str]) -> None:
    """Refuse groups that are no prefix of a weight's name.

    Raises:
        ConfigError: names the group and the networks there are.
    """
    names = list(names)
    for group in sorted(groups):
        if not any(group_of(name, [group]) == group for name in names):
            networks = ", ".join(sorted({name.partition(".")[0] for name in names}))
            raise ConfigError(f"Group {group!r} names no weight: networks of this algorithm are {networks}")
