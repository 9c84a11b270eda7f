"""The two encodings that carry any octets in seven bits and short lines (RFC 2045 sections 6.7 and 6.8).

The standard library's quoted-printable ends lines as it finds fit and may
begin one with a boundary; here none begins with ``--``, so that no line can
be taken for the end of a part, whatever the boundaries around it are.
"""

from __future__ import annotations

import base64 as library
import re
from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["base64", "encoded", "quoted_printable"]

_READABLE: Final = 4
"""Text is written in quoted-printable, which a person can read, up to one escape in so many octets."""
_READ: Final = 1 << 20
"""Nobody reads the source of more than that, and quoted-printable takes ten times as long."""
_ENCODED: Final = 57 * 1024
"""Octets to be encoded at once: whole lines of 57."""
_LITERAL: Final = bytes({*range(ord(" "), 0x7F), ord("\t")} - {ord("=")})
_AS_IT_IS: Final = re.compile(rb"(?!--)(?:[!-<>-~ \t]{0,75}[!-<>-~])?")
_ESCAPED: Final = re.compile(rb"[^!-<>-~ \t]|[ \t]\Z")
# With the escape of a leading "--" and the "=" of a soft break a line has 76 octets at most.
_PIECE: Final = re.compile(rb".{1,71}(?:(?<==)..|(?<==.).)?", re.DOTALL)


def encoded(octets: memoryview, *, text: bool) -> tuple[bytes, Iterable[bytes]]:
    """The name of the encoding that suits, and *octets* in it, in pieces; it decodes to exactly those."""
    if text and len(octets) <= _READ:
        whole = bytes(octets)
        if _escapes(whole) * _READABLE <= len(whole):
            return b"quoted-printable", [quoted_printable(whole)]
    return b"base64", base64(octets)


def _escapes(octets: bytes) -> int:
    return len(octets.translate(None, _LITERAL)) - len(b"\r\n") * octets.count(b"\r\n")


def quoted_printable(octets: bytes) -> bytes:
    """Lines of 76 octets at most; CRLF, and nothing else, is a line end before and after."""
    return b"\r\n".join(map(_line, octets.split(b"\r\n")))


def _line(line: bytes) -> bytes:
    if _AS_IT_IS.fullmatch(line):
        return line
    escaped = _ESCAPED.sub(lambda found: b"=%02X" % found[0][0], line)
    return b"=\r\n".join(map(_begun, _PIECE.findall(escaped)))


def _begun(piece: bytes) -> bytes:
    return b"=2D" + piece[1:] if piece.startswith(b"--") else piece


def base64(octets: memoryview) -> Iterator[bytes]:
    """Lines of 76 octets, in pieces of many; the last one without an end."""
    for start in range(0, len(octets), _ENCODED):
        piece = library.encodebytes(octets[start : start + _ENCODED]).replace(b"\n", b"\r\n")
        yield piece if start + _ENCODED < len(octets) else piece[:-2]
