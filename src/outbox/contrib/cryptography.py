"""Content encrypted at rest, with AES-256-GCM from the ``cryptography`` package."""

from __future__ import annotations

import os
import re
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

_NAME: Final = re.compile(r"[a-z0-9-]{1,32}", re.ASCII)
_KEY: Final = 32
_NONCE: Final = 12


def new_key() -> bytes:
    """A new key of 32 random bytes."""
    return AESGCM.generate_key(_KEY * 8)


class Sealed:
    """A content coding that only those can undo who have the key (NIST SP 800-38D, RFC 5116).

    Each content has a random nonce of 96 bits, and is bound to the id of its
    message: sealed content cannot be moved under another id.  One key may
    seal 2**32 messages; a new one is another object with another *name*::

        SQLiteStore("outbox.db", coding=[Sealed(new, name="2027")], also_reads=[Sealed(old, name="2026")])

    Compress before you seal, never after: ``coding=[Deflate(), Sealed(key)]``.

    Args:
        key: 32 random bytes (:func:`new_key`), kept where the store is not.
        name: Which key it is, for those who rotate keys; not secret.

    Raises:
        ConfigurationError: the key or the name is none.
    """

    def __init__(self, key: bytes, *, name: str = "1") -> None:
        if not isinstance(key, bytes) or len(key) != _KEY:
            raise ConfigurationError(f"the key must be {_KEY} bytes, such as new_key() makes them")
        if not _NAME.fullmatch(name):
            raise ConfigurationError("the name of a key is 1 to 32 of a-z, 0-9 and '-'")
        self._cipher = AESGCM(key)
        self._name = name

    def __repr__(self) -> str:
        return f"Sealed(name={self._name!r})"

    @property
    def name(self) -> str:
        return f"aes256gcm.{self._name}"

    def encode(self, content: bytes, /, *, id: str) -> bytes:
        """Nonce and sealed content."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, content, id.encode())

    def decode(self, data: bytes, /, *, id: str) -> bytes:
        """The content; raises CorruptRecord where it was changed, moved, or sealed with another key of this name."""
        try:
            return self._cipher.decrypt(data[:_NONCE], data[_NONCE:], id.encode())
        except (InvalidTag, ValueError) as error:
            raise CorruptRecord(
                f"{id}: the sealed content was changed, or another key of the name {self._name!r} has sealed it"
            ) from error
