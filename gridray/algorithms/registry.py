"""The algorithms that can be named in a configuration."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from gridray.algorithms.actions import action_grid
from gridray.algorithms.architecture import FlatArchitecture
from gridray.algorithms.awr import AwrConfig, AwrNetworks
from gridray.algorithms.bc import BcConfig, BcNetworks
from gridray.algorithms.cql import CqlConfig, CqlNetworks
from gridray.algorithms.device_layout import NUM_LOGITS, device_layout
from gridray.algorithms.device_networks import DeviceArchitecture, check_sizes
from gridray.algorithms.gradient import GradientLearner, Networks
from gridray.algorithms.iql import IqlConfig, IqlNetworks
from gridray.algorithms.iql_lagrange import IqlLagrangeConfig, IqlLagrangeNetworks
from gridray.algorithms.rebrac import ReBracConfig, ReBracNetworks
from gridray.algorithms.td3_bc import Td3BcConfig, Td3BcNetworks
from gridray.config import parse_config
from gridray.errors import ConfigError
from gridray.tasks.base import has_levels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

    from gridray.algorithms.actions import ActionGrid
    from gridray.algorithms.architecture import Architecture
    from gridray.algorithms.base import Learner
    from gridray.algorithms.settings import NetworkSettings
    from gridray.tasks.base import ActionChannel, Task

LEARNERS: dict[str, tuple[type[Networks], type[NetworkSettings]]] = {
    "awr": (AwrNetworks, AwrConfig),
    "bc": (BcNetworks, BcConfig),
    "cql": (CqlNetworks, CqlConfig),
    "iql": (IqlNetworks, IqlConfig),
    "iql_lagrange": (IqlLagrangeNetworks, IqlLagrangeConfig),
    "rebrac": (ReBracNetworks, ReBracConfig),
    "td3_bc": (Td3BcNetworks, Td3BcConfig),
}
"""Algorithm name -> (its networks and losses, its configuration class)."""

RLLIB_LEARNERS = ("rllib_bc", "rllib_cql", "rllib_iql", "rllib_marwil")
"""RLlib's own learners, see `gridray.algorithms.rllib`."""


def make_learner(
    name: str,
    *,
    observation_size: int,
    action_size: int,
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    action_channels: Sequence[ActionChannel] | None = None,
) -> Learner:
    """Return a learner of a flat policy, whose first weights follow from the seed alone.

    Args:
        name: one of `LEARNERS` or `RLLIB_LEARNERS`.
        observation_size: number of observations.
        action_size: number of action components.
        config: settings of the algorithm.
        seed: decides first weights, and the random numbers of updates.
        action_channels: the task's; needed for `action_head: mixed`.

    Raises:
        ConfigError: no such algorithm, a key or value that its configuration does not have, or actions that it cannot
            give.
    """
    settings = _settings(name, config or {})
    if settings.policy != "flat":
        raise ConfigError(f"policy is '{settings.policy}', which needs the devices of a task: use task_learner")
    grid = _grid(name, settings, action_channels)
    if name in RLLIB_LEARNERS:
        # Ray runs one learner per core: more threads each make every one of them slower.
        torch.set_num_threads(1)
        learner: Learner = _rllib().RllibLearner(
            name, observation_size=observation_size, action_size=action_size, settings=settings, seed=seed
        )
        return learner
    return _learner(name, settings, FlatArchitecture(observation_size, action_size, settings.hidden_sizes, grid), seed)


def task_learner(name: str, task: Task, *, config: Mapping[str, Any], seed: int = 0) -> Learner:
    """Return a learner of a policy for this task, or for any feeder; see `make_learner`.

    Raises:
        ConfigError: besides, the task has no devices with views.
    """
    settings = _settings(name, config)
    if settings.policy == "flat":
        return make_learner(
            name,
            observation_size=len(task.observation_channels),
            action_size=len(task.action_channels),
            config=config,
            seed=seed,
            action_channels=task.action_channels,
        )
    return _learner(name, settings, task_architecture(name, settings, task), seed)


def task_architecture(name: str, settings: NetworkSettings, task: Task) -> Architecture:
    """Return the networks of an algorithm for a task.

    Raises:
        ConfigError: they cannot give its actions, or it has no devices with views.
    """
    grid = _grid(name, settings, task.action_channels)
    if settings.policy == "flat":
        sizes = (len(task.observation_channels), len(task.action_channels))
        return FlatArchitecture(*sizes, settings.hidden_sizes, grid)
    check_sizes(settings.hidden_sizes, is_graph=settings.policy == "graph")
    if grid is not None and grid.values.shape[1] > NUM_LOGITS:
        raise ConfigError(
            f"An action has {grid.values.shape[1]} choices, a policy of devices has {NUM_LOGITS} at most: "
            "use action_head: continuous"
        )
    return DeviceArchitecture(device_layout(task), settings.hidden_sizes, settings.policy == "graph", grid)


def needs_task(config: Mapping[str, Any]) -> bool:
    """Tell whether a learner of this configuration needs its task, whose feeder takes time to compile."""
    return config.get("action_head") == "mixed" or config.get("policy", "flat") != "flat"


def settings_class(name: str) -> type[NetworkSettings]:
    """Return an algorithm's configuration class.

    Raises:
        ConfigError: there is no such algorithm.
    """
    if name in RLLIB_LEARNERS:
        found: type[NetworkSettings] = _rllib().RllibConfig
        return found
    if name not in LEARNERS:
        known = ", ".join([*sorted(LEARNERS), *RLLIB_LEARNERS])
        raise ConfigError(f"There is no algorithm '{name}': give one of {known}.")
    return LEARNERS[name][1]


def _settings(name: str, config: Mapping[str, Any]) -> NetworkSettings:
    settings: NetworkSettings = parse_config(settings_class(name), dict(config), where=f"algorithm '{name}'")
    return settings


def _learner(name: str, settings: NetworkSettings, architecture: Architecture, seed: int) -> GradientLearner:
    # Ray runs one learner per core: more threads each make every one of them slower, and sums depend on their number.
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks: Networks = LEARNERS[name][0](architecture, settings)
    return GradientLearner(name, networks, settings, architecture, seed=seed)


def _rllib() -> ModuleType:
    # RLlib takes seconds to import: only its own learners pay for it.
    return import_module("gridray.algorithms.rllib")


def _grid(name: str, settings: NetworkSettings, channels: Sequence[ActionChannel] | None) -> ActionGrid | None:
    """Return the grid of a mixed head, and refuse a head that cannot give the task's actions."""
    if getattr(settings, "action_head", "continuous") == "mixed":
        if channels is None:
            raise ConfigError(f"{name}: action_head is mixed: give the task's action_channels, which say what is mixed")
        grid = action_grid(channels)
        return grid if len(grid.discrete) or settings.policy != "flat" else None
    if channels is not None and has_levels(channels):
        mixed = ", ".join(sorted(key for key, (networks, _) in LEARNERS.items() if networks.has_mixed_actions))
        raise ConfigError(
            f"{name}: action '{channels[0].name}' is a level, which is a choice: use one of {mixed} with "
            "action_head: mixed"
        )
    return None
