"""Fixed-point numbers in the words of a secure sum, with a proof before the run that no sum can overflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gridray.errors import ConfigError, FederationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORDS: dict[int, type[np.unsignedinteger[Any]]] = {16: np.uint16, 32: np.uint32, 64: np.uint64}
_SIGNED: dict[int, type[np.signedinteger[Any]]] = {16: np.int16, 32: np.int32, 64: np.int64}
# A float64 holds integers up to 2^53: beyond that a level would not be a number of its own.
_MAX_LEVEL_BITS = 53


@dataclass(frozen=True, kw_only=True)
class FixedPoint:
    """Values in [-limit, limit] as integers modulo 2^word_bits, in two's complement.

    limit: largest absolute value of an entry; a larger one is an error, never cut silently.
    num_terms: at most so many encoded vectors are added.
    level_bits: an entry is one of 2 * max_level + 1 levels, max_level = 2^(level_bits - 1) - 1.
    word_bits: 16, 32 or 64.
    """

    limit: float
    num_terms: int
    level_bits: int
    word_bits: int = 32

    def __post_init__(self) -> None:
        if not (np.isfinite(self.limit) and self.limit > 0):
            raise ConfigError(f"Quantisation limit is {self.limit}: give a finite number above 0")
        if self.word_bits not in WORDS:
            raise ConfigError(f"Quantisation word_bits is {self.word_bits}: give 16, 32 or 64")
        if self.num_terms < 1:
            raise ConfigError(f"Quantisation num_terms is {self.num_terms}: give the number of clients, 1 or more")
        if not 2 <= self.level_bits <= min(self.word_bits, _MAX_LEVEL_BITS):
            most = min(self.word_bits, _MAX_LEVEL_BITS)
            raise ConfigError(f"Quantisation level_bits is {self.level_bits}: give 2 to {most}")
        largest = 2 ** (self.word_bits - 1) - 1
        if self.num_terms * self.max_level > largest:
            raise ConfigError(
                f"The sum of {self.num_terms} clients' levels up to {self.max_level} can reach "
                f"{self.num_terms * self.max_level}, a signed word of {self.word_bits} bits holds {largest}: give "
                f"level_bits {widest_level_bits(self.num_terms, self.word_bits)} or less, or wider words"
            )

    @property
    def max_level(self) -> int:
        """Largest level; the smallest is its negative."""
        return int(2 ** (self.level_bits - 1) - 1)

    @property
    def step(self) -> float:
        """Difference between two levels, in the values' unit."""
        return self.limit / self.max_level

    def encode(self, values: NDArray[np.floating], rng: np.random.Generator | None = None) -> NDArray[Any]:
        """Return words of the shape of values.

        Args:
            values: finite, in [-limit, limit].
            rng: rounds up or down at random so that the mean is exact; without one, to the nearest level.

        Raises:
            FederationError: a value is not finite or beyond the limit.
        """
        scaled = np.asarray(values, dtype=np.float64) / self.step
        # One ulp of slack: limit / step may round to just above max_level.
        if scaled.size and not np.abs(scaled).max() <= self.max_level * (1.0 + 1e-12):
            first = int(np.flatnonzero(~(np.abs(scaled.ravel()) <= self.max_level * (1.0 + 1e-12)))[0])
            raise FederationError(
                f"Value {float(np.asarray(values).flat[first])!r} at element {first} is not within "
                f"[-{self.limit:g}, {self.limit:g}]: clip the update to this limit first, or give a larger limit"
            )
        if rng is None:
            np.rint(scaled, out=scaled)
        else:
            scaled += rng.random(scaled.shape)
            np.floor(scaled, out=scaled)
        np.clip(scaled, -self.max_level, self.max_level, out=scaled)
        return scaled.astype(np.int64).astype(WORDS[self.word_bits])

    def decode(self, words: NDArray[Any]) -> NDArray[np.float64]:
        """Return the value of a sum of at most num_terms encoded vectors; exact in the levels."""
        return words.astype(WORDS[self.word_bits], copy=False).view(_SIGNED[self.word_bits]) * self.step


def widest_level_bits(num_terms: int, word_bits: int) -> int:
    """Return the most level bits with which num_terms vectors add up in words of word_bits without overflow."""
    largest_level = (2 ** (word_bits - 1) - 1) // num_terms
    return int(min((largest_level + 1).bit_length(), _MAX_LEVEL_BITS))


def widest(limit: float, num_terms: int, word_bits: int = 32) -> FixedPoint:
    """Return the finest fixed point for these sums.

    Raises:
        ConfigError: the words are too narrow for so many terms.
    """
    return FixedPoint(
        limit=limit, num_terms=num_terms, level_bits=widest_level_bits(num_terms, word_bits), word_bits=word_bits
    )
