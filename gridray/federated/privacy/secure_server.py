"""The coordinator's side of a secure sum: it passes boxes on, adds masked vectors, and can remove what is left over.

The pairwise masks of all who stayed cancel. Those of a member that dropped out after sharing its keys are removed with
its mask key, the self masks of the others with their seeds, each reconstructed from shares of at least the threshold.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.errors import FederationError
from gridray.federated.identity import is_signed
from gridray.federated.privacy.keys import keystream, public_key_of
from gridray.federated.privacy.quantisation import WORDS
from gridray.federated.privacy.secure_client import add_pair_mask, checked_adverts, confirmation
from gridray.federated.privacy.secure_messages import (
    Confirmation,
    KeyAdvert,
    MaskedInput,
    SealedShares,
    Session,
    UnmaskRequest,
    UnmaskShares,
)
from gridray.federated.privacy.shamir import SHARE_BYTES, reconstruct

if TYPE_CHECKING:
    from numpy.typing import NDArray

Message = KeyAdvert | SealedShares | MaskedInput | Confirmation | UnmaskShares
_STAGES: tuple[type[Message], ...] = (KeyAdvert, SealedShares, MaskedInput, Confirmation, UnmaskShares)
_NAMES = ("key adverts", "sealed shares", "masked inputs", "confirmations", "unmasking shares")


class SecureServer:
    """One secure sum. `receive` takes messages of the open stage; the method named after what follows closes it."""

    def __init__(self, session: Session) -> None:
        """Open the first stage."""
        self._session = session
        self._stage = 0
        self._received: list[dict[str, Any]] = [{} for _ in _STAGES]
        self._total = np.zeros(session.num_words, dtype=WORDS[session.word_bits])

    def receive(self, client: str, message: Message) -> None:
        """Take a member's message of the open stage.

        Raises:
            FederationError: it is of another stage, of another member or a second one, or not of the right form.
        """
        sender = f"{type(message).__name__} from {client!r} in round {self._session.round}"
        if self._stage == len(_STAGES) or not isinstance(message, _STAGES[self._stage]):
            stage = f"{_NAMES[self._stage]} are" if self._stage < len(_STAGES) else "nothing is"
            raise FederationError(f"{sender} comes too early or too late: {stage} taken now")
        allowed = self._received[self._stage - 1] if self._stage else self._session.members
        if message.sender != client or client not in allowed:
            raise FederationError(f"{sender} says it is from {message.sender!r}, who must be in this stage: refused")
        if client in self._received[self._stage]:
            raise FederationError(f"{sender} is a second one: refused")
        self._check(sender, message)
        if isinstance(message, MaskedInput):
            # Modulo 2^word_bits, as unsigned integers are: the sum does not depend on the order.
            np.add(self._total, message.words, out=self._total)
            self._received[2][client] = None
        else:
            self._received[self._stage][client] = message

    def adverts(self) -> tuple[KeyAdvert, ...]:
        """Close stage 0; return the keys that everybody must see."""
        adverts = tuple(self._received[0][name] for name in self._close(0))
        checked_adverts(self._session, adverts)
        return adverts

    def boxes(self) -> dict[str, dict[str, bytes]]:
        """Close stage 1; return for each recipient the boxes from all senders."""
        senders = self._close(1)
        return {to: {name: self._received[1][name].boxes[to] for name in senders} for to in senders}

    def survivors(self) -> tuple[str, ...]:
        """Close stage 2; return whose masked input is in the sum. A later input is refused."""
        return self._close(2)

    def request(self) -> UnmaskRequest:
        """Close stage 3; return what to ask the survivors for."""
        confirmed = self._close(3)
        survivors = tuple(sorted(self._received[2]))
        return UnmaskRequest(
            survivors=survivors,
            dropped=tuple(sorted(self._received[1].keys() - self._received[2].keys())),
            confirmations={name: self._received[3][name].signature for name in confirmed},
        )

    def total(self) -> NDArray[Any]:
        """Close stage 4; return the sum of the survivors' vectors modulo 2^word_bits, words [num_words].

        Raises:
            FederationError: too few shares arrived, or they give no secret of the member that they belong to.
        """
        senders = self._close(4)
        numbers = {name: number for number, name in enumerate(sorted(self._received[0]), 1)}
        word = WORDS[self._session.word_bits]
        for name in sorted(self._received[2]):
            shares = {numbers[sender]: self._received[4][sender].seed_shares[name] for sender in senders}
            seed = reconstruct(shares, threshold=self._session.threshold)
            if hashlib.sha256(seed).digest() != self._received[1][name].seed_digest:
                raise FederationError(f"The shares give another seed than {name!r} announced: the round is void")
            np.subtract(self._total, keystream(seed, len(self._total), word), out=self._total)
        for name in sorted(self._received[1].keys() - self._received[2].keys()):
            shares = {numbers[sender]: self._received[4][sender].key_shares[name] for sender in senders}
            self._add_masks_of(name, reconstruct(shares, threshold=self._session.threshold))
        return self._total

    def _add_masks_of(self, name: str, mask_key: bytes) -> None:
        """Add the pairwise masks that a dropped member's input would have brought, so that they cancel."""
        adverts: dict[str, KeyAdvert] = self._received[0]
        if public_key_of(mask_key) != adverts[name].mask_key:
            raise FederationError(f"The shares give another mask key than {name!r} advertised: the round is void")
        for other in self._received[2]:
            add_pair_mask(self._total, self._session, mask_key, name, adverts[other])

    def _close(self, stage: int) -> tuple[str, ...]:
        if self._stage != stage:
            raise FederationError(f"Stage {stage} of the secure sum is not open, stage {self._stage} is")
        present = tuple(sorted(self._received[stage]))
        if len(present) < self._session.threshold:
            raise FederationError(
                f"Secure sum of round {self._session.round}: {_NAMES[stage]} of {len(present)} members arrived "
                f"({', '.join(present) or 'none'}), the threshold is {self._session.threshold}: nothing can be "
                "unmasked; bring members back and repeat the round"
            )
        self._stage += 1
        return present

    def _check(self, sender: str, message: Message) -> None:
        match message:
            case KeyAdvert():
                self._check_advert(sender, message)
            case SealedShares():
                self._check_boxes(sender, message)
            case MaskedInput():
                self._check_words(sender, message)
            case Confirmation():
                self._check_confirmation(sender, message)
            case UnmaskShares():
                self._check_shares(sender, message)

    def _check_advert(self, sender: str, advert: KeyAdvert) -> None:
        statement = self._session.statement("keys", advert.sender)
        if not is_signed(
            self._session.members[advert.sender], advert.signature, statement, advert.box_key, advert.mask_key
        ):
            raise FederationError(f"{sender} is not signed with its identity key: refused")

    def _check_boxes(self, sender: str, message: SealedShares) -> None:
        if message.boxes.keys() != self._received[0].keys() or len(message.seed_digest) != hashlib.sha256().digest_size:
            raise FederationError(f"{sender} does not have one box for each of {', '.join(sorted(self._received[0]))}")

    def _check_words(self, sender: str, message: MaskedInput) -> None:
        words = message.words
        if not isinstance(words, np.ndarray) or (words.dtype, words.shape) != (self._total.dtype, self._total.shape):
            raise FederationError(f"{sender} must have {self._total.dtype} words of shape {self._total.shape}: refused")

    def _check_confirmation(self, sender: str, message: Confirmation) -> None:
        statement = confirmation(self._session, sorted(self._received[2]))
        if not is_signed(self._session.members[message.sender], message.signature, statement):
            raise FederationError(f"{sender} is no signature of the list of survivors: refused")

    def _check_shares(self, sender: str, message: UnmaskShares) -> None:
        survivors, shared = self._received[2].keys(), self._received[1].keys()
        lengths = {len(share) for part in (message.seed_shares, message.key_shares) for share in part.values()}
        if message.seed_shares.keys() != survivors or message.key_shares.keys() != shared - survivors:
            raise FederationError(f"{sender} does not have exactly one share of each member: refused")
        if lengths != {SHARE_BYTES}:
            raise FederationError(f"{sender} has shares of {sorted(lengths)} bytes, each has {SHARE_BYTES}: refused")
