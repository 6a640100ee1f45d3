"""Shamir's secret sharing of 256-bit secrets over a prime field.

Shamir, "How to share a secret", Communications of the ACM 22(11), 1979. PyCryptodome's version shares 128 bits in
GF(2^128) bit by bit in Python: a key of 256 bits would need it twice, at some hundred times the cost of a product
modulo a prime, and one more dependency for one function.
"""

from __future__ import annotations

import secrets
from functools import lru_cache
from typing import TYPE_CHECKING

from gridray.errors import FederationError

if TYPE_CHECKING:
    from collections.abc import Mapping

# The largest prime below 2^257; every 256-bit secret is an element of the field.
PRIME = 2**257 - 93
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, *, threshold: int, num_shares: int) -> list[bytes]:
    """Return shares of which any `threshold` give the secret back and fewer tell nothing.

    Args:
        secret: 32 bytes.
        threshold: shares needed, 1 to num_shares.
        num_shares: share number k, from 1, is the k-th item of the result.

    Raises:
        FederationError: the secret has another length, or the threshold is out of range.
    """
    if len(secret) != SECRET_BYTES:
        raise FederationError(f"A secret of {len(secret)} bytes cannot be shared: give {SECRET_BYTES} bytes")
    if not 1 <= threshold <= num_shares:
        raise FederationError(f"Threshold {threshold} of {num_shares} shares is not possible: give 1 to {num_shares}")
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret, "big"))
    shares = []
    for number in range(1, num_shares + 1):
        value = 0
        for coefficient in coefficients:
            value = (value * number + coefficient) % PRIME
        shares.append(value.to_bytes(SHARE_BYTES, "big"))
    return shares


def reconstruct(shares: Mapping[int, bytes], *, threshold: int) -> bytes:
    """Return the secret from shares by number; more than the threshold must lie on the same polynomial.

    Raises:
        FederationError: there are too few shares, or they are not of one secret.
    """
    if len(shares) < threshold:
        raise FederationError(f"{len(shares)} shares are too few: the threshold is {threshold}")
    numbers = sorted(shares)
    points = {number: int.from_bytes(shares[number], "big") for number in numbers}
    basis = tuple(numbers[:threshold])
    secret = _interpolate(points, basis, 0)
    for number in numbers[threshold:]:
        if _interpolate(points, basis, number) != points[number]:
            raise FederationError(f"Share {number} does not belong to the others: a member sent a wrong share")
    if secret >= 2 ** (8 * SECRET_BYTES):
        raise FederationError("The shares give no secret of 256 bits: a member sent a wrong share")
    return secret.to_bytes(SECRET_BYTES, "big")


def _interpolate(points: Mapping[int, int], basis: tuple[int, ...], at: int) -> int:
    """Return the value at `at` of the polynomial through the points of the basis (Lagrange)."""
    pairs = zip(basis, _coefficients(basis, at), strict=True)
    return sum(points[number] * coefficient for number, coefficient in pairs) % PRIME


@lru_cache(maxsize=256)
def _coefficients(basis: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Return Lagrange's coefficients; they serve all secrets that the same members hold shares of."""
    coefficients = []
    for number in basis:
        numerator, denominator = 1, 1
        for other in basis:
            if other != number:
                numerator = numerator * (at - other) % PRIME
                denominator = denominator * (number - other) % PRIME
        coefficients.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return tuple(coefficients)
