"""A utility's side of a federation: trains on its own dataset and lets nothing but weights and scalars out."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.algorithms.base import BATCH_COLUMNS
from gridray.algorithms.registry import make_learner
from gridray.datasets.dataset import OfflineDataset
from gridray.federated.checkpoint import Checkpoint, load_latest, save
from gridray.federated.moments import Moments, moments
from gridray.federated.updates import ClientUpdate, Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.algorithms.base import Learner


@dataclass(frozen=True, kw_only=True)
class ClientSpec:
    """What a client needs to know.

    dataset: directory of its own offline dataset, the only data it opens.
    folder: where it keeps its optimiser state between rounds; never sent.
    learner: configuration of the algorithm.
    """

    name: str
    dataset: Path
    folder: Path
    algorithm: str
    learner: dict[str, Any]
    local_updates: int
    batch_size: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class ClientDescription:
    """What a client tells about itself before the first round; no row of its data is in it.

    feeder_hash: SHA-256 of the feeder's content.
    data_sha256: digest over the digests of its dataset's files.
    """

    name: str
    num_samples: int
    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]
    task: str
    task_config: dict[str, Any]
    feeder_hash: str
    data_sha256: str


class UtilityClient:
    """One utility of a federation; a plain object here, an actor where it is spawned.

    The optimiser's state stays with the client from round to round, as in plain training, and is kept in the client's
    folder, so that a client that was restarted goes on bit for bit. Global weights replace its weights every round.
    """

    def __init__(self, spec: ClientSpec) -> None:
        """Keep the specification; the dataset is opened by the first call that needs it."""
        self._spec = spec
        self._last_round: int | None = None

    def describe(self) -> ClientDescription:
        """Return what the coordinator must know to accept this client."""
        card = self._dataset.card
        shards = "".join(shard.sha256 for shard in card.shards)
        return ClientDescription(
            name=self._spec.name,
            num_samples=self._dataset.num_transitions,
            observation_names=tuple(card.observation_names),
            action_names=tuple(card.action_names),
            task=card.task,
            task_config=dict(card.task_config),
            feeder_hash=card.feeder_hash,
            data_sha256=hashlib.sha256(shards.encode()).hexdigest(),
        )

    def moments(self) -> dict[str, Moments]:
        """Return the moments of the columns that the normaliser of all clients together is made from."""
        columns = self._columns
        return {
            "obs": moments(columns["obs"]),
            "rewards": moments(columns["rewards"][:, None]),
            "terminateds": moments(columns["terminateds"][:, None]),
        }

    def fit(self, round_index: int, weights: Weights) -> ClientUpdate:
        """Train local_updates steps from the global weights.

        Batches are drawn with replacement by a generator of (seed, client, round), so a round can be repeated.
        """
        self._restore_state(round_index)
        self._learner.set_weights(weights)
        rng = round_rng(self._spec.seed, self._spec.name, round_index)
        totals: defaultdict[str, float] = defaultdict(float)
        for _ in range(self._spec.local_updates):
            rows = rng.integers(self._dataset.num_transitions, size=self._spec.batch_size)
            batch = {name: column[rows] for name, column in self._columns.items()}
            for name, value in self._learner.update(batch).items():
                totals[name] += value
        self._save_state(round_index)
        return ClientUpdate(
            client=self._spec.name,
            round=round_index,
            num_samples=self._dataset.num_transitions,
            weights=self._learner.get_weights(),
            metrics={name: total / self._spec.local_updates for name, total in totals.items()},
        )

    @cached_property
    def _dataset(self) -> OfflineDataset:
        return OfflineDataset.open(self._spec.dataset)

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        return self._dataset.load(list(BATCH_COLUMNS))

    @cached_property
    def _learner(self) -> Learner:
        return make_learner(
            self._spec.algorithm,
            observation_size=len(self._dataset.card.observation_names),
            action_size=len(self._dataset.card.action_names),
            config=self._spec.learner,
            seed=self._spec.seed,
        )

    def _restore_state(self, round_index: int) -> None:
        if self._last_round is not None and self._last_round < round_index:
            return
        # A restarted client, or a round that is repeated: only what was saved before this round counts.
        self.__dict__.pop("_learner", None)
        if checkpoint := load_latest(self._spec.folder, before=round_index):
            self._learner.set_training_state(checkpoint.arrays)

    def _save_state(self, round_index: int) -> None:
        save(self._spec.folder, Checkpoint(round_index, self._learner.get_training_state(), {}))
        self._last_round = round_index


def round_rng(seed: int, client: str, round_index: int) -> np.random.Generator:
    """Return the generator of a client's round; names are hashed, so that no two clients share a stream."""
    name = int.from_bytes(hashlib.sha256(client.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, name, round_index])
