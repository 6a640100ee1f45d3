"""One rule per network group: actor, critics, value function and normaliser need not be joined alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gridray.federated.aggregators.base import Aggregate, Aggregator, State

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from gridray.federated.updates import ClientUpdate, Weights

REST = ""
"""The group of all weights that no other group names."""


def group_of(name: str, groups: Collection[str]) -> str:
    """Return the longest group that is a prefix of a weight's name at a dot, or REST.

    >>> group_of("critic.kernels.0", ["actor", "critic"])
    'critic'
    """
    matching = [group for group in groups if name == group or name.startswith(group + ".")]
    return max(matching, key=len, default=REST)


def grouped(rules: Mapping[str, Aggregator]) -> Aggregator:
    """Return the aggregator that applies to each group, by its prefix, that group's rule; every weight must have one.

    States are kept as "<group>:<name>". What a rule reports is named "<group>.<name>".
    """

    def init(weights: Weights) -> dict[str, NDArray[Any]]:
        return {
            f"{group}:{name}": array
            for group, names in _members(weights, rules).items()
            for name, array in rules[group].init(_picked(weights, names)).items()
        }

    def update(state: State, weights: Weights, updates: Sequence[ClientUpdate]) -> Aggregate:
        joined: dict[str, NDArray[Any]] = {}
        states: dict[str, NDArray[Any]] = {}
        report: dict[str, float] = {}
        for group, names in _members(weights, rules).items():
            own = {name.removeprefix(f"{group}:"): array for name, array in state.items() if _owner(name) == group}
            outcome = rules[group].update(own, _picked(weights, names), updates)
            joined |= outcome.weights
            states |= {f"{group}:{name}": array for name, array in outcome.state.items()}
            report |= {f"{group or 'rest'}.{name}": value for name, value in outcome.report.items()}
        return Aggregate({name: joined[name] for name in weights}, states, report)

    return Aggregator(
        init=init,
        update=update,
        min_updates=max(rule.min_updates for rule in rules.values()),
        max_staleness=min(rule.max_staleness for rule in rules.values()),
        needs_value=any(rule.needs_value for rule in rules.values()),
        has_controls=any(rule.has_controls for rule in rules.values()),
    )


def _members(weights: Weights, rules: Mapping[str, Aggregator]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for name in weights:
        members.setdefault(group_of(name, rules), []).append(name)
    return members


def _owner(state_name: str) -> str:
    return state_name.partition(":")[0]


def _picked(weights: Weights, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    return {name: weights[name] for name in names}
