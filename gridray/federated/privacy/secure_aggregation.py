"""A whole secure sum over members that any channel reaches, and weighted means from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from gridray.errors import FederationError
from gridray.federated.privacy.quantisation import FixedPoint, widest
from gridray.federated.privacy.secure_server import Message, SecureServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from gridray.federated.privacy.secure_messages import Session


class Channel(Protocol):
    """Reaches the members, each of whom has a `SecureClient`."""

    def __call__(self, method: str, arguments: Mapping[str, tuple[Any, ...]]) -> Mapping[str, Message]:
        """Call a method of each member named in arguments; return what came back in time, by member."""
        ...


class SecureSum(NamedTuple):
    """Outcome of a secure sum.

    words: sum over the survivors modulo 2^word_bits, [num_words].
    survivors: whose vectors are in it.
    absent: member -> why its vector is not in it.
    """

    words: NDArray[Any]
    survivors: tuple[str, ...]
    absent: dict[str, str]


def secure_sum(session: Session, channel: Channel) -> SecureSum:
    """Run all five stages; a member that does not answer, or answers wrongly, counts as dropped from there on.

    Its vector must be at the member already: the channel's call of `mask` gets the boxes only.

    Raises:
        FederationError: fewer members than the threshold are left.
    """
    server, absent = SecureServer(session), dict[str, str]()
    _exchange(server, channel, "advertise", dict.fromkeys(session.members, ()), absent)
    adverts = server.adverts()
    _exchange(server, channel, "share_keys", {advert.sender: (adverts,) for advert in adverts}, absent)
    boxes = server.boxes()
    _exchange(server, channel, "mask", {name: (part,) for name, part in boxes.items()}, absent)
    survivors = server.survivors()
    # Who stays away from here on has its vector in the sum all the same.
    confirmed = _exchange(server, channel, "confirm", dict.fromkeys(survivors, (survivors,)), {})
    _exchange(server, channel, "unmask", dict.fromkeys(confirmed, (server.request(),)), {})
    return SecureSum(server.total(), survivors, absent)


class WeightedCodec:
    """Packs (weight * update, weight, weight^2) into one vector of words, and unpacks their sums.

    Only sums are unpacked: neither an update nor a weight, which may tell how well a member does, is seen alone.
    """

    def __init__(self, values: FixedPoint) -> None:
        """Take the fixed point of the values, and the finest in words of the same width for the weights."""
        self.values = values
        self._weights = widest(1.0, values.num_terms, values.word_bits)

    @staticmethod
    def num_words(num_values: int) -> int:
        """Return the length of the vector for updates [num_values]."""
        return num_values + 2

    def encode(
        self, update: NDArray[np.floating], weight: float, rng: np.random.Generator | None = None
    ) -> NDArray[Any]:
        """Return words [num_values + 2] of an update [num_values] with a weight in (0, 1]; rng rounds at random.

        Raises:
            FederationError: the weight is out of range, or the update beyond the limit.
        """
        if not 0.0 < weight <= 1.0:
            raise FederationError(f"Weight is {weight}: give a number above 0, up to 1")
        scaled = np.asarray(update, dtype=np.float64) * weight
        return np.concatenate((self.values.encode(scaled, rng), self._weights.encode(np.array([weight, weight**2]))))

    def decode(self, words: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
        """Return the weighted mean [num_values] and the effective number of members, (sum w)^2 / sum w^2."""
        weight, square = self._weights.decode(words[-2:])
        return self.values.decode(words[:-2]) / weight, float(weight**2 / square)


def _exchange(
    server: SecureServer,
    channel: Channel,
    method: str,
    arguments: Mapping[str, tuple[Any, ...]],
    absent: dict[str, str],
) -> tuple[str, ...]:
    """Call members and hand what comes back to the server; return whose message it took."""
    answers = channel(method, arguments)
    taken = []
    for name in sorted(arguments):
        if name not in answers:
            absent[name] = f"no answer to {method}"
            continue
        try:
            server.receive(name, answers[name])
        except FederationError as error:
            absent[name] = str(error)
        else:
            taken.append(name)
    return tuple(taken)
