"""Drive a behaviour through days side by side and keep each transition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.datasets.behaviour import Draws
from gridray.datasets.plan import FIRST_DATE
from gridray.datasets.schema import COST_PREFIX
from gridray.envs.vector_env import GridVectorEnv

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.datasets.behaviour import Behaviour
    from gridray.tasks.base import Task

DAY_MS = 24 * 60 * 60 * 1000


class Driver:
    """Episodes of one recording; an episode is the same whatever it is run beside."""

    def __init__(self, task: Task, behaviour: Behaviour, days: NDArray[np.int64], *, seed: int, prefix: str) -> None:
        """Take the parts.

        Args:
            task: what is acted on.
            behaviour: who acts.
            days: int64 [num_episodes], day of each episode.
            seed: of the recording; each episode has its own stream.
            prefix: of the episodes' names, which no other recording has.
        """
        self._task, self._behaviour, self._days = task, behaviour, days
        self._seed, self._prefix = seed, prefix
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, 1)))
        self._policy_index = behaviour.draw_policies(len(days), rng)

    def drive(self, groups: list[NDArray[np.int64]], num_envs: int) -> list[dict[str, NDArray[Any]]]:
        """Run all groups' episodes, num_envs at a time, and return the columns of each group, episode after episode.

        Steps whose power flow has no solution are left out, as is what follows an episode's end.
        """
        episodes = np.concatenate(groups)
        num_parts = -(-len(episodes) // num_envs)
        parts = [self._run(part) for part in np.array_split(episodes, num_parts)]
        columns = parts[0]
        if num_parts > 1:
            columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        ends = np.cumsum([len(group) for group in groups])
        return [self._rows(columns, slice(end - len(group), end)) for group, end in zip(groups, ends, strict=True)]

    def _rows(self, columns: dict[str, NDArray[Any]], episodes: slice) -> dict[str, NDArray[Any]]:
        is_kept = columns["is_kept"][episodes].ravel()
        rows = {name: values[episodes] for name, values in columns.items() if name != "is_kept"}
        flat = {name: values.reshape(-1, *values.shape[2:]) for name, values in rows.items()}
        return flat if is_kept.all() else {name: values[is_kept] for name, values in flat.items()}

    def _run(self, episodes: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Run these episodes side by side; columns are [episode, step, ...]."""
        task, num, num_steps = self._task, len(episodes), self._task.num_steps
        env = GridVectorEnv(task, num)
        draws, seeds = self._draws(episodes)
        first = int(episodes[0])
        rngs = [np.random.default_rng([self._seed, first, index]) for index in range(len(self._behaviour.names))]
        days = self._days[episodes]
        costs = [f"{COST_PREFIX}{name}" for name in task.cost_names]
        kept = self._empty(num, costs)
        is_running = np.ones(num, dtype=np.bool_)
        kept["obs"][:, 0], _ = env.reset(options={"days": days, "seeds": seeds})
        for t in range(num_steps):
            actions, log_p = self._behaviour.act(kept["obs"][:, t], t, draws, rngs)
            kept["new_obs"][:, t], rewards, terminateds, truncateds, infos = env.step(actions)
            if t + 1 < num_steps:
                kept["obs"][:, t + 1] = kept["new_obs"][:, t]
            step = {"actions": actions, "action_logp": log_p, "rewards": rewards}
            step |= {"terminateds": terminateds, "truncateds": truncateds} | {name: infos[name] for name in costs}
            for name, values in step.items():
                kept[name][:, t] = values
            # Where the power flow has no solution there is no voltage to learn from.
            kept["is_kept"][:, t] = is_running & (infos.get("converged", np.ones(num)) > 0.0)
            is_running &= ~(terminateds | truncateds)
        steps = np.arange(num_steps)
        kept["eps_id"] = np.repeat([f"{self._prefix}-{episode:08d}" for episode in episodes], num_steps).reshape(
            num, -1
        )
        kept["t"] = np.broadcast_to(steps, (num, num_steps))
        kept["policy_index"] = np.broadcast_to(draws.policy[:, None], (num, num_steps)).astype(np.int16)
        since_midnight = (steps * (DAY_MS // num_steps)).astype("timedelta64[ms]")
        kept["timestamp"] = (FIRST_DATE + days)[:, None].astype("datetime64[ms]") + since_midnight
        return kept

    def _empty(self, num: int, costs: list[str]) -> dict[str, NDArray[Any]]:
        shape, task = (num, self._task.num_steps), self._task
        observation = (*shape, len(task.observation_channels))
        scalars = {name: np.empty(shape, dtype=np.float32) for name in ("action_logp", "rewards", *costs)}
        flags = {name: np.empty(shape, dtype=np.bool_) for name in ("terminateds", "truncateds", "is_kept")}
        tensors = {
            "obs": np.empty(observation, dtype=np.float32),
            "new_obs": np.empty(observation, dtype=np.float32),
            "actions": np.empty((*shape, len(task.action_channels)), dtype=np.float32),
        }
        return scalars | flags | tensors

    def _draws(self, episodes: NDArray[np.int64]) -> tuple[Draws, NDArray[np.uint64]]:
        """Return what chance decides, and the seed of each environment's own random numbers, uint64 [n]."""
        shape = (len(episodes), self._task.num_steps, len(self._task.action_channels))
        policy, deviates = self._policy_index[episodes], np.empty(shape)
        seeds = np.empty(len(episodes), dtype=np.uint64)
        for row, episode in enumerate(episodes.tolist()):
            rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(episode,)))
            seeds[row] = rng.integers(2**53, dtype=np.uint64)
            self._behaviour.draw(int(policy[row]), rng, deviates[row])
        return Draws(policy, deviates), seeds
