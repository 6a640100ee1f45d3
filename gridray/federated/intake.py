"""From what clients send to what the aggregator gets: signatures checked, changes unpacked, summed, clipped, noised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gridray.errors import FederationError
from gridray.federated.aggregators.stacking import flattened, unstacked
from gridray.federated.identity import secret_key
from gridray.federated.masked_sums import GroupMean, MaskedSums
from gridray.federated.outbox import unpacked
from gridray.federated.privacy.accounting import Mechanism, Spent
from gridray.federated.privacy.clipping import clip_update
from gridray.federated.privacy.noise import SecretStream
from gridray.federated.privacy.protection import ProtectionConfig
from gridray.federated.signing import Signed, checked_crossing
from gridray.federated.updates import ClientUpdate, Weights, digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from gridray.federated.ledger import Crossing


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What all members agreed on before the first round.

    run: digest of all that decides the numbers.
    keys: client -> public identity key; empty where nothing is signed.
    noise_multiplier: of the noise per utility; none without it.
    """

    run: str
    protection: ProtectionConfig
    keys: Mapping[str, str]
    noise_multiplier: float | None = None


class Intake:
    """The messages of the open round."""

    def __init__(self, terms: Terms, folder: Path) -> None:
        """Begin a round; folder holds the coordinator's own secret, if noise needs one."""
        self._terms = terms
        self._crossings: list[Crossing] = []
        self._sums = MaskedSums(terms.keys, terms.protection, terms.run)
        self._noise = None
        if terms.noise_multiplier is not None:
            self._noise = SecretStream(secret_key(folder / "noise.key"), "noise per utility", terms.run)

    @property
    def takes_weights(self) -> bool:
        """Whether updates carry weights, rather than changes."""
        return not self._terms.protection.changes_updates

    def open_round(self) -> None:
        """Forget what came in."""
        self._crossings = []
        self._sums.means = []

    def take(self, update: ClientUpdate, start: Weights) -> ClientUpdate:
        """Return an update with weights, unless they stay under masks.

        Raises:
            FederationError: the signature does not fit, or the change is malformed.
        """
        protection = self._terms.protection
        received = update
        if protection.changes_updates and protection.secure_aggregation is None:
            change = flattened(start, start) + unpacked(update, start)
            received = replace(update, weights=unstacked(change, start), compressed=None)
        elif update.compressed is not None:
            raise FederationError(f"Update of client {update.client!r} has a compressed change that nobody asked for")
        if self._terms.keys:
            part = Signed(message=update, signature=update.signature)
            crossing = checked_crossing(
                self._terms.keys[update.client], self._terms.run, update.round, update.client, part
            )
            norm = float(np.linalg.norm(_change(received, start))) if received.weights else None
            self._crossings.append(replace(crossing, norm=norm))
        return received

    def open_sums(self, counts: Mapping[str, float], start: Weights, round_index: int) -> int:
        """Open secure sums over the clients that count more than 0; return their number, 0 without masks."""
        if self._terms.protection.secure_aggregation is None:
            return 0
        return self._sums.open(counts, round_index, sum(array.size for array in start.values()))

    @property
    def sums(self) -> MaskedSums:
        """The secure sums of the open round."""
        return self._sums

    def receive_part(self, number: int, round_index: int, client: str, part: Signed) -> None:
        """Take a signed message of a secure sum.

        Raises:
            FederationError: the signature does not fit, or the sum refuses it.
        """
        crossing = checked_crossing(self._terms.keys[client], self._terms.run, round_index, client, part)
        self._sums.receive(number, client, part.message)
        self._crossings.append(crossing)

    def joined(self, updates: Sequence[ClientUpdate], start: Weights) -> list[ClientUpdate]:
        """Return what the aggregator gets: the updates, or one for each masked group, or their noisy mean."""
        protection = self._terms.protection
        given = list(updates)
        if protection.secure_aggregation is not None:
            samples = {update.client: update.num_samples for update in updates}
            given = [
                _as_update(mean, number, updates[0].round, samples, start)
                for number, mean in enumerate(self._sums.means)
            ]
        if protection.utility_noise is None or self._noise is None or self._terms.noise_multiplier is None:
            return given
        clip, num_updates = protection.utility_noise.clip, len(updates)
        if protection.secure_aggregation is None:
            mean = np.mean([clip_update(_change(update, start), clip).values for update in given], axis=0)
        else:
            mean, num_updates = _change(given[0], start), len(self._sums.means[0].members)
        noise = self._noise.normal(len(mean), str(given[0].round), digest({"mean": mean}))
        mean = mean + noise * (self._terms.noise_multiplier * clip / num_updates)
        weights = unstacked(flattened(start, start) + mean, start)
        return [replace(given[0], client="all", weights=weights, num_samples=1)]

    def members(self) -> set[str] | None:
        """Return whose updates are in the masked sums; none without masks."""
        if self._terms.protection.secure_aggregation is None:
            return None
        return {name for mean in self._sums.means for name in mean.members}

    def report(self) -> dict[str, float]:
        """Return figures of the round for its record: the effective number of members in all masked sums."""
        if not self._sums.means:
            return {}
        return {"masked.effective_clients": sum(mean.effective_members for mean in self._sums.means)}

    def crossings(self) -> tuple[Crossing, ...]:
        """Return the ledger's lines about what came in, by client."""
        return tuple(sorted(self._crossings, key=lambda crossing: crossing.client))

    def spent(self, num_rounds: int) -> Spent | None:
        """Return what a utility has lost after so many rounds; none without noise."""
        noise = self._terms.protection.utility_noise
        if noise is None or self._terms.noise_multiplier is None:
            return None
        return Mechanism(noise_multiplier=self._terms.noise_multiplier).spent(num_rounds, noise.budget)


def _change(update: ClientUpdate, start: Weights) -> NDArray[np.float64]:
    after: NDArray[np.float64] = flattened(update.weights, start).astype(np.float64)
    before: NDArray[np.float64] = flattened(start, start).astype(np.float64)
    return after - before


def _as_update(
    mean: GroupMean, number: int, round_index: int, num_samples: Mapping[str, int], start: Weights
) -> ClientUpdate:
    """Return a group's mean as if one client had sent it."""
    return ClientUpdate(
        client=f"group {number}",
        round=round_index,
        num_samples=sum(num_samples[name] for name in mean.members),
        weights=unstacked(flattened(start, start) + mean.change, start),
        metrics={},
    )
