"""Message <-> versioned bytes.

The envelope is one line of JSON that a person can read; the content follows
it untouched, or is kept elsewhere by a store that prefers so::

    {"outbox":1,"id":"0193…","queue":"mail","sender":"a@x","recipients":["b@y"],…,"length":123,"sha256":"…"}\\n
    <content>
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from .errors import CorruptRecord, FormatError
from .message import Message
from .outcome import Accepted, PermFailed, Result, TempFailed, Uncertain, Untried

__all__ = ["decode", "decode_results", "encode", "encode_envelope", "encode_results", "join"]

VERSION: Final = 1

_RESULTS: Final[Mapping[str, type[Result]]] = {
    "accepted": Accepted,
    "temp": TempFailed,
    "perm": PermFailed,
    "uncertain": Uncertain,
    "untried": Untried,
}
_NAMES: Final = {kind: name for name, kind in _RESULTS.items()}


def encode_envelope(message: Message) -> bytes:
    """Everything but the content, with its length and digest; no line break inside."""
    fields: dict[str, Any] = {
        "outbox": VERSION,
        "id": message.id,
        "queue": message.queue,
        "sender": message.sender,
        "recipients": message.recipients,
        "priority": message.priority,
        "attributes": dict(message.attributes),
        "not_before": _instant(message.not_before),
        "expires_at": _instant(message.expires_at),
        "at_most_once": message.at_most_once,
        "length": len(message.content),
        "sha256": hashlib.sha256(message.content).hexdigest(),
    }
    # What is not said has its default; but a length of 0 is no default, and 0 == False.
    kept = {
        name: value for name, value in fields.items() if value not in (None, {}, False) or name == "length"
    }
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()


def join(envelope: bytes, content: bytes) -> Message:
    """The message from its two parts, whole or not at all.

    Raises:
        FormatError: written by a newer release.
        CorruptRecord: not what was written; the text says in what.
    """
    try:
        fields = json.loads(envelope)
        version = fields.pop("outbox")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptRecord(f"the envelope cannot be read: {error}") from error
    if version != VERSION:
        raise FormatError(f"the record has format {version!r}, this release reads {VERSION}: upgrade outbox")
    return _message(fields, content)


def _message(fields: dict[str, Any], content: bytes) -> Message:
    try:
        length, digest = fields.pop("length"), fields.pop("sha256")
        if length != len(content):
            raise CorruptRecord(f"the content has {len(content)} bytes, {length} were stored")
        if digest != hashlib.sha256(content).hexdigest():
            raise CorruptRecord("the content's digest is not the one that was stored")
        for name in ("not_before", "expires_at"):
            if name in fields:
                fields[name] = dt.datetime.fromisoformat(fields[name])
        return Message(content=content, **fields)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise CorruptRecord(f"the envelope cannot be read: {error}") from error


def encode(message: Message) -> bytes:
    """Envelope, line feed, content."""
    return encode_envelope(message) + b"\n" + message.content


def decode(data: bytes) -> Message:
    """The inverse of :func:`encode`; raises as :func:`join` does."""
    envelope, _, content = data.partition(b"\n")
    return join(envelope, content)


def encode_results(results: Mapping[str, Result]) -> str:
    """The results of an attempt as JSON."""
    rows: dict[str, list[Any]] = {}
    for recipient, result in results.items():
        row: list[Any] = [_NAMES[type(result)]]
        if not isinstance(result, Untried):
            row.append(result.reply)
        if isinstance(result, TempFailed) and result.retry_after is not None:
            row.append(result.retry_after.total_seconds())
        rows[recipient] = row
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def decode_results(text: str) -> dict[str, Result]:
    """The inverse of :func:`encode_results`.

    Raises:
        CorruptRecord: it is not that.
    """
    try:
        return {recipient: _result(*row) for recipient, row in json.loads(text).items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CorruptRecord(f"the results of an attempt cannot be read: {error}") from error


def _result(name: str, reply: str = "", seconds: float | None = None) -> Result:
    if name == "untried":
        return Untried()
    if seconds is not None:
        return TempFailed(reply, dt.timedelta(seconds=seconds))
    kind: Any = _RESULTS[name]
    result: Result = kind(reply)
    return result


def _instant(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
