"""The commands of a transaction, as they are sent to a server that offers what it offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import attrs

from .dsn import DSN
from .envelope import Mail
from .extensions import Extensions
from .steps import Step

__all__ = ["GROUP", "Command", "Terms", "commands", "group"]

GROUP: Final = 4 << 10
"""Bytes of commands that are sent at once.

We read nothing while we write, and a server may read nothing while we do not
read its replies: each would wait for the other.  So no more is written behind
a command whose reply is still to be read than the kernel takes without the
server reading a byte of it (RFC 2920 section 3.1; decision 012).
"""

Command: TypeAlias = tuple[Step, str, bytes]
"""The step, whom it names, the line."""


@attrs.frozen(kw_only=True)
class Terms:
    """What all transactions of a transport go by.

    Attributes:
        pipelining: Use PIPELINING where it is offered.
        lmtp: The final dot is answered for each recipient (RFC 2033).
    """

    relay: str
    pipelining: bool = True
    lmtp: bool = False
    dsn: DSN | None = None

    def pipelined(self, extensions: Extensions) -> bool:
        return self.pipelining and "PIPELINING" in extensions


def commands(mail: Mail, recipients: Sequence[str], extensions: Extensions, dsn: DSN | None) -> list[Command]:
    """MAIL, an RCPT for each of *recipients*, and DATA."""
    lines = [(Step.MAIL, "", _mail(mail, recipients, extensions, dsn))]
    for recipient in recipients:
        notices = dsn.of_rcpt(recipient) if dsn and "DSN" in extensions else b""
        lines.append((Step.RCPT, recipient, b"RCPT TO:<%b>%b\r\n" % (mail.paths[recipient], notices)))
    lines.append((Step.DATA, "", b"DATA\r\n"))
    return lines


def group(lines: Sequence[Command], *, pipelined: bool) -> Sequence[bytes]:
    """The lines from the first on that go out together: at least one, and not more than :data:`GROUP` bytes."""
    if not pipelined:
        return [lines[0][2]]
    size = 0
    taken: list[bytes] = []
    for _, _, line in lines:
        size += len(line)
        if taken and size > GROUP:
            break
        taken.append(line)
    return taken


def _mail(mail: Mail, recipients: Sequence[str], extensions: Extensions, dsn: DSN | None) -> bytes:
    """Only what this connection offers is declared, and all that the message needs (RFC 5321 section 3.3)."""
    content = mail.content
    line = b"MAIL FROM:<%b>" % mail.sender
    if "SIZE" in extensions:
        line += b" SIZE=%d" % content.size
    if content.eightbit:
        line += b" BODY=8BITMIME"
    if content.utf8 or not mail.sender.isascii() or not all(mail.paths[r].isascii() for r in recipients):
        line += b" SMTPUTF8"
    if dsn and "DSN" in extensions:
        line += dsn.of_mail(mail.id)
    return line + b"\r\n"
