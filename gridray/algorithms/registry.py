"""The algorithms that can be named in a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gridray.algorithms.bc import BcConfig, BcNetworks
from gridray.algorithms.gradient import GradientLearner, Networks
from gridray.algorithms.iql import IqlConfig, IqlNetworks
from gridray.config import parse_config
from gridray.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridray.algorithms.base import Learner

LEARNERS: dict[str, tuple[type[Networks], type[Any]]] = {"bc": (BcNetworks, BcConfig), "iql": (IqlNetworks, IqlConfig)}
"""Algorithm name -> (its networks and losses, its configuration class)."""


def make_learner(
    name: str, *, observation_size: int, action_size: int, config: Mapping[str, Any] | None = None, seed: int = 0
) -> Learner:
    """Return a learner whose first weights follow from the seed alone.

    Raises:
        ConfigError: no such algorithm, or a key or value that its configuration does not have.
    """
    if name not in LEARNERS:
        raise ConfigError(f"There is no algorithm '{name}': give one of {', '.join(sorted(LEARNERS))}.")
    networks_class, config_class = LEARNERS[name]
    settings = parse_config(config_class, dict(config or {}), where=f"algorithm '{name}'")
    # Ray runs one learner per core: more threads each make every one of them slower, and sums depend on their number.
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks: Any = networks_class(observation_size, action_size, settings)
    return GradientLearner(name, networks, settings)
