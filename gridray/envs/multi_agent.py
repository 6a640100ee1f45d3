"""A task for several agents, one per device or one per zone: a PettingZoo parallel environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete, Space
from pettingzoo import ParallelEnv

from gridray.envs.vector_env import OBSERVATION_LIMIT, GridVectorEnv, reset_options
from gridray.errors import ConfigError
from gridray.tasks.twin_task import TwinTask
from gridray.tasks.zones import distance_zones, regulator_areas

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.base import Task


class GridParallelEnv(ParallelEnv[str, Any, Any]):  # type: ignore[misc]
    """One day at a time, acted on by all agents at once.

    Agents are devices with set-points ("regulator.reg1") or zones ("zone_0", ...). An agent sees the local views of its
    devices (`gridray.tasks.local_views`), float32 [num_devices * width], and sets their set-points in order, a box of
    [-1, 1] or levels. The reward is the task's, the same for all; infos have its costs and indicators. `state` is what
    the single agent sees. In MAPDN's task (`gridray.compat.mapdn`) agents are its PV and see what they see there.
    """

    metadata: dict[str, Any] = {"name": "gridray", "render_modes": []}  # noqa: RUF012

    def __init__(
        self, task: Task, *, agents: Literal["device", "zone"] = "device", num_zones: int | None = None
    ) -> None:
        """Create the environment.

        Args:
            task: on a twin, or with agents of its own.
            agents: what an agent is.
            num_zones: zones of buses near one another; without it they are the areas between regulators.

        Raises:
            ConfigError: the task has no local views, or agents or num_zones mean nothing here.
        """
        self._vector = GridVectorEnv(task, 1, seed=None)
        self.task = task
        if isinstance(task, TwinTask):
            members = _members(task, agents, num_zones)
            index = task.local_views.action_index
        elif hasattr(task, "agent_observations"):
            if agents != "device" or num_zones is not None:
                raise ConfigError(f"The agents of task '{task.name}' are its devices: leave agents and num_zones out.")
            members = {channel.name.rpartition(".")[0]: [i] for i, channel in enumerate(task.action_channels)}
            index = np.arange(len(members))[:, None]
        else:
            raise ConfigError(f"Task '{task.name}' has no local views of its devices: use its single agent.")
        self.possible_agents = list(members)
        self.agents: list[str] = []
        self._devices = {agent: np.array(devices) for agent, devices in members.items()}
        self._columns = {agent: index[devices][index[devices] >= 0] for agent, devices in self._devices.items()}
        self._observed = np.zeros(self._vector.single_observation_space.shape or (), np.float32)
        self.state_space = self._vector.single_observation_space
        width = self._views(np.zeros((1, *(self.state_space.shape or ())), np.float32)).shape[1]
        self.observation_spaces: dict[str, Space[Any]] = {
            agent: Box(-OBSERVATION_LIMIT, OBSERVATION_LIMIT, (len(devices) * width,), np.float32)
            for agent, devices in self._devices.items()
        }
        self.action_spaces: dict[str, Space[Any]] = {
            agent: _part(self._vector.single_action_space, columns) for agent, columns in self._columns.items()
        }

    def observation_space(self, agent: str) -> Space[Any]:
        """Return what an agent may see."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Space[Any]:
        """Return what an agent may do."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[np.float32]], dict[str, dict[str, Any]]]:
        """Start a day; options={"day": int} names it."""
        # PettingZoo's own API test passes an option of the name "options", which means nothing.
        given = {name: value for name, value in (options or {}).items() if name != "options"}
        day = reset_options(given, "day")["day"]
        observations, infos = self._vector.reset(seed=seed, options=None if day is None else {"days": [day]})
        self.agents = list(self.possible_agents)
        return self._seen(observations), self._each(_row(infos))

    def step(
        self, actions: dict[str, NDArray[Any]]
    ) -> tuple[
        dict[str, NDArray[np.float32]],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """Apply all agents' actions for one interval.

        Raises:
            ConfigError: the day is over, an agent is missing or unknown, or its action has the wrong shape.
        """
        if not self.agents:
            raise ConfigError("The day is over: call reset before the next step.")
        unknown = sorted(set(actions) - set(self._columns))
        if unknown:
            raise ConfigError(f"There is no agent '{unknown[0]}': give actions of {', '.join(self.agents)} only.")
        joined = np.zeros(self._vector.action_space.shape or (), self._vector.action_space.dtype)
        for agent, columns in self._columns.items():
            if agent not in actions:
                raise ConfigError(f"Agent '{agent}' has no action: give one for each of {', '.join(self.agents)}.")
            given = np.asarray(actions[agent])
            if given.shape != (len(columns),):
                raise ConfigError(f"The action of agent '{agent}' has shape {given.shape}: give ({len(columns)},).")
            joined[0, columns] = given
        observations, rewards, terminated, truncated, infos = self._vector.step(joined)
        each = self._each
        result = (
            self._seen(observations),
            each(float(rewards[0])),
            each(bool(terminated[0])),
            each(bool(truncated[0])),
            each(_row(infos)),
        )
        if terminated[0] or truncated[0]:
            self.agents = []
        return result

    def render(self) -> None:
        """Show nothing: there is no render mode."""

    def close(self) -> None:
        """Release nothing: there is nothing to release."""

    def state(self) -> NDArray[np.float32]:
        """Return the task's observations of the last step, float32 [num_observations], for a common critic."""
        return self._observed

    def _views(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what each device shows, float32 [num_devices, width]."""
        task = self.task
        seen = task.views(observations) if isinstance(task, TwinTask) else self._vector.agent_observations()
        views: NDArray[np.float32] = seen[0]
        return views

    def _seen(self, observations: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        self._observed = observations[0].copy()
        views = np.clip(self._views(observations), -OBSERVATION_LIMIT, OBSERVATION_LIMIT)
        return {agent: views[devices].ravel() for agent, devices in self._devices.items()}

    def _each(self, value: Any) -> dict[str, Any]:  # noqa: ANN401
        return {agent: dict(value) if isinstance(value, dict) else value for agent in self.possible_agents}


def _members(task: TwinTask, agents: str, num_zones: int | None) -> dict[str, list[int]]:
    """Return the devices of each agent; an agent has set-points."""
    views = task.local_views
    acting = np.flatnonzero(views.action_mask.any(axis=1)).tolist()
    if agents == "device":
        if num_zones is not None:
            raise ConfigError(f"num_zones is {num_zones} but agents are devices: leave it out.")
        return {views.device_names[device]: [device] for device in acting}
    if agents != "zone":
        raise ConfigError(f"agents is '{agents}': give device or zone.")
    zones = regulator_areas(task.feeder) if num_zones is None else distance_zones(task.feeder, num_zones)
    zone_of = np.array([zones[bus] for bus in views.device_buses])
    # What only shows something is seen by the agent of its zone.
    return {f"zone_{zone}": np.flatnonzero(zone_of == zone).tolist() for zone in sorted(set(zone_of[acting].tolist()))}


def _part(space: Space[Any], columns: NDArray[np.int64]) -> Space[Any]:
    if isinstance(space, MultiDiscrete):
        return MultiDiscrete(space.nvec[columns], start=space.start[columns])
    return Box(-1.0, 1.0, (len(columns),), np.float32)


def _row(infos: dict[str, Any]) -> dict[str, Any]:
    return {name: values[0].item() for name, values in infos.items()}
