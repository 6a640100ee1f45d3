"""The untrained controllers that can be named in a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridray.errors import ConfigError
from gridray.policies.droop import Droop
from gridray.policies.hold import Hold
from gridray.policies.look_ahead import Greedy, RecedingHorizon
from gridray.policies.optimal.plan import PerfectPlan
from gridray.policies.random import RandomPolicy
from gridray.policies.static import StaticSetting
from gridray.policies.utility_controls import UtilityControls

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridray.policies.base import Policy, TwinPolicy
    from gridray.tasks.base import Task

POLICIES: dict[str, Callable[[Task], Policy]] = {
    RandomPolicy.name: RandomPolicy,
    Hold.name: Hold,
    UtilityControls.name: UtilityControls,
    StaticSetting.name: StaticSetting,
    Droop.name: Droop,
}
TWIN_POLICIES: dict[str, Callable[[Task], TwinPolicy]] = {
    Greedy.name: Greedy,
    RecedingHorizon.name: RecedingHorizon,
    PerfectPlan.name: PerfectPlan,
}
"""References that look into the twin: they are evaluated, and neither record nor serve."""


def make_policy(name: str, task: Task) -> Policy:
    """Return the named policy for this task.

    Raises:
        ConfigError: there is no such policy.
    """
    if name not in POLICIES:
        raise ConfigError(f"There is no policy '{name}': give one of {', '.join(sorted(POLICIES))}.")
    return POLICIES[name](task)


def make_reference(name: str, task: Task) -> Policy | TwinPolicy:
    """Return the named policy or reference for this task.

    Raises:
        ConfigError: there is none of this name.
    """
    if name in TWIN_POLICIES:
        return TWIN_POLICIES[name](task)
    return make_policy(name, task)
