"""A message into a slip and out of it again; what is too large for SQS is set aside."""

from __future__ import annotations

import base64
import contextlib
import logging
import secrets
from collections.abc import Iterable
from typing import Final

import attrs

from outbox.codec import decode, encode
from outbox.errors import ConfigurationError, CorruptRecord, StoreError, UnsupportedError
from outbox.message import Message
from outbox.stores.standing import Standing

from .blobs import Blobs
from .slips import Slip

__all__ = ["Packing"]

_LOG: Final = logging.getLogger("outbox.stores.sqs")
_REST: Final = 8192
"""Bytes kept free for what is learned of a message: its attempts, and the reason why it stands where it stands."""
_PROBE: Final = "outbox-check"
_FRESH: Final = 7 * 86_400 * 1_000_000
"""Content that was set aside longer ago is so anew when a letter is written that names it.

SQS keeps a letter for 14 days, so that no letter names content that is older than three weeks, and what is
older than a month can be swept.
"""


class Packing:
    """Args:
    blobs: Where large content is set aside; None is nowhere.
    most: Bytes that a letter may have.
    """

    def __init__(self, blobs: Blobs | None, most: int) -> None:
        self._blobs = blobs
        self.most = most

    def pack(self, message: Message, standing: Standing) -> Slip:
        """The slip of a message that is put; what is large is set aside first, durable when this returns.

        Raises:
            UnsupportedError: it is too large, and cannot be set aside.
            StoreUnavailable: it cannot be set aside now.
        """
        data = encode(message)
        bare = Slip(id=message.id, size=len(message.content), standing=standing)
        room = self.most - len(bare.text(self.most)) - _REST
        if -(-len(data) // 3) * 4 <= room:
            sealed = base64.b64encode(data).decode()
            return Slip(id=message.id, size=len(message.content), standing=standing, sealed=sealed)
        if self._blobs is None or room < 0:
            raise UnsupportedError(
                f"{message.id} has {len(data)} bytes and {len(message.recipients)} recipients, more than the "
                f"{self.most} bytes of a message in SQS: open the store with blobs=, or split it"
            )
        key = f"{message.id}-{secrets.token_hex(8)}"
        self._blobs.put(key, data)
        return Slip(
            id=message.id, size=len(message.content), standing=standing, key=key, kept=standing.submitted
        )

    def renewed(self, slip: Slip, now: int) -> Slip:
        """The same, its content set aside anew where that is long ago; what cannot be so now is the next time."""
        if not slip.key or self._blobs is None or now - slip.kept < _FRESH:
            return slip
        try:
            self._blobs.put(slip.key, self._blobs.get(slip.key))
        except StoreError as error:
            _LOG.warning("%s: its content is not kept for longer: %s", slip.id, error)
            return slip
        return attrs.evolve(slip, kept=now)

    def require_shelf(self) -> None:
        """Raise StoreError where what is set aside cannot be read."""
        if self._blobs is not None:
            # That one key is missing is how a shelf answers that is there.
            with contextlib.suppress(CorruptRecord):
                self._blobs.get(_PROBE)

    def unpack(self, slip: Slip) -> Message:
        """The message of a slip.

        Raises:
            CorruptRecord: it is not what was packed.
            StoreUnavailable: it cannot be read now, which says nothing of it.
        """
        message = decode(self._data(slip))
        if message.id != slip.id or len(message.recipients) != len(slip.standing.fates):
            raise CorruptRecord(f"{slip.id}: what is kept of it is of another message")
        return message

    def text(self, slip: Slip, beside: int = 0) -> str:
        """As it is sent; so many bytes are to fit in the letter beside it."""
        return slip.text(self.most - beside)

    def forget(self, slips: Iterable[Slip]) -> None:
        """Remove what was set aside of these; what cannot be removed costs room and nothing else."""
        for slip in slips:
            if slip.key and self._blobs is not None:
                try:
                    self._blobs.delete(slip.key)
                except StoreError:
                    return

    def _data(self, slip: Slip) -> bytes:
        if not slip.key:
            return slip.opened()
        if self._blobs is None:
            # Not the message is wrong, but who reads it: it is not set aside for that.
            raise ConfigurationError(
                f"{slip.id}: its content was set aside: open the store with the blobs that it was put with"
            )
        return self._blobs.get(slip.key)
