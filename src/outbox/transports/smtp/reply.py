"""A server's reply, and the one strict grammar that it is read by (RFC 5321 section 4.2)."""

from __future__ import annotations

import enum
import re
from typing import Final

import attrs

__all__ = ["BadReply", "Kind", "Reply", "ReplyReader"]

MAX_LINE: Final = 8 << 10
MAX_LINES: Final = 512
MAX_REPLY: Final = 64 << 10
_CLOSING: Final = 421

# The first digit decides, so the second is not held to the five that RFC 5321 knows: 571 is in use.
_LINE: Final = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED: Final = re.compile(r"[245]\.(\d{1,3})\.(\d{1,3})(?!\S)", re.ASCII)


class Kind(enum.IntEnum):
    """The first digit of a reply (RFC 5321 section 4.2.1)."""

    DONE = 2
    GO_ON = 3
    NOT_NOW = 4
    NEVER = 5


class BadReply(ValueError):
    """What the server sent is no reply; nothing behind it can be trusted either.

    Attributes:
        said: The line in question, in the server's own words.
    """

    def __init__(self, what: str, said: str = "") -> None:
        super().__init__(what)
        self.said = said


@attrs.frozen
class Reply:
    """One whole reply.  Its text is the server's own: escape it before it is shown."""

    code: int
    lines: tuple[str, ...] = ("",)

    @property
    def kind(self) -> Kind:
        """The first digit decides."""
        return Kind(self.code // 100)

    @property
    def closing(self) -> bool:
        """The server is about to close the connection, whatever it was asked (RFC 5321 section 3.8)."""
        return self.code == _CLOSING

    @property
    def enhanced(self) -> tuple[int, int] | None:
        """Subject and detail of the enhanced status code (RFC 3463), where it begins with one."""
        match = _ENHANCED.match(self.lines[0])
        return (int(match[1]), int(match[2])) if match else None

    def __str__(self) -> str:
        return " ".join([str(self.code), *filter(None, (line.strip() for line in self.lines))])


class ReplyReader:
    """Bytes in, whole replies out, however the bytes were cut.

    A line ends in CRLF; a bare LF is taken for its end too, as every client
    does.  Lines of one reply carry one code.  What breaks the grammar or a
    bound raises :class:`BadReply`, and the reader is then of no more use.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._size = 0
        self._code = b""
        self._lines: list[str] = []

    @property
    def pending(self) -> bool:
        """Are there bytes that no reply has been made of?"""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> Reply | None:
        """The next whole reply, or None until more has come."""
        while (line := self._line()) is not None:
            if self._last(line):
                reply = Reply(int(self._code), tuple(self._lines))
                self._size, self._code, self._lines = 0, b"", []
                return reply
        return None

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n")
        length = len(self._buffer) if end < 0 else end + 1
        if length > MAX_LINE:
            raise BadReply(f"a line of more than {MAX_LINE} bytes")
        if end < 0:
            return None
        line = bytes(self._buffer[:length])
        del self._buffer[:length]
        return line[:-2] if line.endswith(b"\r\n") else line[:-1]

    def _last(self, line: bytes) -> bool:
        """Take one line of a reply in; is it the last?"""
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadReply("a line that is none of a reply", _shown(line))
        code, mark, text = match.groups(b"")
        if self._lines and code != self._code:
            raise BadReply(f"code {code.decode()} within a reply of code {self._code.decode()}")
        self._code = code
        self._size += len(line)
        self._lines.append(_shown(text))
        if len(self._lines) > MAX_LINES or self._size > MAX_REPLY:
            raise BadReply(f"a reply of more than {MAX_LINES} lines or {MAX_REPLY} bytes")
        return mark != b"-"


def _shown(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")
