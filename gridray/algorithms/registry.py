"""The algorithms that can be named in a configuration."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from gridray.algorithms.actions import action_grid
from gridray.algorithms.awr import AwrConfig, AwrNetworks
from gridray.algorithms.bc import BcConfig, BcNetworks
from gridray.algorithms.cql import CqlConfig, CqlNetworks
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
    from gridray.algorithms.base import Learner
    from gridray.algorithms.settings import NetworkSettings
    from gridray.tasks.base import ActionChannel

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
    """Return a learner whose first weights follow from the seed alone.

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
    settings = parse_config(settings_class(name), dict(config or {}), where=f"algorithm '{name}'")
    grid = _grid(name, settings, action_channels)
    # Ray runs one learner per core: more threads each make every one of them slower, and sums depend on their number.
    torch.set_num_threads(1)
    if name in RLLIB_LEARNERS:
        learner: Learner = _rllib().RllibLearner(
            name, observation_size=observation_size, action_size=action_size, settings=settings, seed=seed
        )
        return learner
    networks_class = LEARNERS[name][0]
    arguments: tuple[Any, ...] = (observation_size, action_size, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks: Networks = networks_class(*arguments, *([] if grid is None else [grid]))
    return GradientLearner(name, networks, settings, action_size=action_size, seed=seed)


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


def _rllib() -> ModuleType:
    # RLlib takes seconds to import: only its own learners pay for it.
    return import_module("gridray.algorithms.rllib")


def _grid(name: str, settings: NetworkSettings, channels: Sequence[ActionChannel] | None) -> ActionGrid | None:
    """Return the grid of a mixed head, and refuse a head that cannot give the task's actions."""
    if getattr(settings, "action_head", "continuous") == "mixed":
        if channels is None:
            raise ConfigError(f"{name}: action_head is mixed: give the task's action_channels, which say what is mixed")
        grid = action_grid(channels)
        return grid if len(grid.discrete) else None
    if channels is not None and has_levels(channels):
        mixed = ", ".join(sorted(key for key, (networks, _) in LEARNERS.items() if networks.has_mixed_actions))
        raise ConfigError(
            f"{name}: action '{channels[0].name}' is a level, which is a choice: use one of {mixed} with "
            "action_head: mixed"
        )
    return None
