"""Record a dataset: a pool of Ray actors drives policies; each writes its own shards, only their counts travel."""

from __future__ import annotations

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray.data

from gridray.cluster.runtime import ray_session
from gridray.datasets.behaviour import Behaviour, resolve_shares
from gridray.datasets.card import task_source
from gridray.datasets.dataset import OfflineDataset
from gridray.datasets.drive import Driver
from gridray.datasets.partial import (
    encode_shards,
    file_sha256,
    finished_shard,
    partial_folder,
    publish,
    read_sidecar,
    write_shards,
)
from gridray.datasets.plan import ShardPlan
from gridray.datasets.schema import OPTIONAL_COLUMNS, make_table, transition_schema
from gridray.errors import ConfigError
from gridray.policies.registry import make_policy
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    import pyarrow as pa
    from numpy.typing import NDArray

    from gridray.datasets.behaviour import PolicyMaker
    from gridray.datasets.partial import EncodedShard
    from gridray.datasets.plan import PlannedShard
    from gridray.tasks.base import Task

BLOCKS_AT_ONCE = 8
"""Most blocks that an actor takes at once: one goes to disk while it drives the next."""
RECORDED_COLUMNS = tuple(name for name in OPTIONAL_COLUMNS if name != "actions_inferred")


@dataclass(frozen=True, kw_only=True)
class RecordConfig:
    """What to record; the rows depend on all of this but num_actors, the files on rows_per_shard too.

    policy: name of a policy (or whatever the policy maker given to `record` understands), or the share of episodes of
    each of several, such as {medium: 0.5, expert: 0.5}.
    tiers: which policy a name in `policy` stands for, such as {medium: runs/half, expert: runs/full}.
    random_share: share of episodes that act at random besides, for coverage.
    noise_std: standard deviation of the Gaussian noise added to actions, which are then cut to [-1, 1]; one for all, or
    by kind of device, such as {regulator: 0.05, pv: 0.3}, where kinds that are not named act as the policy says.
    noise_steps: steps through which a deviate stays, so that what only shows after a while can be learnt too;
        probabilities of actions are those of each step by itself.
    epsilon: probability that an action that is a level is drawn at random.
    num_envs: days that an actor steps together.
    rows_per_shard: most rows of a Parquet file, at least one episode.
    licence: what others may do with the dataset, best an SPDX identifier; the card says it.
    """

    task: str = "volt_var"
    task_config: dict[str, Any] = field(default_factory=dict)
    policy: str | dict[str, float] = "utility_controls"
    tiers: dict[str, str] = field(default_factory=dict)
    noise_std: float | dict[str, float] = 0.0
    noise_steps: int = 1
    epsilon: float = 0.0
    random_share: float = 0.0
    num_episodes: int = 64
    num_envs: int = 32
    num_actors: int = 1
    seed: int = 0
    rows_per_shard: int = 8192
    licence: str = "not stated"

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("num_episodes", "num_envs", "num_actors", "rows_per_shard", "noise_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give at least 1.")
        stated = self.noise_std if isinstance(self.noise_std, dict) else {"": self.noise_std}
        if not all(0.0 <= std <= 2.0 for std in stated.values()):
            raise ConfigError(f"noise_std is {self.noise_std}: give a number from 0 to 2, or one for each kind.")
        for name in ("random_share", "epsilon"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a share from 0 to 1.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}: give 0 or more.")
        resolve_shares(self.policy, self.tiers, self.random_share)

    def shares(self) -> dict[str, float]:
        """Return the share of episodes of each policy, by name or directory."""
        shares: dict[str, float] = {}
        for name, share in resolve_shares(self.policy, self.tiers, self.random_share).values():
            shares[name] = shares.get(name, 0.0) + share
        return shares


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
        policy_maker: Makes policies by the names in `config.policy` or `config.tiers`, in every actor.

    Raises:
        ConfigError: task, policy or their configuration are wrong.
        DatasetError: there is something at `path`, or nothing could be recorded.
    """
    task = make_task(config.task, config.task_config)
    behaviour = make_behaviour(config, task, policy_maker)
    settings = _identity(config, task)
    progress = on_progress or (lambda _episodes: None)
    with partial_folder(path, settings) as folder:
        plan = make_plan(config, task)
        todo = [index for index, shard in enumerate(plan.shards) if finished_shard(folder, shard.file) is None]
        progress(config.num_episodes - sum(len(plan.shards[index].episodes) for index in todo))
        blocks = plan.blocks(todo, config.num_envs)
        recorder = {"config": config, "folder": str(folder.resolve()), "policy_maker": policy_maker, "blocks": blocks}
        for num_episodes in (_on_actors if use_ray else _in_process)(recorder, config.num_actors):
            progress(num_episodes)
        source = task_source(
            task, policy=_title(behaviour, config), seed=config.seed, licence=config.licence, recording=settings
        )
        # Every digest was taken when its shard was written, or checked above: no need to read all again.
        card = publish(folder, path, source, (read_sidecar(folder, shard.file) for shard in plan.shards))
    return OfflineDataset(path, card)


def make_plan(config: RecordConfig, task: Task) -> ShardPlan:
    """Return which episodes lie in which shard."""
    return ShardPlan(
        utility=str(config.task_config.get("utility", "default")),
        allowed_days=task.allowed_days(),
        num_episodes=config.num_episodes,
        episodes_per_shard=max(1, config.rows_per_shard // task.num_steps),
        seed=config.seed,
    )


def make_behaviour(config: RecordConfig, task: Task, policy_maker: PolicyMaker = make_policy) -> Behaviour:
    """Return who acts."""
    return Behaviour(
        task,
        config.shares(),
        policy_maker,
        noise_std=config.noise_std,
        epsilon=config.epsilon,
        noise_steps=config.noise_steps,
    )


class Recorder:
    """Records whole shards into a folder; stateful, so that an actor builds its task and policies once."""

    def __init__(self, config: RecordConfig, folder: str, policy_maker: PolicyMaker, blocks: list[list[int]]) -> None:
        """Build task, plan and policies; blocks: shards that are stepped side by side."""
        task = make_task(config.task, config.task_config)
        self._folder, self._num_envs, self._blocks = Path(folder), config.num_envs, blocks
        self._plan = make_plan(config, task)
        behaviour = make_behaviour(config, task, policy_maker)
        prefix = _digest(_identity(config, task))[:12]
        self._driver = Driver(task, behaviour, self._plan.days, seed=config.seed, prefix=prefix)
        self._schema = transition_schema(
            len(task.observation_channels), len(task.action_channels), task.cost_names, RECORDED_COLUMNS
        )

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
        """Record the blocks numbered batch["id"] and return how many episodes each has."""
        return {"num_episodes": np.array(list(self.record_blocks(batch["id"].tolist())), dtype=np.int64)}

    def record_blocks(self, blocks: Iterable[int]) -> Iterator[int]:
        """Record blocks one after the other and yield the number of episodes of each when it is on disk.

        A thread makes the files and waits for the disk while the next block is driven. Encoding and digests stay in
        this one, as two threads that take turns in the interpreter are slower.
        """
        with ThreadPoolExecutor(max_workers=1) as disk:
            waiting: Future[int] | None = None
            for block in blocks:
                shards = [self._plan.shards[index] for index in self._blocks[block]]
                episodes = np.concatenate([shard.episodes for shard in shards])
                steps = self._driver.drive(episodes, self._num_envs)
                encoded = encode_shards(self._tables(shards, steps))
                if waiting is not None:
                    yield waiting.result()
                waiting = disk.submit(self._write, encoded, len(episodes))
            if waiting is not None:
                yield waiting.result()

    def _write(self, encoded: list[EncodedShard], num_episodes: int) -> int:
        write_shards(self._folder, encoded)
        return num_episodes

    def _tables(self, shards: list[PlannedShard], steps: dict[str, NDArray[Any]]) -> Iterator[tuple[str, pa.Table]]:
        first = 0
        for shard in shards:
            columns = self._driver.episode_rows(steps, first, shard.episodes)
            first += len(shard.episodes)
            yield shard.file, make_table(columns, self._schema, where=f"shard '{shard.file}'")


def _in_process(recorder: dict[str, Any], _num_actors: int) -> Iterator[int]:
    local = Recorder(**recorder)
    return local.record_blocks(range(len(recorder["blocks"])))


def _on_actors(recorder: dict[str, Any], num_actors: int) -> Iterator[int]:
    num_blocks = len(recorder["blocks"])
    if not num_blocks:
        return
    # Its plan and its missing progress bars are no news to who asked for a dataset.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with ray_session():
        # An actor that dies costs a few blocks, and progress comes with each few.
        at_once = max(1, min(BLOCKS_AT_ONCE, num_blocks // (4 * num_actors)))
        jobs = ray.data.range(num_blocks, override_num_blocks=-(-num_blocks // at_once))
        counts = jobs.map_batches(
            Recorder,
            fn_constructor_kwargs=recorder,
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=min(num_actors, num_blocks)),
        )
        counts.context.enable_progress_bars = False
        for row in counts.iter_rows():
            yield int(row["num_episodes"])


def _title(behaviour: Behaviour, config: RecordConfig) -> str:
    names = behaviour.policy_names
    if len(names) == 1:
        return names[0]
    shares = config.shares().values()
    return " + ".join(f"{100.0 * share:.4g} % {name}" for name, share in zip(names, shares, strict=True))


def _identity(config: RecordConfig, task: Task) -> dict[str, Any]:
    """Return what decides every row, as plain values: only shards with the same can be one dataset."""
    settings = asdict(config)
    for name in ("num_actors", "licence"):
        del settings[name]
    settings["task_config"] = task.config_dict()
    settings["feeder_hash"] = task.feeder.content_hash()
    bundles = [Path(name) for name in config.shares() if Path(name).is_dir()]
    settings["policy_files"] = {
        str(bundle): {file.name: file_sha256(file) for file in sorted(bundle.iterdir()) if file.is_file()}
        for bundle in bundles
    }
    return settings


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
