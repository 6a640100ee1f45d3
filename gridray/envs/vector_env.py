"""Many environments of one task, stepped together: a native gymnasium VectorEnv."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.spaces import Box, MultiDiscrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from gridray.devices.random_streams import EnvStreams
from gridray.errors import ConfigError
from gridray.tasks.base import has_levels
from gridray.tasks.twin_config import TwinConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.tasks.base import Task

OBSERVATION_LIMIT = 1e3
"""Scaled observations are about 1; beyond this they are cut, so that a collapsed feeder stays in the space."""


class GridVectorEnv(VectorEnv[Any, Any, Any]):
    """Environments of one task; the row after a done row is its reset, as gymnasium's NEXT_STEP mode says.

    Observations float32 [num_envs, num_observations]; actions float32 [num_envs, num_actions] in [-1, 1], or int64
    levels where the task has these (a MultiDiscrete space).
    infos: "cost_<name>" and the task's indicators, float64 [num_envs]; "day", int64 [num_envs].
    Each environment draws from its own random stream, so that what it does does not depend on how many there are.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, task: Task, num_envs: int, *, seed: int | None = 0) -> None:
        """Create num_envs environments; without a seed their days are drawn from fresh entropy."""
        if num_envs < 1:
            raise ConfigError(f"num_envs is {num_envs}: give at least 1.")
        self.task = task
        self.cost_names = task.cost_names
        self.num_envs = num_envs
        size = len(task.observation_channels)
        self.single_observation_space = Box(-OBSERVATION_LIMIT, OBSERVATION_LIMIT, (size,), np.float32)
        self.single_action_space = _action_space(task)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._days = task.allowed_days()
        self._state = task.new_state(num_envs)
        self._is_done: NDArray[np.bool_] | None = None
        self._seed_streams(seed)

    @property
    def vmag_pu(self) -> NDArray[np.float64]:
        """Voltage magnitudes of the last interval, pu, [num_envs, num_nodes]."""
        return self.task.voltages(self._state)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a day in every environment.

        options: {"days": int [num_envs]} names the days, held out or not; {"seeds": uint64 [num_envs]} of their random
        numbers. All rows start anew: there is no reset_mask, as a row that is done starts by itself with the next step.

        Raises:
            ConfigError: an option or the seed means nothing.
        """
        given = reset_options(options, "days", "seeds")
        if isinstance(seed, list):
            self._seed_each(seed)
        elif seed is not None:
            self._seed_streams(seed)
            super().reset(seed=seed)
        rows = np.arange(self.num_envs)
        days = self._draw_days(rows) if given["days"] is None else self._row_of("days", given["days"])
        config = self.task.config
        # Held-out days may be named, too.
        last = config.num_days - 1 if isinstance(config, TwinConfig) else int(self._days.max())
        if days.min() < 0 or days.max() > last:
            wrong = int(days[(days < 0) | (days > last)][0])
            raise ConfigError(f"options['days'] has {wrong}: give days from 0 to {last}.")
        seeds = self._draw_seeds(rows) if given["seeds"] is None else self._row_of("seeds", given["seeds"])
        self.task.reset(self._state, rows, days.astype(np.int64), seeds.astype(np.uint64))
        self._is_done = np.zeros(self.num_envs, dtype=np.bool_)
        return self._observe(), {"day": days}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Apply actions for one interval; rows that were done are reset instead, with reward and costs 0.

        The last interval truncates; a task that ends before it, as others' do without a power flow, terminates.
        """
        if self._is_done is None:
            raise ConfigError("The environments have not been reset: call reset before the first step.")
        actions = self._checked(actions)
        is_early = self._state.t < self.task.num_steps - 1
        result = self.task.step(self._state, actions)
        was_done = self._is_done
        if was_done.any():
            rows = np.flatnonzero(was_done)
            self.task.reset(self._state, rows, self._draw_days(rows), self._draw_seeds(rows))
        infos: dict[str, Any] = {f"cost_{name}": cost for name, cost in result.costs.items()} | result.indicators
        rewards = result.rewards
        if was_done.any():
            # A reset row costs nothing and is solved: averages of "converged" count it as it is.
            infos = {name: np.where(was_done, float(name == "converged"), value) for name, value in infos.items()}
            rewards = np.where(was_done, 0.0, rewards)
        infos["day"] = self._state.day.copy()
        self._is_done = ~was_done & (self._state.t >= self.task.num_steps)
        return self._observe(), rewards, self._is_done & is_early, self._is_done & ~is_early, infos

    def agent_observations(self) -> NDArray[np.float32]:
        """Return what each agent sees in a task with agents of its own, float32 [num_envs, num_agents, width].

        Such a task has `agent_observations` of a state, an agent for each action.
        """
        seen: NDArray[np.float32] = self.task.agent_observations(self._state)  # type: ignore[attr-defined]
        return seen

    def _row_of(self, name: str, values: Any) -> NDArray[np.integer]:  # noqa: ANN401  # the user's
        """Return an option's whole numbers, one per environment."""
        given = np.asarray(values)
        if given.shape != (self.num_envs,):
            raise ConfigError(
                f"options['{name}'] has shape {given.shape}: give ({self.num_envs},), one per environment."
            )
        if not np.issubdtype(given.dtype, np.integer) or (name == "seeds" and given.min() < 0):
            raise ConfigError(f"options['{name}'] is {values}: give whole numbers from 0.")
        return given

    def _observe(self) -> NDArray[np.float32]:
        return np.clip(self.task.observe(self._state), -OBSERVATION_LIMIT, OBSERVATION_LIMIT)

    def _checked(self, actions: NDArray[Any]) -> NDArray[Any]:
        channels = self.task.action_channels
        space = self.single_action_space
        given = np.asarray(actions)
        if given.shape != self.action_space.shape:
            raise ConfigError(f"actions have shape {given.shape}: give {self.action_space.shape}.")
        if given.dtype.kind not in "biuf":
            raise ConfigError(f"actions are of type {given.dtype}: give real numbers.")
        if isinstance(space, MultiDiscrete):
            with np.errstate(invalid="ignore"):
                levels = given.astype(np.int64)
            is_right = (levels == given) & (levels >= space.start) & (levels < space.start + space.nvec)
            if not is_right.all():
                env, column = np.argwhere(~is_right)[0]
                channel = channels[column]
                raise ConfigError(
                    f"Action '{channel.name}' of environment {env} is {given[env, column]}: "
                    f"give a whole number from {channel.low:g} to {channel.high:g}."
                )
            return levels
        given = given.astype(np.float32, copy=False)
        if not np.isfinite(given).all():
            env, column = np.argwhere(~np.isfinite(given))[0]
            name = channels[column].name
            raise ConfigError(f"Action '{name}' of environment {env} is {given[env, column]}: give a number in -1..1.")
        return given

    def _seed_streams(self, seed: int | None) -> None:
        _check_seed(seed)
        seeds = np.random.SeedSequence(seed).generate_state(self.num_envs, np.uint64)
        self._streams = EnvStreams.from_seeds(seeds.astype(np.uint64))

    def _seed_each(self, seeds: list[int | None]) -> None:
        """Give each environment the stream of its own seed; where it is None, one of fresh entropy."""
        if len(seeds) != self.num_envs:
            raise ConfigError(f"seed has {len(seeds)} entries: give one for each of {self.num_envs} environments.")
        for seed in seeds:
            _check_seed(seed)
        words = [np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] for seed in seeds]
        self._streams = EnvStreams.from_seeds(np.array(words, dtype=np.uint64))

    def _draw_days(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        drawn = self._streams.at(rows).uniform(1)[0] * len(self._days)
        days: NDArray[np.int64] = self._days[drawn.astype(np.int64)]
        return days

    def _draw_seeds(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        drawn = self._streams.at(rows).uniform(1)[0] * 2.0**53
        seeds: NDArray[np.uint64] = drawn.astype(np.uint64)
        return seeds


def reset_options(options: dict[str, Any] | None, *names: str) -> dict[str, Any]:
    """Return the options of a reset by name, None where not given.

    Raises:
        ConfigError: there are others.
    """
    given = dict(options or {})
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise ConfigError(f"reset has no option '{unknown[0]}': give {' or '.join(names)}, or none.")
    return {name: given.get(name) for name in names}


def _check_seed(seed: int | None) -> None:
    if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
        raise ConfigError(f"seed is {seed}: give a whole number from 0, or None for fresh entropy.")


def _action_space(task: Task) -> Space[Any]:
    """Return a box of [-1, 1], or MultiDiscrete for a task of levels."""
    channels = task.action_channels
    if not has_levels(channels):
        return Box(-1.0, 1.0, (len(channels),), np.float32)
    low = np.array([channel.low for channel in channels], dtype=np.int64)
    high = np.array([channel.high for channel in channels], dtype=np.int64)
    return MultiDiscrete(high - low + 1, start=low)
