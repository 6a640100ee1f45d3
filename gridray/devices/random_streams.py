"""Random numbers of each environment's own, whatever other environments run beside it."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy.special import ndtri

from gridray.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
ROUNDS = 10
WORDS = 4
"""64-bit words of one block."""
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
UNUSED_BITS = np.uint64(12)
"""52 bits and a half fit a float64 strictly between 0 and 1."""


class EnvStreams:
    """One stream of random numbers per environment.

    Word i of block b of environment e is Philox4x64-10 with key (seed of e, purpose) and counter b (Salmon et al.,
    "Parallel random numbers: as easy as 1, 2, 3", SC11): it depends on that environment's seed and on how much it has
    drawn, not on the number of environments, their order or the process. Streams of other purposes are independent: a
    sensor more does not change the outages.

    seeds: uint64 [E]; blocks: uint64 [E], blocks drawn so far; purpose: 0..2**63 - 1.
    """

    def __init__(
        self,
        seeds: NDArray[np.uint64],
        blocks: NDArray[np.uint64],
        purpose: int,
        rows: NDArray[np.int64] | slice = slice(None),
    ) -> None:
        """Continue streams after `blocks` blocks, those of `rows` only; `from_seeds` starts new ones."""
        self.seeds = seeds
        self.blocks = blocks
        self.purpose = purpose
        self._rows = rows

    @classmethod
    def from_seeds(cls, seeds: NDArray[np.uint64], *, purpose: int = 0) -> EnvStreams:
        """Start a stream per seed, uint64 [E].

        Raises:
            ConfigError: seeds are not whole numbers in a row, or the purpose is negative.
        """
        seeds = np.asarray(seeds)
        if seeds.ndim != 1 or seeds.dtype != np.uint64:
            raise ConfigError(f"seeds are {seeds.dtype} of shape {seeds.shape}: give uint64 [num_envs].")
        if not 0 <= purpose < 2**63:
            raise ConfigError(f"purpose is {purpose}: give a whole number from 0 to 2**63 - 1.")
        return cls(seeds.copy(), np.zeros(len(seeds), dtype=np.uint64), purpose)

    def at(self, rows: NDArray[np.int64]) -> EnvStreams:
        """Return the streams of these environments of all: drawing from them leaves the others where they are."""
        return EnvStreams(self.seeds, self.blocks, self.purpose, rows)

    def restart(self, rows: NDArray[np.int64], seeds: NDArray[np.uint64]) -> None:
        """Start these environments of all anew with these seeds, uint64 [len(rows)]."""
        self.seeds[rows] = seeds
        self.blocks[rows] = 0

    def uniform(self, *items: int) -> NDArray[np.float64]:
        """Return numbers strictly between 0 and 1, [*items, E]."""
        num_items = prod(items)
        seeds, blocks = self.seeds[self._rows], self.blocks[self._rows]
        words = np.empty((-(-num_items // WORDS), WORDS, len(seeds)), dtype=np.uint64)
        _fill(seeds, np.uint64(self.purpose), blocks, words)
        self.blocks[self._rows] = blocks + np.uint64(len(words))
        bits = words.reshape(len(words) * WORDS, len(seeds))[:num_items] >> UNUSED_BITS
        values: NDArray[np.float64] = (bits.astype(np.float64) + 0.5) * 2.0**-52
        return values.reshape(*items, len(seeds))

    def normal(self, *items: int) -> NDArray[np.float64]:
        """Return standard normal numbers, [*items, E]."""
        values: NDArray[np.float64] = ndtri(self.uniform(*items))
        return values

    def exponential(self, *items: int) -> NDArray[np.float64]:
        """Return exponential numbers of mean 1, [*items, E]."""
        return -np.log(self.uniform(*items))


@njit(cache=True, nogil=True)
def _fill(seeds: NDArray[np.uint64], purpose: np.uint64, blocks: NDArray[np.uint64], words: NDArray[np.uint64]) -> None:
    """Write the next blocks of each environment, uint64 [num_blocks, WORDS, E]."""
    for block in range(words.shape[0]):
        for env in range(words.shape[2]):
            c0, c1, c2, c3 = blocks[env] + np.uint64(block), np.uint64(0), np.uint64(0), np.uint64(0)
            k0, k1 = seeds[env], purpose
            for _ in range(ROUNDS):
                high_0, high_1 = _high(MULTIPLIER_0, c0), _high(MULTIPLIER_1, c2)
                c0, c1, c2, c3 = high_1 ^ c1 ^ k0, MULTIPLIER_1 * c2, high_0 ^ c3 ^ k1, MULTIPLIER_0 * c0
                k0, k1 = k0 + WEYL_0, k1 + WEYL_1
            words[block, 0, env], words[block, 1, env] = c0, c1
            words[block, 2, env], words[block, 3, env] = c2, c3


@njit(cache=True, nogil=True)
def _high(a: np.uint64, b: np.uint64) -> np.uint64:
    """Return the upper 64 bits of a product."""
    a0, a1, b0, b1 = a & LOW, a >> HALF, b & LOW, b >> HALF
    middle = a1 * b0 + ((a0 * b0) >> HALF)
    return a1 * b1 + (middle >> HALF) + ((a0 * b1 + (middle & LOW)) >> HALF)
