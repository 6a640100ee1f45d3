"""A member's side of a secure sum: its vector leaves under two masks, and at most one of them can ever be removed."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.errors import FederationError
from gridray.federated.identity import is_signed, sign
from gridray.federated.privacy.keys import (
    KEY_BYTES,
    agree,
    derive,
    keystream,
    new_private_key,
    public_key_of,
    seal,
    unseal,
)
from gridray.federated.privacy.quantisation import WORDS
from gridray.federated.privacy.secure_messages import (
    Confirmation,
    KeyAdvert,
    MaskedInput,
    SealedShares,
    Session,
    UnmaskRequest,
    UnmaskShares,
)
from gridray.federated.privacy.shamir import SHARE_BYTES, split

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


class SecureClient:
    """One member in one round. Its calls are made in order and once; a second round needs a new instance."""

    def __init__(self, session: Session, name: str, identity: bytes) -> None:
        """Draw fresh keys.

        Args:
            session: the sum.
            name: own name among the members.
            identity: own secret identity key, 32 bytes.
        """
        self._session = session
        self._name = name
        self._identity = identity
        self._box_key, self._mask_key = new_private_key(), new_private_key()
        self._seed = os.urandom(KEY_BYTES)
        self._adverts: dict[str, KeyAdvert] = {}
        self._boxes: dict[str, bytes] = {}
        self._stage = 0
        self._confirmed: tuple[str, ...] = ()

    def advertise(self) -> KeyAdvert:
        """Return the signed public keys of this round."""
        self._enter(0)
        box_key, mask_key = public_key_of(self._box_key), public_key_of(self._mask_key)
        signature = sign(self._identity, self._session.statement("keys", self._name), box_key, mask_key)
        return KeyAdvert(sender=self._name, box_key=box_key, mask_key=mask_key, signature=signature)

    def share_keys(self, adverts: Sequence[KeyAdvert]) -> SealedShares:
        """Check everybody's keys and return shares of both own secrets, sealed for each of them.

        Raises:
            FederationError: too few members, a key that its owner did not sign, or a key that two members have.
        """
        self._enter(1)
        self._adverts = checked_adverts(self._session, adverts)
        if self._name not in self._adverts:
            raise FederationError(f"The list of keys has none of {self._name!r} itself: the coordinator left it out")
        names = sorted(self._adverts)
        sizes = {"threshold": self._session.threshold, "num_shares": len(names)}
        pairs = zip(names, split(self._seed, **sizes), split(self._mask_key, **sizes), strict=True)
        boxes = {
            other: seal(self._pair_key(self._name, other), seed_share + key_share)
            for other, seed_share, key_share in pairs
        }
        return SealedShares(sender=self._name, boxes=boxes, seed_digest=hashlib.sha256(self._seed).digest())

    def mask(self, boxes: Mapping[str, bytes], words: NDArray[Any]) -> MaskedInput:
        """Return the vector plus the self mask, plus or minus the mask shared with each other member.

        Args:
            boxes: sender -> box for this member; those who sent one are the members that the masks are made with.
            words: unsigned words [num_words]; see `FixedPoint.encode`.

        Raises:
            FederationError: too few members or unknown ones, or a vector of another shape or type.
        """
        self._enter(2)
        word = WORDS[self._session.word_bits]
        if words.dtype != word or words.shape != (self._session.num_words,):
            raise FederationError(
                f"Vector of {self._name!r} is {words.dtype}{words.shape}: give {np.dtype(word)} "
                f"of {self._session.num_words} values"
            )
        if unknown := sorted(boxes.keys() - self._adverts.keys()):
            raise FederationError(f"A box is from {unknown[0]!r}, who advertised no keys")
        if len(boxes) < self._session.threshold or self._name not in boxes:
            raise FederationError(
                f"Only {len(boxes)} members shared keys ({self._name!r} must be one), the threshold is "
                f"{self._session.threshold}: the round ends here, and {self._name!r} sends nothing"
            )
        self._boxes = dict(boxes)
        masked = words + keystream(self._seed, len(words), word)
        for other in boxes:
            if other != self._name:
                add_pair_mask(masked, self._session, self._mask_key, self._name, self._adverts[other])
        return MaskedInput(sender=self._name, words=masked)

    def confirm(self, survivors: Sequence[str]) -> Confirmation:
        """Sign the list of those whose input arrived, and so bind the coordinator to it.

        Raises:
            FederationError: too few, or members that shared no keys.
        """
        self._enter(3)
        names = tuple(sorted(survivors))
        if len(set(names)) < self._session.threshold or not set(names) <= self._boxes.keys():
            raise FederationError(
                f"{self._name!r} is asked to confirm {len(set(names))} inputs of {len(self._boxes)} members, the "
                f"threshold is {self._session.threshold}: it does not sign"
            )
        self._confirmed = names
        return Confirmation(sender=self._name, signature=sign(self._identity, confirmation(self._session, names)))

    def unmask(self, request: UnmaskRequest) -> UnmaskShares:
        """Return one share for each member: of the seed for survivors, of the mask key for the dropped.

        Raises:
            FederationError: both secrets of one member are asked for, or the list of survivors is not the one that
                enough of them signed.
        """
        self._enter(4)
        survivors, dropped = set(request.survivors), set(request.dropped)
        if both := sorted(survivors & dropped):
            raise FederationError(
                f"The coordinator asks for both secrets of {both[0]!r}, which would bare its update: "
                f"{self._name!r} refuses"
            )
        if survivors | dropped != self._boxes.keys() or tuple(sorted(survivors)) != self._confirmed:
            raise FederationError(
                f"The coordinator asks {self._name!r} to unmask other members than it confirmed: {self._name!r} refuses"
            )
        statement = confirmation(self._session, self._confirmed)
        num_signed = sum(
            name in survivors and is_signed(self._session.members[name], signature, statement)
            for name, signature in request.confirmations.items()
        )
        if num_signed < self._session.threshold:
            raise FederationError(
                f"{num_signed} survivors signed the list of survivors, the threshold is {self._session.threshold}: "
                f"{self._name!r} unmasks nothing"
            )
        contents = {name: unseal(self._pair_key(name, self._name), box, name) for name, box in self._boxes.items()}
        return UnmaskShares(
            sender=self._name,
            seed_shares={name: contents[name][:SHARE_BYTES] for name in survivors},
            key_shares={name: contents[name][SHARE_BYTES:] for name in dropped},
        )

    def _pair_key(self, sender: str, recipient: str) -> bytes:
        """Return the key of the box from sender to recipient, one of whom is this member."""
        purpose = self._session.statement("box", sender, recipient)
        other = recipient if sender == self._name else sender
        if other == self._name:
            return derive(self._box_key, purpose)
        return agree(self._box_key, self._adverts[other].box_key, purpose)

    def _enter(self, stage: int) -> None:
        if self._stage != stage:
            raise FederationError(
                f"{self._name!r} is at stage {self._stage} of round {self._session.round}, not {stage}: each stage is "
                "passed once"
            )
        self._stage = stage + 1


def checked_adverts(session: Session, adverts: Sequence[KeyAdvert]) -> dict[str, KeyAdvert]:
    """Return the adverts by sender after checking signatures, number and that no key comes twice.

    Raises:
        FederationError: names the sender and the rule.
    """
    by_name = {advert.sender: advert for advert in adverts}
    for name, advert in by_name.items():
        statement = session.statement("keys", name)
        if name not in session.members or not is_signed(
            session.members[name], advert.signature, statement, advert.box_key, advert.mask_key
        ):
            raise FederationError(f"Keys of {name!r} are not signed with the identity key of a member: refused")
    keys = {key for advert in by_name.values() for key in (advert.box_key, advert.mask_key)}
    if len(by_name) != len(adverts) or len(keys) != 2 * len(adverts):
        raise FederationError("Two members, or one member twice, advertise the same key: every key must be fresh")
    if len(adverts) < session.threshold:
        raise FederationError(
            f"{len(adverts)} members advertised keys, the threshold is {session.threshold}: wait for more of them"
        )
    return by_name


def add_pair_mask(words: NDArray[Any], session: Session, mask_key: bytes, name: str, other: KeyAdvert) -> None:
    """Add to words, in place, the mask that `name` shares with another; the two masks of a pair cancel."""
    first, second = sorted((name, other.sender))
    seed = agree(mask_key, other.mask_key, session.statement("mask", first, second))
    mask = keystream(seed, len(words), words.dtype.type)
    if name == first:
        np.add(words, mask, out=words)
    else:
        np.subtract(words, mask, out=words)


def confirmation(session: Session, survivors: Sequence[str]) -> bytes:
    """Return the statement that survivors sign."""
    return session.statement("survivors", *sorted(survivors))
