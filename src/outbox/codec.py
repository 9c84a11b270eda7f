"""Message <-> versioned bytes.

The envelope is one line of JSON that a person can read; the content follows
it untouched, or is kept elsewhere by a store that prefers so::

    {"outbox":2,"id":"0193…","queue":"mail","sender":"a@x","recipients":["b@y"],…,"length":123,"sha256":"…"}\\n
    <content>
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .errors import CorruptRecord, FormatError
from .message import Message, restored
from .outcome import Accepted, PermFailed, Result, TempFailed, Uncertain, Untried

__all__ = [
    "attributes_of",
    "decode",
    "decode_results",
    "encode",
    "encode_envelope",
    "encode_results",
    "encode_texts",
    "join",
]

VERSION: Final = 2
_PARSE: Final = json.JSONDecoder().decode
_TEXT: Final = json.encoder.encode_basestring
_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_RESULTS: Final[Mapping[str, type[Result]]] = {
    "accepted": Accepted,
    "temp": TempFailed,
    "perm": PermFailed,
    "uncertain": Uncertain,
    "untried": Untried,
}
_NAMES: Final = {kind: name for name, kind in _RESULTS.items()}


def encode_envelope(message: Message) -> bytes:
    """Everything but the content, with its length and a digest of both; no line break inside."""
    # Written out by hand, for it is done for every message; ids and queues hold nothing to escape.
    said = [
        f'{{"outbox":{VERSION},"id":"{message.id}","queue":"{message.queue}"',
        f',"sender":{_TEXT(message.sender)},"recipients":{encode_texts(message.recipients)}',
    ]
    # What is not said has its default.
    if message.priority:
        said.append(f',"priority":{message.priority}')
    if message.attributes:
        said.append(f',"attributes":{_JSON(dict(message.attributes))}')
    if message.not_before is not None:
        said.append(f',"not_before":"{message.not_before.isoformat()}"')
    if message.expires_at is not None:
        said.append(f',"expires_at":"{message.expires_at.isoformat()}"')
    if message.at_most_once:
        said.append(',"at_most_once":true')
    said.append(f',"length":{len(message.content)}')
    head = "".join(said).encode()
    return b'%b,"sha256":"%b"}' % (head, _digest(head, message.content))


def encode_texts(texts: Iterable[str]) -> str:
    """Some texts as a JSON array."""
    return f"[{','.join(map(_TEXT, texts))}]"


def _digest(head: bytes, content: bytes) -> bytes:
    """Of the envelope as far as its digest, and the content."""
    import hashlib  # noqa: PLC0415 - brings OpenSSL, which who only looks at messages can do without

    digest = hashlib.sha256(head)
    digest.update(b"\n")
    digest.update(content)
    return digest.hexdigest().encode()


def join(envelope: bytes, content: bytes) -> Message:
    """The message from its two parts, whole or not at all.

    Raises:
        FormatError: written by a newer release.
        CorruptRecord: not what was written; the text says in what.
    """
    try:
        fields = _PARSE(envelope.decode())
        version = fields.pop("outbox")
        length, digest = fields.pop("length"), fields.pop("sha256")
        readers = {1: _first_format, VERSION: _this_format}
        if version not in readers:
            raise FormatError(
                f"the record has format {version!r}, this release reads up to {VERSION}: upgrade outbox"
            )
        if length != len(content):
            raise CorruptRecord(f"the content has {len(content)} bytes, {length} were stored")
        for name in ("not_before", "expires_at"):
            if name in fields:
                fields[name] = dt.datetime.fromisoformat(fields[name])
        return readers[version](envelope, fields, content, digest)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise CorruptRecord(f"the envelope cannot be read: {error}") from error


def _this_format(envelope: bytes, fields: dict[str, Any], content: bytes, digest: str) -> Message:
    head, _, _ = envelope.rpartition(b',"sha256":"')
    if digest.encode() != _digest(head, content):
        raise CorruptRecord("the digest is not the one that was stored: envelope or content was changed")
    return restored(content=content, **fields)


def _first_format(_: bytes, fields: dict[str, Any], content: bytes, digest: str) -> Message:
    """Its digest was of the content alone."""
    import hashlib  # noqa: PLC0415 - as above

    if digest != hashlib.sha256(content).hexdigest():
        raise CorruptRecord("the content's digest is not the one that was stored")
    return Message(content=content, **fields)


def attributes_of(envelope: bytes) -> dict[str, str]:
    """For a list: the attributes in an envelope that may be damaged; none where they cannot be read."""
    # Most have none, and a list reads many.
    if b'"attributes":' not in envelope:
        return {}
    try:
        return {str(name): str(value) for name, value in _PARSE(envelope.decode())["attributes"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


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
        wait = result.retry_after if isinstance(result, TempFailed | Untried) else None
        if not isinstance(result, Untried) or result.reply or wait is not None:
            row.append(result.reply)
        if wait is not None:
            row.append(wait.total_seconds())
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
    kind: Any = _RESULTS[name]
    if seconds is not None:
        waiting = Untried if kind is Untried else TempFailed
        return waiting(reply, dt.timedelta(seconds=seconds))
    result: Result = kind(reply)
    return result
