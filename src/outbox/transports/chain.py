"""A transport that tries several, in order: what the first cannot deliver now, the next one may."""

from __future__ import annotations

import datetime as dt
import logging
import random
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import attrs

from outbox.breakers import Breakers
from outbox.clock import Clock, SystemClock
from outbox.errors import ConfigurationError, RelayFault
from outbox.handover import hand_over, shares
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.protocols import Transport
from outbox.relay import UNANSWERED, Go, Pause, Wait
from outbox.report import joined, named, strung

from .several import close_all, distinct, expire_all, expired

__all__ = ["ChainTransport"]

_LOG: Final = logging.getLogger("outbox.transports.chain")
_AT_LEAST: Final = dt.timedelta(seconds=1)
"""The wait for a relay that failed, and may be asked again: another message may be asking it now."""


class ChainTransport:
    """Delivers through the first transport, and what that cannot deliver now, through the next.

    A recipient goes on to the next relay where another could mend it: the
    relay failed before anything was handed over for him, put him off, or
    cannot carry the message, as its transport saw by itself
    (:attr:`PermFailed.by_us <outbox.PermFailed>`: too big for it, say; final
    where none can).  He goes no further once a relay

    - accepted him;
    - may have him already (:class:`~outbox.Uncertain`): a second relay
      would make a second copy;
    - refused him for good in its own words, unless *after_refusal*.

    A relay that failed is passed over for a while (five seconds, doubling to
    five minutes; longer where it is misconfigured or its login failed) and tried again with one
    message; only where all are passed over, all are tried, but those that are
    misconfigured only where all are.  So it costs the others' mail one
    connection now and then.  One that is not known yet is tried with one
    message, for whose report the others wait, 30 s at most.

    Whom a relay that failed is the only one left for waits for that one alone,
    at no cost of an attempt (:attr:`Untried.retry_after <outbox.Untried>`):
    while another relay answers, the chain is not left alone, and takes
    others' mail.

    The outcome names the relays that answered.  Where more than one did,
    each reply begins with the name of its own, and behind it stands what the
    recipient was told before.  Whoever all relays put off waits as long as
    the most patient of them asked for.

    No relay is tried once the message's ``expires_at`` has passed.  A chain
    takes as long as all that it tries; the Runner's lease is extended
    meanwhile, so that it bounds nothing here: the transports' own deadlines do.

    Args:
        transports: At least two, the preferred one first; each once.
        after_refusal: Whether a permanent refusal goes on to the next relay
            too: for relays whose refusal speaks of themselves (a provider's
            suppression list) and not of the recipient.  It is final where
            all refuse.

    It closes its transports when it is closed.
    """

    def __init__(
        self,
        *transports: Transport,
        after_refusal: bool = False,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._transports = distinct(transports)
        if len(transports) < 2 or len(self._transports) < len(transports):  # noqa: PLR2004 - two are a chain
            raise ConfigurationError("a chain has at least two transports, and each once")
        self._after_refusal = after_refusal
        self._clock = clock or SystemClock()
        self._breakers = Breakers(self._clock, rng or random.Random())  # noqa: S311 - jitter is no secret

    def __repr__(self) -> str:
        return f"ChainTransport({', '.join(map(repr, self._transports))})"

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        """Hand *message* over for *recipients*, each through the first relay that takes him.

        Raises:
            RelayFault: none of the relays answered, and nothing was handed over for anybody.
        """
        trail = self._follow(message, recipients, self._closed)
        if not trail.asked:
            trail = self._follow(message, recipients, self._costly if trail.cheap else self._insist)
        return trail.outcome()

    def expire(self) -> None:
        """Let each of the transports close what has been idle for too long."""
        expire_all(self._transports)

    def close(self) -> None:
        """Close each of the transports."""
        close_all(self._transports)

    def _follow(self, message: Message, recipients: Sequence[str], closed: _Closed) -> _Trail:
        trail = _Trail(recipients, self._after_refusal)
        for number in range(len(self._transports)):
            self._try(number, message, trail, closed)
        return trail

    def _try(self, number: int, message: Message, trail: _Trail, closed: _Closed) -> None:
        """Hand over to one transport for whoever is left; to each of its relays that may be spoken to."""
        transport, left = self._transports[number], trail.left
        for inner, share in shares(transport, message, left, interruptible=True).items() if left else ():
            if trail.asked and expired(message, self._clock):
                return
            key = f"{number}/{inner}"
            fault = closed(key, message)
            if fault is None:
                report = self._ask(key, transport, message, share)
                well = isinstance(report, Outcome) and report.fault is None
                trail.add(share, report, _AT_LEAST if well else self._pause(key))
            else:
                trail.pass_over(share, fault, self._pause(key))

    def _pause(self, key: str) -> dt.timedelta:
        """How long a relay is left alone from now, and who can go to no other with it."""
        closed = self._breakers.closed_for(key)
        return max(_AT_LEAST, closed.delay) if closed else _AT_LEAST

    def _closed(self, key: str, message: Message) -> RelayFault | None:
        """Why this relay is passed over; None where it may be spoken to."""
        while True:
            found = self._breakers.admit([key], message.id, patience=UNANSWERED)
            admission = found if isinstance(found, Wait) else found[key]
            if isinstance(admission, Go):
                return None
            if admission.fault is not None:
                return admission.fault
            # Not known yet: that another tries it is no reason to pass it over.
            self._breakers.await_report([key], UNANSWERED - admission.under_way)

    def _costly(self, key: str, message: Message) -> RelayFault | None:
        """Where all are passed over, and one of them may be asked in vain: those that may not are not asked again."""
        closed = self._breakers.closed_for(key)
        if closed is not None and closed.fault is not None and closed.fault.costly:
            return closed.fault
        return self._insist(key, message)

    def _insist(self, key: str, message: Message) -> RelayFault | None:
        """Where all are passed over, and none may be asked in vain, each is asked again."""
        self._breakers.insist(key, message.id)
        return None

    def _ask(
        self, key: str, transport: Transport, message: Message, share: Sequence[str]
    ) -> Outcome | RelayFault:
        try:
            report = hand_over(transport, message, share)
        except BaseException:
            self._breakers.abandon(key, message.id)
            raise
        fault = report if isinstance(report, RelayFault) else report.fault
        pause = self._note(key, report, fault, message.id)
        if pause is not None and pause.news:
            _LOG.warning("relay %s; passed over for %.0f s", pause.fault, pause.delay.total_seconds())
        return report

    def _note(
        self, key: str, report: Outcome | RelayFault, fault: RelayFault | None, message: str
    ) -> Pause | None:
        """Tell the relay's breaker how it did; the pause, where that is one."""
        if fault is not None:
            return self._breakers.failed(key, fault, message)
        if isinstance(report, Outcome) and report.cut:
            return self._breakers.cut(key, message, report.relay)
        self._breakers.answered(key, message)
        return None


_Closed: TypeAlias = Callable[[str, Message], RelayFault | None]


@attrs.frozen
class _Said:
    """What one relay said of one recipient."""

    relay: str
    result: Result


class _Trail:
    """What the relays said so far, and who is left."""

    def __init__(self, recipients: Sequence[str], after_refusal: bool) -> None:
        self._after_refusal = after_refusal
        self._said: dict[str, list[_Said]] = {recipient: [] for recipient in recipients}
        self._kept: dict[str, list[Untried]] = {}
        self._faults: list[RelayFault] = []
        self._relays: list[str] = []
        self._dialogues: list[str] = []
        self._well = False
        self.asked = False

    @property
    def left(self) -> Sequence[str]:
        """Those whom the next relay may be asked for."""
        return [r for r, said in self._said.items() if not any(map(self._final, said))]

    @property
    def cheap(self) -> bool:
        """Whether one of them may be asked in vain."""
        return not all(fault.costly for fault in self._faults)

    def pass_over(self, recipients: Sequence[str], fault: RelayFault, pause: dt.timedelta) -> None:
        """A relay is left alone because of *fault*, for *pause*: it was not asked for these."""
        self._faults.append(fault)
        for recipient in recipients:
            self._keep(recipient, Untried(str(fault), pause))

    def add(self, recipients: Sequence[str], report: Outcome | RelayFault, pause: dt.timedelta) -> None:
        """A relay was asked for these; *pause* is how long it is left alone, where it failed."""
        self.asked = True
        if isinstance(report, RelayFault):
            self.pass_over(recipients, report, pause)
            return
        if report.fault is not None:
            self._faults.append(report.fault)
        else:
            self._well = True
        if report.relay not in self._relays:
            self._relays.append(report.relay)
        self._dialogues.append(report.dialogue)
        for recipient in recipients:
            # The same that a Runner makes of silence: it may have been sent.
            result = report.results.get(
                recipient, Uncertain("the transport reported nothing for this recipient")
            )
            if not isinstance(result, Untried):
                self._said[recipient].append(_Said(report.relay, result))
            elif report.fault is not None:
                self._keep(recipient, Untried(str(report.fault), pause))
            else:
                self._keep(recipient, result)

    def outcome(self) -> Outcome:
        """The reports of all as one.

        Raises:
            RelayFault: no relay said anything of anybody, and those that were asked failed.
        """
        results = {recipient: self._result(recipient, said) for recipient, said in self._said.items()}
        left_out = any(isinstance(result, Untried) for result in results.values())
        # Where one is well, those left out wait for the others, and nobody else does.
        fault = joined(self._faults) if left_out and self._faults and not self._well else None
        if fault is not None and all(isinstance(result, Untried) for result in results.values()):
            raise fault
        return Outcome(
            results=results,
            relay=", ".join(filter(None, self._relays)),
            fault=fault,
            dialogue=strung(self._dialogues),
        )

    def _final(self, said: _Said) -> bool:
        if isinstance(said.result, PermFailed):
            return not (self._after_refusal or said.result.by_us)
        return isinstance(said.result, Accepted | Uncertain)

    def _result(self, recipient: str, said: Sequence[_Said]) -> Result:
        decisive = self._decisive(recipient, said)
        if decisive is None:
            return self._left_out(recipient, said)
        result = decisive.result
        if isinstance(result, TempFailed):
            result = attrs.evolve(result, retry_after=_most_patient(said))
        if len(self._relays) == 1:
            return result
        before = "; ".join(f"{s.relay}: {s.result.reply}" for s in said if s is not decisive)
        told = named(result, decisive.relay)
        if not before or isinstance(told, Untried):
            return told
        return attrs.evolve(told, reply=f"{told.reply}; before that {before}")

    def _left_out(self, recipient: str, said: Sequence[_Said]) -> Untried:
        """Why nobody has decided on this recipient, and when the first relay may be asked that could."""
        if not self._well:
            return Untried()
        kept = self._kept.get(recipient, [])
        why = [each.reply for each in kept if each.reply]
        before = [f"{each.relay}: {each.result.reply}" for each in said]
        waits = [each.retry_after for each in kept if each.retry_after is not None]
        return Untried(
            "; before that ".join(filter(None, ["; ".join(why), "; ".join(before)])), min(waits, default=None)
        )

    def _keep(self, recipient: str, why: Untried) -> None:
        self._kept.setdefault(recipient, []).append(why)

    def _decisive(self, recipient: str, said: Sequence[_Said]) -> _Said | None:
        """The word that counts: one that ends it, else the latest that puts him off; None where that is missing."""
        ending = next((s for s in said if self._final(s)), None)
        put_off = next((s for s in reversed(said) if isinstance(s.result, TempFailed)), None)
        if ending or put_off or not said or recipient in self._kept:
            # Whom all but a relay that failed refused is not refused yet: that one may take him.
            return ending or put_off
        return said[-1]


def _most_patient(said: Sequence[_Said]) -> dt.timedelta | None:
    asked = [s.result.retry_after for s in said if isinstance(s.result, TempFailed) and s.result.retry_after]
    return max(asked, default=None)
