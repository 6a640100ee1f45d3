"""The coordinator's secure sums of a round, one for each group of members, and what it learns from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gridray.errors import FederationError
from gridray.federated.compression import masked_fixed_point, sent_places
from gridray.federated.outbox import Order
from gridray.federated.privacy.protection import masked_groups
from gridray.federated.privacy.secure_aggregation import WeightedCodec
from gridray.federated.privacy.secure_messages import MIN_COHORT, Session
from gridray.federated.privacy.secure_server import SecureServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.federated.privacy.protection import ProtectionConfig

STAGES = ("advertise", "share_keys", "mask", "confirm", "unmask")


class GroupMean(NamedTuple):
    """What a secure sum tells: no more than this.

    members: whose updates are in it.
    change: float64 [num_values], weighted mean of the members' changes.
    effective_members: (sum of weights)^2 / sum of squared weights.
    """

    members: tuple[str, ...]
    change: NDArray[np.float64]
    effective_members: float


class _OpenSum:
    """A server, the stage that its members are asked for next, and what they are told."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.server = SecureServer(session)
        self.stage = 0
        self.survivors: tuple[str, ...] = ()
        self.outgoing: dict[str, tuple[Any, ...]] = dict.fromkeys(session.members, ())

    def next(self) -> None:
        """Close the stage that is open and prepare the next one's arguments."""
        if self.stage == 0:
            adverts = self.server.adverts()
            self.outgoing = dict.fromkeys((advert.sender for advert in adverts), (adverts,))
        elif self.stage == 1:
            self.outgoing = {name: (boxes,) for name, boxes in self.server.boxes().items()}
        elif self.stage == 2:
            self.survivors = self.server.survivors()
            self.outgoing = dict.fromkeys(self.survivors, (self.survivors,))
        elif self.stage == 3:
            request = self.server.request()
            self.outgoing = dict.fromkeys(request.confirmations, (request,))
        self.stage += 1


class MaskedSums:
    """Sums of one round; each is taken through its stages by `orders` and `receive`, and ended by `close`."""

    def __init__(self, keys: Mapping[str, str], protection: ProtectionConfig, run: str) -> None:
        """Take the members' public identity keys by name; run is the run's digest."""
        self._keys, self._protection, self._run = dict(keys), protection, run
        self._weights: dict[str, float] = {}
        self._sums: list[_OpenSum] = []
        self.means: list[GroupMean] = []
        self._num_values = 0

    def open(self, counts: Mapping[str, float], round_index: int, num_values: int) -> int:
        """Open a sum for each group of members; return how many there are.

        Args:
            counts: client -> what its update counts, 0 or more; who counts nothing is in no sum.
            round_index: the round.
            num_values: length of an update.

        Raises:
            FederationError: too few members for the groups.
        """
        secure, compression = self._protection.secure_aggregation, self._protection.compression
        counts = {name: count for name, count in counts.items() if count > 0.0}
        if secure is None or len(counts) < MIN_COHORT * secure.num_groups:
            groups = 0 if secure is None else secure.num_groups
            raise FederationError(
                f"{len(counts)} updates that count in round {round_index} are too few for {groups} masked sums of "
                f"{MIN_COHORT} or more: bring clients back and run again"
            )
        most = max(counts.values())
        is_even = self._protection.utility_noise is not None
        self._weights = {name: 1.0 if is_even else count / most for name, count in counts.items()}
        self._num_values, self.means = num_values, []
        codec = self._codec()
        self._sums = [
            _OpenSum(
                Session(
                    run=self._run,
                    round=round_index,
                    members={name: self._keys[name] for name in group},
                    threshold=secure.threshold_of(len(group)),
                    num_words=codec.num_words(len(sent_places(compression, num_values, round_index))),
                    word_bits=codec.values.word_bits,
                )
            )
            for group in masked_groups(sorted(counts), secure.num_groups, round_index)
        ]
        return len(self._sums)

    def orders(self, number: int) -> dict[str, Order]:
        """Return what each member of a sum is to do next."""
        found = self._sums[number]
        return {
            name: Order(
                session=found.session, stage=STAGES[found.stage], arguments=arguments, weight=self._weights[name]
            )
            for name, arguments in found.outgoing.items()
        }

    def receive(self, number: int, client: str, message: Any) -> None:  # noqa: ANN401  # checked by the server
        """Take a member's message of the open stage.

        Raises:
            FederationError: the server refuses it.
        """
        self._sums[number].server.receive(client, message)

    def close_stage(self, number: int) -> None:
        """Go on to the next stage; after the last, learn the mean.

        Raises:
            FederationError: fewer members than the threshold are left.
        """
        found = self._sums[number]
        if found.stage < len(STAGES) - 1:
            found.next()
            return
        mean, effective = self._codec().decode(found.server.total())
        change = np.zeros(self._num_values)
        change[sent_places(self._protection.compression, self._num_values, found.session.round)] = mean
        self.means.append(GroupMean(found.survivors, change, effective))

    def _codec(self) -> WeightedCodec:
        secure = self._protection.secure_aggregation
        limit = np.inf if secure is None else secure.limit
        return WeightedCodec(masked_fixed_point(self._protection.compression, limit=limit, num_clients=len(self._keys)))
