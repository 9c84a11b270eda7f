"""One rule of the house broken at a time, in the code that runs in production: the simulation has to see each of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import attrs
import pytest

from outbox import delivery, desk, judge, leases, lifecycle, shift
from outbox.lifecycle import Claim, Dead, Delivered, Fate, Settlement, State
from outbox.outcome import Accepted, PermFailed, Uncertain
from outbox.protocols import Delivery
from outbox.relay import breaker
from outbox.stores import shelf, standing

Mutant: TypeAlias = Callable[[pytest.MonkeyPatch], None]

_NOTHING: Final = dt.timedelta(0)


def drop_the_token_check(patch: pytest.MonkeyPatch) -> None:
    def held(self: shelf.Shelf, claim: Claim) -> Any:
        row = self.rows.get(claim.message.id)
        return row if row is not None and row.standing.state is State.CLAIMED else None

    patch.setattr(shelf.Shelf, "held", held)


def settle_before_deliver(patch: pytest.MonkeyPatch) -> None:
    def deliveries(self: Any, worker: Any) -> Iterator[Delivery]:
        while (claim := self._pull(worker)) is not None:
            worker.pulled.append(claim)
            settled = Settlement(
                claim, Delivered(fates=dict.fromkeys(claim.message.recipients, Fate.ACCEPTED))
            )
            self._desk.note(settled)
            self._for_clerk.notify()
            yield Delivery(claim.message, claim.recipients)

    patch.setattr(shift.Shift, "_deliveries", deliveries)


def count_attempts_late(patch: pytest.MonkeyPatch) -> None:
    claimed, settled = standing.claimed, standing.settled
    patch.setattr(standing, "claimed", lambda s, until: attrs.evolve(claimed(s, until), attempts=s.attempts))
    patch.setattr(
        standing,
        "settled",
        lambda s, *rest: attrs.evolve(settled(s, *rest), attempts=s.attempts + 1),
    )


def _fate_of(patch: pytest.MonkeyPatch, kind: type, fate: Callable[[Fate], Fate]) -> None:
    right = judge._fate
    patch.setattr(
        judge, "_fate", lambda c, old, r, p: fate(old) if isinstance(r, kind) else right(c, old, r, p)
    )


def forget_a_refused_recipient(patch: pytest.MonkeyPatch) -> None:
    _fate_of(patch, PermFailed, lambda old: old)


def take_a_refusal_for_an_acceptance(patch: pytest.MonkeyPatch) -> None:
    _fate_of(patch, PermFailed, lambda _: Fate.ACCEPTED)


def retry_an_uncertain_under_hold(patch: pytest.MonkeyPatch) -> None:
    _fate_of(patch, Uncertain, lambda old: old.doubted)


def forget_an_acceptance(patch: pytest.MonkeyPatch) -> None:
    _fate_of(patch, Accepted, lambda old: old)


def probe_with_the_message_that_tripped_the_breaker(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(breaker.Breaker, "behind", lambda *_: None)


def ignore_expiry(patch: pytest.MonkeyPatch) -> None:
    before = judge.before
    timeless = {"expires_in": None}
    patch.setattr(delivery, "before", lambda claim, *rest: before(attrs.evolve(claim, **timeless), *rest))
    sound = desk.Desk._sound
    patch.setattr(
        desk.Desk, "_sound", lambda self, claim, now: sound(self, attrs.evolve(claim, **timeless), now)
    )


def cancel_under_a_live_lease(patch: pytest.MonkeyPatch) -> None:
    cancel = standing.cancel

    def at_once(id: str, there: standing.Standing, now: int) -> standing.Step:
        return cancel(id, attrs.evolve(there, due=min(there.due, now)), now)

    patch.setattr(standing, "cancel", at_once)


def hand_a_cancelled_message_over(patch: pytest.MonkeyPatch) -> None:
    """Whoever had its lease lost does not ask whether he has it still."""
    patch.setattr(leases.Leases, "alive", lambda self, claim, now: self._leases.get(leases._key(claim)))


def deliver_a_suspect_beside_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(desk.Desk, "deal", lambda self, lane, claim, now, closed=None: self._stock.put(lane, claim))


def lose_what_was_pulled_ahead(patch: pytest.MonkeyPatch) -> None:
    drop = desk.Desk.drop

    def forgetful(self: desk.Desk, worker: Any, now: float) -> None:
        self._workers[worker].hand.clear()
        drop(self, worker, now)

    patch.setattr(desk.Desk, "drop", forgetful)


def forget_what_was_noted_when_the_store_falters(patch: pytest.MonkeyPatch) -> None:
    def faltered(self: desk.Desk) -> None:
        self._faltering, self._writing = False, []

    patch.setattr(desk.Desk, "faltered", faltered)


def begin_more_while_the_store_falters(patch: pytest.MonkeyPatch) -> None:
    def careless(self: desk.Desk) -> None:
        self._noted, self._writing = self._writing + self._noted, []

    patch.setattr(desk.Desk, "faltered", careless)


def drop_the_hold_of_at_most_once(patch: pytest.MonkeyPatch) -> None:
    before = judge.before

    def careless(claim: Claim, *rest: Any) -> Any:
        return before(attrs.evolve(claim, message=attrs.evolve(claim.message, at_most_once=False)), *rest)

    patch.setattr(delivery, "before", careless)


def send_to_an_accepted_recipient_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(lifecycle.Claim, "recipients", property(lambda self: self.message.recipients))


def release_without_refund(patch: pytest.MonkeyPatch) -> None:
    settled = standing.settled
    patch.setattr(standing, "settled", lambda s, *rest: attrs.evolve(settled(s, *rest), attempts=s.attempts))


def stop_extending_leases(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases.Leases, "held", lambda _self: [])


def forget_a_doubt(patch: pytest.MonkeyPatch) -> None:
    seen = standing._seen_lost
    patch.setattr(standing, "_seen_lost", lambda s: attrs.evolve(seen(s), fates=s.fates))


def never_hold_a_poison(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(judge, "POISON_LIMIT", 1_000_000)


def charge_a_message_for_its_relay(patch: pytest.MonkeyPatch) -> None:
    def dead(claim: Claim, fault: Exception, *_: Any) -> Dead:
        return Dead(fates=judge._given_up(claim.fates), reason=str(fault))

    patch.setattr(judge, "_relay_fault", dead)


def be_deaf_to_news(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(desk.Desk, "news", lambda _self: None)


def leave_what_was_claimed_at_a_stop(patch: pytest.MonkeyPatch) -> None:
    give_back = desk.Desk._give_back

    def forgetful(self: desk.Desk, now: float, closed: Any) -> None:
        if self._stopping:
            self._clear_all()
        give_back(self, now, closed)

    patch.setattr(desk.Desk, "_give_back", forgetful)


def claim_what_is_suspended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shelf.Shelf, "served", lambda _self, queues, _now: list(queues))


def retry_at_once(patch: pytest.MonkeyPatch) -> None:
    settled = standing.settled

    def hasty(s: standing.Standing, fates: Any, verdict: Any, now: int) -> standing.Standing:
        after = settled(s, fates, verdict, now)
        return attrs.evolve(after, due=now) if after.queued else after

    patch.setattr(standing, "settled", hasty)


def hand_over_whatever_was_pulled_ahead(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(desk.Desk, "goes_on", lambda *_: True)


def give_the_lease_from_the_answer_on(patch: pytest.MonkeyPatch) -> None:
    """By its own clock it ends too late, where the store was slow to answer."""
    claimed = desk.Desk.claimed
    patch.setattr(desk.Desk, "claimed", lambda self, claims, now, _begun: claimed(self, claims, now, now))


MUTANTS: Final[tuple[Mutant, ...]] = (
    drop_the_token_check,
    settle_before_deliver,
    count_attempts_late,
    forget_a_refused_recipient,
    take_a_refusal_for_an_acceptance,
    retry_an_uncertain_under_hold,
    forget_an_acceptance,
    probe_with_the_message_that_tripped_the_breaker,
    ignore_expiry,
    cancel_under_a_live_lease,
    hand_a_cancelled_message_over,
    deliver_a_suspect_beside_others,
    lose_what_was_pulled_ahead,
    forget_what_was_noted_when_the_store_falters,
    begin_more_while_the_store_falters,
    drop_the_hold_of_at_most_once,
    send_to_an_accepted_recipient_again,
    release_without_refund,
    stop_extending_leases,
    forget_a_doubt,
    never_hold_a_poison,
    charge_a_message_for_its_relay,
    be_deaf_to_news,
    leave_what_was_claimed_at_a_stop,
    claim_what_is_suspended,
    retry_at_once,
    hand_over_whatever_was_pulled_ahead,
    give_the_lease_from_the_answer_on,
)
