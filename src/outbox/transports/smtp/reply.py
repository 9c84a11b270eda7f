"""A server's reply, and the one strict grammar that it is read by (RFC 5321 section 4.2)."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final

import attrs

__all__ = ["BadReply", "Kind", "Reply", "ReplyReader"]

MAX_LINE: Final = 8 << 10
MAX_LINES: Final = 512
MAX_REPLY: Final = 64 << 10
_CLOSING: Final = 421
_KNOWN: Final = 32
"""Replies of one line that a reader knows again: a server says few different things, and the same each time."""

# The first digit decides, so the second is not held to the five that RFC 5321 knows: 571 is in use.
_LINE: Final = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_LOGIN_FIRST: Final = frozenset({530, 534, 535, 538})
_NOT_FOR_US: Final = re.compile(
    r"relay(ing)?\b.{0,40}\b(denied|prohibited|not (permitted|allowed|authori[sz]ed))|(unable|not (permitted|allowed)) to relay"
    r"|authenticat(ion|e)\b.{0,20}\b(required|first)|must authenticate"
    # As Postfix says it on its port for submissions; 5.4.1 with the same words is another's unknown recipient.
    r"|5\.7\.1 <.{1,320}>: (client host|helo command|sender address|recipient address) rejected: access denied",
    re.IGNORECASE,
)
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
        said: The line in question, in the server's own words as they may be shown.
    """

    def __init__(self, what: str, said: str = "") -> None:
        super().__init__(what)
        self.said = said


@attrs.frozen
class Reply:
    """One whole reply.  Its text is the server's own: escape it before it is shown.

    As ``str`` it is what may be shown, on one line: without what the server
    was told in confidence.  *lines* are as they came.

    Attributes:
        kind: The first digit decides.
        closing: The server is about to close the connection, whatever it was
            asked (RFC 5321 section 3.8).
    """

    code: int
    lines: tuple[str, ...] = ("",)
    # Asked for several times of every reply, and known once it is read.
    kind: Kind = attrs.field(init=False, eq=False, repr=False)
    closing: bool = attrs.field(init=False, eq=False, repr=False)
    _scrub: Callable[[str], str] | None = attrs.field(default=None, eq=False, repr=False)

    @kind.default
    def _read_kind(self) -> Kind:
        return Kind(self.code // 100)

    @closing.default
    def _read_closing(self) -> bool:
        return self.code == _CLOSING

    @property
    def login_first(self) -> bool:
        """Authentication or encryption is wanted: that is no fault of the message (RFC 4954 section 6)."""
        return self.code in _LOGIN_FIRST

    @property
    def about_us(self) -> bool:
        """It refuses for good, and means us as we are, not the message: see decision 015."""
        return self.kind is Kind.NEVER and (self.login_first or bool(_NOT_FOR_US.search(str(self))))

    @property
    def enhanced(self) -> tuple[int, int] | None:
        """Subject and detail of the enhanced status code (RFC 3463), where it begins with one."""
        match = _ENHANCED.match(self.lines[0])
        return (int(match[1]), int(match[2])) if match else None

    @property
    def status(self) -> str:
        """The enhanced status code whole, or ``""``."""
        match = _ENHANCED.match(self.lines[0])
        return match[0] if match else ""

    def __str__(self) -> str:
        text = " ".join(filter(None, (line.strip() for line in self.lines)))
        # Here and not where it is read, for of most replies nobody ever reads the text.
        return f"{self.code} {self._scrub(text) if self._scrub else text}".rstrip()


class ReplyReader:
    """Bytes in, whole replies out, however the bytes were cut.

    A line ends in CRLF; a bare LF is taken for its end too, as every client
    does.  Lines of one reply carry one code.  What breaks the grammar or a
    bound raises :class:`BadReply`, and the reader is then of no more use.
    What is said of either went through *scrub*.
    """

    def __init__(self, scrub: Callable[[str], str] | None = None) -> None:
        self._scrub = scrub
        self._buffer = b""
        self._start = 0
        self._size = 0
        self._code = b""
        self._lines: list[str] = []
        self._known: dict[bytes, Reply] = {}

    @property
    def pending(self) -> bool:
        """Are there bytes that no reply has been made of?"""
        return len(self._buffer) > self._start or bool(self._lines)

    @property
    def lines(self) -> int:
        """How many whole lines have come that were not asked for yet."""
        return self._buffer.count(b"\n", self._start)

    def feed(self, data: bytes) -> None:
        # What has been read goes all at once: several replies mostly come together, and nothing is left of them.
        self._buffer = self._buffer[self._start :] + data
        self._start = 0

    def take(self) -> Reply | None:
        """The next whole reply, or None until more has come."""
        while (line := self._line()) is not None:
            if not self._lines and (known := self._known.get(line)) is not None:
                return known
            if self._last(line):
                return self._whole(line)
        return None

    def known(self, kinds: Iterable[Container[Kind]]) -> Sequence[Reply]:
        """Of the replies that have come those that were seen before: one for each of *kinds* at most, none that closes.

        To be asked behind a whole reply.  It stops at whatever has to be
        looked at more closely, and leaves it to :meth:`take`.
        """
        replies: list[Reply] = []
        for allowed in kinds:
            end = self._buffer.find(b"\n", self._start)
            line = self._buffer[self._start : max(end, self._start)].removesuffix(b"\r")
            reply = self._known.get(line)
            if reply is None or reply.closing or reply.kind not in allowed:
                break
            self._start = end + 1
            replies.append(reply)
        return replies

    def _whole(self, line: bytes) -> Reply:
        reply = Reply(int(self._code), tuple(self._lines), self._scrub)
        if len(self._lines) == 1:
            if len(self._known) == _KNOWN:
                self._known.clear()
            self._known[line] = reply
        self._size, self._code, self._lines = 0, b"", []
        return reply

    def _line(self) -> bytes | None:
        start = self._start
        end = self._buffer.find(b"\n", start)
        if (len(self._buffer) if end < 0 else end + 1) - start > MAX_LINE:
            raise BadReply(f"a line of more than {MAX_LINE} bytes")
        if end < 0:
            return None
        self._start = end + 1
        return self._buffer[start:end].removesuffix(b"\r")

    def _last(self, line: bytes) -> bool:
        """Take one line of a reply in; is it the last?"""
        match = _LINE.fullmatch(line)
        if match is None:
            said = _shown(line)
            raise BadReply("a line that is none of a reply", self._scrub(said) if self._scrub else said)
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
