"""Drive a behaviour through days side by side and keep each transition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gridray.datasets.behaviour import Draws
from gridray.datasets.plan import FIRST_DATE
from gridray.datasets.schema import COST_PREFIX, linked_tensors
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
        self._costs = [f"{COST_PREFIX}{name}" for name in task.cost_names]
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, 1)))
        self._policy_index = behaviour.draw_policies(len(days), rng)
        self._buffers: dict[str, NDArray[Any]] = {}

    def drive(self, episodes: NDArray[np.int64], num_envs: int) -> dict[str, NDArray[Any]]:
        """Run these episodes, num_envs at a time, and return their steps by name, [num_episodes, num_steps, ...].

        "obs" has a step more, what is seen at the end; `episode_rows` makes columns of them. The next call writes
        over them: fresh memory costs more than what is written to it.
        """
        if len(self._buffers.get("obs", ())) < len(episodes):
            self._buffers = self._empty(max(len(episodes), num_envs))
        steps = {name: values[: len(episodes)] for name, values in self._buffers.items()}
        for rows in np.array_split(np.arange(len(episodes)), -(-len(episodes) // num_envs)):
            self._run(episodes[rows], {name: values[rows[0] : rows[-1] + 1] for name, values in steps.items()})
        return steps

    def episode_rows(self, steps: dict[str, NDArray[Any]], first: int, episodes: NDArray[np.int64]) -> dict[str, Any]:
        """Return the columns of these episodes, one after the other; they were driven from number `first` on.

        Steps whose power flow has no solution are left out, as is what follows an episode's end.
        """
        num_steps, num = self._task.num_steps, len(episodes)
        own = {name: values[first : first + num] for name, values in steps.items()}
        observations, is_kept = own.pop("obs"), own.pop("is_kept").ravel()
        rows: dict[str, Any] = {name: values.reshape(-1, *values.shape[2:]) for name, values in own.items()}
        since_midnight = (np.arange(num_steps) * (DAY_MS // num_steps)).astype("timedelta64[ms]")
        midnight = (FIRST_DATE + self._days[episodes])[:, None].astype("datetime64[ms]")
        rows["timestamp"] = (midnight + since_midnight).ravel()
        rows["t"] = np.tile(np.arange(num_steps, dtype=np.int32), num)
        rows["policy_index"] = np.repeat(self._policy_index[episodes].astype(np.int16), num_steps)
        rows["eps_id"] = np.repeat(np.arange(num), num_steps)
        if is_kept.all() and np.isfinite(observations).all():
            rows["obs"], rows["new_obs"] = linked_tensors(observations)
        else:
            for name, part in (("obs", observations[:, :-1]), ("new_obs", observations[:, 1:])):
                rows[name] = part.reshape(-1, part.shape[2])
            rows = {name: values[is_kept] for name, values in rows.items()}
        names = pa.array([f"{self._prefix}-{episode:08d}" for episode in episodes.tolist()])
        return rows | {"eps_id": names.take(pa.array(rows["eps_id"]))}

    def _run(self, episodes: NDArray[np.int64], steps: dict[str, NDArray[Any]]) -> None:
        """Run these episodes side by side and write their steps."""
        num_steps = self._task.num_steps
        env = GridVectorEnv(self._task, len(episodes))
        draws, seeds = self._draws(episodes)
        first = int(episodes[0])
        rngs = [np.random.default_rng([self._seed, first, index]) for index in range(len(self._behaviour.names))]
        is_running = np.ones(len(episodes), dtype=np.bool_)
        seen, _ = env.reset(options={"days": self._days[episodes], "seeds": seeds})
        for t in range(num_steps):
            actions, log_p = self._behaviour.act(seen, t, draws, rngs)
            step = {"obs": seen, "actions": actions, "action_logp": log_p}
            seen, step["rewards"], terminateds, truncateds, infos = env.step(actions)
            step |= {"terminateds": terminateds, "truncateds": truncateds}
            step |= {name: infos[name] for name in self._costs}
            # Where the power flow has no solution there is no voltage to learn from.
            step["is_kept"] = is_running & (infos["converged"] > 0.0) if "converged" in infos else is_running
            for name, values in step.items():
                steps[name][:, t] = values
            is_running &= ~(terminateds | truncateds)
        steps["obs"][:, num_steps] = seen

    def _empty(self, num: int) -> dict[str, NDArray[Any]]:
        task = self._task
        shape = (num, task.num_steps)
        # A step's numbers lie side by side in memory, as they come.
        scalars = {name: np.empty(shape[::-1], np.float32).T for name in ("action_logp", "rewards", *self._costs)}
        flags = {name: np.empty(shape[::-1], np.bool_).T for name in ("terminateds", "truncateds", "is_kept")}
        tensors = {
            "obs": np.empty((num, task.num_steps + 1, len(task.observation_channels)), dtype=np.float32),
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
