"""What a transport reports: one result for each recipient it was given."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import attrs

from .errors import RelayFault
from .values import frozen_mapping, printable, printable_lines

__all__ = ["Accepted", "Outcome", "PermFailed", "Result", "TempFailed", "Uncertain", "Untried"]


@attrs.frozen
class Accepted:
    """The relay took responsibility for this recipient (RFC 5321 section 4.2.5); *reply* says so."""

    reply: str = attrs.field(default="", converter=printable)


@attrs.frozen
class TempFailed:
    """Not now: known not to have been taken, and worth another attempt.

    *retry_after* is the least wait the relay asked for, where it did; a day
    at most is heeded, and never past the age at which the policy gives up.
    """

    reply: str = attrs.field(default="", converter=printable)
    retry_after: dt.timedelta | None = None


@attrs.frozen
class PermFailed:
    """Refused for good: known not to have been taken, and no attempt will change that.

    *by_us* where no relay said so, but the transport saw by what its relay
    offers that it cannot carry this message: it is too big for it, say.
    Another relay may.  That is news for who hands over, and of no other use:
    it is not kept in the record, and two refusals are the same without it.
    """

    reply: str = attrs.field(default="", converter=printable)
    by_us: bool = attrs.field(default=False, kw_only=True, eq=False)


@attrs.frozen
class Uncertain:
    """Handed over whole, and no whole reply was read: the relay may have it or not."""

    reply: str = attrs.field(default="", converter=printable)


@attrs.frozen
class Untried:
    """Known not to have been handed over, for no fault of this recipient.

    *reply* says why, where that is known.  *retry_after*, where it is given,
    is the least wait (as above) of this message alone: the relay is well for others, and
    what kept this one from it (one of several relays is down) costs it no
    attempt, however often.
    """

    reply: str = attrs.field(default="", converter=printable)
    retry_after: dt.timedelta | None = None


Result: TypeAlias = Accepted | TempFailed | PermFailed | Uncertain | Untried


def _frozen_results(results: Mapping[str, Result]) -> Mapping[str, Result]:
    return frozen_mapping(results)


@attrs.frozen(kw_only=True)
class Outcome:
    """The results of one delivery.

    Attributes:
        results: One for each recipient that was handed over, by recipient.
        relay: The server that answered, as ``host:port``; ``""`` where
            there is none.
        fault: What befell the relay after some recipients' results were
            known; those it left without one are :class:`Untried`.
        cut: The connection was lost, or closed by the server (421), once the
            message's own transaction had begun.  It is an attempt like any
            other; where it befalls one message after the other, their relay
            is left alone.  Two outcomes are the same without it.
        dialogue: What was said on the way to it, line by line, for a person
            to read: without content and secrets.  It is escaped, and abridged
            to 16 KiB; ``""`` where nothing was kept.  No decision hangs on
            it, and two outcomes are the same without it.
    """

    results: Mapping[str, Result] = attrs.field(converter=_frozen_results, hash=False)
    relay: str = ""
    fault: RelayFault | None = attrs.field(default=None, eq=str)
    cut: bool = attrs.field(default=False, eq=False)
    dialogue: str = attrs.field(default="", converter=printable_lines, eq=False, repr=False)

    @classmethod
    def same(cls, recipients: Iterable[str], result: Result, *, relay: str = "") -> Outcome:
        """One result for all of *recipients*."""
        return cls(results=dict.fromkeys(recipients, result), relay=relay)
