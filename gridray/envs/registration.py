"""Environments by name: `gymnasium.make("gridray/VoltVar-ieee13-v0")` and its vector form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import gymnasium
from gymnasium.envs.registration import EnvSpec

from gridray.envs.multi_agent import GridParallelEnv
from gridray.envs.single import GridEnv
from gridray.envs.vector_env import GridVectorEnv
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from collections.abc import Mapping

ENV_IDS = {
    **{f"gridray/VoltVar-{feeder}-v0": ("volt_var", {"feeder": feeder}) for feeder in ("ieee13", "ieee34", "ieee123")},
    "gridray/Storage-ieee13-v0": ("storage", {"feeder": "ieee13"}),
    "gridray/EvCharging-ieee13-v0": ("ev_charging", {"feeder": "ieee13"}),
    "gridray/Curtailment-ieee13-v0": ("curtailment", {"feeder": "ieee13"}),
    "gridray/Reconfiguration-ieee123-v0": ("reconfiguration", {"feeder": "ieee123"}),
}
"""Registered id -> (task, configuration)."""


def make_env(task: str, **config: Any) -> GridEnv:
    """Return a single environment of the named task."""
    env = GridEnv(make_task(task, config))
    # What makes it again; `gymnasium.make` puts its own in its place.
    env.spec = EnvSpec(
        f"gridray/{task}", "gridray.envs.registration:make_env", kwargs={"task": task, **config}, order_enforce=False
    )
    return env


def make_parallel_env(
    task: str,
    config: Mapping[str, Any] | None = None,
    *,
    agents: Literal["device", "zone"] = "device",
    num_zones: int | None = None,
) -> GridParallelEnv:
    """Return a PettingZoo parallel environment of the named task, with an agent per device or per zone."""
    return GridParallelEnv(make_task(task, config), agents=agents, num_zones=num_zones)


def make_vector_env(
    task: str, config: Mapping[str, Any] | None = None, num_envs: int = 1, seed: int | None = 0
) -> GridVectorEnv:
    """Return num_envs environments of the named task."""
    return GridVectorEnv(make_task(task, config), num_envs, seed=seed)


def make_registered_vector_env(task: str, num_envs: int = 1, **config: Any) -> GridVectorEnv:
    """Return environments as `gymnasium.make_vec` asks for them: the configuration as keywords."""
    return make_vector_env(task, config, num_envs, seed=None)


def register_envs() -> None:
    """Register the ids with gymnasium; doing it twice is harmless."""
    for env_id, (task, config) in ENV_IDS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(
                id=env_id,
                entry_point="gridray.envs.registration:make_env",
                vector_entry_point="gridray.envs.registration:make_registered_vector_env",
                kwargs={"task": task, **config},
                disable_env_checker=False,
            )


register_envs()
