"""Mail as bytes: line ends, lengths, and the fields of the header with their lines.  Linear in the size.

Line numbers count from 1 in what the caller gave, where LF and CRLF end a
line alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from outbox.errors import InvalidMessage
from outbox.values import printable

__all__ = [
    "LINE_OCTETS",
    "Field",
    "Start",
    "broken",
    "canonical",
    "check_lengths",
    "fields",
    "header_end",
    "line_at",
    "long_line",
    "skip_postmark",
]

LINE_OCTETS: Final = 998  # RFC 5322 section 2.1.1: without the CRLF

_BARE: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_POSTMARK: Final = re.compile(rb">*From (?![ \t]*:)")
_NAME: Final = re.compile(rb"[!-9;-~]+")
_SHOWN: Final = 60


def broken(line: int, what: str, rule: str, remedy: str) -> InvalidMessage:
    """The one form of every complaint about a line: where, what, which rule, what to do."""
    return InvalidMessage(f"line {line}: {what} ({rule}): {remedy}")


def line_at(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1


# --- line ends and lengths -----------------------------------------------------------------------


def canonical(content: bytes) -> bytes:
    """The same lines, each ended by CRLF; *content* itself where they are so already.

    Bare LF throughout, as a file on a Unix disk has it, becomes CRLF: that
    loses nothing.  Where both stand, a reader cannot know which are meant as
    line ends, and servers that differ over it let one mail smuggle in another.

    Raises:
        InvalidMessage: line ends are mixed, a CR stands alone, or a NUL stands anywhere.
    """
    nul = content.find(b"\0")
    if nul >= 0:
        raise broken(
            line_at(content, nul),
            "a NUL byte",
            "RFC 5322 section 4",
            "encode the part with base64; if the text is UTF-16, write it as UTF-8",
        )
    returns, feeds = content.count(b"\r"), content.count(b"\n")
    if not returns:
        return content.replace(b"\n", b"\r\n")
    if returns == feeds == content.count(b"\r\n"):
        return content
    raise _bare(content)


def _bare(content: bytes) -> InvalidMessage:
    # Where no line ends in both, it is the CR that stands out.
    found = _BARE.search(content) if b"\r\n" in content else re.search(rb"\r", content)
    offset = found.start() if found else 0
    what = (
        "a carriage return without a line feed"
        if content[offset : offset + 1] == b"\r"
        else "a line feed without a carriage return, where other lines end in both"
    )
    return broken(
        line_at(content, offset),
        what,
        "RFC 5322 section 2.3, RFC 5321 section 2.3.8",
        "end every line in the same way, all LF or all CRLF",
    )


def check_lengths(content: bytes, body: int) -> None:
    """Refuse a line of more than 998 octets; *body* is where the header ends."""
    at = long_line(content)
    if at is not None:
        raise _too_long(content, at, in_header=at < body)


def long_line(
    content: bytes, start: int = 0, end: int | None = None, *, line_end: int = len(b"\r\n")
) -> int | None:
    """Where the first line of more than 998 octets begins in ``content[start:end]``, not counting its end.

    A step takes in as many whole lines as end within the next 1,000 octets,
    so that 50 MB of short lines are 50,000 steps.
    """
    at, last = start, len(content) if end is None else end
    while last - at > LINE_OCTETS:
        feed = content.rfind(b"\n", at, min(last, at + LINE_OCTETS + line_end))
        if feed < 0:
            return at
        at = feed + 1
    return None


def _too_long(content: bytes, at: int, *, in_header: bool) -> InvalidMessage:
    end = content.find(b"\r\n", at)
    octets = (len(content) if end < 0 else end) - at
    remedy = (
        "fold the field: begin a new line with a space in it"
        if in_header
        else "encode the part with quoted-printable or base64"
    )
    return broken(
        line_at(content, at),
        f"a line of {octets} octets, where {LINE_OCTETS} are allowed",
        "RFC 5322 section 2.1.1",
        remedy,
    )


# --- the header ----------------------------------------------------------------------------------


@attrs.frozen
class Start:
    """Where the mail begins behind the "From " lines of a mailbox file, if any."""

    offset: int
    line: int


@attrs.frozen
class Field:
    """One field of the header: ``content[start:end]``, with its folded lines and the last CRLF."""

    name: str
    line: int
    start: int
    end: int

    @property
    def key(self) -> str:
        return self.name.lower()

    def value(self, content: bytes) -> bytes:
        """What stands behind the colon, unfolded, without the space around it."""
        return content[self.start + len(self.name) + 1 : self.end].replace(b"\r\n", b"").strip(b" \t")


def skip_postmark(content: bytes) -> Start:
    """Pass over leading "From " lines, also quoted as ">From ", as Postfix's sendmail does.

    They are the envelope's postmark in a mailbox file (RFC 4155), no part of the mail.
    """
    at, line = 0, 1
    while _POSTMARK.match(content, at):
        end = content.find(b"\r\n", at)
        at, line = (len(content) if end < 0 else end + 2), line + 1
    return Start(at, line)


def fields(content: bytes, begin: Start) -> tuple[Field, ...]:
    """The fields of the header, which ends at the first empty line or with *content*.

    Raises:
        InvalidMessage: a line is neither a field, nor part of one, nor the
            empty line; where the body begins is then anybody's guess.
    """
    found: list[Field] = []
    for line, at, end in _header_lines(content, begin):
        if content[at] in b" \t":
            if not found:
                raise broken(
                    line,
                    "the header begins with white space, which continues no field",
                    "RFC 5322 section 2.2.3",
                    "take the white space away, or put an empty line before the text",
                )
            found[-1] = attrs.evolve(found[-1], end=end)
            continue
        name = _NAME.match(content, at, end)
        if name is None or content[name.end() : name.end() + 1] != b":":
            raise _no_field(line, content[at : min(end, at + LINE_OCTETS)].rstrip(b"\r\n"))
        found.append(Field(name[0].decode("ascii"), line, at, end))
    return tuple(found)


def _header_lines(content: bytes, begin: Start) -> Iterator[tuple[int, int, int]]:
    line, at = begin.line, begin.offset
    while at < len(content):
        end = content.find(b"\r\n", at)
        if end == at:
            return
        end = len(content) if end < 0 else end + 2
        yield line, at, end
        line, at = line + 1, end


def _no_field(line: int, text: bytes) -> InvalidMessage:
    name, colon, _ = text.partition(b":")
    shown = printable(text.decode("utf-8", "backslashreplace"), _SHOWN)
    if colon and _NAME.fullmatch(name.rstrip(b" \t")):
        what = f"{shown!r} has a space between the field's name and its colon"
        return broken(line, what, "RFC 5322 section 2.2", "take the space away")
    if colon and b" " not in name:
        what = f"{shown!r} has a character in the field's name that is not printable ASCII, or no name"
        return broken(line, what, "RFC 5322 section 3.6.8", "name the field in printable ASCII")
    return broken(
        line,
        f"{shown!r} is neither a header field nor the empty line that ends the header",
        "RFC 5322 section 2.2",
        "put an empty line before it if it begins the text",
    )


def header_end(header: Sequence[Field], begin: Start) -> int:
    return header[-1].end if header else begin.offset
