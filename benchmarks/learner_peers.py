"""The same algorithm in three libraries: GridRay's, d3rlpy's, and RLlib's Learner behind our protocol."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
import torch

from gridray.algorithms.batches import InMemoryBatches
from gridray.algorithms.registry import make_learner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[Any]]

D3RLPY = ("bc", "cql", "iql", "rebrac", "td3_bc")
RLLIB = {"bc": "rllib_bc", "cql": "rllib_cql", "iql": "rllib_iql", "awr": "rllib_marwil"}


class Ours:
    """One of our learners, or RLlib's by its name, on columns that are normalised already."""

    def __init__(self, name: str, columns: Columns, settings: dict[str, Any], batch_size: int, seed: int) -> None:
        self._learner = make_learner(
            name,
            observation_size=columns["obs"].shape[1],
            action_size=columns["actions"].shape[1],
            config=settings,
            seed=seed,
        )
        own = {column: columns[column] for column in self._learner.columns}
        self._batches = InMemoryBatches(own, batch_size=batch_size, seed=seed, device="cpu")

    def update(self) -> None:
        """Draw a batch and take a step."""
        self._learner.update(self._batches.draw())

    def policy(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Return the greedy policy on normalised observations."""
        policy, rng = self._learner.policy(), np.random.default_rng(0)
        return lambda observations: policy.act(observations, rng)


class D3rlpy:
    """One of d3rlpy's algorithms with the same settings, on the same columns."""

    def __init__(self, name: str, columns: Columns, settings: dict[str, Any], batch_size: int, seed: int) -> None:
        import d3rlpy  # noqa: PLC0415  # it changes logging when it is imported

        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
        d3rlpy.seed(seed)
        torch.set_num_threads(1)
        ends = columns["terminateds"].astype(bool)
        self._data = d3rlpy.dataset.MDPDataset(
            observations=columns["obs"].astype(np.float32),
            actions=columns["actions"].astype(np.float32),
            rewards=columns["rewards"].astype(np.float32),
            terminals=ends.astype(np.float32),
            timeouts=(columns["truncateds"].astype(bool) & ~ends).astype(np.float32),
        )
        self._algorithm = _config(name, settings).create(device="cpu:0")
        self._algorithm.build_with_dataset(self._data)
        self._batch_size = batch_size

    def update(self) -> None:
        """Draw a batch and take a step."""
        self._algorithm.update(self._data.sample_transition_batch(self._batch_size))

    def policy(self) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Return the greedy policy on normalised observations."""
        return self._algorithm.predict


class D3rlpyOnOurBatches(D3rlpy):
    """d3rlpy's algorithm on the batches that ours draws: what is left is the algorithm."""

    def __init__(self, name: str, columns: Columns, settings: dict[str, Any], batch_size: int, seed: int) -> None:
        super().__init__(name, columns, settings, batch_size, seed)
        self._form = self._data.sample_transition_batch(batch_size)
        own = {column: columns[column] for column in ("obs", "actions", "rewards", "new_obs", "terminateds")}
        self._batches = InMemoryBatches(own, batch_size=batch_size, seed=seed, device="cpu")

    def update(self) -> None:
        """Draw a batch and take a step."""
        batch = {name: column.numpy() for name, column in self._batches.draw().items()}
        self._algorithm.update(
            replace(
                self._form,
                observations=batch["obs"],
                actions=batch["actions"],
                rewards=batch["rewards"][:, None],
                next_observations=batch["new_obs"],
                terminals=batch["terminateds"][:, None],
            )
        )


def _config(name: str, settings: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return d3rlpy's configuration of our settings."""
    from d3rlpy import algos  # noqa: PLC0415
    from d3rlpy.models.encoders import VectorEncoderFactory  # noqa: PLC0415

    widths, rate = list(settings["hidden_sizes"]), settings["learning_rate"]
    plain = VectorEncoderFactory(widths)
    if name == "bc":
        return algos.BCConfig(learning_rate=rate, encoder_factory=plain)
    shared = {
        "gamma": settings["discount"],
        "actor_encoder_factory": plain,
        "critic_encoder_factory": plain,
        "actor_learning_rate": rate,
        "critic_learning_rate": rate,
    }
    if name == "iql":
        return algos.IQLConfig(
            **shared,
            value_encoder_factory=plain,
        )
    if name == "td3_bc":
        return algos.TD3PlusBCConfig(**shared, alpha=settings.get("value_weight", 2.5))
    if name == "rebrac":
        normed = VectorEncoderFactory(widths, use_layer_norm=True)
        penalties = {"actor_beta": 0.01, "critic_beta": 0.01}
        return algos.ReBRACConfig(**shared | {"critic_encoder_factory": normed}, **penalties)
    # A fixed weight of the conservative term, as ours: alpha stays 1, and the threshold is a constant.
    return algos.CQLConfig(
        **shared | {"actor_learning_rate": settings.get("actor_learning_rate", 1e-4)},
        temp_learning_rate=rate,
        alpha_learning_rate=0.0,
        initial_alpha=1.0,
        conservative_weight=settings.get("conservative_weight", 5.0),
        n_action_samples=settings.get("num_action_samples", 10),
    )
