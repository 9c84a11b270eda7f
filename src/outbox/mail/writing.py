"""An object of the ``email`` package written out as bytes, on a copy."""

from __future__ import annotations

import base64
import binascii
import copy
import io
import re
from collections.abc import Iterable, Iterator
from email import errors as defects
from email.generator import BytesGenerator
from email.header import Header
from email.message import Message as Email
from typing import Any, Final, TypeAlias

from outbox.errors import InvalidMessage
from outbox.values import printable, quoted

from .folding import FOLD, SignedPolicy, WirePolicy
from .hidden import hidden_break
from .signatures import SIGNATURES
from .wire import fields, long_line, skip_postmark

__all__ = ["written"]

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_BREAK: Final = re.compile(r"[\r\n\0]")
_NAME: Final = re.compile(r"[!-9;-~]+")
_LONE_FEED: Final = re.compile(rb"(?<!\r)\n")

# The parser had to guess where a header ends: the bytes say it, the object no longer does.
_GUESSED: Final = (
    defects.FirstHeaderLineIsContinuationDefect,
    defects.MisplacedEnvelopeHeaderDefect,
    defects.MissingHeaderBodySeparatorDefect,
)
_PLAIN_ENCODINGS: Final = frozenset({"", "7bit", "8bit", "binary"})
_ENCODINGS: Final = _PLAIN_ENCODINGS | {"quoted-printable", "base64"}
_TRANSFER_ENCODING: Final = "Content-Transfer-Encoding"

AnyEmail: TypeAlias = Any
"""An ``email.message.Message`` of any policy; its stubs type a payload as whatever it may ever be."""


def written(email: Email) -> bytes:
    """The bytes of *email*, every line ended by CRLF; *email* itself is not changed.

    Raises:
        InvalidMessage: a field or a part cannot be written as it is meant;
            the text names it.  What the library raised stands in ``__cause__``.
    """
    try:
        _check_parts(email)
        return _draft(email)
    except InvalidMessage:
        raise
    except Exception as error:
        # Over odd objects the library raises nearly every built-in exception, and in each release another one.
        raise InvalidMessage(
            f"the email package cannot write this message ({type(error).__name__}: {printable(str(error), 200)}): "
            'set text with set_content(), or set_payload(text, "utf-8")'
        ) from error


def _draft(email: AnyEmail) -> bytes:
    draft = copy.deepcopy(email)  # the generator sets missing boundaries on the object that it writes
    signed = any(name in draft for name in SIGNATURES)
    content = _generated(draft, signed=signed)
    if not signed and _mend(draft, content):
        content = _generated(draft, signed=False)
    _check_same_fields(draft, content)
    return content


def _generated(draft: AnyEmail, *, signed: bool) -> bytes:
    kind = SignedPolicy if signed else WirePolicy
    policy = kind(linesep="\r\n", cte_type=draft.policy.cte_type, mangle_from_=False)
    out = io.BytesIO()
    utf8 = getattr(draft.policy, "utf8", False) or _has_foreign_mailbox(draft, policy)
    BytesGenerator(out, policy=policy.clone(utf8=utf8)).flatten(draft)
    return _one_line_end(out.getvalue())


def _one_line_end(content: bytes) -> bytes:
    """The library leaves the line ends of a multipart alone in which it found no parts."""
    if content.count(b"\n") == content.count(b"\r\n"):
        return content
    return _LONE_FEED.sub(b"\r\n", content)


def _has_foreign_mailbox(draft: AnyEmail, policy: WirePolicy) -> bool:
    """Whether a local part is not ASCII: nothing encodes it, so the whole header is UTF-8 (RFC 6532)."""
    headers = [policy.parsed(name, value) for name, value in draft.raw_items() if not str(value).isascii()]
    mailboxes = [address for header in headers for address in getattr(header, "addresses", ())]
    return not all(mailbox.username.isascii() for mailbox in mailboxes)


def _check_same_fields(draft: AnyEmail, content: bytes) -> None:
    """What was one value must not have become two fields, whichever way."""
    names = [field.key for field in fields(content, skip_postmark(content))]
    if _without_encoding(names) != _without_encoding(name.lower() for name, _ in draft.raw_items()):
        raise InvalidMessage(
            "the email package wrote other header fields than the message has: a value breaks out of its field"
        )


def _without_encoding(names: Iterable[str]) -> list[str]:
    # The one field that the library adds by itself, where seven bits are asked for.
    return [name for name in names if name != _TRANSFER_ENCODING.lower()]


# --- what is refused beforehand ------------------------------------------------------------------


def _check_parts(email: AnyEmail) -> None:
    for part in email.walk():
        for name, value in part.raw_items():
            _check_field(name, value, _BREAK)
    for part in _own_parts(email):
        for defect in part.defects:
            if isinstance(defect, _GUESSED):
                raise InvalidMessage(
                    f"the message was parsed with the defect {type(defect).__name__}: "
                    "submit the original bytes, which are kept as they are"
                )
        for name, value in part.raw_items():
            _check_field(name, value, _CONTROL)
            if cause := hidden_break(_text(value).encode("utf-8", "surrogateescape")):
                raise InvalidMessage(
                    f"the field {name!r} holds {cause} (RFC 2047 section 5, RFC 2231 section 4): "
                    "take it out of the value"
                )


def _check_field(name: str, value: object, forbidden: re.Pattern[str]) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidMessage(
            f"the field name {quoted(name, 80)} is not printable ASCII without a colon (RFC 5322 section 2.2)"
        )
    if not isinstance(value, str | Header):
        raise InvalidMessage(f"the field {name!r} is of type {type(value).__name__}, not text")
    if control := forbidden.search(_text(value)):
        raise InvalidMessage(
            f"the field {name!r} holds the control character {control[0]!r} (RFC 5322 section 2.2): "
            "take it out of the value"
        )


def _text(value: object) -> str:
    """A value without its folds; a header object has none, and a line break in it was decoded."""
    return str(value) if hasattr(value, "name") else FOLD.sub("", str(value))


def _own_parts(email: AnyEmail) -> Iterator[AnyEmail]:
    """The parts of this mail, but not those of attached mails, which are other people's."""
    yield email
    if email.get_content_maintype() == "multipart" and email.is_multipart():
        for part in email.get_payload():
            yield from _own_parts(part)


# --- what is mended ------------------------------------------------------------------------------


def _mend(draft: AnyEmail, content: bytes) -> bool:
    """Name 8-bit parts so, and encode parts with overlong lines; whether anything changed."""
    if content.isascii() and long_line(content) is None:
        return False
    mended = [_mend_part(part) for part in _unsigned_leaves(draft)]
    return any(mended)


def _unsigned_leaves(part: AnyEmail) -> Iterator[AnyEmail]:
    if part.get_content_maintype() == "message" or part.get_content_type() == "multipart/signed":
        return
    if part.is_multipart():
        for child in part.get_payload():
            yield from _unsigned_leaves(child)
    elif isinstance(part.get_payload(), str):
        yield part


def _mend_part(part: AnyEmail) -> bool:
    encoding = str(part.get(_TRANSFER_ENCODING, "")).strip().lower()
    plain = encoding in _PLAIN_ENCODINGS
    octets = part.get_payload(decode=True) if plain else part.get_payload().encode()
    if encoding in _ENCODINGS and long_line(octets, line_end=1) is not None:
        _encode(part)
        return True
    if encoding in {"", "7bit"} and "content-type" in part and not octets.isascii():
        _set_encoding(part, "8bit")
        return True
    return False


def _encode(part: AnyEmail) -> None:
    octets = part.get_payload(decode=True)
    if part.get_content_maintype() == "text" and b"\0" not in octets:
        part.set_payload(binascii.b2a_qp(octets, istext=True).decode("ascii"))
        _set_encoding(part, "quoted-printable")
    else:
        part.set_payload(base64.encodebytes(octets).decode("ascii"))
        _set_encoding(part, "base64")


def _set_encoding(part: AnyEmail, encoding: str) -> None:
    del part[_TRANSFER_ENCODING]
    part[_TRANSFER_ENCODING] = encoding
