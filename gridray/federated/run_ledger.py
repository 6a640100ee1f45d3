"""What the coordinator writes to its run's ledger."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from gridray.errors import FederationError
from gridray.federated.identity import public_key, secret_key
from gridray.federated.ledger import Crossing, Ledger, PrivacySpent, RoundClosed, RunEnded, RunStarted, read

if TYPE_CHECKING:
    from pathlib import Path

    from gridray.federated.coordinator import RoundRecord, RoundRules
    from gridray.federated.privacy.accounting import Spent

LEDGER = "ledger.jsonl"
EPSILON = "epsilon_per_"
"""Prefix of the metric by which a client tells what a unit of its data has lost."""
_VERSIONED = ("gridray", "ray", "torch", "numpy", "cryptography", "dp-accounting")
_MAX_REASON = 300


class RunLedger:
    """Writes one line for each round; the file is `ledger.jsonl` in the run's folder, the key `coordinator.key`."""

    def __init__(self, rules: RoundRules, folder: Path) -> None:
        """Begin the ledger, or go on with it.

        Raises:
            FederationError: it is of another run, or was changed.
        """
        secret = secret_key(folder / "coordinator.key")
        self._rules = rules
        self._path = folder / LEDGER
        self._ledger = Ledger(self._path, secret)
        if self._ledger.num_lines > 0:
            _check_run(self._path, rules.run_digest)
        else:
            self._ledger.append(
                RunStarted(
                    run=rules.run_digest,
                    coordinator=public_key(secret),
                    members=dict(rules.keys),
                    data_sha256=rules.data_sha256,
                    aggregator=", ".join(sorted({rule.rule for rule in rules.sharing.rules.values()})),
                    protection=rules.protection.describe(),
                    versions={name: version(name) for name in _VERSIONED},
                )
            )

    def close_round(self, record: RoundRecord, crossings: tuple[Crossing, ...], spent: Spent | None) -> None:
        """Write a round; a round that is repeated after a crash has a line for each time."""
        self._ledger.append(
            RoundClosed(
                round=record.round,
                crossings=crossings,
                absent={name: reason[:_MAX_REASON] for name, reason in record.absent.items()},
                weights_sha256=record.weights_sha256,
                privacy=self._privacy(record, spent),
                report=record.report,
            )
        )

    def end(self, num_rounds: int, reason: str, weights_sha256: str) -> None:
        """Write the last line."""
        self._ledger.append(RunEnded(num_rounds=num_rounds, reason=reason, weights_sha256=weights_sha256))

    def privacy(self) -> tuple[PrivacySpent, ...]:
        """Return what the last round that was written says of privacy."""
        rounds = [entry.body for entry in read(self._path) if isinstance(entry.body, RoundClosed)]
        return rounds[-1].privacy if rounds else ()

    def _privacy(self, record: RoundRecord, spent: Spent | None) -> tuple[PrivacySpent, ...]:
        noise, dp_sgd = self._rules.protection.utility_noise, self._rules.protection.dp_sgd
        found = []
        if spent is not None and noise is not None:
            found.append(
                PrivacySpent(
                    scope="all",
                    unit=str(spent.unit),
                    epsilon=spent.epsilon,
                    delta=spent.delta,
                    budget_epsilon=noise.epsilon,
                )
            )
        if dp_sgd is not None:
            found += [
                PrivacySpent(
                    scope=client,
                    unit=str(dp_sgd.unit),
                    epsilon=value,
                    delta=dp_sgd.delta,
                    budget_epsilon=dp_sgd.epsilon,
                )
                for client, metrics in record.metrics.items()
                for name, value in metrics.items()
                if name.startswith(EPSILON)
            ]
        return tuple(found)


def _check_run(path: Path, run: str) -> None:
    """Refuse to write a run's rounds under the head line of another: they would not verify."""
    begun = next(read(path)).body
    if isinstance(begun, RunStarted) and begun.run != run:
        raise FederationError(
            f"Ledger {path} is of a run with another configuration or other data: give another output directory, or "
            f"remove {path.parent} to start over"
        )
