"""Keys of one round: agreement of two members on a secret, masks made from it, and boxes only the other can open.

X25519 (RFC 7748), HKDF-SHA256 (RFC 5869), ChaCha20 and ChaCha20-Poly1305 (RFC 8439), all from `cryptography`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gridray.errors import FederationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY_BYTES = 32
_NONCE_BYTES = 12


def new_private_key() -> bytes:
    """Return a fresh X25519 private key."""
    return X25519PrivateKey.generate().private_bytes_raw()


def public_key_of(private: bytes) -> bytes:
    """Return the public key of an X25519 private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, peer_public: bytes, purpose: bytes) -> bytes:
    """Return the 32 bytes that both members of a pair can derive, and nobody else.

    Args:
        private: own X25519 private key.
        peer_public: the other's public key.
        purpose: keeps the keys of different uses, rounds and runs apart.

    Raises:
        FederationError: the public key is not one that can be agreed with.
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(peer_public))
    except ValueError as error:
        raise FederationError(f"Public key {peer_public.hex()} is no X25519 key: advertise a fresh one") from error
    return derive(shared, purpose)


def derive(secret: bytes, purpose: bytes) -> bytes:
    """Return 32 bytes that follow from the secret and the purpose and tell nothing about either."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(secret)


def keystream(seed: bytes, num_words: int, word: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """Return ChaCha20's stream of this seed as unsigned words [num_words]; a seed makes one stream only."""
    words = np.zeros(num_words, dtype=word)
    data = words.view(np.uint8).data
    # The counter and nonce are zero: every seed is derived for one mask.
    Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor().update_into(data, data)
    return words


def seal(key: bytes, content: bytes) -> bytes:
    """Return content encrypted and authenticated, the nonce in front."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, content, None)


def unseal(key: bytes, box: bytes, sender: str) -> bytes:
    """Return the content of a box.

    Raises:
        FederationError: the box was changed, or it was sealed for another.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], None)
    except (InvalidTag, ValueError) as error:
        raise FederationError(f"The share from {sender!r} was changed on its way, or sealed for another") from error
