"""The registered environments for RLlib, and how RLlib reads offline datasets; nothing else here knows RLlib."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune.registry import register_env

from gridray.envs.registration import ENV_IDS, make_env, make_parallel_env
from gridray.envs.vector_env import GridVectorEnv
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from gridray.envs.multi_agent import GridParallelEnv
    from gridray.envs.single import GridEnv

RLLIB_COLUMNS = ("eps_id", "t", "obs", "actions", "rewards", "new_obs", "terminateds", "truncateds")


def register_rllib_envs() -> None:
    """Make the registered ids known to RLlib and Tune, in the driver and in all actors of its cluster.

    With "/device" or "/zone" behind it an id is the environment for many agents (`gridray.envs.multi_agent`).
    After it, `config.environment("gridray/VoltVar-ieee13-v0", env_config={...})` works; env_config has fields of the
    task. Add `config.env_runners(gym_env_vectorize_mode="vector_entry_point")`, so that an env runner steps all of its
    environments at once; other modes work and are slower.
    """
    for env_id, (task, config) in ENV_IDS.items():
        register_env(env_id, partial(_make, task, config))
        for agents in ("device", "zone"):
            register_env(f"{env_id}/{agents}", partial(_make_agents, task, config, agents))


def multi_agent_options(env: GridParallelEnv) -> dict[str, Any]:
    """Return arguments of `AlgorithmConfig.multi_agent`: a policy per kind of device, shared by all of the kind.

    Zones, which differ in size, get a policy each.
    """
    policies = {agent: _policy_of(agent) for agent in env.possible_agents}
    return {"policies": set(policies.values()), "policy_mapping_fn": _policy_of}


def offline_data_options(files: Iterable[Path]) -> dict[str, Any]:
    """Return arguments of `AlgorithmConfig.offline_data` that read a dataset's shards and unpickle nothing."""
    return {
        "input_": [str(file) for file in files],
        "input_read_method": "read_parquet",
        # Only what it needs, without the folders' names as columns.
        "input_read_method_kwargs": {"columns": list(RLLIB_COLUMNS), "partitioning": None},
        # RLlib takes observations for pickles unless it is told that there are none.
        "input_compress_columns": [],
        # Its default of two actors waits for ever on a small machine.
        "map_batches_kwargs": {"concurrency": 1},
    }


def _make(task: str, config: Mapping[str, Any], context: Mapping[str, Any]) -> GridEnv | GridVectorEnv:
    settings = {**config, **context}
    num_envs = settings.pop("num_envs", None)
    if num_envs is None:
        return make_env(task, **settings)
    # RLlib does not say here which env runner asks; without fresh entropy all would see the same days. A seed in
    # `config.debugging(seed=...)` comes with the first reset and replaces it.
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    return GridVectorEnv(make_task(task, settings), num_envs, seed=seed)


def _make_agents(
    task: str, config: Mapping[str, Any], agents: Literal["device", "zone"], context: Mapping[str, Any]
) -> ParallelPettingZooEnv:
    settings = {**config, **context}
    num_zones = settings.pop("num_zones", None)
    env = make_parallel_env(task, settings, agents=agents, num_zones=num_zones)
    return ParallelPettingZooEnv(env)  # type: ignore[no-untyped-call]


def _policy_of(agent: str, *_: Any, **__: Any) -> str:
    """Return the policy of an agent: a device's kind, or the zone itself."""
    return agent.partition(".")[0]
