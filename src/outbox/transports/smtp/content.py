"""The content as it goes over the wire: what it demands of a server, what forbids it, its dots and its end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import attrs

from outbox.mail.heads import foreign_heads
from outbox.mail.wire import long_line

__all__ = ["Content", "defect"]

BLOCK: Final = 64 << 10
DOTTED: Final = BLOCK * 3 // 4
"""Of what has dots to be doubled, which makes a third more of it at most."""
_BARE_CR: Final = re.compile(rb"\r(?!\n)")


def defect(content: bytes) -> str:
    """Why *content* must not be sent as it is, or ``""``.

    A bare CR or LF, which a server may take for a line end where another
    does not, lets a text smuggle a message of its own into the dialogue.
    """
    # Quicker than counting pairs: where each CR has its LF, an LF too many has no CR.
    if _BARE_CR.search(content):
        return "it holds a carriage return without a line feed"
    if content.count(b"\n") != content.count(b"\r"):
        return "it holds a line feed without a carriage return"
    return "it holds a NUL byte" if b"\0" in content else ""


@attrs.frozen
class Content:
    """Content without a :func:`defect`, ready to be sent as often as need be.

    Attributes:
        whole: What it was made of.
        size: Its octets as SIZE counts them: with every line end, without
            the dots that transparency adds (RFC 1870 section 6).
        eightbit: Needs 8BITMIME (RFC 6152).
        utf8: Its header, or that of one of its parts, needs SMTPUTF8 (RFC 6531).
        overlong: It has a line of more than 998 octets: no server need take
            it, and one that cuts it may find a dot where the next line begins.
        dot: How many octets go out before the final dot.
        forms: What has been made of it for a server that cannot take it as it
            is, or why nothing could, by whether 8BITMIME and SMTPUTF8 are offered.
    """

    whole: bytes = attrs.field(repr=False)
    size: int
    eightbit: bool
    utf8: bool
    overlong: bool
    dot: int
    _dots: int
    _end: bytes = attrs.field(repr=False)
    forms: dict[tuple[bool, bool], Content | str] = attrs.field(
        factory=dict, init=False, eq=False, repr=False
    )

    @classmethod
    def of(cls, content: bytes) -> Content:
        dots = content.count(b"\r\n.") + content.startswith(b".")
        end = b".\r\n" if content.endswith(b"\r\n") or not content else b"\r\n.\r\n"
        line_end = len(end) - len(b".\r\n")
        ascii_only = content.isascii()
        return cls(
            whole=content,
            size=len(content) + line_end,
            eightbit=not ascii_only,
            utf8=not ascii_only and next(foreign_heads(content), None) is not None,
            overlong=long_line(content) is not None,
            dot=len(content) + dots + line_end,
            dots=dots,
            end=end,
        )

    def blocks(self) -> Iterator[bytes | memoryview]:
        """What goes out, the final dot included, in pieces of about 64 KiB."""
        if len(self.whole) <= DOTTED:
            yield (self._dotted(slice(0, None)) if self._dots else self.whole) + self._end
            return
        # Doubled as it goes, for all of it would be a copy of the whole.
        cut, size = (self._dotted, DOTTED) if self._dots else (memoryview(self.whole).__getitem__, BLOCK)
        last = max(0, (len(self.whole) - 1) // size * size)
        for start in range(0, last, size):
            yield cut(slice(start, start + size))
        yield bytes(cut(slice(last, None))) + self._end

    def _dotted(self, piece: slice) -> bytes:
        """That piece with its leading dots doubled; whether its first one leads is to be seen before it."""
        before = self.whole[piece.start - 2 : piece.start] if piece.start else b"\r\n"
        return (before + self.whole[piece]).replace(b"\r\n.", b"\r\n..")[2:]
