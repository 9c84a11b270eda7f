"""Content encrypted at rest, with AES-256-GCM from the ``cryptography`` package."""

from __future__ import annotations

import hmac
import os
from typing import Final

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'Sealed needs cryptography: pip install "durable-outbox[cryptography]"', name=error.name
    ) from error

from outbox.errors import ConfigurationError, CorruptRecord

__all__ = ["Sealed", "new_key"]

_KEY: Final = 32
_NONCE: Final = 12
_FINGERPRINT: Final = b"outbox: the name of this key"


def new_key() -> bytes:
    """A new key of 32 random bytes."""
    return AESGCM.generate_key(_KEY * 8)


class Sealed:
    """A content coding that only those can undo who have the key (NIST SP 800-38D, RFC 5116).

    Each content has a random nonce of 96 bits, and is bound to the id of its
    message: sealed content cannot be moved under another id.  One key may
    seal 2**32 messages; then make a new one, and keep the old for reading::

        SQLiteStore("outbox.db", coding=[Sealed(new)], also_reads=[Sealed(old)])

    The coding's name carries a fingerprint of the key, 64 bits of an
    HMAC-SHA256 (RFC 2104) that tell nothing of it: so a store that was opened
    with another key says which one is missing, and touches no message.

    Compress before you seal, never after: ``coding=[Deflate(), Sealed(key)]``.

    Args:
        key: 32 random bytes (:func:`new_key`), kept where the store is not.

    Raises:
        ConfigurationError: the key is none.
    """

    def __init__(self, key: bytes) -> None:
        if not isinstance(key, bytes) or len(key) != _KEY:
            raise ConfigurationError(f"the key must be {_KEY} bytes, such as new_key() makes them")
        self._cipher = AESGCM(key)
        self._name = f"aes256gcm.{hmac.digest(key, _FINGERPRINT, 'sha256')[:8].hex()}"

    def __repr__(self) -> str:
        return f"Sealed({self._name!r})"

    @property
    def name(self) -> str:
        return self._name

    def encode(self, content: bytes, /, *, id: str) -> bytes:
        """Nonce and sealed content."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, content, id.encode())

    def decode(self, data: bytes, /, *, id: str) -> bytes:
        """The content; raises CorruptRecord where it was changed, or moved under another id."""
        try:
            return self._cipher.decrypt(data[:_NONCE], data[_NONCE:], id.encode())
        except (InvalidTag, ValueError) as error:
            raise CorruptRecord(
                f"{id}: the sealed content was changed, or is that of another message"
            ) from error
