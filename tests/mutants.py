"""One rule of the house broken at a time, in the code that runs in production: the simulation has to see each of them."""

from __future__ import annotations

import datetime as dt
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import attrs
import pytest

from outbox import (
    delivery,
    demand,
    desk,
    errands,
    judge,
    leases,
    lifecycle,
    performer,
    retry,
    screener,
    screening,
    shift,
    tray,
)
from outbox.lifecycle import Claim, Dead, Delivered, Fate, Settlement, State
from outbox.outcome import Accepted, PermFailed, Uncertain
from outbox.protocols import Delivery
from outbox.relay import breaker, rates, relays
from outbox.stores import retention, shelf, standing

Breaking: TypeAlias = Callable[[pytest.MonkeyPatch], None]


@attrs.frozen
class Mutant:
    """A rule, how it is broken, and a seed in whose world that was seen."""

    name: str
    breaking: Breaking
    seed: int


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

    def at_once(id: str, there: standing.Standing, now: int, **more: Any) -> standing.Step:
        return cancel(id, attrs.evolve(there, due=min(there.due, now)), now, **more)

    patch.setattr(standing, "cancel", at_once)


def hand_a_cancelled_message_over(patch: pytest.MonkeyPatch) -> None:
    """Whoever had its lease lost does not ask whether he has it still."""
    patch.setattr(leases.Leases, "alive", lambda self, claim, now: self._leases.get(claim.key))


def deliver_a_suspect_beside_others(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(desk.Desk, "deal", lambda self, lane, claim, now, closed=None: self._stock.put(lane, claim))


def lose_what_was_pulled_ahead(patch: pytest.MonkeyPatch) -> None:
    drop = desk.Desk.drop

    def forgetful(self: desk.Desk, worker: Any, now: float) -> None:
        self._roster[worker].hand.clear()
        drop(self, worker, now)

    patch.setattr(desk.Desk, "drop", forgetful)


def forget_what_was_noted_when_the_store_falters(patch: pytest.MonkeyPatch) -> None:
    def faltered(self: desk.Desk, *_: Any) -> None:
        self._tray.written()

    patch.setattr(desk.Desk, "faltered", faltered)


def forget_what_alone_could_not_be_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tray.Tray, "stick", lambda self, now: self.written())


def let_go_of_what_alone_could_not_be_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tray.Tray, "part", lambda self, left: self.written())


def tell_of_what_could_not_be_written(patch: pytest.MonkeyPatch) -> None:
    rest = delivery._tell_of_the_rest

    def careless(noted: Any, left: Any) -> Any:
        return rest(noted, None if left is None else ())

    patch.setattr(delivery, "_tell_of_the_rest", careless)


def tell_nobody_of_what_was_written_beside_it(patch: pytest.MonkeyPatch) -> None:
    rest = delivery._tell_of_the_rest
    patch.setattr(delivery, "_tell_of_the_rest", lambda noted, left: rest(noted, None))


def begin_more_while_the_store_falters(patch: pytest.MonkeyPatch) -> None:
    def careless(self: desk.Desk, *_: Any) -> None:
        self._tray.falter()
        self._tray.faltering = False

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


def otherwise(owner: Any, name: str, old: str, new: str) -> Breaking:
    """A function of the house with other words in it."""

    def breaking(patch: pytest.MonkeyPatch) -> None:
        there: Any = inspect.getattr_static(owner, name)
        function = inspect.unwrap(getattr(there, "fget", there))
        source = textwrap.dedent(inspect.getsource(function))
        assert source.count(old) == 1, f"{name} has changed: mend this mutant"
        made: dict[str, Any] = {}
        code = compile("from __future__ import annotations\n" + source.replace(old, new), name, "exec")
        exec(code, function.__globals__, made)
        patch.setattr(owner, name, made[function.__name__])

    return breaking


def another(owner: Any, name: str, value: object) -> Breaking:
    """Another value, or function, in the place of one."""
    return lambda patch: patch.setattr(owner, name, value)


MUTANTS: Final[tuple[Mutant, ...]] = (
    Mutant("drop_the_token_check", drop_the_token_check, 6),
    Mutant("settle_before_deliver", settle_before_deliver, 1),
    Mutant("count_attempts_late", count_attempts_late, 1),
    Mutant("forget_a_refused_recipient", forget_a_refused_recipient, 5),
    Mutant("take_a_refusal_for_an_acceptance", take_a_refusal_for_an_acceptance, 5),
    Mutant("retry_an_uncertain_under_hold", retry_an_uncertain_under_hold, 4),
    Mutant("forget_an_acceptance", forget_an_acceptance, 1),
    Mutant(
        "probe_with_the_message_that_tripped_the_breaker", probe_with_the_message_that_tripped_the_breaker, 5
    ),
    Mutant("ignore_expiry", ignore_expiry, 4),
    Mutant("cancel_under_a_live_lease", cancel_under_a_live_lease, 1),
    Mutant("hand_a_cancelled_message_over", hand_a_cancelled_message_over, 4),
    Mutant("deliver_a_suspect_beside_others", deliver_a_suspect_beside_others, 1),
    Mutant("lose_what_was_pulled_ahead", lose_what_was_pulled_ahead, 299),
    Mutant("forget_what_was_noted_when_the_store_falters", forget_what_was_noted_when_the_store_falters, 30),
    Mutant("forget_what_alone_could_not_be_written", forget_what_alone_could_not_be_written, 237),
    Mutant("let_go_of_what_alone_could_not_be_written", let_go_of_what_alone_could_not_be_written, 99),
    Mutant("tell_of_what_could_not_be_written", tell_of_what_could_not_be_written, 124),
    Mutant("tell_nobody_of_what_was_written_beside_it", tell_nobody_of_what_was_written_beside_it, 277),
    Mutant("begin_more_while_the_store_falters", begin_more_while_the_store_falters, 102),
    Mutant("drop_the_hold_of_at_most_once", drop_the_hold_of_at_most_once, 5),
    Mutant("send_to_an_accepted_recipient_again", send_to_an_accepted_recipient_again, 4),
    Mutant("release_without_refund", release_without_refund, 1),
    Mutant("stop_extending_leases", stop_extending_leases, 17),
    Mutant("forget_a_doubt", forget_a_doubt, 1),
    Mutant("never_hold_a_poison", never_hold_a_poison, 2),
    Mutant("charge_a_message_for_its_relay", charge_a_message_for_its_relay, 5),
    Mutant("be_deaf_to_news", be_deaf_to_news, 1),
    Mutant("leave_what_was_claimed_at_a_stop", leave_what_was_claimed_at_a_stop, 33),
    Mutant("claim_what_is_suspended", claim_what_is_suspended, 1),
    Mutant("retry_at_once", retry_at_once, 1),
    Mutant("hand_over_whatever_was_pulled_ahead", hand_over_whatever_was_pulled_ahead, 556),
    Mutant("give_the_lease_from_the_answer_on", give_the_lease_from_the_answer_on, 6),
    # -- the judge and the policy
    Mutant(
        "allow one attempt too many",
        otherwise(delivery, "judge", "next_wait(claim.attempt,", "next_wait(max(1, claim.attempt - 1),"),
        1,
    ),
    Mutant(
        "never give up by count",
        otherwise(
            retry.RetryPolicy,
            "next_wait",
            "if self.attempts is not None and attempt >= self.attempts:",
            "if False:",
        ),
        90,
    ),
    Mutant(
        "give up at the first 450",
        otherwise(
            delivery, "judge", "wait = policy.next_wait(claim.attempt, age=claim.age, rng=rng)", "wait = None"
        ),
        1,
    ),
    Mutant(
        "spare nobody whom a relay kept from his attempt",
        another(judge, "_spared", lambda *_: frozenset()),
        132,
    ),
    Mutant(
        "retry after thirty times as long",
        otherwise(delivery, "judge", "Retry(delay=delay,", "Retry(delay=delay * 30,"),
        1,
    ),
    Mutant("take no notice of what a reply asks for", another(judge, "_asked", lambda _: _NOTHING), 1),
    Mutant("wait past the expiry", another(judge, "_capped", lambda delay, _: delay), 37),
    Mutant(
        "come back at once to a relay that failed",
        otherwise(judge, "_put_back", "delay=_capped(wait, claim)", "delay=_ZERO"),
        5,
    ),
    Mutant("hold a poison one claim later", another(judge, "POISON_LIMIT", 5), 2),
    Mutant("take the silent for a no", otherwise(delivery, "judge", "_SILENT", 'TempFailed("")'), 4),
    Mutant(
        "expire a minute early",
        otherwise(
            delivery,
            "before",
            "claim.expires_in <= since:",
            "claim.expires_in <= since + dt.timedelta(minutes=1):",
        ),
        2,
    ),
    Mutant("let a hook undo what was accepted", another(judge, "_check_fates", lambda *_: None), 215),
    Mutant("ask no hook", another(delivery, "amendable", lambda *_: False), 15),
    # -- the desk
    Mutant(
        "begin a suspect before the others are written",
        otherwise(
            desk.Desk,
            "_run_of_suspect",
            "if not (self._at_work or self._tray.moving or self._aside):",
            "if not self._at_work:",
        ),
        16,
    ),
    Mutant(
        "end no worker at a stop", otherwise(desk.Desk, "over", "return self._stopping", "return False"), 2
    ),
    Mutant(
        "end a drain at once",
        otherwise(
            desk.Desk,
            "over",
            "not (more or self._at_work) and (self.dry or self._demand.left == 0)",
            "not self._at_work",
        ),
        13,
    ),
    Mutant(
        "claim past a drain's limit",
        otherwise(
            demand.Demand, "number", "missing if self.left is None else min(missing, self.left)", "missing"
        ),
        65,
    ),
    # -- the scripts and who performs them
    Mutant(
        "tell a stale verdict as settled",
        otherwise(delivery, "_tell", "stale = claim.key in gone", "stale = False"),
        4,
    ),
    Mutant("tell nobody", another(delivery, "_tell", lambda *_: iter(())), 2),
    Mutant(
        "tell before it is written",
        otherwise(
            delivery,
            "clerk",
            "        try:\n",
            "        yield from _tell(collected.noted, ())\n        try:\n",
        ),
        1,
    ),
    Mutant("ask a failing store again at once", another(delivery, "_back_off", lambda *_: _NOTHING), 1),
    Mutant(
        "count nothing",
        otherwise(performer.Performer, "_tell", "self._counts[_COUNTED[notice.verdict.event]] += 1", "pass"),
        13,
    ),
    Mutant(
        "go on to the next relay whatever became of the lease",
        another(performer.Performer, "_still_ours", lambda *_: True),
        4,
    ),
    Mutant(
        "begin a lease when the store answered",
        otherwise(
            shift.Shift,
            "_asking",
            "self._exchanged(exchanged, limit, begun)",
            "self._exchanged(exchanged, limit, self._orders.clock.monotonic())",
        ),
        6,
    ),
    Mutant("suppress nobody", another(screener, "suppressed", lambda *_: {}), 13),
    Mutant("know of no suspension", another(screening.Suspended, "withheld", lambda *_: {}), 308),
    # -- the relays
    Mutant(
        "pause no relay",
        otherwise(breaker.Breaker, "closed", "if self._opens - now > ROUNDING:", "if False:"),
        28,
    ),
    Mutant("pause a relay at the first lost connection", another(breaker, "_IN_A_ROW", 1), 4),
    Mutant("pause no relay for lost connections", another(breaker, "_IN_A_ROW", 1_000_000), 337),
    Mutant("take no notice of what a relay asks for", another(breaker, "_asked", lambda _: 0.0), 6),
    Mutant(
        "end any pause by any answer",
        otherwise(
            breaker.Breaker,
            "answered",
            "self.fault is not None and self.probe != message and (self.fault.costly or self._asked)",
            "False",
        ),
        319,
    ),
    Mutant("go on in a pause that another met", another(shift.Shift, "_shut", lambda *_: False), 993),
    Mutant(
        "count no connections",
        otherwise(relays._Relay, "crowded", "room.taken >= self.width or room.in_use >= room.most", "False"),
        27,
    ),
    Mutant("count no rate", another(rates.Rates, "wait", lambda *_: 0.0), 8),
    Mutant("free no connection", another(errands.Errands, "leave", lambda *_, **__: None), 1),
    # -- the store
    Mutant("remember whom nobody reached", another(retention, "remembered", lambda *_: True), 618),
    Mutant("keep no evidence", another(standing, "recorded", lambda history, _: tuple(history)), 1),
    Mutant(
        "count the age from the last attempt",
        otherwise(standing, "settled", "since=standing.since", "since=now"),
        1,
    ),
    Mutant(
        "keep the age of what is requeued",
        otherwise(standing, "requeue", "since=due", "since=standing.since"),
        8,
    ),
)
