"""Who a member is: an Ed25519 key that stays with it, and signatures that others can check."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gridray.errors import FederationError

if TYPE_CHECKING:
    from pathlib import Path

_KEY_BYTES = 32


def secret_key(file: Path) -> bytes:
    """Return the 32 secret bytes in a file that only its owner may read; make it where there is none.

    Raises:
        FederationError: the file holds something else, or others may read it.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f".partial-{file.name}-{os.getpid()}")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(os.urandom(_KEY_BYTES))
            os.fsync(stream.fileno())
        aside.rename(file)
    key, mode = file.read_bytes(), file.stat().st_mode & 0o777
    if len(key) != _KEY_BYTES:
        raise FederationError(f"Key file {file} has {len(key)} bytes, a key has {_KEY_BYTES}: restore it from a backup")
    if mode & 0o077:
        raise FederationError(f"Key file {file} has mode {mode:o}, others may read it: chmod 600 it, or make a new key")
    return key


def public_key(secret: bytes) -> str:
    """Return the public key of a secret one, in hexadecimal."""
    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw().hex()


def sign(secret: bytes, *parts: bytes) -> str:
    """Return the signature of the parts, in hexadecimal; where one part ends and the next begins counts."""
    return Ed25519PrivateKey.from_private_bytes(secret).sign(framed(*parts)).hex()


def is_signed(public: str, signature: str, *parts: bytes) -> bool:
    """Tell whether the signature of these parts was made with the secret of this public key."""
    try:
        key, given = bytes.fromhex(public), bytes.fromhex(signature)
        Ed25519PublicKey.from_public_bytes(key).verify(given, framed(*parts))
    except (InvalidSignature, ValueError):
        return False
    # Hexadecimal in capitals or with spaces would be a second way to write the same signature.
    return (key.hex(), given.hex()) == (public, signature)


def framed(*parts: bytes) -> bytes:
    """Join parts so that no two different sequences give the same bytes."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
