"""What a message is, in bytes that can be hashed and signed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from gridray.errors import FederationError
from gridray.federated.identity import framed, is_signed, sign
from gridray.federated.ledger import Crossing, crossing_statement

UNSIGNED = "signature"
"""Field of a message that is not part of what is signed."""


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A message and its sender's signature over run, round, sender, type, size and digest."""

    message: Any
    signature: str


def signed(secret: bytes, run: str, round_index: int, client: str, message: Any) -> Signed:  # noqa: ANN401  # any message
    """Return a message with its signature."""
    unsigned = crossing(client, round_index, message, "")
    return Signed(message=message, signature=sign(secret, crossing_statement(run, unsigned)))


def checked_crossing(key: str, run: str, round_index: int, client: str, part: Signed) -> Crossing:
    """Return the ledger's line about a message whose signature fits.

    Raises:
        FederationError: it does not.
    """
    found = crossing(client, round_index, part.message, part.signature)
    if not is_signed(key, part.signature, crossing_statement(run, found)):
        raise FederationError(f"{found.message} of client {client!r} is not signed with its identity key: refused")
    return found


def crossing(client: str, round_index: int, message: Any, signature: str) -> Crossing:  # noqa: ANN401  # any message
    """Return the ledger's line about a message."""
    return Crossing(
        client=client,
        round=round_index,
        message=type(message).__name__,
        num_bytes=num_bytes(message),
        sha256=hashlib.sha256(content(message)).hexdigest(),
        signature=signature,
    )


def content(value: Any) -> bytes:  # noqa: ANN401  # whatever a message may hold
    """Return bytes that two values share only if they are equal.

    Raises:
        FederationError: the value is of a type that no message has.
    """
    if isinstance(value, np.ndarray):
        header = f"{value.dtype.str}|{value.shape}".encode()
        return framed(b"array", header, np.ascontiguousarray(value).tobytes())
    if isinstance(value, bytes):
        return framed(b"bytes", value)
    if value is None or isinstance(value, (str, int, float)):
        return framed(b"plain", json.dumps(value).encode())
    if is_dataclass(value):
        parts = [(part.name, getattr(value, part.name)) for part in fields(value) if part.name != UNSIGNED]
        return framed(b"message", type(value).__name__.encode(), *(content(list(part)) for part in parts))
    if isinstance(value, Mapping):
        return framed(b"mapping", *(content([name, value[name]]) for name in sorted(value)))
    if isinstance(value, Sequence):
        return framed(b"sequence", *(content(item) for item in value))
    raise FederationError(f"A message cannot hold a {type(value).__name__}")


def num_bytes(value: Any) -> int:  # noqa: ANN401  # whatever a message may hold
    """Return the bytes of all arrays and byte strings in a message; names and numbers are not counted."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if isinstance(value, bytes):
        return len(value)
    if is_dataclass(value):
        return sum(num_bytes(getattr(value, part.name)) for part in fields(value))
    if isinstance(value, Mapping):
        return sum(num_bytes(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return sum(num_bytes(item) for item in value)
    return 0
