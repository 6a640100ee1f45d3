"""A policy that knows the best of each whole day in advance, and the bound that no policy passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gridray.errors import ConfigError
from gridray.policies.optimal.curtailment import best_curtailment_day
from gridray.policies.optimal.ev_charging import best_ev_day
from gridray.policies.optimal.following import following
from gridray.policies.optimal.hindsight import best_volt_var_day
from gridray.policies.optimal.restoration import MAX_SWITCHES, best_restoration_day
from gridray.policies.optimal.storage import best_storage_day

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from gridray.policies.optimal.programme import BestDay
    from gridray.tasks.base import Task
    from gridray.tasks.twin import TwinState

RELAXED = "optimisation bound: perfect foresight, relaxed taps and positions, power flow expanded about the optimum"
SWITCHED = "optimisation bound: faults known in advance, the best way through all states of the switches"


class Planner(NamedTuple):
    """best: finds the best of a task's day, given its number and the seed of what is drawn; kind: of bound, in words.

    is_drawn: whether days differ by that seed.
    """

    best: Callable[[Any, int, int], BestDay]
    kind: str = RELAXED
    is_drawn: bool = False


PLANNERS: dict[str, Planner] = {
    "curtailment": Planner(best_curtailment_day),
    "ev_charging": Planner(best_ev_day),
    "reconfiguration": Planner(best_restoration_day, SWITCHED, is_drawn=True),
    "storage": Planner(best_storage_day),
    "volt_var": Planner(best_volt_var_day),
}
"""Task name -> its planner."""


def has_bound(task: Task) -> bool:
    """Tell whether the days of a task can be planned.

    It has a planner, not too many switches to try, and none of the memories that no programme follows: delays of
    regulators, voltage trips, thermal images.
    """
    config = task.config
    num_switches = sum(channel.name.startswith("switch.") for channel in task.action_channels)
    if task.name not in PLANNERS or num_switches > MAX_SWITCHES:
        return False
    has_trips = getattr(config, "pv_trip", "none") != "none"
    return not (has_trips or config.regulator_delay_scale > 0.0 or config.has_thermal_image)


class PerfectPlan:
    """Follows the optimum of each whole day, known in advance: what the twin gives for it is a score that exists."""

    name = "perfect_plan"

    def __init__(self, task: Task) -> None:
        """Plan days as they come.

        Raises:
            ConfigError: nobody has written this task's programme, or it has too many switches to try all their states,
                or delays of regulators, voltage trips or thermal images.
        """
        if not has_bound(task):
            raise ConfigError(
                f"Task '{task.name}' on feeder '{task.feeder.name}' has no optimisation bound: give one of "
                f"{', '.join(PLANNERS)}, with at most {MAX_SWITCHES} switches, without regulator_delay_scale, "
                "pv_trip and has_thermal_image."
            )
        self._task = task
        self._planner = PLANNERS[task.name]
        self._days: dict[tuple[int, int], BestDay] = {}

    def best(self, day: int, seed: int = 0) -> BestDay:
        """Return bound and plan of a day; seed: of what is drawn."""
        key = (day, seed if self._planner.is_drawn else 0)
        if key not in self._days:
            self._days[key] = self._planner.best(self._task, *key)
        return self._days[key]

    def act_on(self, state: TwinState, rng: np.random.Generator) -> NDArray[np.float32]:  # noqa: ARG002
        """Return the plan's actions, float32 [num_envs, num_actions]."""
        episodes = zip(state.day.tolist(), state.streams.seeds.tolist(), strict=True)
        return following(self._task, state, [self.best(day, seed).set_points for day, seed in episodes])
