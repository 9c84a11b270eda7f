"""An SMTP session on standard input and output, for programs that start ``sendmail -bs`` (RFC 5321)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import BinaryIO, Final, TypeAlias

from outbox.address import parse_mailbox
from outbox.errors import InvalidMessage, OutboxError
from outbox.values import frozen_mapping, printable

from .exits import CommandError, Exit, exit_of

__all__ = ["Session", "StoreMail"]

StoreMail: TypeAlias = Callable[[bytes, str, Sequence[str]], str]
"""Store a mail of a sender for recipients; its id.  What it raises is what the client is told."""

_LINE: Final = 4096
_MAIL_OCTETS: Final = 256 << 20
_MOST_RECIPIENTS: Final = 1000
_GREETING: Final = "250-{}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SMTPUTF8"
_ANSWERS: Final = frozen_mapping(
    {"NOOP": "250 2.0.0 ok", "VRFY": "252 2.1.5 that cannot be told", "QUIT": "221 2.0.0 bye"}
)
_ANY: Final = "localhost"
_PATH: Final = re.compile(r"\s*<(?:@[^:>]*:)?([^>]*)>(?:\s+(.*))?", re.DOTALL)


class Session:
    """One client, who may send several mails; *store* keeps each before it is told 250."""

    def __init__(self, source: BinaryIO, sink: BinaryIO, name: str, store: StoreMail) -> None:
        self._source, self._sink = source, sink
        self._name = name
        self._store = store
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._line_end = b"\r\n"

    def serve(self) -> None:
        """Until QUIT, or the end of the input."""
        self._say(f"220 {self._name} ESMTP outbox")
        while line := self._source.readline(_LINE + 1):
            if not line.endswith(b"\n"):
                self._say("500 5.5.2 the line is too long, or not ended")
                return
            self._line_end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
            verb, _, rest = line.decode("utf-8", "replace").rstrip("\r\n").partition(" ")
            self._say(self._answer(verb.upper(), rest))
            if verb.upper() == "QUIT":
                return

    def _answer(self, verb: str, rest: str) -> str:
        match verb:
            case "EHLO" | "HELO" | "RSET":
                self._reset()
                return _GREETING.format(self._name) if verb == "EHLO" else f"250 {self._name}"
            case "MAIL":
                return self._mail(rest)
            case "RCPT":
                return self._rcpt(rest)
            case "DATA":
                return self._data()
            case _:
                return _ANSWERS.get(verb, "500 5.5.1 no such command here")

    def _reset(self) -> None:
        self._sender, self._recipients = None, []

    def _mail(self, rest: str) -> str:
        if self._sender is not None:
            return "503 5.5.1 there is a sender already"
        path = _path("FROM:", rest)
        if path is None:
            return "501 5.5.4 write MAIL FROM:<ann@example.org>"
        try:
            self._sender = _mailbox(path) if path else ""
        except InvalidMessage as error:
            return f"553 5.1.7 {printable(str(error), 300)}"
        return "250 2.1.0 ok"

    def _rcpt(self, rest: str) -> str:
        if self._sender is None:
            return "503 5.5.1 MAIL comes first"
        path = _path("TO:", rest)
        if not path:
            return "501 5.5.4 write RCPT TO:<ann@example.org>"
        if len(self._recipients) >= _MOST_RECIPIENTS:
            return "452 4.5.3 too many recipients"
        try:
            self._recipients.append(_mailbox(path))
        except InvalidMessage as error:
            return f"553 5.1.3 {printable(str(error), 300)}"
        return "250 2.1.5 ok"

    def _data(self) -> str:
        if self._sender is None or not self._recipients:
            return "503 5.5.1 MAIL and RCPT come first"
        sender, recipients = self._sender, self._recipients
        self._say("354 end it with a line that is a single dot")
        content = self._content()
        self._reset()
        if content is None:
            return "552 5.3.4 the mail is too large, or was cut off"
        return self._stored(content, sender, recipients)

    def _content(self) -> bytes | None:
        """Up to the dot, without the dots that were put in for it; None where it did not come, or too much did.

        Lines are those that end as the DATA command did: a client puts in no
        dot behind what is no line end to it, and so its text could end the
        mail there and go on with another one.
        """
        lines: list[bytes] = []
        size, begins = 0, True
        while (line := self._source.readline()) and not (begins and line == b"." + self._line_end):
            size += len(line)
            if size <= _MAIL_OCTETS:
                lines.append(line.removeprefix(b".") if begins else line)
            begins = line.endswith(self._line_end)
        return b"".join(lines) if line and size <= _MAIL_OCTETS else None

    def _stored(self, content: bytes, sender: str, recipients: Sequence[str]) -> str:
        try:
            return f"250 2.0.0 stored as {self._store(content, sender, recipients)}"
        except CommandError as error:
            status, reason = error.status, str(error)
        except OutboxError as error:
            status, reason = exit_of(error), str(error)
        said = printable(reason, 300)
        if status in (Exit.DATA, Exit.NO_USER):
            return f"550 5.6.0 {said}"
        return f"451 4.3.0 {said}"

    def _say(self, reply: str) -> None:
        self._sink.write(f"{reply}\r\n".encode())
        self._sink.flush()


def _path(word: str, rest: str) -> str | None:
    """What stands in the angle brackets; parameters behind them say nothing that has to be known."""
    if not rest.upper().startswith(word):
        return None
    found = _PATH.fullmatch(rest[len(word) :])
    return None if found is None else found[1]


def _mailbox(path: str) -> str:
    # A bare name is completed where it is stored; here it only has to be one.
    return parse_mailbox(path) if "@" in path else parse_mailbox(path, origin=_ANY).removesuffix(f"@{_ANY}")
