"""Where a stored message stands, and what each event makes of it.

Pure, and the same for every store: a store reads a standing, asks here what
becomes of it, and writes the answer down.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from outbox.errors import ConfigurationError
from outbox.lifecycle import (
    TRANSITIONS,
    Attempt,
    Claim,
    Dead,
    Event,
    Expired,
    Fate,
    Held,
    Released,
    Retry,
    State,
    Summary,
    Verdict,
)
from outbox.message import Message
from outbox.moving import ON_ITS_WAY
from outbox.protocols import Change, Expected
from outbox.values import printable

from .instants import FOREVER, later, micros, moment, span

__all__ = [
    "Standing",
    "Step",
    "attempt",
    "cancel",
    "claim",
    "claimed",
    "fates_of",
    "fresh",
    "hold",
    "in_doubt",
    "named",
    "purge",
    "recorded",
    "release",
    "remembered",
    "requeue",
    "settled",
    "summary",
    "unknown",
]

_IN_THE_QUEUE: Final = frozenset({State.QUEUED, State.CLAIMED})
_RECEIVED: Final = frozenset({Fate.ACCEPTED, Fate.UNCERTAIN, Fate.DOUBTFUL})
_REPORT: Final = re.compile("bounce-[0-9a-f]{40}")
"""The ids of :class:`~outbox.Bounces`, which stand for what a sender was told of."""


@attrs.frozen(kw_only=True)
class Standing:
    """What a store keeps of a message beside the message; instants are microseconds since 1970.

    Attributes:
        fates: In the order of the message's recipients.
        due: When it may be claimed next: its due time while QUEUED, the end
            of its lease while CLAIMED.  So an expired lease has been due
            since it ran out, and takes its place in the order by that.
        since: What its age counts from: the latest of submitted,
            ``not_before`` and requeued.
        settled: When it left the queue; None while it is there.
        lost: Claims in a row that never settled, before the one that holds it.
        resumes: When it was due, of a message that a person holds; None of
            every other.
    """

    state: State = State.QUEUED
    fates: tuple[Fate, ...]
    due: int
    since: int
    submitted: int
    settled: int | None = None
    attempts: int = 0
    lost: int = 0
    reason: str = ""
    resumes: int | None = None

    @property
    def queued(self) -> bool:
        """Whether it can still be claimed, now or later."""
        return self.state in _IN_THE_QUEUE

    @property
    def suspect(self) -> bool:
        """Whether its next claim follows one that never settled, and so comes alone."""
        return self.lost > 0 or self.state is State.CLAIMED

    def leased(self, now: int) -> bool:
        """Whether somebody holds it."""
        return self.state is State.CLAIMED and self.due > now


def fresh(message: Message, now: int) -> Standing:
    """How a message stands that was just put."""
    due = now if message.not_before is None else max(now, micros(message.not_before))
    fates = (Fate.WAITING,) * len(message.recipients)
    return Standing(fates=fates, due=due, since=due, submitted=now)


def claimed(standing: Standing, until: int) -> Standing:
    """How it stands once it is leased until then."""
    return attrs.evolve(
        _seen_lost(standing),
        state=TRANSITIONS[standing.state, Event.CLAIM],
        due=until,
        attempts=standing.attempts + 1,
    )


def _seen_lost(standing: Standing) -> Standing:
    """The same once its lease is seen to have run out: whoever had it may have sent it."""
    if standing.state is not State.CLAIMED:
        return standing
    fates = tuple(fate.doubted for fate in standing.fates)
    return attrs.evolve(standing, fates=fates, lost=standing.lost + 1)


def in_doubt(standing: Standing, told: int = 0) -> Standing:
    """The same for a store that writes fates apart from claims: what was lost since they were written is in doubt.

    Args:
        told: How many claims in a row had been lost when they were written.
    """
    if standing.lost <= told:
        return standing
    return attrs.evolve(standing, fates=tuple(fate.doubted for fate in standing.fates))


def settled(standing: Standing, fates: tuple[Fate, ...], verdict: Verdict, now: int) -> Standing:
    """How a claimed message stands after its verdict."""
    state = TRANSITIONS[standing.state, verdict.event]
    returned = isinstance(verdict, Retry | Released)
    refunded = isinstance(verdict, Released)
    return Standing(
        state=state,
        fates=fates,
        due=later(now, verdict.delay) if isinstance(verdict, Retry | Released) else now,
        since=standing.since,
        submitted=standing.submitted,
        settled=None if returned else now,
        attempts=standing.attempts - refunded,
        lost=standing.lost if refunded else 0,
        reason=_reason(verdict),
    )


def fates_of(verdict: Verdict, message: Message) -> tuple[Fate, ...]:
    """The verdict's fates in the order of the recipients; one that is missing is refused."""
    try:
        return tuple(verdict.fates[recipient] for recipient in message.recipients)
    except KeyError as error:
        raise ConfigurationError(
            f"the verdict on {message.id} names no fate for {error.args[0]!r}: a verdict carries all of them"
        ) from error


def attempt(number: int, verdict: Verdict, now: int) -> Attempt | None:
    """What the history keeps of a settled attempt; None where nothing was learned.

    A released claim was never an attempt, and one that never reported back
    shows as a gap in the numbers.
    """
    if verdict.outcome is None and not isinstance(verdict, Dead | Held | Expired):
        return None
    outcome = verdict.outcome
    return Attempt(
        number=number,
        at=moment(now),
        event=verdict.event,
        relay="" if outcome is None else outcome.relay,
        results={} if outcome is None else outcome.results,
        reason=_reason(verdict),
        dialogue="" if outcome is None else outcome.dialogue,
    )


def recorded(history: Sequence[Attempt], made: Attempt | None) -> tuple[Attempt, ...]:
    """The history with one attempt more, or None; of all of them only the latest dialogue is kept."""
    if made is None:
        return tuple(history)
    if not made.dialogue:
        return (*history, made)
    return (*(attrs.evolve(old, dialogue="") if old.dialogue else old for old in history), made)


def _reason(verdict: Verdict) -> str:
    return getattr(verdict, "reason", "")


def claim(message: Message, standing: Standing, token: str, now: int) -> Claim:
    """The claim on a message that stands as *standing* says since it was claimed."""
    expires = message.expires_at
    return Claim(
        message=message,
        fates=dict(zip(message.recipients, standing.fates, strict=True)),
        attempt=standing.attempts,
        lost=standing.lost,
        age=span(max(0, now - standing.since)),
        expires_in=None if expires is None else span(micros(expires) - now),
        token=token,
    )


def summary(
    standing: Standing,
    *,
    id: str,
    queue: str,
    priority: int,
    sender: str,
    recipients: tuple[str, ...],
    size: int,
    attributes: Mapping[str, str] | None = None,
) -> Summary:
    """The standing as a person is shown it; *attributes* as in :class:`~outbox.lifecycle.Summary`."""
    return Summary(
        id=id,
        queue=queue,
        priority=priority,
        sender=sender,
        recipients=recipients,
        size=size,
        state=standing.state,
        # Not strict: a list still shows a record whose recipients cannot be read.
        fates=dict(zip(recipients, standing.fates, strict=False)),
        submitted_at=moment(standing.submitted),
        due_at=moment(standing.due) if standing.state is State.QUEUED else None,
        leased_until=moment(standing.due) if standing.state is State.CLAIMED else None,
        settled_at=None if standing.settled is None else moment(standing.settled),
        attempts=standing.attempts,
        lost=standing.lost,
        reason=standing.reason,
        resumes_at=None if standing.resumes is None else moment(standing.resumes),
        since=moment(standing.since),
        attributes=attributes,
    )


@attrs.frozen
class Step:
    """What a person's command comes to: the answer, and the new standing where there is one."""

    change: Change
    standing: Standing | None = None


def named(ids: Sequence[str]) -> tuple[str, ...]:
    """The ids that a person named; a bare string is refused, for its letters would be taken for ids."""
    if isinstance(ids, str):
        raise ConfigurationError(f"ids is the one string {ids!r}: pass a sequence, such as [{ids!r}]")
    return tuple(ids)


def unknown(id: str) -> Change:
    return Change(id=id, status="unknown", reason="there is no such message")


def requeue(
    id: str, standing: Standing, now: int, *, uncertain: bool, expected: Expected | None = None
) -> Step:
    """Due now and as though submitted now; but never before its ``not_before``.

    ``since`` is later than the submit, and lies ahead, only while
    ``not_before`` does: a requeue does not break what the caller said about that.
    """
    change = _barred(id, standing, Event.REQUEUE, now, expected)
    if change is not None:
        return Step(change)
    seen = _seen_lost(standing)
    again = {Fate.FAILED: Fate.WAITING} | ({Fate.UNCERTAIN: Fate.DOUBTFUL} if uncertain else {})
    fates = tuple(again.get(fate, fate) for fate in seen.fates)
    doubtful = Fate.DOUBTFUL in fates and not uncertain
    if doubtful or not any(fate.open for fate in fates):
        return Step(Change(id=id, status="refused", reason=_nobody(fates)))
    # An age that counts from the submit itself tells of no `not_before`: it lies ahead where that clock was wrong.
    due = max(now, standing.since) if standing.since > standing.submitted else now
    return Step(
        Change(id=id, status="done"),
        Standing(
            state=TRANSITIONS[standing.state, Event.REQUEUE],
            fates=fates,
            due=due,
            since=due,
            submitted=standing.submitted,
            reason="requeued",
        ),
    )


def cancel(id: str, standing: Standing, now: int, *, expected: Expected | None = None) -> Step:
    """Out of the queue; who waited goes on waiting for a requeue, and who is in doubt stays so."""
    change = _barred(id, standing, Event.CANCEL, now, expected)
    if change is not None:
        return Step(change)
    seen = _seen_lost(standing)
    gone = attrs.evolve(
        seen,
        state=TRANSITIONS[standing.state, Event.CANCEL],
        fates=tuple(fate.given_up if fate is Fate.DOUBTFUL else fate for fate in seen.fates),
        settled=now,
        reason="cancelled",
        resumes=None,
    )
    return Step(Change(id=id, status="done"), gone)


def hold(id: str, standing: Standing, now: int, *, reason: str, expected: Expected | None = None) -> Step:
    """Out of the queue, with all that it was; who is in doubt stays so, for nobody has given up on him."""
    change = _barred(id, standing, Event.HOLD, now, expected)
    if change is not None:
        return Step(change)
    kept = attrs.evolve(
        _seen_lost(standing),
        state=TRANSITIONS[standing.state, Event.HOLD],
        settled=now,
        reason=printable(reason),
        resumes=standing.due,
    )
    return Step(Change(id=id, status="done"), kept)


def release(id: str, standing: Standing, now: int, *, expected: Expected | None = None) -> Step:
    """As it was before a person held it."""
    change = _barred(id, standing, Event.RELEASE, now, expected)
    if change is not None:
        return Step(change)
    if standing.resumes is None:
        why = f" ({standing.reason})" if standing.reason else ""
        return Step(
            Change(
                id=id,
                status="refused",
                reason=f"nobody holds it by hand{why}: requeue is for what is held so",
            )
        )
    again = attrs.evolve(
        standing,
        state=TRANSITIONS[standing.state, Event.RELEASE],
        due=standing.resumes,
        settled=None,
        reason="released",
        resumes=None,
    )
    return Step(Change(id=id, status="done"), again)


def purge(id: str, standing: Standing, now: int, *, expected: Expected | None = None) -> Change:
    """Whether it may be removed for good."""
    if standing.leased(now):
        return _leased(id, standing)
    if (changed := _changed(id, standing, expected)) is not None:
        return changed
    if standing.queued:
        why = f"it is {standing.state}: cancel it first"
        return Change(id=id, status="refused", reason=why, state=standing.state)
    return Change(id=id, status="done")


def remembered(id: str, standing: Standing) -> bool:
    """Whether the id of a message that is purged is remembered, so that a repeated put is ``known``.

    It is where somebody received it or may have: a second submit would send
    a second copy.  Where nobody did, ``known`` would be an acknowledgement of
    a message that stands nowhere and is never sent; so the id is free again.
    But a report to a sender is put again whenever somebody catches up with
    what failed: who threw it away threw away just that.
    """
    return _REPORT.fullmatch(id) is not None or not _RECEIVED.isdisjoint(standing.fates)


def _barred(id: str, standing: Standing, event: Event, now: int, expected: Expected | None) -> Change | None:
    if not standing.leased(now) and (changed := _changed(id, standing, expected)) is not None:
        return changed
    if (standing.state, event) not in TRANSITIONS:
        fit = ", ".join(state for state, known in TRANSITIONS if known is event)
        why = f"it is {standing.state}; {event} is for what is {fit}"
        return Change(id=id, status="refused", reason=why, state=standing.state)
    return _leased(id, standing) if standing.leased(now) else None


def _changed(id: str, standing: Standing, expected: Expected | None) -> Change | None:
    """What is said of a message that is not any more what it was chosen for; None where it is."""
    by_hand = standing.resumes is not None
    if expected is None or expected.fits(standing.state, by_hand=by_hand):
        return None
    now = f"it is {standing.state}{' by a person' if by_hand else ''}"
    return Change(id=id, status="refused", reason=f"it has changed meanwhile: {now}", state=standing.state)


def _leased(id: str, standing: Standing) -> Change:
    until: dt.datetime = moment(standing.due)
    if standing.due >= FOREVER:
        return Change(id=id, status="leased", reason=f"it is {ON_ITS_WAY}", until=until)
    return Change(
        id=id, status="leased", reason=f"a worker has it until {until:%Y-%m-%dT%H:%M:%SZ}", until=until
    )


def _nobody(fates: tuple[Fate, ...]) -> str:
    if Fate.DOUBTFUL in fates:
        return "a recipient's fate is doubtful, for he may have it already: say uncertain to send it to him again"
    if Fate.UNCERTAIN in fates:
        return "the recipients left are uncertain, and may have it already: say so to send it to them again"
    return "every recipient has accepted it"
