"""The content as it goes over the wire: what it demands of a server, what forbids it, its dots and its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from outbox.mail.wire import header_block, long_line

__all__ = ["Content", "defect"]

BLOCK: Final = 64 << 10


def defect(content: bytes) -> str:
    """Why *content* must not be sent as it is, or ``""``.

    A bare CR or LF, which a server may take for a line end where another
    does not, lets a text smuggle a message of its own into the dialogue.
    """
    pairs = content.count(b"\r\n")
    if content.count(b"\n") != pairs:
        return "it holds a line feed without a carriage return"
    if content.count(b"\r") != pairs:
        return "it holds a carriage return without a line feed"
    return "it holds a NUL byte" if b"\0" in content else ""


@attrs.frozen
class Content:
    """Content without a :func:`defect`, ready to be sent as often as need be.

    Attributes:
        whole: What it was made of.
        size: Its octets as SIZE counts them: with every line end, without
            the dots that transparency adds (RFC 1870 section 6).
        eightbit: Needs 8BITMIME (RFC 6152).
        utf8: Its header block needs SMTPUTF8 (RFC 6531).
        overlong: It has a line of more than 998 octets: no server need take
            it, and one that cuts it may find a dot where the next line begins.
        dot: How many octets go out before the final dot.
    """

    whole: bytes = attrs.field(repr=False)
    size: int
    eightbit: bool
    utf8: bool
    overlong: bool
    dot: int
    _stuffed: bytes = attrs.field(repr=False)
    _end: bytes = attrs.field(repr=False)

    @classmethod
    def of(cls, content: bytes) -> Content:
        # A copy, and none where no line begins with a dot: replace() then returns what it was given.
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        if content.startswith(b"."):
            stuffed = b"." + stuffed
        end = b".\r\n" if content.endswith(b"\r\n") or not content else b"\r\n.\r\n"
        line_end = len(end) - len(b".\r\n")
        ascii_only = content.isascii()
        return cls(
            whole=content,
            size=len(content) + line_end,
            eightbit=not ascii_only,
            utf8=not ascii_only and not header_block(content).isascii(),
            overlong=long_line(content) is not None,
            dot=len(stuffed) + line_end,
            stuffed=stuffed,
            end=end,
        )

    def blocks(self) -> Iterator[bytes | memoryview]:
        """What goes out, the final dot included, in pieces of about 64 KiB."""
        view = memoryview(self._stuffed)
        last = max(0, (len(view) - 1) // BLOCK * BLOCK)
        for start in range(0, last, BLOCK):
            yield view[start : start + BLOCK]
        yield bytes(view[last:]) + self._end
