"""Who of a message's recipients is not to be written to now, or ever: the values and the rules.  Pure."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

from .address import domain
from .errors import RelayFault
from .lifecycle import Claim, Released
from .message import Message
from .outcome import Outcome, PermFailed, Result, TempFailed, Untried
from .protocols import Suspension
from .values import frozen_mapping

__all__ = [
    "EVERY_RELAY",
    "Screened",
    "Suppress",
    "Suspended",
    "given_back",
    "screened",
    "suppressed",
    "unsure",
]

Suppress: TypeAlias = Callable[[Message, Sequence[str]], Collection[str]]
"""Which of these recipients of a message are not to be delivered to: who asked never to be written to again, say.

Called before each delivery, in the thread that delivers (a worker's, or the
caller's of ``send``), with those who would be handed over; a connection may
be waiting meanwhile.  What expires, loses its lease or is stopped while it is
asked is not handed over.  Where it raises, or returns what is no collection of
recipients, all of them are put off, for a mail that comes late is better
than one that should never have come.
"""

EVERY_RELAY: Final = "*"
"""A suspension of the relay of this name is one of all of them."""
_LEAST: Final = dt.timedelta(minutes=1)
_MOST: Final = dt.timedelta(minutes=15)
_SOON: Final = dt.timedelta(seconds=1)
_ZERO: Final = dt.timedelta(0)
_SUPPRESSED: Final = PermFailed(
    "not sent: suppressed, for this recipient is not to be written to", by_us=True
)


def _frozen_results(results: Mapping[str, Result]) -> Mapping[str, Result]:
    return frozen_mapping(results)


@attrs.frozen
class Screened:
    """*recipients* may be handed over; *results* are those of all others."""

    recipients: tuple[str, ...]
    results: Mapping[str, Result] = attrs.field(converter=_frozen_results, hash=False)

    @property
    def outcome(self) -> Outcome:
        """What came of it where nobody is left to hand it over for."""
        return Outcome(results=self.results)

    def joined(self, report: Outcome | RelayFault) -> Outcome | RelayFault:
        """The relay's report, and what is known of those that it was not asked to take."""
        if isinstance(report, RelayFault):
            # Nothing is known of anybody: all are as before, and are screened again.
            return report
        return attrs.evolve(report, results={**self.results, **report.results})


class Suspended:
    """What is suspended of a store's messages, beside whole queues: those it gives no claims of."""

    def __init__(self, suspensions: Iterable[Suspension] = ()) -> None:
        self._by_name: dict[tuple[str, str], Suspension] = {
            (each.kind, _folded(each.kind, each.value)): each for each in suspensions if each.kind != "queue"
        }
        self.names_relays = any(kind == "relay" for kind, _ in self._by_name)

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def withheld(self, claim: Claim, relays: Mapping[str, str], now: dt.datetime) -> Mapping[str, Suspension]:
        """Who of the claim's recipients is suspended, and by what: of several, by what lasts longest.

        *relays* are the keys of the relays that they go to, by recipient.
        """
        of_all = [("attribute", f"{name}={value}") for name, value in claim.message.attributes.items()]
        found: dict[str, Suspension] = {}
        for recipient in claim.recipients:
            names = [*of_all, *_names(recipient, relays.get(recipient))]
            in_force = [each for name in names if (each := self._by_name.get(name)) and _lasts(each, now)]
            if in_force:
                found[recipient] = max(in_force, key=_end)
        return found


def given_back(
    claim: Claim, withheld: Collection[Suspension], now: dt.datetime, rng: random.Random
) -> Released:
    """The claim as though it had never been made, for all who wait are suspended.

    It is due again when the first of them ends.  One that lasts is looked at
    again after a tenth of the message's age, a minute at least and a quarter
    of an hour at most, and not all at once: a person may take it back.
    """
    first = min(withheld, key=_end)
    delay = min(max(claim.age / 10, _LEAST), _MOST) * rng.uniform(0.75, 1.25)
    if first.until is not None:
        delay = min(delay, first.until - now)
    if claim.expires_in is not None:
        delay = min(delay, claim.expires_in)
    return Released(delay=max(_SOON, delay), fates=claim.fates, reason=_why(first))


def screened(
    recipients: Sequence[str], withheld: Mapping[str, Suspension], refused: Mapping[str, Result]
) -> Screened | None:
    """Who is left of *recipients*, and what becomes of the others; None where all are."""
    # No wait of its own: the others' policy says when to ask again, and then it is given back if need be.
    results: dict[str, Result] = {r: Untried(_why(each), retry_after=_ZERO) for r, each in withheld.items()}
    results |= refused
    return Screened(tuple(r for r in recipients if r not in results), results) if results else None


def suppressed(answer: object, recipients: Sequence[str]) -> Mapping[str, Result]:
    """What a :data:`Suppress` answered, as results of those whom it named.

    Raises:
        TypeError: it is no collection of recipients.
    """
    if isinstance(answer, str | bytes) or not isinstance(answer, Collection):
        raise TypeError(
            f"suppress returned a value of type {type(answer).__name__}: return a set of recipients"
        )
    if not all(isinstance(each, str) for each in answer):
        raise TypeError("suppress returned what is no recipient among them: return a set of recipients")
    named = frozenset(answer)
    return {r: _SUPPRESSED for r in recipients if r in named}


def unsure(error: BaseException, recipients: Sequence[str]) -> Mapping[str, Result]:
    """All are put off where it cannot be told who is suppressed."""
    put_off = TempFailed(f"not sent: whether it is suppressed cannot be told ({type(error).__name__})")
    return dict.fromkeys(recipients, put_off)


def _names(recipient: str, relay: str | None) -> Iterator[tuple[str, str]]:
    if "@" in recipient:
        yield "domain", _folded("domain", domain(recipient))
    if relay is not None:
        yield "relay", relay
        yield "relay", EVERY_RELAY


def _folded(kind: str, value: str) -> str:
    return value.lower() if kind == "domain" else value


def _lasts(suspension: Suspension, now: dt.datetime) -> bool:
    return suspension.until is None or suspension.until > now


def _end(suspension: Suspension) -> dt.datetime:
    return suspension.until or dt.datetime.max.replace(tzinfo=dt.UTC)


def _why(suspension: Suspension) -> str:
    until = suspension.until
    end = "" if until is None else f" until {until.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"
    words = f": {suspension.reason}" if suspension.reason else ""
    return f"suspended: {suspension.kind} {suspension.value}{end}{words}"
