"""What a reply means, and whose it was where several were due; what a loss is news of (decision 012)."""

from __future__ import annotations

from typing import Final

from outbox.outcome import Accepted, PermFailed, Result, TempFailed

from .reply import Kind, Reply
from .steps import Lost, Step

__all__ = ["REFUSED", "in_vain", "judged", "one_too_few", "surely_to_the_dot"]

REFUSED: Final = frozenset({Kind.NOT_NOW, Kind.NEVER})
_ENVELOPE: Final = frozenset({Step.MAIL, Step.RCPT, Step.DATA})


def judged(reply: Reply) -> Result:
    """What it comes to for whom it is said of."""
    if reply.kind is Kind.DONE:
        return Accepted(str(reply))
    final = reply.kind is Kind.NEVER and not reply.about_us
    return PermFailed(str(reply)) if final else TempFailed(str(reply))


def surely_to_the_dot(reply: Reply, to_mail: Reply | None) -> bool:
    """Does its enhanced code show that *reply* is no yes to a MAIL, for which the server has another?"""
    if reply.kind is not Kind.DONE or to_mail is None:
        return False
    ours = reply.status
    return ours not in ("", to_mail.status or ours)


def one_too_few(due: int, lost: Lost | None, *, data_answered: bool, alike: bool) -> bool:
    """May the reply before a group of commands have been that to the first of them?

    Not where all of them came: one would be missing.  It is likely where a
    354 came before its place; and where time ran out for the last, unless
    DATA would then have been answered by a 2xx (so *data_answered*).  Where
    the connection was lost in another way nothing is known of it, and it may
    be so if it is *alike*: word for word what the server says to MAIL.

    Args:
        due: How many replies to the group did not come.
        lost: What they were lost by; None where the server closed of itself.
    """
    if not due:
        return False
    if lost is not None and lost.late:
        return due == 1 and not data_answered
    return alike or (lost is not None and lost.kind is Kind.GO_ON)


def in_vain(lost: Lost) -> bool:
    """Was it lost before the first byte of a content, and no command is to blame for keeping us waiting?"""
    if lost.late:
        # Whom a server keeps waiting once is not to wait twice.
        return False
    if lost.step is Step.CONTENT:
        return not lost.sent
    return lost.step in _ENVELOPE or (lost.step is Step.RSET and lost.astray)
