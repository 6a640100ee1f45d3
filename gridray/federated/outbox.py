"""A client's last step before its update leaves: clipped, made smaller, put under masks, and signed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.errors import FederationError
from gridray.federated.aggregators.stacking import flattened
from gridray.federated.compression import compress, decompress, masked_fixed_point, sent_places
from gridray.federated.identity import public_key, secret_key
from gridray.federated.privacy.clipping import clip_update
from gridray.federated.privacy.secure_aggregation import WeightedCodec
from gridray.federated.privacy.secure_client import SecureClient
from gridray.federated.privacy.secure_messages import Session
from gridray.federated.signing import Signed, signed

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.federated.privacy.protection import ProtectionConfig
    from gridray.federated.updates import ClientUpdate, Weights

RESIDUAL = "residual"
CLIPPED = "clipped_share"
_SUMS = "sums.json"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the coordinator asks of a member in one stage of a secure sum.

    stage: name of the method of `SecureClient`.
    arguments: of that method, but for the member's own vector.
    weight: what the member's update counts, in (0, 1].
    """

    session: Session
    stage: str
    arguments: tuple[Any, ...]
    weight: float


class Outbox:
    """Holds what a client is about to send."""

    def __init__(self, name: str, folder: Path, protection: ProtectionConfig, num_clients: int) -> None:
        """Take up the client's identity, or make one; num_clients is the number of members of a sum at most."""
        self._name, self._folder, self._protection = name, folder, protection
        self._num_clients = num_clients
        self._identity = secret_key(folder / "identity.key")
        self._residual: NDArray[np.float64] | None = None
        self._pending: tuple[int, NDArray[np.float64]] | None = None
        self._ready: tuple[int, NDArray[Any]] | None = None
        self._member: SecureClient | None = None
        self._session: Session | None = None

    @property
    def public_key(self) -> str:
        """The client's public identity key."""
        return public_key(self._identity)

    def get_state(self) -> dict[str, NDArray[np.float64]]:
        """Return what earlier updates left, to be kept with the client's checkpoint."""
        return {} if self._residual is None else {RESIDUAL: self._residual}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take what `get_state` returned; other arrays may be there."""
        self._residual = state.get(RESIDUAL)

    def clipped_share(self, after: Weights, start: Weights) -> dict[str, float]:
        """Return, under masks, the share of the change's entries that the limit cuts, as a metric; else nothing."""
        secure = self._protection.secure_aggregation
        if secure is None:
            return {}
        change = flattened(after, start).astype(np.float64) - flattened(start, start)
        return {CLIPPED: float(np.mean(np.abs(change) > secure.limit))}

    def pack(self, update: ClientUpdate, start: Weights, run: str, rng: np.random.Generator) -> ClientUpdate:
        """Return the update as it leaves, signed; under masks its weights stay here for the sum.

        Args:
            update: weights after training.
            start: weights of the same names before it.
            run: digest of the run.
            rng: the client's own of this round, for rounding.
        """
        packed = update
        if self._protection.changes_updates:
            change = flattened(update.weights, start).astype(np.float64) - flattened(start, start)
            packed = replace(update, weights={})
            if self._protection.secure_aggregation is not None:
                self._pending = (update.round, change + (0.0 if self._residual is None else self._residual))
            else:
                message, left = compress(
                    self._protection.compression, change, self._residual, rng=rng, common_seed=update.round
                )
                self._residual = left if self._protection.compression.kind != "none" else None
                packed = replace(packed, compressed=message)
        return replace(packed, signature=signed(self._identity, run, update.round, self._name, packed).signature)

    def put_words(self, round_index: int, words: NDArray[Any]) -> None:
        """Take the words of a sum that is not of an update."""
        self._ready = (round_index, words)

    def take_part(self, order: Order, rng: np.random.Generator) -> Signed:
        """Do one stage of a secure sum and return the signed message.

        Raises:
            FederationError: the stage is not this one's turn, or would bare the client's update.
        """
        session = order.session
        if order.stage == "advertise":
            self._session, self._member = session, SecureClient(session, self._name, self._identity)
        if self._member is None or self._session != session:
            raise FederationError(f"{self._name!r} was started again during the sum: it drops out of this round")
        arguments = order.arguments
        if order.stage == "mask":
            arguments = (*arguments, self._words(session, order.weight, rng))
        if order.stage == "unmask":
            self._bind(session, arguments[0].survivors)
        message = getattr(self._member, order.stage)(*arguments)
        return signed(self._identity, session.run, session.round, self._name, message)

    def _words(self, session: Session, weight: float, rng: np.random.Generator) -> NDArray[Any]:
        if self._ready is not None and self._ready[0] == session.round:
            return self._ready[1]
        if self._pending is None or self._pending[0] != session.round:
            raise FederationError(f"{self._name!r} has no update of round {session.round}: it drops out of this round")
        wanted = self._pending[1]
        secure, compression = self._protection.secure_aggregation, self._protection.compression
        limit = np.inf if secure is None else secure.limit
        codec = WeightedCodec(masked_fixed_point(compression, limit=limit, num_clients=self._num_clients))
        places = sent_places(compression, len(wanted), session.round)
        noise = self._protection.utility_noise
        kept = wanted[places] if noise is None else clip_update(wanted[places], noise.clip).values
        kept = np.clip(kept, -limit, limit)
        words = codec.encode(kept, weight, rng if compression.kind == "int8" else None)
        if compression.kind != "none":
            self._residual = wanted.copy()
            self._residual[places] -= codec.values.decode(words[:-2]) / weight
        return words

    def _bind(self, session: Session, survivors: tuple[str, ...]) -> None:
        """Unmask one list of survivors a round, whatever happens: two sums would give the difference away."""
        file = self._folder / _SUMS
        bound: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        known = bound.setdefault(f"{session.run} {session.round}", sorted(survivors))
        if known != sorted(survivors):
            raise FederationError(
                f"{self._name!r} has unmasked round {session.round} with {', '.join(known)}: with others, the "
                "difference of the two sums would bare an update; bring the same clients back, or start a new run"
            )
        aside = file.with_name(f".partial-{file.name}")
        aside.write_text(json.dumps(bound), encoding="utf-8")
        aside.rename(file)


def unpacked(update: ClientUpdate, start: Weights) -> NDArray[np.float64]:
    """Return the change [num_values] that a compressed update stands for.

    Raises:
        FederationError: it is malformed, or of another length than the weights.
    """
    num_values = sum(array.size for array in start.values())
    if update.compressed is None or update.compressed.num_values != num_values:
        raise FederationError(f"Update of client {update.client!r} has no compressed change of {num_values} values")
    return decompress(update.compressed, common_seed=update.round)
