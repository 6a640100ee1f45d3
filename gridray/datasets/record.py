"""Record a dataset: a pool of Ray actors drives a policy; each writes its own shards, only their counts travel."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray.data

from gridray.cluster.runtime import ray_session
from gridray.datasets.card import task_source
from gridray.datasets.dataset import OfflineDataset
from gridray.datasets.partial import file_sha256, finished_shard, partial_folder, publish, write_shard
from gridray.datasets.schema import COST_PREFIX, make_table, transition_schema
from gridray.envs.vector_env import GridVectorEnv
from gridray.errors import ConfigError, DatasetError
from gridray.policies.registry import make_policy
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    from gridray.policies.base import Policy
    from gridray.tasks.base import Task

    PolicyMaker = Callable[[str, Task], Policy]


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """What to record; the rows depend on all of this but num_actors.

    policy: name of a policy, or whatever the policy maker given to `record` understands.
    noise_std: standard deviation of the Gaussian noise added to actions, which are then clipped to [-1, 1].
    random_share: probability that an episode acts at random instead, for coverage.
    num_envs: days that an actor steps together.
    rows_per_shard: rows of a Parquet file, at least one episode.
    """

    task: str = "volt_var"
    task_config: dict[str, Any] = field(default_factory=dict)
    policy: str = "utility_controls"
    noise_std: float = 0.0
    random_share: float = 0.0
    num_episodes: int = 64
    num_envs: int = 32
    num_actors: int = 1
    seed: int = 0
    rows_per_shard: int = 8192

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("num_episodes", "num_envs", "num_actors", "rows_per_shard"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give at least 1.")
        if not 0.0 <= self.noise_std <= 2.0:
            raise ConfigError(f"noise_std is {self.noise_std}: give a number from 0 to 2.")
        if not 0.0 <= self.random_share <= 1.0:
            raise ConfigError(f"random_share is {self.random_share}: give a share from 0 to 1.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: give 0 or more.")


def record(
    config: RecordConfig,
    path: Path,
    on_progress: Callable[[int], None] | None = None,
    *,
    use_ray: bool = True,
    policy_maker: PolicyMaker = make_policy,
) -> OfflineDataset:
    """Record episodes as a dataset; a run that was killed goes on from its finished shards.

    Args:
        config: What to record.
        path: Directory to be made; all actors must see it (with several machines, on a shared file system).
        on_progress: Called with the number of episodes finished since its last call.
        use_ray: False records in this process, with equal rows.
        policy_maker: Makes the policy from `config.policy`, in every actor.

    Raises:
        ConfigError: task, policy or their configuration are wrong.
        DatasetError: there is something at `path`, or nothing could be recorded.
    """
    task = make_task(config.task, config.task_config)
    policy = policy_maker(config.policy, task)
    settings = _identity(config, task)
    progress = on_progress or (lambda _episodes: None)
    with partial_folder(path, settings) as folder:
        plan = ShardPlan(config, task.num_steps)
        todo = [index for index in range(plan.num_shards) if finished_shard(folder, index) is None]
        progress(config.num_episodes - sum(len(plan.episodes(index)) for index in todo))
        recorder = {"config": config, "folder": str(folder.resolve()), "policy_maker": policy_maker}
        for num_episodes in (_on_actors if use_ray else _in_process)(recorder, todo, config.num_actors):
            progress(num_episodes)
        finished = [finished_shard(folder, index) for index in range(plan.num_shards)]
        if None in finished:
            raise DatasetError(f"Shard {finished.index(None)} of '{path}' is missing: record again to complete it.")
        shards = [shard for shard in finished if shard is not None]
        num_rows = sum(shard.shard.rows for shard in shards)
        settings["num_steps_left_out"] = config.num_episodes * task.num_steps - num_rows
        source = task_source(task, policy=policy.name, seed=config.seed, recording=settings)
        publish(folder, path, source, shards)
    return OfflineDataset.open(path)


class ShardPlan:
    """Which episodes lie in which shard; the number of actors has no say in it."""

    def __init__(self, config: RecordConfig, num_steps: int) -> None:
        """Divide the episodes, each num_steps rows long."""
        self._num_episodes = config.num_episodes
        self._per_shard = max(1, config.rows_per_shard // num_steps)
        self.num_shards = -(-config.num_episodes // self._per_shard)

    def episodes(self, shard: int) -> range:
        """Return the numbers of the shard's episodes."""
        first = shard * self._per_shard
        return range(first, min(first + self._per_shard, self._num_episodes))


class Recorder:
    """Records whole shards into a folder; stateful, so that an actor builds its task and policy once."""

    def __init__(self, config: RecordConfig, folder: str, policy_maker: PolicyMaker) -> None:
        """Build task and policy."""
        self._config = config
        self._folder = Path(folder)
        self._task = make_task(config.task, config.task_config)
        self._policy = policy_maker(config.policy, self._task)
        self._plan = ShardPlan(config, self._task.num_steps)
        self._prefix = _digest(_identity(config, self._task))[:12]
        self._schema = transition_schema(
            len(self._task.observation_channels), len(self._task.action_channels), self._task.cost_names
        )

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        """Record the shards numbered batch["id"] and return how many episodes each has."""
        return {"num_episodes": np.array([self.record_shard(int(shard)) for shard in batch["id"]], dtype=np.int64)}

    def record_shard(self, shard: int) -> int:
        """Record one shard and return the number of its episodes."""
        episodes = self._plan.episodes(shard)
        size = self._config.num_envs
        parts = [self._drive(episodes[first : first + size]) for first in range(0, len(episodes), size)]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        write_shard(self._folder, shard, self._table(columns, shard))
        return len(episodes)

    def _table(self, columns: dict[str, NDArray[Any]], shard: int) -> pa.Table:
        # Where the power flow has no solution there is no voltage to learn from.
        is_solved = columns.pop("converged") > 0.0
        solved = {name: values[is_solved] for name, values in columns.items()}
        return make_table(solved, self._schema, where=f"shard {shard}")

    def _drive(self, episodes: range) -> dict[str, NDArray[Any]]:
        """Run these episodes side by side; columns come back with each episode's rows together."""
        env = GridVectorEnv(self._task, len(episodes), seed=self._config.seed)
        days, is_random, noise = self._draws(episodes)
        rng = np.random.default_rng([self._config.seed, episodes[0]])
        observations, _ = env.reset(options={"days": days})
        steps = []
        for t in range(self._task.num_steps):
            proposed = self._policy.act(observations, rng)
            actions = np.where(is_random[:, None], noise[:, t], np.clip(proposed + noise[:, t], -1.0, 1.0))
            actions = actions.astype(np.float32)
            new_observations, rewards, terminateds, truncateds, infos = env.step(actions)
            row = {
                "eps_id": np.array([f"{self._prefix}-{episode:08d}" for episode in episodes]),
                "t": np.full(len(episodes), t),
                "obs": observations,
                "actions": actions,
                "rewards": rewards,
                "new_obs": new_observations,
                "terminateds": terminateds,
                "truncateds": truncateds,
                "converged": infos.get("converged", np.ones(len(episodes))),
            }
            steps.append(
                row | {f"{COST_PREFIX}{name}": infos[f"{COST_PREFIX}{name}"] for name in self._task.cost_names}
            )
            observations = new_observations
        stacked = {name: np.stack([step[name] for step in steps], axis=1) for name in steps[0]}
        return {name: values.reshape(-1, *values.shape[2:]) for name, values in stacked.items()}

    def _draws(self, episodes: range) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]:
        """Return day [n], whether it acts at random [n], and noise or random action [n, num_steps, num_actions]."""
        config, allowed = self._config, self._task.allowed_days()
        shape = (self._task.num_steps, len(self._task.action_channels))
        days, are_random, noises = [], [], []
        for episode in episodes:
            # An episode has its own stream: the same whatever it is run beside.
            rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(episode,)))
            days.append(rng.choice(allowed))
            are_random.append(rng.random() < config.random_share)
            noises.append(rng.uniform(-1.0, 1.0, shape) if are_random[-1] else rng.normal(0.0, config.noise_std, shape))
        return np.array(days), np.array(are_random), np.stack(noises)


def _in_process(recorder: dict[str, Any], todo: Iterable[int], _num_actors: int) -> Iterator[int]:
    local = Recorder(**recorder)
    return (local.record_shard(shard) for shard in todo)


def _on_actors(recorder: dict[str, Any], todo: list[int], num_actors: int) -> Iterator[int]:
    if not todo:
        return
    # Its plan and its missing progress bars are no news to who asked for a dataset.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with ray_session():
        # A block per shard: an actor that dies costs one shard, and progress comes with each.
        jobs = ray.data.from_items([{"id": shard} for shard in todo], override_num_blocks=len(todo))
        counts = jobs.map_batches(
            Recorder,
            fn_constructor_kwargs=recorder,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(num_actors, len(todo))),
        )
        counts.context.enable_progress_bars = False
        for row in counts.iter_rows():
            yield int(row["num_episodes"])


def _identity(config: RecordConfig, task: Task) -> dict[str, Any]:
    """Return what decides every row, as plain values: only shards with the same can be one dataset."""
    settings = asdict(config)
    del settings["num_actors"]
    settings["task_config"] = task.config_dict()
    settings["feeder_hash"] = task.feeder.content_hash()
    bundle = Path(config.policy)
    if bundle.is_dir():
        settings["policy_files"] = {file.name: file_sha256(file) for file in sorted(bundle.iterdir()) if file.is_file()}
    return settings


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
