"""A mail for a connection that cannot carry it as it is: the same mail, in seven bits and short lines.

Only the parts that need it are encoded anew, and only the fields that need
it are said in ASCII; all else stays byte for byte.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

import attrs

from outbox.errors import InvalidMessage
from outbox.values import quoted

from .heads import DEPTH, foreign_heads, foreign_within, is_utf8
from .parts import Head, delimiters
from .signatures import SIGNATURES
from .transfer import encoded
from .wire import LINE_OCTETS, Field, long_line
from .words import Lossy, in_ascii

__all__ = ["downgraded"]

Pieces: TypeAlias = Iterable[bytes | memoryview]

_FOREIGN: Final = re.compile(rb"[\x80-\xff]")
_PLAIN: Final = frozenset({"", "7bit", "8bit", "binary"})
_SEALED: Final = frozenset({"multipart/signed", "multipart/encrypted"})


def downgraded(content: bytes, *, eightbit: bool, utf8: bool) -> bytes | str:
    """*content* so that a server can take it; or, as text, why it has no such form without a loss.

    A pure function: the same bytes at every attempt over the same kind of
    connection.  Every part decodes to what it decoded to before, every field
    to the same text and the same addresses, and no line has more than 998
    octets.  Signed mail is not touched: by DKIM, ARC or DomainKeys where the
    signature stands in the header above what would change, by
    ``multipart/signed`` (S/MIME, PGP/MIME) where that would be within.

    Args:
        content: Wire bytes, each line ended by CRLF.
        eightbit: 8BITMIME is offered: what is 8-bit in the body may stay so.
            Without it all of the result is ASCII.
        utf8: SMTPUTF8 is offered as well: the headers, those of the parts
            too, may stay as they are.
    """
    try:
        return _whole(_Downgrade(content, memoryview(content), eightbit, eightbit and utf8).pieces())
    except (Lossy, InvalidMessage) as reason:
        return str(reason)


def _whole(pieces: Pieces) -> bytes:
    """One behind the other: a list of them, to be joined, would be the whole once more."""
    out = io.BytesIO()
    out.writelines(pieces)
    return out.getvalue()


@attrs.frozen
class _Place:
    """Where an entity stands: the type it has unless it says so, whether it is a mail, and whether within another."""

    default: str = "text/plain"
    mail: bool = True
    attached: bool = False
    depth: int = 0

    def within(self, default: str, *, mail: bool) -> _Place:
        if self.depth == DEPTH:
            raise Lossy(f"its parts are nested more than {DEPTH} deep")
        return _Place(default, mail, self.attached or mail, self.depth + 1)


@attrs.frozen
class _Downgrade:
    _content: bytes
    _view: memoryview
    _eightbit: bool
    _utf8: bool

    def pieces(self) -> Pieces:
        return self._part(0, len(self._content), _Place())

    def _part(self, start: int, end: int, place: _Place) -> Pieces:
        if self._fits(start, end) and self._declared(foreign_heads, start, end, place):
            return [self._view[start:end]]
        return self._entity(start, end, place)

    def _entity(self, start: int, end: int, place: _Place) -> Pieces:
        """A mail or a part of one: its header, and its body."""
        head = Head.at(self._content, start, end)
        _check_unsigned(head)
        fits = self._fits(head.body, end) and self._declared(foreign_within, start, end, place)
        encoding, body = (b"", [self._view[head.body : end]]) if fits else self._body(head, end, place)
        yield from self._header(head, encoding, place)
        if not fits:
            yield from _added(head, encoding, place)
        yield self._view[start + len(head.octets) : head.body]
        yield from body

    def _fits(self, start: int, end: int) -> bool:
        """May this stand as it is in a body?"""
        if not (self._eightbit or _FOREIGN.search(self._content, start, end) is None):
            return False
        return long_line(self._content, start, end) is None

    def _declared(self, heads: Callable[..., Iterator[bytes]], start: int, end: int, place: _Place) -> bool:
        """May all the headers that *heads* finds be sent as they are?"""
        mails, attached = place.default == "message/rfc822", place.attached
        found = heads(self._content, start, end, mails=mails, attached=attached)
        return self._utf8 or next(found, None) is None

    # --- headers ---

    def _header(self, head: Head, encoding: bytes, place: _Place) -> Pieces:
        """The fields, the Content-Transfer-Encoding changed to *encoding* if that is any."""
        if long_line(head.octets) is not None:
            raise Lossy(f"a line of the header has more than {LINE_OCTETS} octets")
        for field in head.fields:
            text = head.octets[field.start : field.end]
            if encoding and field.key == "content-transfer-encoding":
                yield b"%s: %s\r\n" % (field.name.encode(), encoding)
            else:
                yield text if self._stays(text, place) else _in_ascii(field, text)

    def _stays(self, field: bytes, place: _Place) -> bool:
        """What another has broken in a mail that is attached goes as the 8-bit text that it is."""
        if field.isascii() or self._utf8:
            return True
        return self._eightbit and place.attached and not is_utf8(field)

    # --- bodies ---

    def _body(self, head: Head, end: int, place: _Place) -> tuple[bytes, Pieces]:
        """What a body that does not fit becomes, with its encoding; ``b""`` where that stays as it is said."""
        kind, said = head.type(place.default), head.encoding()
        if said not in _PLAIN:
            raise Lossy(f"a part that is said to be in {quoted(said)} is not")
        if kind in _SEALED:
            raise Lossy(f"it is within {kind}, which no signature would survive")
        main = kind.partition("/")[0]
        if main == "multipart" or kind == "message/rfc822":
            seven = b"7bit" if said in {"8bit", "binary"} and not self._eightbit else b""
            return seven, self._composite(head, end, kind, place)
        if main == "message" and not kind.startswith("message/global"):
            raise Lossy(f"a part of the type {quoted(kind)} must not be encoded (RFC 2046 section 5.2)")
        return encoded(self._view[head.body : end], text=main == "text")

    def _composite(self, head: Head, end: int, kind: str, place: _Place) -> Pieces:
        if kind == "message/rfc822":
            return self._part(head.body, end, place.within("text/plain", mail=True))
        default = "message/rfc822" if kind == "multipart/digest" else "text/plain"
        return self._multipart(head, end, place.within(default, mail=False))

    def _multipart(self, head: Head, end: int, place: _Place) -> Pieces:
        """The parts, and what stands between, before and behind them."""
        part, closed = -1, False
        for line in delimiters(self._content, head.body, end, head.boundary()):
            if part < 0:
                yield self._between(head.body, line.end)
            else:
                # Between two delimiters there may be one line end only, and that is part of both.
                part_end = max(part, line.start)
                yield from self._part(part, part_end, place)
                yield self._between(part_end, line.end)
            part, closed = line.end, line.closing
        if part < 0:
            raise Lossy("a multipart has no parts")
        if not (closed or self._fits(part, end)):
            # Some readers count the last line end of the mail to it, others do not.
            raise Lossy("a multipart is not closed")
        yield self._between(part, end)

    def _between(self, start: int, end: int) -> memoryview:
        if not self._fits(start, end):
            raise Lossy("what cannot be carried stands outside of the parts of a multipart")
        return self._view[start:end]


def _check_unsigned(head: Head) -> None:
    for field in head.fields:
        if field.key in SIGNATURES:
            raise Lossy(f"the field {field.name!r} signs it")


def _in_ascii(field: Field, text: bytes) -> bytes:
    value = text[len(field.name) + 1 :].removesuffix(b"\r\n")
    return in_ascii(field.name, value) + text[len(field.name) + 1 + len(value) :]


def _added(head: Head, encoding: bytes, place: _Place) -> Iterator[bytes]:
    """What a reader needs to know to decode the body."""
    names = {field.key for field in head.fields}
    if place.mail and "mime-version" not in names:
        yield b"MIME-Version: 1.0\r\n"
    if encoding and "content-transfer-encoding" not in names:
        yield b"Content-Transfer-Encoding: %s\r\n" % encoding
