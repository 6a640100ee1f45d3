"""The coordinator: holds the global weights, checks what arrives, aggregates, and remembers each round on disk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from gridray.errors import FederationError
from gridray.federated.aggregators.registry import make_aggregator
from gridray.federated.checkpoint import Checkpoint, load_latest, save
from gridray.federated.updates import ClientUpdate, Weights, check_update, digest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class RoundRules:
    """What holds in every round.

    clients: names that may send updates.
    min_clients: updates needed to close a round.
    max_update_bytes: largest update accepted, bytes.
    run_digest: identifies the run; a checkpoint of another run is refused.
    """

    aggregator: str
    clients: tuple[str, ...]
    min_clients: int
    max_update_bytes: int
    run_digest: str


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One line of the history.

    num_samples, metrics: by name of the clients whose updates entered the mean.
    absent: client name -> why its update did not.
    weights_sha256: digest of the global weights after the round.
    """

    round: int
    num_samples: dict[str, int]
    metrics: dict[str, dict[str, float]]
    absent: dict[str, str]
    weights_sha256: str


class Coordinator:
    """Server of a federation; a plain object here, an actor where it is spawned."""

    def __init__(self, rules: RoundRules, initial: Weights, folder: Path) -> None:
        """Start with the initial weights, or where the checkpoint in folder stopped.

        Raises:
            FederationError: the checkpoint belongs to another run.
        """
        self._rules = rules
        self._folder = folder
        self._aggregator = make_aggregator(rules.aggregator)
        self._weights: dict[str, NDArray[Any]] = dict(initial)
        self._state = self._aggregator.init(initial)
        self._history: list[RoundRecord] = []
        self._updates: dict[str, ClientUpdate] = {}
        if checkpoint := load_latest(folder):
            self._restore(checkpoint)

    def history(self) -> list[RoundRecord]:
        """Return the rounds closed so far; their number is the index of the open round."""
        return list(self._history)

    def weights(self) -> dict[str, NDArray[Any]]:
        """Return the global weights that the open round starts from."""
        return self._weights

    def receive(self, client: str, update: ClientUpdate) -> str | None:
        """Take a client's update for the open round; return why it was refused, or None."""
        if client not in self._rules.clients:
            return f"Client {client!r} is not a member: members are {', '.join(self._rules.clients)}"
        try:
            check_update(
                update,
                self._weights,
                round_index=len(self._history),
                client=client,
                max_bytes=self._rules.max_update_bytes,
            )
        except FederationError as error:
            return str(error)
        self._updates[client] = update
        return None

    def close_round(self, absent: Mapping[str, str]) -> RoundRecord:
        """Aggregate what arrived, save it, and open the next round.

        Args:
            absent: client name -> why there is no update of it.

        Raises:
            FederationError: fewer updates arrived than the quorum asks for.
        """
        index = len(self._history)
        if len(self._updates) < self._rules.min_clients:
            reasons = "; ".join(f"{name}: {absent[name]}" for name in sorted(absent))
            raise FederationError(
                f"Round {index} has {len(self._updates)} updates of {len(self._rules.clients)} clients, min_clients is "
                f"{self._rules.min_clients} ({reasons}): bring the clients back and run again to go on from here"
            )
        updates = [self._updates[name] for name in sorted(self._updates)]
        weights, state = self._aggregator.update(self._state, self._weights, updates)
        record = RoundRecord(
            round=index,
            num_samples={update.client: update.num_samples for update in updates},
            metrics={update.client: dict(update.metrics) for update in updates},
            absent=dict(sorted(absent.items())),
            weights_sha256=digest(weights),
        )
        self._weights, self._state, self._updates = weights, state, {}
        self._history.append(record)
        self._save()
        return record

    def _save(self) -> None:
        arrays = {f"weights/{name}": array for name, array in self._weights.items()}
        arrays |= {f"state/{name}": array for name, array in self._state.items()}
        values = {"run": self._rules.run_digest, "history": [asdict(record) for record in self._history]}
        save(self._folder, Checkpoint(len(self._history) - 1, arrays, values))

    def _restore(self, checkpoint: Checkpoint) -> None:
        if checkpoint.values["run"] != self._rules.run_digest:
            raise FederationError(
                f"Checkpoint in {self._folder} is of a run with another configuration or other data: "
                "give another output directory, or remove this one to start over"
            )
        self._history = [RoundRecord(**record) for record in checkpoint.values["history"]]
        arrays = checkpoint.arrays
        self._weights = {name: arrays[f"weights/{name}"] for name in self._weights}
        self._state = {name: arrays[f"state/{name}"] for name in self._state}
        if digest(self._weights) != self._history[-1].weights_sha256:
            raise FederationError(f"Checkpoint in {self._folder} has weights of another digest than its history says")
