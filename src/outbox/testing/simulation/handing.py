"""The witness at the relays: who hands over what, by which right, and why there is a second copy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from outbox.errors import ConfigurationError, RelayFault
from outbox.lifecycle import Claim, Fate, Verdict
from outbox.message import Message
from outbox.outcome import Outcome, Result

from .seen import Lease, Ledger, Seen
from .verdicts import POISON, Answer, Expected, silent

if TYPE_CHECKING:
    from .processing import Process

__all__ = ["HandingLedger"]

_DRIFT: Final = 0.05
"""The seconds by which a clock may be slow."""
_OPEN: Final = (Fate.WAITING, Fate.DOUBTFUL)
_A_MOMENT: Final = 1.1
_READ_AGAIN: Final = 12.0
"""The seconds that may have passed since a crew, or whoever sends by himself, asked what is suspended."""


class HandingLedger(Ledger):
    """What is handed over, answered and taken."""

    # -- what a user's own functions say

    def suppressed(self, process: Process, message: Message, answers: Mapping[str, Answer]) -> None:
        """The user's function was asked, and said that of some."""
        lease = self.lease_of(process.claim_of(message.id))
        if lease is None:
            self.broken("12: asked whom to suppress without a claim", message.id)
        else:
            lease.suppressed = dict(answers)

    def amended(self, claim: Claim, judged: Verdict, expected: Expected) -> None:
        """The hook was asked."""
        lease = self.lease_of(claim)
        if lease is None:
            self.broken("12: the hook was asked without a claim", claim.message.id)
            return
        fresh = [r for r, fate in judged.fates.items() if (claim.fates[r], fate) in _NEWLY]
        self.must(not fresh, f"the hook is asked though it was accepted for {fresh}", claim.message.id)
        lease.expected = expected

    # -- what a transport does

    def handed_over(self, process: Process, message: Message, recipients: Sequence[str]) -> int:
        """Somebody begins to hand it over; how often that was begun."""
        name = message.id
        seen = self.seen.get(name) or self._old.get(name)
        lease = self.lease_of(process.claim_of(name))
        if seen is None or lease is None:
            self.broken("12: handed over without a claim", name)
            return 0
        self._world.note(f"handed over for {', '.join(recipients)}", process, name)
        seen.handings += 1
        self.must(message == seen.message, "3: handed over with other content than submitted", name)
        self.must(set(recipients) <= set(message.recipients), "12: a recipient whom nobody named", name)
        self._allowed(seen, lease, recipients, process)
        self._in_time(seen, lease)
        for recipient in recipients:
            self._welcome(lease, recipient)
        if not lease.sent:
            self._alone(lease, process)
            process.begins(lease.claim)
        return seen.handings

    def _allowed(self, seen: Seen, lease: Lease, recipients: Sequence[str], process: Process) -> None:
        name = seen.message.id
        self.must(
            lease.claim.lost < POISON, f"9: handed over after {lease.claim.lost} were lost in a row", name
        )
        for recipient in recipients:
            again = recipient in lease.answers
            self.must(not again, f"4: handed over twice for {recipient} under one lease", name)
            known = seen.lease is not lease or seen.fates[recipient] in _OPEN
            self.must(known, f"4: handed over for {recipient}, who is {seen.fates[recipient]}", name)
        slack = process.late_by(lease.claim, process.stopping_at)
        # The others of a message's relays are asked though it is to stop: what is under way may finish.
        may = self._now <= process.stopping_at + slack or lease.sent or bool(lease.answers)
        self.must(may, "handed over though its process is to stop", name)

    def _in_time(self, seen: Seen, lease: Lease) -> None:
        name = seen.message.id
        slack = _DRIFT
        self.must(self._now <= lease.until + slack, "14: handed over after its lease had run out", name)
        in_time = self._now < self._expires(seen.message) + slack
        self.must(in_time, "handed over after it expired", name)

    def _welcome(self, lease: Lease, recipient: str) -> None:
        """Nobody has said that he is not to be written to."""
        name, world = lease.claim.message.id, self._world
        since = world.suppressed_since(recipient)
        suppressed = recipient in lease.suppressed or since < lease.claimed_at
        self.must(not suppressed, f"handed over for {recipient}, who is suppressed", name)
        found = world.suspended_since(lease.claim.message, recipient)
        holder = lease.holder
        held_up = found < max(holder.disturbed_at, holder.thawed_at)
        old = _READ_AGAIN if lease.sent else _A_MOMENT
        known = found < lease.claimed_at - old and not held_up
        self.must(not known, f"handed over for {recipient}, who is suspended", name)

    def _alone(self, lease: Lease, process: Process) -> None:
        name, others = lease.claim.message.id, process.handing()
        suspects = [other for other in others if other.lost]
        self.must(not suspects, f"handed over beside {[c.message.id for c in suspects]}, a suspect", name)
        if not lease.claim.lost:
            return
        self.must(not others, f"a suspect beside {[c.message.id for c in others]}", name)
        left = [other.claim.message.id for other in self._leases.values() if self._unwritten(other, lease)]
        self.must(not left, f"a suspect is begun before what was told of {left} is written", name)

    def _unwritten(self, other: Lease, suspect: Lease) -> bool:
        """Whether what was told of it would be lost if the suspect killed their process now."""
        seen = self.seen.get(other.claim.message.id)
        return (
            other is not suspect
            and other.holder is suspect.holder
            and bool(other.answers)
            and not (other.written or other.stuck is not None or other.over or other.sent)
            and other.until > self._now
            and other.undisturbed
            and seen is not None
            and seen.lease is other
        )

    def answered(
        self,
        process: Process,
        message: Message,
        recipients: Sequence[str],
        answer: Outcome | BaseException | None,
    ) -> None:
        """What the sender will be told, if he lives."""
        lease = self.lease_of(process.claim_of(message.id))
        if lease is None:
            return
        results: Mapping[str, Result] = answer.results if isinstance(answer, Outcome) else {}
        for recipient in recipients:
            told = results.get(recipient) if isinstance(answer, Outcome) else answer
            lease.answers[recipient] = told

    def _told_of(self, lease: Lease) -> Mapping[str, Answer]:
        """What the verdict has to follow from: what the relays said, and the user of those they were not asked for."""
        if not lease.suppressed:
            return lease.answers
        faults = [isinstance(each, RelayFault | ConfigurationError) for each in lease.answers.values()]
        told = {**lease.suppressed, **lease.answers}
        # Where no relay said anything of anybody, all are as before; a relay that was not asked any more says nothing.
        return lease.answers if faults and all(faults) and not self._cut_short(lease, told) else told

    def _cut_short(self, lease: Lease, told: Collection[str]) -> bool:
        """Whether the end of the lease or of the message may have kept a relay from being asked."""
        ends = self._expires(lease.claim.message) <= self._now + 0.1
        return not set(lease.claim.recipients) <= set(told) and (ends or not lease.undisturbed)

    # -- what a relay has

    def taking(
        self, process: Process, message: Message, recipients: Sequence[str], relay: str
    ) -> Callable[[], None]:
        """What happens when the relay takes a copy for each of these."""
        lease = self.lease_of(process.claim_of(message.id))

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
            return "uncertain attempt" if silent(earlier.answers.get(recipient)) else ""
        return earlier.over


_NEWLY: Final = tuple((fate, Fate.ACCEPTED) for fate in Fate if fate is not Fate.ACCEPTED)
