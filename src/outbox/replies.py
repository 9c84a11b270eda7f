"""Rules for what relays say: an answer that a pattern finds has its relay left alone, or spoken to slowly, for a while.  Pure."""

from __future__ import annotations

import copy
import datetime as dt
import fnmatch
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from .errors import ConfigurationError, RelayFault, RelayUnavailable
from .outcome import Accepted, Outcome
from .values import printable, quoted

__all__ = ["ReplyRule", "Ruling", "ruling"]

_DAY: Final = dt.timedelta(days=1)
_SHOWN: Final = 200


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE) if isinstance(pattern, str) else re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ConfigurationError(
            f"ReplyRule: {quoted(str(pattern), 80)} is no regular expression: {error}"
        ) from None


@attrs.frozen(kw_only=True)
class ReplyRule:
    """What a relay says, and how it is treated then.

    The pattern is looked for, in any case of letters, in each reply that is
    not an acceptance, and in the words of a fault.  The first of several
    rules that finds something counts.  It changes no recipient's fate: those
    are judged as ever.  What follows holds for this process, and for what has
    not been handed over yet.

    Attributes:
        pattern: A regular expression: ``r"4\\.7\\.\\d+|too many (mails|connections)"``.
        relay: For the relays that answered under such a name only, with
            ``*`` and ``?`` as in file names: ``"*.example.com:25"``.
        per_second: Messages a second that it is given at most.
        lasting: How long; it begins anew with each answer.  Without
            *per_second* the relay is left alone for so long, a day at most.

    Raises:
        ConfigurationError: one of them cannot be meant.
    """

    pattern: re.Pattern[str] = attrs.field(converter=_compiled)
    relay: str = "*"
    per_second: float | None = None
    lasting: dt.timedelta = dt.timedelta(minutes=15)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.lasting, dt.timedelta) or not dt.timedelta(0) < self.lasting <= _DAY:
            raise ConfigurationError("ReplyRule: lasting must be more than 0 s, and a day at most")
        rate = self.per_second
        if rate is not None and (isinstance(rate, bool) or not 0 < rate < math.inf):
            raise ConfigurationError("ReplyRule: per_second must be a number above 0")
        if self.pattern.search(""):
            raise ConfigurationError(f"ReplyRule: {quoted(self.pattern.pattern, 80)} is found in every reply")

    def finds(self, relay: str, replies: Iterable[str]) -> str | None:
        """The reply that it is for, if any."""
        # A bracket is one: names of IPv6 relays hold them.
        if not fnmatch.fnmatchcase(relay.lower(), self.relay.lower().replace("[", "[[]")):
            return None
        return next((reply for reply in replies if self.pattern.search(reply)), None)


@attrs.frozen
class Ruling:
    """What is to be done: a *fault* that pauses the relay; or so many messages a second, for *lasting*."""

    fault: RelayFault | None
    per_second: float | None
    lasting: dt.timedelta


def ruling(rules: Sequence[ReplyRule], report: Outcome | RelayFault, key: str) -> Ruling | None:
    """What the first rule that finds something in the report says."""
    relay = report.relay or key
    replies = list(_replies(report))
    for rule in rules if replies else ():
        reply = rule.finds(relay, replies)
        if reply is not None:
            return Ruling(_fault(rule, report, relay, reply), rule.per_second, rule.lasting)
    return None


def _replies(report: Outcome | RelayFault) -> Iterator[str]:
    if isinstance(report, Outcome):
        yield from (r.reply for r in report.results.values() if r.reply and not isinstance(r, Accepted))
    fault = report.fault if isinstance(report, Outcome) else report
    if fault is not None:
        yield fault.reason


def _fault(rule: ReplyRule, report: Outcome | RelayFault, relay: str, reply: str) -> RelayFault | None:
    """The relay's own fault where it has one, with the rule's wait; where it is only slowed, that fault as it is."""
    own = report.fault if isinstance(report, Outcome) else report
    if rule.per_second is not None:
        return own
    if own is None:
        why = f"a rule of yours leaves it alone, for it said: {printable(reply, _SHOWN)}"
        return RelayUnavailable(relay, why, retry_after=rule.lasting)
    own = copy.copy(own)
    own.retry_after = max(rule.lasting, own.retry_after or rule.lasting)
    return own
