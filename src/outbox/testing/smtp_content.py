"""Where a content ends, what it was before its dots, and which rules it breaks: pure, and the same for every sink."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import attrs

__all__ = ["ContentReader", "Manners", "faults"]

Manners: TypeAlias = Literal["strict", "noted", "lenient"]

_LONGEST_LINE: Final = 998
_END: Final = re.compile(rb"\r\n\.\r\n")
# A CR at the very end may be half of a CRLF: what follows it decides.
_LENIENT_END: Final = re.compile(rb"[\r\n]\.(?:\r\n|\n|\r(?=[^\n]))")
_DOT: Final = re.compile(rb"(\r\n)\.")
_LENIENT_DOT: Final = re.compile(rb"([\r\n])\.")
_LONGEST_END: Final = 5
_BEFORE: Final = b"\r\n"
"""As though the line end of the DATA command stood before it: then the end has one form only."""


@attrs.define
class ContentReader:
    """Finds the end of one content in a buffer that grows; keeps at most *limit* bytes of it, and counts the others.

    A lenient one takes a bare LF and a bare CR for a line end, as sloppy
    servers do, also around the final dot.
    """

    limit: int
    manners: Manners
    _buffer: bytearray
    _searched: int = 0
    _dropped: int = 0

    def __attrs_post_init__(self) -> None:
        self._buffer[:0] = _BEFORE

    @property
    def come(self) -> int:
        """How many bytes of it have come so far."""
        return len(self._buffer) - len(_BEFORE) + self._dropped

    def take(self) -> bytes | None:
        """The content without its dots, cut out of the buffer; None until its end has come."""
        lenient = self.manners == "lenient"
        end = (_LENIENT_END if lenient else _END).search(self._buffer, self._searched)
        if end is None:
            self._searched = max(0, len(self._buffer) - _LONGEST_END)
            self._drop()
            return None
        line_end = 2 if self._buffer[end.start() : end.start() + 2] == b"\r\n" else 1
        content = bytes(self._buffer[: end.start() + line_end])
        del self._buffer[: end.end()]
        return (_LENIENT_DOT if lenient else _DOT).sub(rb"\1", content)[len(_BEFORE) :]

    @property
    def whole(self) -> bool:
        """Was all of it kept?"""
        return not self._dropped

    def _drop(self) -> None:
        # Past the limit it is only read to find its end; twice over, for dots are not counted.
        excess = len(self._buffer) - 2 * self.limit - (64 << 10)
        if excess > 0:
            del self._buffer[len(_BEFORE) : len(_BEFORE) + excess]
            self._searched = max(0, len(self._buffer) - _LONGEST_END)
            self._dropped += excess


def faults(content: bytes, *, eightbit: bool, utf8: bool) -> Iterator[str]:
    """Which rules of RFC 5321 it breaks, and of RFC 6152 and 6531 where it was declared so."""
    pairs = content.count(b"\r\n")
    if content.count(b"\n") != pairs or content.count(b"\r") != pairs:
        yield "content with a bare CR or LF"
    if b"\0" in content:
        yield "content with a NUL"
    if max(map(len, content.split(b"\r\n"))) > _LONGEST_LINE:
        yield "content with a line of more than 998 bytes"
    if not eightbit and not content.isascii():
        yield "8-bit content without BODY=8BITMIME"
    if not utf8 and not content.partition(b"\r\n\r\n")[0].isascii():
        yield "a header that is not ASCII, without SMTPUTF8"
