"""Random numbers that only their owner can know: noise and sampling that protect must not follow from a public seed.

A stream is ChaCha20 under a key derived from a secret and a purpose. The same secret and purpose give the same numbers,
so that a round that is repeated is the same bit for bit; what the numbers protect must therefore be part of the
purpose, or the same noise on two results would cancel in their difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gridray.federated.identity import framed
from gridray.federated.privacy.keys import derive, keystream

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SecretStream:
    """Random numbers from a secret of 32 bytes; each purpose is a stream of its own, read once."""

    def __init__(self, secret: bytes, *purpose: str) -> None:
        """Keep the secret; purpose parts come before those of each call."""
        self._secret = secret
        self._purpose = purpose

    def uniform(self, size: int, *purpose: str) -> NDArray[np.float64]:
        """Return numbers in [0, 1), [size], multiples of 2^-53."""
        return self._words(size, *purpose).astype(np.float64) * 2.0**-53

    def normal(self, size: int, *purpose: str) -> NDArray[np.float64]:
        """Return standard normal numbers [size] (Box and Muller, 1958)."""
        half = (size + 1) // 2
        # In (0, 1]: its logarithm is finite.
        first, second = self._words(2 * half, *purpose).reshape(2, half).astype(np.float64) * 2.0**-53
        radius = np.sqrt(-2.0 * np.log1p(-first))
        angle = 2.0 * np.pi * second
        return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))[:size]

    def _words(self, size: int, *purpose: str) -> NDArray[np.uint64]:
        parts = (part.encode() for part in ("gridray noise", *self._purpose, *purpose))
        words: NDArray[np.uint64] = keystream(derive(self._secret, framed(*parts)), size, np.uint64) >> np.uint64(11)
        return words
