"""Who sees all that is committed, handed over and taken, and says where a promise is broken.

It keeps a model of its own of what each message's life may be, and shares no
line with the code that it watches.  The numbers are those of the invariants
in the docs (``docs/simulation.md``).
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from outbox.lifecycle import Claim, Fate, PutResult, Released, Retry, Settlement, State
from outbox.message import Message
from outbox.outcome import Outcome, Result, Uncertain
from outbox.protocols import Change

from .verdicts import Answer, odd_verdict

if TYPE_CHECKING:
    from .processing import Process
    from .world import World

__all__ = ["Seen", "Violation", "Witness"]

_OPEN: Final = (State.QUEUED, State.CLAIMED)
_AFTER: Final[Mapping[str, State]] = {
    "delivered": State.DELIVERED,
    "dead": State.DEAD,
    "held": State.HELD,
    "expired": State.EXPIRED,
    "retry": State.QUEUED,
    "released": State.QUEUED,
}


@attrs.frozen
class Violation:
    """A promise that was broken: when, of which message, in words."""

    at: float
    message: str
    text: str

    def __str__(self) -> str:
        return f"at {self.at:.3f} s, {self.message or 'all'}: {self.text}"


@attrs.define(eq=False, kw_only=True)
class Lease:
    """One claim as the witness knows it."""

    claim: Claim
    holder: Process
    granted_at: float
    until: float
    answers: dict[str, Answer] = attrs.Factory(dict)
    took: set[str] = attrs.Factory(set)
    written: bool = False
    over: str = ""


@attrs.define(eq=False, kw_only=True)
class Seen:
    """One message as the witness knows it."""

    message: Message
    due: float
    state: State = State.QUEUED
    fates: dict[str, Fate]
    attempts: int = 0
    lost: int = 0
    lease: Lease | None = None
    takes: dict[str, list[Lease | None]] = attrs.Factory(dict)
    forced: set[str] = attrs.Factory(set)
    handings: int = 0


class Witness:
    """Told of everything, by those who simulate it, at the moment of the commit."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: dict[str, Seen] = {}
        self.purged: set[str] = set()
        self.acknowledged: set[str] = set()
        self.violations: list[Violation] = []
        self.again: Counter[str] = Counter()
        self.copies = 0
        self._leases: dict[tuple[str, str], Lease] = {}
        self._old: dict[str, Seen] = {}

    @property
    def _now(self) -> float:
        return self._world.kernel.now

    def broken(self, text: str, message: str = "") -> None:
        self.violations.append(Violation(self._now, message, text))
        self._world.note(f"BROKEN: {text}", None, message)

    def must(self, holds: bool, text: str, message: str = "") -> None:
        if not holds:
            self.broken(text, message)

    @property
    def unsettled(self) -> Sequence[str]:
        return [name for name, seen in self.seen.items() if seen.state in _OPEN]

    # -- the store

    def put(self, messages: Sequence[Message], results: Sequence[PutResult]) -> None:
        for message, result in zip(messages, results, strict=True):
            self._world.note(f"put: {result.status}", None, message.id)
            known = self.seen.get(message.id)
            if result.status == "known":
                remembered = known is not None or message.id in self.purged
                self.must(remembered, "2: an unknown message is called known", message.id)
                continue
            self.must(known is None, "2: a known message was stored again", message.id)
            seen = Seen(
                message=message,
                due=max(self._now, self._seconds(message.not_before)),
                fates=dict.fromkeys(message.recipients, Fate.WAITING),
            )
            if message.id in self._old:
                seen.takes, seen.handings = self._old[message.id].takes, self._old[message.id].handings
            self.purged.discard(message.id)
            self.seen[message.id] = seen

    def claimed(self, process: Process, claims: Sequence[Claim], lease: dt.timedelta) -> None:
        self.must(len(claims) < 2 or not any(c.lost for c in claims), "a suspect was claimed beside others")
        for claim in claims:
            name = claim.message.id
            self._world.note(f"claimed: attempt {claim.attempt}, lost {claim.lost}", process, name)
            seen = self.seen.get(name)
            if seen is None:
                self.broken("1: a message was claimed that was never stored", name)
                continue
            self._claimed(seen, claim)
            seen.lease = Lease(
                claim=claim, holder=process, granted_at=self._now, until=self._now + lease.total_seconds()
            )
            self._leases[name, claim.token] = seen.lease
            self._compare(name)

    def _claimed(self, seen: Seen, claim: Claim) -> None:
        name = claim.message.id
        self.must(claim.message == seen.message, "3: it was claimed with other content than submitted", name)
        self.must(seen.message.queue not in self._world.suspended, "its queue is suspended", name)
        self.must(not self._leases.get((name, claim.token)), "6: a token came twice", name)
        if seen.state is State.QUEUED:
            self.must(seen.due <= self._now + 1e-4, f"10: claimed before it is due at {seen.due:.3f}", name)
        else:
            self.must(seen.state is State.CLAIMED, f"14: claimed although it is {seen.state}", name)
            self._lease_ended(seen)
        seen.state = State.CLAIMED
        seen.attempts += 1
        self.must(
            (claim.attempt, claim.lost) == (seen.attempts, seen.lost),
            f"9: attempt {claim.attempt}, lost {claim.lost} instead of {seen.attempts}, {seen.lost}",
            name,
        )
        self.must(dict(claim.fates) == seen.fates, "4: the claim tells other fates than were written", name)

    def _lease_ended(self, seen: Seen) -> None:
        """A lease is seen to have run out: for what reason?"""
        lease, name = seen.lease, seen.message.id
        if lease is None:
            self.broken("5: it is claimed by nobody", name)
            return
        self.must(lease.until <= self._now + 1e-4, "5: claimed under a live lease", name)
        holder = lease.holder
        if not holder.alive:
            lease.over = "killed"
        elif holder.given_up:
            lease.over = "left behind at a stop"
        elif holder.frozen or holder.disturbed_at >= lease.granted_at:
            lease.over = "lease lost while held up"
        else:
            self.broken(f"a lease ran out under {holder.name}, which lives and was not held up", name)
        seen.lost += 1
        seen.fates = {r: Fate.DOUBTFUL if f is Fate.WAITING else f for r, f in seen.fates.items()}

    def extended(self, claims: Sequence[Claim], lost: Sequence[Claim], lease: dt.timedelta) -> None:
        gone = {(claim.message.id, claim.token) for claim in lost}
        for claim in claims:
            name = claim.message.id
            held = self._current(claim)
            self.must((held is None) == ((name, claim.token) in gone), "6: extended with a stale token", name)
            if held is not None:
                held.granted_at, held.until = self._now, self._now + lease.total_seconds()

    def settled(self, process: Process, settlements: Sequence[Settlement], stale: Sequence[Claim]) -> None:
        gone = {(claim.message.id, claim.token) for claim in stale}
        for settlement in settlements:
            name, token = settlement.claim.message.id, settlement.claim.token
            lease = self._current(settlement.claim)
            word = "stale " if lease is None else ""
            self._world.note(f"{word}settled: {settlement.verdict.event}", process, name)
            self.must((lease is None) == ((name, token) in gone), "6: a stale token was not refused", name)
            if lease is not None:
                self._settled(self.seen[name], lease, settlement)

    def _settled(self, seen: Seen, lease: Lease, settlement: Settlement) -> None:
        verdict, name = settlement.verdict, seen.message.id
        policy = self._world.scenario.policies[seen.message.queue]
        odd = odd_verdict(seen.message, seen.fates, lease.claim, lease.answers, verdict, policy=policy)
        self.must(not odd, odd, name)
        for recipient, fate in verdict.fates.items():
            fresh = fate is Fate.ACCEPTED and seen.fates[recipient] is not Fate.ACCEPTED
            self.must(not fresh or recipient in lease.took, f"7: {recipient} never got it", name)
        lease.written, seen.lease = True, None
        seen.state, seen.fates = _AFTER[verdict.event], dict(verdict.fates)
        if isinstance(verdict, Released | Retry):
            seen.due = self._now + verdict.delay.total_seconds()
        if isinstance(verdict, Released):
            seen.attempts -= 1
        else:
            seen.lost = 0

    def committed(self, settlements: Sequence[Settlement]) -> None:
        """The commit that holds these is over."""
        for settlement in settlements:
            self._compare(settlement.claim.message.id)

    def unwritten(self, settlements: Sequence[Settlement]) -> None:
        """A commit failed: what came of these is not noted yet."""
        for settlement in settlements:
            self._world.note("its settlement was not written", None, settlement.claim.message.id)

    def changed(self, verb: str, change: Change) -> None:
        """A person's command was answered."""
        self._world.note(f"{verb}: {change.status}", None, change.id)
        seen = self.seen.get(change.id)
        if change.status != "done" or seen is None:
            self.must((seen is None) == (change.status == "unknown"), f"1: {verb} {change.status}", change.id)
            return
        if seen.state is State.CLAIMED:
            self._lease_ended(seen)
        seen.lease = None
        if verb == "purge":
            self.must(seen.state not in _OPEN, "1: a message was purged that was not settled", change.id)
            self._old[change.id] = self.seen.pop(change.id)
            self.purged.add(change.id)
        elif verb == "cancel":
            seen.state = State.CANCELLED
            seen.fates = {r: Fate.UNCERTAIN if f is Fate.DOUBTFUL else f for r, f in seen.fates.items()}
        else:
            self._requeued(seen, uncertain=verb == "requeue-uncertain")
        self._compare(change.id)

    def _requeued(self, seen: Seen, *, uncertain: bool) -> None:
        doubted = [r for r, f in seen.fates.items() if f in (Fate.UNCERTAIN, Fate.DOUBTFUL)]
        if uncertain:
            seen.forced.update(doubted)
        for recipient, fate in seen.fates.items():
            if fate is Fate.FAILED:
                seen.fates[recipient] = Fate.WAITING
            elif fate is Fate.UNCERTAIN and uncertain:
                seen.fates[recipient] = Fate.DOUBTFUL
        seen.state, seen.attempts, seen.lost = State.QUEUED, 0, 0
        seen.due = max(self._now, self._seconds(seen.message.not_before))

    # -- the relays

    def handed_over(self, process: Process, message: Message, recipients: Sequence[str]) -> int:
        """Somebody begins to hand it over; how often that was begun."""
        name = message.id
        claim = process.claim_of(name)
        seen = self.seen.get(name) or self._old.get(name)
        lease = None if claim is None else self._leases.get((name, claim.token))
        if claim is None or seen is None or lease is None:
            self.broken("12: handed over without a claim", name)
            return 0
        self._world.note(f"handed over for {', '.join(recipients)}", process, name)
        seen.handings += 1
        self.must(message == seen.message, "3: handed over with other content than submitted", name)
        self.must(set(recipients) <= set(message.recipients), "12: a recipient whom nobody named", name)
        self._allowed(seen, lease, recipients, process)
        return seen.handings

    def _allowed(self, seen: Seen, lease: Lease, recipients: Sequence[str], process: Process) -> None:
        name = seen.message.id
        frozen = process.asked_before_it_was_frozen(lease.claim, lease.until)
        # A clock may be slow by its drift, and between the question and the handing over there are some steps.
        slack = math.inf if frozen else 0.05
        self.must(self._now <= lease.until + slack, "14: handed over after its lease had run out", name)
        expires = seen.message.expires_at
        self.must(
            expires is None or self._now < self._seconds(expires) + slack,
            "handed over after it expired",
            name,
        )
        for recipient in recipients:
            again = recipient in lease.answers
            self.must(not again, f"4: handed over twice for {recipient} under one lease", name)
            known = seen.lease is not lease or seen.fates[recipient] in (Fate.WAITING, Fate.DOUBTFUL)
            self.must(known, f"4: handed over for {recipient}, who is {seen.fates[recipient]}", name)
        others = process.handing()
        suspects = [other for other in others if other.lost]
        self.must(not suspects, f"handed over beside {[c.message.id for c in suspects]}, a suspect", name)
        alone = not lease.claim.lost or not others
        self.must(alone, f"a suspect beside {[c.message.id for c in others]}", name)
        process.begins(lease.claim)

    def answered(
        self, process: Process, message: Message, recipients: Sequence[str], answer: Outcome | Exception
    ) -> None:
        """What the sender will be told, if he lives."""
        claim = process.claim_of(message.id)
        lease = None if claim is None else self._leases.get((message.id, claim.token))
        if lease is None:
            return
        results: Mapping[str, Result] = answer.results if isinstance(answer, Outcome) else {}
        for recipient in recipients:
            told = results.get(recipient) if isinstance(answer, Outcome) else answer
            lease.answers[recipient] = told

    def taking(
        self, process: Process, message: Message, recipients: Sequence[str], relay: str
    ) -> Callable[[], None]:
        """What happens when the relay takes a copy for each of these."""
        claim = process.claim_of(message.id)
        lease = None if claim is None else self._leases.get((message.id, claim.token))

        def take() -> None:
            for recipient in recipients:
                self._took(message, recipient, lease, relay)

        return take

    def _took(self, message: Message, recipient: str, lease: Lease | None, relay: str) -> None:
        name = message.id
        self._world.note(f"{relay} took it for {recipient}", None, name)
        seen = self.seen.get(name) or self._old.get(name)
        if seen is None or lease is None:
            self.broken("12: a copy of an unknown message", name)
            return
        earlier = seen.takes.setdefault(recipient, [])
        self.copies += 1
        for other in earlier[-1:]:
            cause = (
                "the operator said so" if recipient in seen.forced else self._cause(other, recipient, lease)
            )
            self.again[cause or "none"] += 1
            self.must(bool(cause), f"8: {recipient} got a second copy without a cause", name)
            once = not message.at_most_once or recipient in seen.forced
            self.must(once, f"{recipient} got a second copy of what is at-most-once", name)
        if not lease.over:
            # Who lost his lease took nothing of what the operator allowed.
            seen.forced.discard(recipient)
        earlier.append(lease)
        lease.took.add(recipient)

    def _cause(self, earlier: Lease | None, recipient: str, now: Lease) -> str:
        """Why the earlier copy was not known of."""
        if now.over:
            # Who lost his lease went on with what he had begun.
            return now.over
        if earlier is None or earlier is now:
            return ""
        if earlier.written:
            doubtful = isinstance(earlier.answers.get(recipient), Uncertain | None)
            return "uncertain attempt" if doubtful else ""
        return earlier.over

    # --

    def _current(self, claim: Claim) -> Lease | None:
        seen = self.seen.get(claim.message.id)
        lease = None if seen is None else seen.lease
        return lease if lease is not None and lease.claim.token == claim.token else None

    def _compare(self, name: str) -> None:
        """The record says what the witness knows."""
        seen, record = self.seen.get(name), self._world.store.get(name)
        if seen is None or record is None:
            self.must(seen is None and record is None, "1: it is in no state, or in one too many", name)
            return
        there = record.summary
        told = (there.state, dict(there.fates), there.attempts, there.lost)
        due = (seen.state, seen.fates, seen.attempts, seen.lost)
        self.must(told == due, f"15: the record says {told}, and {due} was written", name)
        self.must(record.message == seen.message, "3: the record has other content", name)

    def at_the_end(self) -> None:
        """What holds when nothing goes on any more."""
        for name in self.unsettled:
            self.broken(f"it is still {self.seen[name].state} long after the last fault", name)
        for name in self.acknowledged:
            self.must(name in self.seen or name in self.purged, "1: acknowledged, and gone", name)
        for name in self.seen:
            self._compare(name)
        shown = sum(row.number for row in self._world.store.count())
        self.must(shown == len(self.seen), f"16: {shown} are counted, and {len(self.seen)} are there")

    def _seconds(self, moment: dt.datetime | None) -> float:
        return 0.0 if moment is None else self._world.seconds(moment)
