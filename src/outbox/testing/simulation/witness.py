"""Who sees all that is committed, handed over and taken, and says where a promise is broken.

It keeps a model of its own of what each message's life may be, and shares no
line with the code that it watches.  The numbers are those of the invariants
in the docs (``docs/simulation.md``).
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from outbox.events import LeaseLost, Notice, Settled
from outbox.lifecycle import (
    Attempt,
    Claim,
    Expired,
    Fate,
    PutResult,
    Released,
    Retry,
    Settlement,
    State,
    Verdict,
)
from outbox.message import Message
from outbox.outcome import Accepted
from outbox.protocols import Change

from .handing import HandingLedger
from .seen import Lease, Seen, Violation
from .timing import odd_release, odd_time
from .verdicts import odd_verdict

if TYPE_CHECKING:
    from .processing import Process

__all__ = ["Violation", "Witness"]

_OPEN: Final = (State.QUEUED, State.CLAIMED)
_HAVE_IT: Final = frozenset({Fate.ACCEPTED, Fate.UNCERTAIN, Fate.DOUBTFUL})
_SOON: Final = 30.0
_ROUNDING: Final = 1e-3
_AFTER: Final[Mapping[str, State]] = {
    "delivered": State.DELIVERED,
    "dead": State.DEAD,
    "held": State.HELD,
    "expired": State.EXPIRED,
    "retry": State.QUEUED,
    "released": State.QUEUED,
}


class Witness(HandingLedger):
    """Told of everything, by those who simulate it, at the moment of the commit."""

    # -- the store

    def remembers(self, name: str) -> bool:
        """Whether the store knows this id: for what it stores under a lease it does not tell."""
        forgotten = name in self._old and not _HAVE_IT & set(self._old[name].fates.values())
        return name in self.seen or (name in self.purged and not forgotten)

    def put(
        self, messages: Sequence[Message], results: Sequence[PutResult], *, claimed: bool = False
    ) -> None:
        for message, result in zip(messages, results, strict=True):
            self._world.note(f"put: {result.status}", None, message.id)
            known = self.seen.get(message.id)
            if result.status == "known":
                self._known(message.id, known)
                continue
            self.must(known is None, "2: a known message was stored again", message.id)
            due = max(self._now, self._seconds(message.not_before))
            fates = dict.fromkeys(message.recipients, Fate.WAITING)
            seen = Seen(message=message, due=due, since=due, fates=fates)
            if message.id in self._old:
                seen.takes, seen.handings = self._old[message.id].takes, self._old[message.id].handings
            self.purged.discard(message.id)
            self.seen[message.id] = seen
            if not claimed:
                self._compare(message.id)

    def _known(self, name: str, known: Seen | None) -> None:
        remembered = known is not None or name in self.purged
        self.must(remembered, "2: an unknown message is called known", name)
        if known is None and name in self._old:
            somebody = _HAVE_IT & set(self._old[name].fates.values())
            self.must(bool(somebody), "2: called known, and it stands nowhere and nobody has it", name)

    def refused(self, messages: Sequence[Message]) -> None:
        """A put failed before its commit: it left nothing."""
        for message in messages:
            self._compare(message.id)

    def claimed(
        self, process: Process, claims: Sequence[Claim], lease: dt.timedelta, *, sent: bool = False
    ) -> None:
        self.must(len(claims) < 2 or not any(c.lost for c in claims), "a suspect was claimed beside others")
        if not sent:
            process.dry = not claims
        for claim in claims:
            name = claim.message.id
            self._world.note(f"claimed: attempt {claim.attempt}, lost {claim.lost}", process, name)
            seen = self.seen.get(name)
            if seen is None:
                self.broken("1: a message was claimed that was never stored", name)
                continue
            self._claimed(seen, claim)
            now = self._now
            seen.lease = Lease(
                claim=claim,
                holder=process,
                claimed_at=now,
                granted_at=now,
                until=now + lease.total_seconds(),
                sent=sent,
            )
            self._leases[name, claim.token] = seen.lease
            self._compare(name)

    def _claimed(self, seen: Seen, claim: Claim) -> None:
        name = claim.message.id
        self.must(claim.message == seen.message, "3: it was claimed with other content than submitted", name)
        suspended = ("queue", seen.message.queue) in self._world.suspended
        self.must(not suspended, "its queue is suspended", name)
        self.must(not self._leases.get((name, claim.token)), "6: a token came twice", name)
        if seen.state is State.QUEUED:
            self.must(seen.due <= self._now + 1e-4, f"10: claimed before it is due at {seen.due:.3f}", name)
        else:
            self.must(seen.state is State.CLAIMED, f"14: claimed although it is {seen.state}", name)
            self._lease_ended(seen)
        seen.state = State.CLAIMED
        seen.attempts += 1
        if (claim.attempt, claim.lost) != (seen.attempts, seen.lost):
            told, due = (claim.attempt, claim.lost), (seen.attempts, seen.lost)
            self.broken(f"9: attempt and lost claims are {told} instead of {due}", name)
        self.must(dict(claim.fates) == seen.fates, "4: the claim tells other fates than were written", name)
        age = max(0.0, self._now - seen.since)
        if abs(claim.age.total_seconds() - age) > _ROUNDING:
            self.broken(f"9: it is said to be {claim.age} old, and is {age} s", name)

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
        gone = {claim.key for claim in lost}
        for claim in claims:
            name = claim.message.id
            held = self._current(claim)
            self.must((held is None) == ((name, claim.token) in gone), "6: extended with a stale token", name)
            if held is not None:
                held.granted_at, held.until = self._now, self._now + lease.total_seconds()

    def settled(self, process: Process, settlements: Sequence[Settlement], stale: Sequence[Claim]) -> None:
        gone = {claim.key for claim in stale}
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
        told = self._told_to(lease, verdict)
        odd = self._odd(seen, told, settlement)
        self.must(not odd, odd, name)
        for recipient, fate in verdict.fates.items():
            fresh = fate is Fate.ACCEPTED and seen.fates[recipient] is not Fate.ACCEPTED
            self.must(not fresh or recipient in told.took, f"7: {recipient} never got it", name)
        early = isinstance(verdict, Expired) and self._now < self._expires(seen.message) - 0.05
        # How long ago it was claimed counts from before the store was asked: a slow one makes it look older.
        self.must(not early, "it is expired before its time", name)
        lease.written, seen.lease = True, None
        seen.state, seen.fates = _AFTER[verdict.event], dict(verdict.fates)
        if isinstance(verdict, Released | Retry):
            seen.due = self._now + verdict.delay.total_seconds()
        if isinstance(verdict, Released):
            seen.attempts -= 1
            return
        seen.lost = 0
        if not lease.sent:
            lease.holder.tried += 1
            # What a drain gives back as it was counts for nothing.
            most = lease.holder.host.limit or math.inf
            self.must(lease.holder.tried <= most, f"a drain of {most} tried {lease.holder.tried}", name)

    def _told_to(self, lease: Lease, verdict: Verdict) -> Lease:
        """The lease under which was told what is written now: an earlier one, where this very verdict was stuck."""
        others = (each for each in self._leases.values() if each.holder is lease.holder)
        return next((each for each in others if each.stuck is verdict), lease)

    def _odd(self, seen: Seen, lease: Lease, settlement: Settlement) -> str:
        """What is wrong with a verdict by what was told of the message."""
        claim, verdict, expected = lease.claim, settlement.verdict, lease.expected
        if expected is not None:
            odd = expected.odd(verdict, draining=lease.holder.host.drains)
            if odd:
                return odd
            verdict = expected.judged
        elif self._world.scenario.hooked and lease.answers and not self._accepted_anew(seen, settlement):
            return "the hook was not asked"
        answers = lease.answers if isinstance(verdict, Released) else self._told_of(lease)
        policy = self._world.scenario.policies[seen.message.queue]
        fates = seen.fates if lease.stuck is None else claim.fates
        odd = odd_verdict(seen.message, fates, claim, answers, verdict, policy=policy)
        if isinstance(verdict, Released) and not lease.holder.host.drains:
            return odd or odd_release(claim, answers, verdict)
        if odd or not answers or isinstance(verdict, Released | Expired) or not self._all_is_known(lease):
            return odd
        return odd_time(claim, answers, verdict, policy)

    def _accepted_anew(self, seen: Seen, settlement: Settlement) -> bool:
        fates = settlement.verdict.fates
        return any(fates[r] is Fate.ACCEPTED is not fate for r, fate in seen.fates.items())

    def _all_is_known(self, lease: Lease) -> bool:
        """Whether who was told nothing was kept from his attempt by a relay, and not by the end of the lease."""
        return not self._cut_short(lease, self._told_of(lease))

    def committed(self, settlements: Sequence[Settlement]) -> None:
        """The commit that holds these is over."""
        for settlement in settlements:
            self._compare(settlement.claim.message.id)

    def unwritten(self, settlements: Sequence[Settlement]) -> None:
        """A commit failed: what came of these is not noted yet."""
        for settlement in settlements:
            self._world.note("its settlement was not written", None, settlement.claim.message.id)

    def stuck(self, settlements: Sequence[Settlement]) -> None:
        """A commit left these out: others are begun meanwhile."""
        self.unwritten(settlements)
        for settlement in settlements:
            if (lease := self.lease_of(settlement.claim)) is not None:
                lease.stuck = settlement.verdict

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
        self._count()

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
        seen.due = seen.since = max(self._now, self._seconds(seen.message.not_before))

    # -- the listeners

    def told(self, process: Process, notice: Notice) -> None:
        """A listener of *process* is told."""
        if not isinstance(notice, Settled | LeaseLost):
            return
        lease, name = self.lease_of(notice.claim), notice.claim.message.id
        if lease is None:
            self.broken("told of a claim that nobody made", name)
            return
        process.told[type(notice).__name__] += not lease.sent
        self.must(not lease.told, "told twice", name)
        lease.told = True
        if isinstance(notice, Settled):
            self.must(lease.written, "told that it is settled, and it is not", name)
        else:
            self.must(
                not (lease.written and lease.undisturbed), "told that it is lost, and it is settled", name
            )

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
        if told != due:
            # It is asked at each commit: words that nobody reads would take longer than the question.
            self.broken(f"15: the record says {told}, and {due} was written", name)
        self.must(record.message == seen.message, "3: the record has other content", name)
        if there.due_at is not None:
            at = self._seconds(there.due_at)
            if abs(at - seen.due) > _ROUNDING:
                self.broken(f"10: due at {at}, and {seen.due} was written", name)
        if seen.state in (State.DELIVERED, State.DEAD):
            self.must(_proven(seen, record.history), f"7: {seen.state} without its evidence", name)

    def _count(self) -> None:
        """What is shown is what is there."""
        shown = {(row.queue, row.state): row.number for row in self._world.store.count()}
        there = Counter((seen.message.queue, seen.state) for seen in self.seen.values())
        if shown != there:
            self.broken(f"16: {shown} are counted, and {dict(there)} are there")

    @property
    def hushed(self) -> bool:
        """Whether somebody who is well has still to say what he settled: he may rest until he asks a store again that failed."""
        return any(_untold(lease) and lease.holder.well for lease in self._leases.values())

    def at_the_end(self) -> None:
        """What holds when nothing goes on any more."""
        for name in self.unsettled:
            self.broken(f"it is still {self.seen[name].state} long after the last fault", name)
        for name in self.acknowledged:
            self.must(name in self.seen or name in self.purged, "1: acknowledged, and gone", name)
        for name in self.seen:
            self._compare(name)
        for lease in self._leases.values():
            # A store may still be about to say that it has written it.
            at_rest = self._now > lease.holder.disturbed_at
            quiet = lease.holder.well and at_rest and self._now - lease.granted_at > _SOON
            self.must(not (quiet and _untold(lease)), "settled, and nobody was told", lease.claim.message.id)
        self._count()

    def _seconds(self, moment: dt.datetime | None) -> float:
        return 0.0 if moment is None else self._world.seconds(moment)


def _proven(seen: Seen, history: Sequence[Attempt]) -> bool:
    if not history or history[-1].event.value != seen.state.value:
        return False
    accepted = {r for made in history for r, result in made.results.items() if isinstance(result, Accepted)}
    return seen.state is State.DEAD or accepted >= seen.fates.keys()


def _untold(lease: Lease) -> bool:
    return lease.written and not lease.told and not (lease.sent and not lease.undisturbed)
