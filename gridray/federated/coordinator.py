"""The coordinator: holds the global weights, checks what arrives, aggregates, and remembers each round on disk."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from gridray.errors import FederationError
from gridray.federated.aggregators.scaffold import CONTROL
from gridray.federated.checkpoint import Checkpoint, load_latest, save
from gridray.federated.intake import Intake, Terms
from gridray.federated.privacy.protection import ProtectionConfig
from gridray.federated.run_ledger import RunLedger
from gridray.federated.sharing import Sharing
from gridray.federated.updates import (
    Broadcast,
    ClientUpdate,
    EvaluationReport,
    Expected,
    Weights,
    check_report,
    check_update,
    digest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.federated.ledger import PrivacySpent
    from gridray.federated.outbox import Order
    from gridray.federated.signing import Signed


class OpenRound(NamedTuple):
    """The round that is open: its index, and a token of the coordinator's life that opened it."""

    round: int
    token: str


class LostUpdatesError(FederationError):
    """The coordinator was started anew and has lost what an earlier one accepted: the round has to be repeated."""


@dataclass(frozen=True, kw_only=True)
class RoundRules:
    """What holds in every round.

    clients: names that may send updates.
    num_samples: client -> transitions it said it has; an update may not claim others.
    min_clients: updates needed to close a round.
    max_update_bytes: largest update accepted, bytes.
    run_digest: identifies the run; a checkpoint of another run is refused.
    protection: what protects updates.
    keys: client -> public identity key; where they are given, messages are signed and the run keeps a ledger.
    data_sha256: client -> digest over the digests of its dataset's files.
    noise_multiplier: of the noise per utility; none without it.
    """

    sharing: Sharing
    clients: tuple[str, ...]
    num_samples: dict[str, int] = field(default_factory=dict)
    min_clients: int
    max_update_bytes: int
    run_digest: str
    protection: ProtectionConfig = field(default_factory=ProtectionConfig)
    keys: dict[str, str] = field(default_factory=dict)
    data_sha256: dict[str, str] = field(default_factory=dict)
    noise_multiplier: float | None = None


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One line of the history.

    num_samples, metrics: by name of the clients whose updates entered the aggregate.
    absent: client name -> why its update did not.
    report: what the rules of the network groups say about the round, such as `actor.effective_clients`.
    evaluation: client name -> metrics on its held-out days of the weights that the round started from, if asked for.
    weights_sha256: digest of the global weights after the round.
    """

    round: int
    num_samples: dict[str, int]
    metrics: dict[str, dict[str, float]]
    absent: dict[str, str]
    report: dict[str, float]
    evaluation: dict[str, dict[str, float]]
    weights_sha256: str


class Coordinator:
    """Server of a federation; a plain object here, an actor where it is spawned."""

    def __init__(self, rules: RoundRules, initial: Weights, folder: Path) -> None:
        """Start with the initial weights, or where the checkpoint in folder stopped.

        Raises:
            FederationError: the checkpoint belongs to another run.
        """
        names = rules.sharing.broadcast(initial)
        self._rules = rules
        self._folder = folder
        self._aggregator = rules.sharing.aggregator(len(rules.clients))
        self._sent = rules.sharing.sent(names)
        self._controlled = rules.sharing.controlled(names, len(rules.clients))
        self._weights: dict[str, NDArray[Any]] = {name: initial[name] for name in names}
        self._state = self._aggregator.init(self._shared())
        self._history: list[RoundRecord] = []
        self._updates: dict[str, ClientUpdate] = {}
        self._evaluation: dict[str, dict[str, float]] = {}
        self._token = secrets.token_hex(8)
        self._intake = Intake(
            Terms(
                run=rules.run_digest,
                protection=rules.protection,
                keys=rules.keys,
                noise_multiplier=rules.noise_multiplier,
            ),
            folder,
        )
        if checkpoint := load_latest(folder):
            self._restore(checkpoint)
        self._ledger = RunLedger(rules, folder.parent) if rules.keys else None

    def history(self) -> list[RoundRecord]:
        """Return the rounds closed so far; their number is the index of the open round."""
        return list(self._history)

    def weights(self) -> dict[str, NDArray[Any]]:
        """Return the global weights that the open round starts from."""
        return self._weights

    def broadcast(self) -> Broadcast:
        """Return what clients need for the open round."""
        return Broadcast(
            round=len(self._history), weights=self._weights, controls=self._controls(), run=self._rules.run_digest
        )

    def open_round(self) -> OpenRound:
        """Begin the open round anew, without what came in for it."""
        self._updates, self._evaluation = {}, {}
        self._intake.open_round()
        return OpenRound(len(self._history), self._token)

    def receive(self, client: str, update: ClientUpdate) -> str | None:
        """Take a client's update for the open round; return why it was refused, or None."""
        try:
            self._check_member(client)
            check_update(update, self._expected(), client=client)
            self._check_known(client, update)
            received = self._intake.take(update, self._shared())
        except FederationError as error:
            return str(error)
        self._updates[client] = received
        return None

    def open_sums(self) -> int:
        """Open secure sums over the updates that came in; return how many there are, 0 without masks."""
        if not self._updates:
            return 0
        counts: Mapping[str, float] = {name: update.num_samples for name, update in self._updates.items()}
        if self._aggregator.weigh is not None:
            counts = self._aggregator.weigh(list(self._updates.values()))
        return self._intake.open_sums(counts, self._shared(), len(self._history))

    def orders(self, number: int) -> dict[str, Order]:
        """Return what each member of a secure sum is to do next."""
        return self._intake.sums.orders(number)

    def receive_part(self, number: int, client: str, part: Signed) -> str | None:
        """Take a member's part of a secure sum; return why it was refused, or None."""
        try:
            self._check_member(client)
            self._intake.receive_part(number, len(self._history), client, part)
        except FederationError as error:
            return str(error)
        return None

    def close_stage(self, number: int) -> None:
        """End a stage of a secure sum.

        Raises:
            FederationError: fewer members than the threshold are left.
        """
        self._intake.sums.close_stage(number)

    def end_run(self, reason: str) -> None:
        """Write the ledger's last line."""
        if self._ledger is not None:
            self._ledger.end(len(self._history), reason, digest(self._weights))

    def privacy(self) -> tuple[PrivacySpent, ...]:
        """Return what has been spent of each budget after the last round, by unit."""
        return () if self._ledger is None else self._ledger.privacy()

    def receive_report(self, client: str, report: EvaluationReport) -> str | None:
        """Take a client's evaluation of the weights that the open round starts from; return why it was refused."""
        try:
            self._check_member(client)
            check_report(report, round_index=len(self._history), client=client)
        except FederationError as error:
            return str(error)
        self._evaluation[client] = dict(report.metrics)
        return None

    def evaluation(self) -> dict[str, dict[str, float]]:
        """Return the metrics by client that came in for the weights that the open round starts from."""
        return dict(sorted(self._evaluation.items()))

    def close_round(self, absent: Mapping[str, str], token: str | None = None) -> RoundRecord:
        """Aggregate what arrived, save it, and open the next round.

        Args:
            absent: client name -> why there is no update of it.
            token: of the round as it was opened; where it is given, a coordinator of another life refuses.

        Raises:
            LostUpdatesError: this coordinator was started after the round had been opened.
            FederationError: fewer updates arrived than the quorum asks for, or the round cannot be saved.
        """
        index = len(self._history)
        if token not in {None, self._token}:
            raise LostUpdatesError(f"Round {index} was opened by a coordinator that is no more: it has to be repeated")
        if len(self._updates) < self._rules.min_clients:
            reasons = "; ".join(f"{name}: {absent[name]}" for name in sorted(absent))
            raise FederationError(
                f"Round {index} has {len(self._updates)} updates of {len(self._rules.clients)} clients, min_clients is "
                f"{self._rules.min_clients} ({reasons}): bring the clients back and run again to go on from here"
            )
        members = self._intake.members()
        updates = [self._updates[name] for name in sorted(self._updates) if members is None or name in members]
        uncounted = self._updates.keys() - {update.client for update in updates}
        absent = dict.fromkeys(uncounted, "it counts nothing by the rule of the round") | dict(absent)
        given = self._intake.joined(updates, self._shared())
        joined, state, report = self._aggregator.update(self._state, self._shared(), given)
        weights = self._weights | joined
        record = RoundRecord(
            round=index,
            num_samples={update.client: update.num_samples for update in updates},
            metrics={update.client: dict(update.metrics) for update in updates},
            absent=dict(sorted(absent.items())),
            report={**report, **self._intake.report()},
            evaluation=self.evaluation(),
            weights_sha256=digest(weights),
        )
        if self._ledger is not None:
            self._ledger.close_round(record, self._intake.crossings(), self._intake.spent(index + 1))
        # A round counts when it is on disk: if it cannot be saved, nothing has changed.
        self._save([*self._history, record], weights, state)
        self._weights, self._state, self._updates, self._evaluation = weights, state, {}, {}
        self._history.append(record)
        return record

    def _shared(self) -> dict[str, NDArray[Any]]:
        return {name: self._weights[name] for name in self._sent}

    def _controls(self) -> dict[str, NDArray[Any]]:
        arrays = {name.partition(CONTROL)[2]: array for name, array in self._state.items() if CONTROL in name}
        return {name: arrays[name] for name in self._controlled}

    def _expected(self) -> Expected:
        index = len(self._history)
        return Expected(
            weights=self._shared() if self._intake.takes_weights else {},
            controls=self._controls(),
            rounds=range(max(0, index - self._aggregator.max_staleness), index + 1),
            max_bytes=self._rules.max_update_bytes,
            has_value=self._aggregator.needs_value,
        )

    def _check_member(self, client: str) -> None:
        if client not in self._rules.clients:
            raise FederationError(f"Client {client!r} is not a member: members are {', '.join(self._rules.clients)}")

    def _check_known(self, client: str, update: ClientUpdate) -> None:
        if client in self._updates:
            raise FederationError(f"Client {client!r} has sent its update of this round already: once is enough")
        known = self._rules.num_samples.get(client, update.num_samples)
        if update.num_samples != known:
            raise FederationError(
                f"Update of client {client!r} has num_samples {update.num_samples}, it said {known} before: "
                "start a new run to change the data"
            )

    def _save(
        self, history: list[RoundRecord], weights: dict[str, NDArray[Any]], state: dict[str, NDArray[Any]]
    ) -> None:
        arrays = {f"weights/{name}": array for name, array in weights.items()}
        arrays |= {f"state/{name}": array for name, array in state.items()}
        values = {"run": self._rules.run_digest, "history": [asdict(record) for record in history]}
        save(self._folder, Checkpoint(len(history) - 1, arrays, values))

    def _restore(self, checkpoint: Checkpoint) -> None:
        if checkpoint.values["run"] != self._rules.run_digest:
            raise FederationError(
                f"Checkpoint in {self._folder} is of a run with another configuration or other data: "
                f"give another output directory, or remove {self._folder.parent} to start over"
            )
        self._history = [RoundRecord(**record) for record in checkpoint.values["history"]]
        arrays = checkpoint.arrays
        self._weights = {name: arrays[f"weights/{name}"] for name in self._weights}
        self._state = {name[len("state/") :]: array for name, array in arrays.items() if name.startswith("state/")}
        if digest(self._weights) != self._history[-1].weights_sha256:
            raise FederationError(f"Checkpoint in {self._folder} has weights of another digest than its history says")
