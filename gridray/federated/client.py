"""A utility's side of a federation: trains on its own dataset and lets nothing but weights and scalars out."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from gridray.algorithms.batches import load_columns
from gridray.algorithms.bundle import save_bundle
from gridray.algorithms.gradient import GradientLearner
from gridray.algorithms.registry import needs_task, task_learner
from gridray.datasets.dataset import OfflineDataset
from gridray.datasets.partial import SHARDS
from gridray.errors import ConfigError, FederationError
from gridray.evaluation.rollout import evaluate_policy, held_out_days
from gridray.federated.checkpoint import Checkpoint, load_latest, save
from gridray.federated.local.baselines import JUDGED_BY, TODAY, judged, own_learners
from gridray.federated.local.config import LocalConfig
from gridray.federated.local.training import LocalTraining, TrainingSpec
from gridray.federated.masked_moments import ROUND, moments_fixed_point, packed_moments
from gridray.federated.moments import Moments, moments
from gridray.federated.outbox import CLIPPED, Order, Outbox
from gridray.federated.privacy.dp_sgd import SUPPORTED
from gridray.federated.privacy.protection import ProtectionConfig
from gridray.federated.private_training import PrivateRounds
from gridray.federated.run_ledger import EPSILON
from gridray.federated.sharing import NORMALISER, Sharing
from gridray.federated.updates import Broadcast, ClientUpdate, EvaluationReport, digest
from gridray.policies.registry import make_policy
from gridray.tasks.registry import make_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gridray.federated.privacy.dp_sgd import DpSgdConfig
    from gridray.federated.signing import Signed
    from gridray.policies.base import Policy
    from gridray.tasks.base import Task

MEAN = f"{NORMALISER}.observation_mean"
FEDERATED = "federated"


@dataclass(frozen=True, kw_only=True)
class ClientSpec:
    """What a client needs to know.

    dataset: directory of its own offline dataset, the only data it opens.
    folder: where it keeps what is its own between rounds; never sent.
    learner: configuration of the algorithm.
    local_updates, local_epochs: gradient steps of a round, or passes over its data instead.
    sharing: which weights it sends; it sends no others, whatever it is asked for.
    shared_metrics: metrics that it sends; none: all.
    sends_value: whether it reports what it thinks its policy is worth.
    protection: what protects its data and its updates.
    num_clients: clients of the federation.
    max_rounds: rounds of the run at most.
    known_keys: client -> public identity key, where it is known from elsewhere than the coordinator.
    """

    name: str
    dataset: Path
    folder: Path
    algorithm: str
    learner: dict[str, Any]
    local: LocalConfig
    local_updates: int
    local_epochs: float | None
    batch_size: int
    sharing: Sharing
    shared_metrics: tuple[str, ...] | None
    sends_value: bool
    seed: int
    protection: ProtectionConfig = field(default_factory=ProtectionConfig)
    num_clients: int = 1
    max_rounds: int = 1
    known_keys: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ClientDescription:
    """What a client tells about itself before the first round; no row of its data is in it.

    feeder_hash: SHA-256 of the feeder's content.
    data_sha256: digest over the digests of its dataset's files.
    public_key: by which its signatures are checked.
    max_rounds: rounds that its privacy budget allows; none without one.
    has_cost: whether its algorithm reads a cost.
    num_features: of observations that the normaliser has.
    """

    name: str
    num_samples: int
    observation_names: tuple[str, ...]
    action_names: tuple[str, ...]
    task: str
    task_config: dict[str, Any]
    feeder_hash: str
    data_sha256: str
    public_key: str = ""
    max_rounds: int | None = None
    has_cost: bool = False
    num_features: int = 0


class UtilityClient:
    """One utility of a federation; a plain object here, an actor where it is spawned.

    What is its own (optimiser's state, networks that are not shared, control variates) stays with the client from round
    to round, as in plain training, and is kept in the client's folder, so that a client that was restarted goes on bit
    for bit. Global weights replace its shared weights every round.
    """

    def __init__(self, spec: ClientSpec) -> None:
        """Keep the specification; the dataset is opened by the first call that needs it."""
        self._spec = spec
        self._last_round: int | None = None
        self._private: PrivateRounds | None = None
        self._outbox = Outbox(spec.name, spec.folder, spec.protection, spec.num_clients)

    def describe(self) -> ClientDescription:
        """Return what the coordinator must know to accept this client."""
        card = self._dataset.card
        return ClientDescription(
            name=self._spec.name,
            num_samples=self._dataset.num_transitions,
            observation_names=tuple(card.observation_names),
            action_names=tuple(card.action_names),
            task=card.task,
            task_config=dict(card.task_config),
            feeder_hash=card.feeder_hash,
            data_sha256=self._data_sha256(),
            public_key=self._outbox.public_key,
            max_rounds=self._max_rounds(),
            has_cost=self._training.learner().cost_column is not None,
            num_features=len(self._training.weights()[MEAN]),
        )

    def moments(self) -> dict[str, Moments]:
        """Return the moments of the columns that the normaliser of all clients together is made from."""
        learner = self._training.learner()
        cost_column = learner.cost_column
        columns = self._dataset.load(["obs", "rewards", "terminateds", *([cost_column] if cost_column else [])])
        found = {"obs": moments(learner.observation_rows(columns["obs"]))}
        found |= {name: moments(columns[name][:, None]) for name in ("rewards", "terminateds")}
        return found | ({"costs": moments(columns[cost_column][:, None])} if cost_column else {})

    @property
    def num_updates(self) -> int:
        """Gradient steps of a round."""
        return self._training.num_updates

    def fit(self, broadcast: Broadcast) -> ClientUpdate:
        """Train a round from the global weights.

        Batches are drawn with replacement by a generator of (seed, client, round), so a round can be repeated.

        Raises:
            FederationError: the client's folder cannot be written; what it held stays.
        """
        self._restore(broadcast.round)
        # A round that does not come to its end leaves a learner that is of no round.
        self._last_round = None
        metrics = self._training.train(broadcast, self._rng("", broadcast.round))
        weights = self._training.weights()
        sent = self._spec.sharing.sent(weights)
        start = {name: broadcast.weights[name] for name in sent}
        metrics = {**metrics, **self._outbox.clipped_share(weights, start)}
        update = ClientUpdate(
            client=self._spec.name,
            round=broadcast.round,
            num_samples=self._dataset.num_transitions,
            weights={name: weights[name] for name in sent},
            controls=self._training.control_change(),
            metrics=self._agreed(metrics),
            value=self._training.value() if self._spec.sends_value else None,
        )
        packed = self._outbox.pack(update, start, broadcast.run, self._rng("/outbox", broadcast.round))
        self._save(broadcast.round)
        self._last_round = broadcast.round
        return packed

    def take_part(self, order: Order) -> Signed:
        """Do one stage of a secure sum.

        Raises:
            FederationError: it is not this stage's turn, or the stage would bare the client's update.
        """
        session = order.session
        for name, key in self._spec.known_keys.items():
            if session.members.get(name, key) != key:
                raise FederationError(f"The coordinator shows another identity key of {name!r} than is known: refused")
        if order.stage == "advertise" and session.round == ROUND:
            self._outbox.put_words(
                session.round, moments_fixed_point(len(session.members)).encode(packed_moments(self.moments()))
            )
        part = self._outbox.take_part(order, self._rng("/outbox", max(session.round, 0)))
        if order.stage == "mask" and session.round >= 0:
            self._save(session.round)
        return part

    def evaluate(self, broadcast: Broadcast, num_days: int) -> EvaluationReport:
        """Run the shared policy, and the personal one if there is one, on num_days of its own held-out days."""
        self._restore(broadcast.round)
        self._training.take(broadcast)
        task = self._task("held_out")
        days = held_out_days(task, num_days)
        means: dict[str, float] = {}
        for prefix, learner in self._training.learners().items():
            table = evaluate_policy(learner.policy(), task, days=days, seed=self._spec.seed)
            means |= {prefix + name: float(table[name].mean()) for name in JUDGED_BY if name in table.names}
        return EvaluationReport(
            client=self._spec.name, round=broadcast.round, num_days=len(days), metrics=self._agreed(means)
        )

    def compare(
        self, broadcast: Broadcast, rivals: dict[str, dict[str, NDArray[Any]]], num_days: int
    ) -> EvaluationReport:
        """Judge what this client would act with, policies of other weights, and what it can have on its own.

        Training alone takes as many updates as the rounds before the broadcast's did here.

        Args:
            broadcast: the weights after the last round.
            rivals: name -> global weights that were made by other means.
            num_days: held-out days.
        """
        spec = self._spec
        self._restore(broadcast.round)
        self._training.take(broadcast)
        policies: dict[str, Policy] = {FEDERATED: self._training.learner().policy()}
        for name, weights in rivals.items():
            learner = task_learner(spec.algorithm, self._task("train"), config=spec.learner, seed=spec.seed)
            learner.set_weights(learner.get_weights() | weights)
            policies[name] = learner.policy()
        task = self._task("held_out")
        size = (broadcast.round * self._training.num_updates, spec.batch_size)
        policies[TODAY] = make_policy(TODAY, task)
        alone = own_learners(self._dataset, algorithm=spec.algorithm, learner=spec.learner, size=size, seed=spec.seed)
        policies |= {name: learner.policy() for name, learner in alone.items()}
        found = judged(policies, task, num_days, seed=spec.seed)
        return EvaluationReport(client=spec.name, round=broadcast.round, num_days=num_days, metrics=self._agreed(found))

    def save_policy(self, broadcast: Broadcast) -> Path:
        """Write this client's own policy, global weights and what it kept, into its folder; it is not sent."""
        self._restore(broadcast.round)
        self._training.take(broadcast)
        path = self._spec.folder / "policy"
        provenance = {"kind": "personal", "client": self._spec.name, "rounds": broadcast.round}
        save_bundle(path, learner=self._training.learner(), task=self._task("train"), provenance=provenance)
        return path

    @cached_property
    def _dataset(self) -> OfflineDataset:
        return OfflineDataset.open(self._spec.dataset)

    @cached_property
    def _training(self) -> LocalTraining:
        spec = self._spec
        num_updates = spec.local_updates
        if spec.local_epochs is not None:
            num_updates = math.ceil(spec.local_epochs * self._dataset.num_transitions / spec.batch_size)
        training = LocalTraining(
            TrainingSpec(
                algorithm=spec.algorithm,
                learner=spec.learner,
                local=spec.local,
                observation_size=len(self._dataset.card.observation_names),
                action_size=len(self._dataset.card.action_names),
                num_updates=num_updates,
                batch_size=spec.batch_size,
                seed=spec.seed,
                task=self._task("train") if needs_task(spec.learner) else None,
            ),
            lambda columns: load_columns(self._dataset, columns),
        )
        if spec.protection.dp_sgd is not None:
            self._private = self._private_rounds(training, spec.protection.dp_sgd)
        return training

    def _private_rounds(self, training: LocalTraining, config: DpSgdConfig) -> PrivateRounds:
        """Let the training of the shared learner go through noise."""
        learner = training.shared_learner()
        if not isinstance(learner, GradientLearner):
            given = ", ".join(sorted(SUPPORTED))
            raise ConfigError(
                f"DP-SGD cannot train {self._spec.algorithm!r}: give one of {given}, without an ensemble's losses"
            )
        columns = load_columns(self._dataset, learner.columns) | self._dataset.load(self._unit_columns())
        columns = {name: column[: training.num_trained] for name, column in columns.items()}
        private = PrivateRounds(learner, columns, config, self._spec.folder)
        basis = self._basis()

        def steps(broadcast: Broadcast) -> dict[str, float]:
            start = digest({**broadcast.weights, **_under_controls(broadcast)})
            private.train(training.num_updates, broadcast.round, hashlib.sha256((basis + start).encode()).hexdigest())
            # The losses stay here: they have no noise.
            return {f"{EPSILON}{config.unit.replace('-', '_')}": private.spent().epsilon}

        training.set_steps(steps)
        return private

    def _basis(self) -> str:
        """Return what decides a private step beside the global weights: the data, and all settings of the training."""
        spec = self._spec
        settings = {
            "algorithm": spec.algorithm,
            "learner": spec.learner,
            "local": asdict(spec.local),
            "dp_sgd": None if spec.protection.dp_sgd is None else asdict(spec.protection.dp_sgd),
            "rules": {group: asdict(rule) for group, rule in spec.sharing.rules.items()},
            "batch_size": spec.batch_size,
            "seed": spec.seed,
        }
        return self._data_sha256() + json.dumps(settings, sort_keys=True)

    def _data_sha256(self) -> str:
        shards = "".join(shard.sha256 for shard in self._dataset.card.shards)
        return hashlib.sha256(shards.encode()).hexdigest()

    def _unit_columns(self) -> list[str]:
        first = self._dataset.path / SHARDS / self._dataset.card.shards[0].file
        return [name for name in ("eps_id", "timestamp") if name in pq.read_schema(first).names]

    def _max_rounds(self) -> int | None:
        if self._spec.protection.dp_sgd is None:
            return None
        num_updates = self._training.num_updates
        return None if self._private is None else self._private.max_rounds(num_updates, at_most=self._spec.max_rounds)

    def _save(self, round_index: int) -> None:
        state = self._training.get_state() | self._outbox.get_state()
        save(self._spec.folder, Checkpoint(round_index, state, {}))

    def _rng(self, purpose: str, round_index: int) -> np.random.Generator:
        return round_rng(self._spec.seed, self._spec.name + purpose, round_index)

    def _task(self, days: str) -> Task:
        card = self._dataset.card
        return make_task(card.task, dict(card.task_config) | {"days": days})

    def _agreed(self, metrics: dict[str, float]) -> dict[str, float]:
        allowed = self._spec.shared_metrics
        if self._spec.protection.dp_sgd is not None:
            return {name: value for name, value in metrics.items() if name.startswith((EPSILON, CLIPPED))}
        return {name: value for name, value in metrics.items() if allowed is None or name in allowed}

    def _restore(self, round_index: int) -> None:
        if self._last_round is not None and self._last_round < round_index:
            return
        # A restarted client, or a round that is repeated: only what was saved before this round counts.
        self.__dict__.pop("_training", None)
        self._outbox.set_state({})
        if checkpoint := load_latest(self._spec.folder, before=round_index):
            self._training.set_state(checkpoint.arrays)
            self._outbox.set_state(checkpoint.arrays)


def round_rng(seed: int, client: str, round_index: int) -> np.random.Generator:
    """Return the generator of a client's round; names are hashed, so that no two clients share a stream."""
    name = int.from_bytes(hashlib.sha256(client.encode()).digest()[:8], "big")
    return np.random.default_rng([seed, name, round_index])


def _under_controls(broadcast: Broadcast) -> dict[str, np.ndarray[Any, Any]]:
    return {f"control/{name}": array for name, array in broadcast.controls.items()}
