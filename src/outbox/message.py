"""Message: what the caller said.  It never changes, and the same bytes go out at every attempt."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from .clock import Clock, SystemClock
from .errors import InvalidMessage
from .values import frozen_mapping, quoted, require_aware

__all__ = ["Message", "new_id"]

_ID: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_QUEUE: Final = re.compile(r"[a-z0-9._-]{1,64}", re.ASCII)
_PRIORITIES: Final = range(-100, 101)
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def new_id(clock: Clock | None = None) -> str:
    """A UUIDv7 (RFC 9562 section 5.7): ids sort by the time they were made, to the microsecond.

    The twelve bits of ``rand_a`` carry the fraction of the millisecond
    (section 6.2, method 3), which needs no counter and so no shared state.
    """
    import secrets  # noqa: PLC0415 - brings OpenSSL, which who only looks at messages can do without

    now = (clock or SystemClock()).now()
    microseconds = int(now.timestamp()) * 1_000_000 + now.microsecond
    milliseconds, fraction = divmod(microseconds, 1000)
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (fraction * 4096 // 1000) << 64
    value |= 0b10 << 62 | secrets.randbits(62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _recipients(recipients: Iterable[str]) -> tuple[str, ...]:
    if isinstance(recipients, str | bytes):
        raise InvalidMessage(
            f"recipients is the one string {quoted(str(recipients), 80)}: pass a sequence, such as ['a@example.org']"
        )
    return tuple(recipients)


def _content(content: bytes | bytearray | memoryview) -> bytes:
    if not isinstance(content, bytes | bytearray | memoryview):
        raise InvalidMessage(f"content must be bytes, not {type(content).__name__}")
    return bytes(content)


def _attributes(attributes: Mapping[str, str]) -> Mapping[str, str]:
    return frozen_mapping(attributes)


def _shown_content(content: bytes) -> str:
    return f"<{len(content)} bytes>"


@attrs.frozen(kw_only=True)
class Message:
    """One outgoing message with its envelope.

    Attributes:
        recipients: At least one, unique, in the caller's order.  The
            transport gives them meaning: mailboxes, URLs, task names.
        content: What is handed to the transport, never altered.  For mail
            the wire bytes (:func:`outbox.mail.from_email` makes them).
        sender: The envelope return path; ``""`` is the null path.
        queue: Who serves it: ``"mail"``, ``"mail.bulk"``, ``"tasks"``.
        priority: -100 to 100; higher goes first.
        id: The idempotency key: a store keeps one message an id.  A new
            UUIDv7 unless the caller chooses one (``[a-z0-9_-]``, 1 to 64).
        attributes: The caller's own notes; not mail headers, never sent.
        not_before: Not handed over before this instant.
        expires_at: Not handed over from this instant on.
        at_most_once: Rather held than sent twice: what may have been sent
            is never sent again without a person's word.

    Raises:
        InvalidMessage: a field breaks its rule; the text names both.
    """

    recipients: tuple[str, ...] = attrs.field(converter=_recipients)
    content: bytes = attrs.field(converter=_content, repr=_shown_content)
    sender: str = ""
    queue: str = "mail"
    priority: int = 0
    id: str = attrs.field(factory=new_id)
    attributes: Mapping[str, str] = attrs.field(factory=dict, converter=_attributes, hash=False)
    not_before: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    at_most_once: bool = False

    def __attrs_post_init__(self) -> None:
        self._check_envelope()
        self._check_names()
        self._check_attributes()
        for name in ("not_before", "expires_at"):
            try:
                moment = require_aware(name, getattr(self, name))
            except ValueError as error:
                raise InvalidMessage(str(error)) from None
            object.__setattr__(self, name, moment)

    def _check_envelope(self) -> None:
        if not self.recipients:
            raise InvalidMessage("a message needs at least one recipient")
        for what, name in [("sender", self.sender), *(("recipient", r) for r in self.recipients)]:
            if not isinstance(name, str):
                raise InvalidMessage(f"{what} must be a string, not {type(name).__name__}")
            if _CONTROL.search(name):
                raise InvalidMessage(
                    f"{what} {quoted(name, 80)} holds a line break or another control character"
                )
        if not all(self.recipients):
            raise InvalidMessage("a recipient is the empty string")
        if len(set(self.recipients)) < len(self.recipients):
            twice = next(r for i, r in enumerate(self.recipients) if r in self.recipients[:i])
            raise InvalidMessage(f"recipient {twice!r} is named twice")

    def _check_names(self) -> None:
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            raise InvalidMessage(
                f"id {quoted(str(self.id), 80)} is not 1 to 64 characters of a-z, 0-9, '_' and '-'"
            )
        if not isinstance(self.queue, str) or not _QUEUE.fullmatch(self.queue):
            raise InvalidMessage(
                f"queue {quoted(str(self.queue), 80)} is not 1 to 64 characters of a-z, 0-9, '.', '_' and '-'"
            )
        if type(self.priority) is not int or self.priority not in _PRIORITIES:
            raise InvalidMessage(f"priority {self.priority!r} is not a whole number from -100 to 100")

    def _check_attributes(self) -> None:
        for name, value in self.attributes.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise InvalidMessage(f"attribute {quoted(str(name), 80)}: names and values are strings")
            if _SURROGATE.search(name + value):
                raise InvalidMessage(
                    f"attribute {quoted(name, 80)} holds a lone surrogate, which is no character"
                )

    @property
    def envelope_digest(self) -> bytes:
        """SHA-256 over queue, sender and recipients: what tells one message of an id from another."""
        import hashlib  # noqa: PLC0415 - as secrets in new_id

        parts = [part.encode() for part in (self.queue, self.sender, *self.recipients)]
        return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def restored(
    *,
    recipients: Iterable[str],
    content: bytes,
    sender: str,
    queue: str,
    priority: int = 0,
    id: str,
    attributes: Mapping[str, str] | None = None,
    not_before: dt.datetime | None = None,
    expires_at: dt.datetime | None = None,
    at_most_once: bool = False,
) -> Message:
    """A message that was checked when it was made, and is proven to be the same: it is not checked again."""
    message = Message.__new__(Message)
    put = object.__setattr__
    put(message, "recipients", tuple(recipients))
    put(message, "content", content)
    put(message, "sender", sender)
    put(message, "queue", queue)
    put(message, "priority", priority)
    put(message, "id", id)
    put(message, "attributes", frozen_mapping(attributes or {}))
    put(message, "not_before", not_before)
    put(message, "expires_at", expires_at)
    put(message, "at_most_once", at_most_once)
    return message
