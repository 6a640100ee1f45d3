"""The untrained controllers that can be named in a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridray.errors import ConfigError
from gridray.policies.droop import Droop
from gridray.policies.random import RandomPolicy
from gridray.policies.utility_controls import UtilityControls

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridray.policies.base import Policy
    from gridray.tasks.base import Task

POLICIES: dict[str, Callable[[Task], Policy]] = {
    RandomPolicy.name: RandomPolicy,
    UtilityControls.name: UtilityControls,
    Droop.name: Droop,
}


def make_policy(name: str, task: Task) -> Policy:
    """Return the named policy for this task.

    Raises:
        ConfigError: there is no such policy.
    """
    if name not in POLICIES:
        raise ConfigError(f"There is no policy '{name}': give one of {', '.join(sorted(POLICIES))}.")
    return POLICIES[name](task)
