"""What members and coordinator of a secure sum send each other, stage by stage.

Names and stages follow Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS
2017, figure 4: advertise keys, share keys, masked input, consistency check, unmasking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from gridray.errors import ConfigError
from gridray.federated.identity import framed
from gridray.federated.privacy.quantisation import WORDS

# Of a sum over two, each knows the other's part.
MIN_COHORT = 3


@dataclass(frozen=True, kw_only=True)
class Session:
    """One secure sum: who may join, and how many must stay.

    members: name -> public identity key (Ed25519, hexadecimal), known to all before the run.
    threshold: members that must stay to the end; fewer than this many can never unmask anything.
    num_words: length of every member's vector.
    word_bits: the sum is taken modulo 2^word_bits.
    """

    run: str
    round: int
    members: Mapping[str, str]
    threshold: int
    num_words: int
    word_bits: int = 32

    def __post_init__(self) -> None:
        count = len(self.members)
        if count < MIN_COHORT:
            raise ConfigError(
                f"A secure sum of {count} members hides nothing, as each knows its own part: it needs {MIN_COHORT}"
            )
        least = max(MIN_COHORT, count // 2 + 1)
        if not least <= self.threshold <= count:
            raise ConfigError(
                f"Secure aggregation has threshold {self.threshold} of {count} members: give {least} to {count}, above "
                "half so that a coordinator cannot unmask in two halves what it may only unmask once"
            )
        if self.word_bits not in WORDS:
            raise ConfigError(f"Secure aggregation has word_bits {self.word_bits}: give 16, 32 or 64")

    def statement(self, kind: str, *parts: str) -> bytes:
        """Return bytes that name this run, this round and one kind of use."""
        texts = ("gridray secure sum", kind, self.run, str(self.round), *parts)
        return framed(*(text.encode() for text in texts))


def default_threshold(num_members: int) -> int:
    """Return the threshold that holds even if the coordinator colludes with a third of the members."""
    return max(MIN_COHORT, 2 * num_members // 3 + 1)


@dataclass(frozen=True, kw_only=True)
class KeyAdvert:
    """Stage 0: a member's public keys for this round, signed with its identity key."""

    sender: str
    box_key: bytes
    mask_key: bytes
    signature: str


@dataclass(frozen=True, kw_only=True)
class SealedShares:
    """Stage 1: shares of a member's two secrets, sealed for each recipient.

    boxes: recipient -> box; the coordinator can pass them on, and not open them.
    seed_digest: SHA-256 of the self mask's seed, by which a wrong reconstruction is found.
    """

    sender: str
    boxes: Mapping[str, bytes] = field(repr=False)
    seed_digest: bytes


@dataclass(frozen=True, kw_only=True)
class MaskedInput:
    """Stage 2: a member's vector under its masks, words [num_words]."""

    sender: str
    words: NDArray[Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Stage 3: a member's signature of the list of those whose masked input arrived."""

    sender: str
    signature: str


@dataclass(frozen=True, kw_only=True)
class UnmaskRequest:
    """Stage 4, from the coordinator: shares of whose secrets it needs.

    survivors: whose self mask is to be removed: their masked input arrived.
    dropped: whose pairwise masks are to be removed: they shared keys, and their input did not arrive.
    confirmations: survivor -> signature of the list of survivors.
    """

    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    confirmations: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class UnmaskShares:
    """Stage 4: a member's shares, of the self mask's seed for survivors and of the mask key for the dropped."""

    sender: str
    seed_shares: Mapping[str, bytes] = field(repr=False)
    key_shares: Mapping[str, bytes] = field(repr=False)
