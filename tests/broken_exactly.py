"""Stores that are broken where one does not look: in a part of a second, a letter's case, an exchange, or what is counted."""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from breaking import caught_by, changed
from broken_races import OnDisk

from outbox.lifecycle import Claim, Delivered, Fate, Released, Retry, Settlement, State
from outbox.protocols import Change, Exchanged
from outbox.stores.limits import Limits, Load
from outbox.stores.memory import MemoryStore
from outbox.stores.shelf import Shelf

SECOND = 10**6


def cut(span: dt.timedelta) -> dt.timedelta:
    return dt.timedelta(days=span.days, seconds=span.seconds)


def at(settlements: Sequence[Settlement]) -> list[Settlement]:
    """The same, with delays of whole seconds."""
    return [
        Settlement(each.claim, attrs.evolve(each.verdict, delay=cut(each.verdict.delay)))
        if isinstance(each.verdict, Retry | Released)
        else each
        for each in settlements
    ]


# -- parts of a second


@caught_by("test_a_delay_of_part_of_a_second_is_as_long_as_was_said")
class WholeDelays(MemoryStore):
    def settle(self, settlements: Any, /) -> Any:
        return super().settle(at(settlements))


@caught_by("test_a_delay_of_part_of_a_second_is_as_long_in_an_exchange")
class WholeDelaysInExchange(MemoryStore):
    def exchange(self, settlements: Any, /, **order: Any) -> Any:
        return super().exchange(at(settlements), **order)


@caught_by("test_a_lease_of_part_of_a_second_is_as_long_as_was_said")
class WholeLeases(MemoryStore):
    def extend(self, claims: Any, /, *, lease: dt.timedelta) -> Any:
        return super().extend(claims, lease=cut(lease))


@caught_by("test_a_lease_of_part_of_a_second_is_as_long_in_an_exchange")
class WholeLeasesInExchange(MemoryStore):
    def exchange(self, settlements: Any, /, *, lease: dt.timedelta, **order: Any) -> Any:
        return super().exchange(settlements, lease=cut(lease), **order)


@caught_by("test_a_lease_of_part_of_a_second_is_as_long_where_it_was_put_claimed")
class WholeLeasesHandedOver(MemoryStore):
    def put_claimed(self, messages: Any, /, *, lease: dt.timedelta, attempted: bool = False) -> Any:
        return super().put_claimed(messages, lease=cut(lease), attempted=attempted)


def keeps(name: str, clause: str, kept: Callable[[Any], Any]) -> None:
    """A store that keeps another message than it was given."""

    class Keeps(Shelf):
        def _add(self, draft: Any, now: int) -> Any:
            return super()._add(attrs.evolve(draft, message=kept(draft.message)), now)

    Keeps.__name__ = name
    caught_by(clause)(Keeps)


keeps(
    "WholeExpiry",
    "test_what_is_scheduled_for_part_of_a_second_is_due_then_and_ages_since",
    lambda m: attrs.evolve(m, expires_at=m.expires_at and m.expires_at.replace(microsecond=0)),
)
keeps(
    "NoNul",
    "test_attributes_and_sender_come_out_as_they_went_in",
    lambda m: attrs.evolve(m, attributes={k: v.replace("\0", "") for k, v in m.attributes.items()}),
)


@caught_by("test_the_age_is_told_to_the_microsecond")
class WholeAges(Shelf):
    def _add(self, draft: Any, now: int) -> Any:
        row = super()._add(draft, now)
        changed(row, since=now - now % SECOND)
        return row


@caught_by("test_every_instant_of_a_record_is_told_to_the_microsecond")
class WholeInstants(Shelf):
    def settle(self, settlements: Any, fates: Any, now: int) -> Any:
        stale = super().settle(settlements, fates, now)
        for row in self.rows.values():
            row.history = [attrs.evolve(each, at=each.at.replace(microsecond=0)) for each in row.history]
        return stale


# -- names and numbers


@caught_by("test_names_that_differ_in_their_last_character_are_not_the_same")
class FiftyCharacters(Shelf):
    def _known(self, drafts: Any, now: int) -> Any:
        short = {id[:50] for id in self.rows}
        return super()._known(drafts, now) | {
            d.id: d.envelope_digest for d in drafts if d.id[:50] in short and d.id not in self.rows
        }


def folds(name: str, clause: str, folded: Callable[[Sequence[str], Any], Any]) -> None:
    """A store that writes the fates by something else than the recipient."""

    class Folds(Shelf):
        def settle(self, settlements: Any, fates: Any, now: int) -> Any:
            wrong = [folded(s.claim.message.recipients, f) for s, f in zip(settlements, fates, strict=True)]
            return super().settle(settlements, wrong, now)

    Folds.__name__ = name
    caught_by(clause)(Folds)


def by(key: Callable[[str], str]) -> Callable[[Sequence[str], Any], Any]:
    def folded(recipients: Sequence[str], fates: Any) -> Any:
        table = {key(r): fate for r, fate in zip(recipients, fates, strict=True)}
        return tuple(table[key(r)] for r in recipients)

    return folded


ALIKE = "test_recipients_that_are_nearly_alike_have_each_a_fate_of_their_own"
folds("LowerCase", ALIKE, by(str.lower))
folds("Normalized", ALIKE, by(lambda name: unicodedata.normalize("NFC", name)))
folds(
    "AHundredFates",
    "test_each_of_many_recipients_has_a_fate_of_his_own",
    lambda _, fates: fates[:100] + (Fate.WAITING,) * len(fates[100:]),
)


def handed(name: str, **lost: Any) -> None:
    """A store that forgets a part of what is put under a lease."""

    class Handed(MemoryStore):
        def put_claimed(self, messages: Any, /, *, lease: dt.timedelta, attempted: bool = False) -> Any:
            return super().put_claimed(
                [attrs.evolve(m, **lost) for m in messages], lease=lease, attempted=attempted
            )

    Handed.__name__ = name
    caught_by("test_what_is_put_claimed_keeps_all_that_was_said_of_it")(Handed)


handed("HandsNoAttributes", attributes={})
handed("HandsNoPriority", priority=0)
handed("HandsNoExpiry", expires_at=None)


@caught_by("test_two_thousand_are_put_claimed_extended_and_settled_like_one")
class FiveHundred(Shelf):
    def settle(self, settlements: Any, fates: Any, now: int) -> Any:
        return super().settle(settlements[:500], fates[:500], now)


@caught_by("test_eleven_hundred_are_settled_by_one_exchange")
class AThousandExchanged(MemoryStore):
    def exchange(self, settlements: Any, /, **order: Any) -> Any:
        return super().exchange(settlements[:1000], **order)


@caught_by("test_eleven_hundred_are_put_claimed_at_once")
class AThousandHandedOver(MemoryStore):
    def put_claimed(self, messages: Any, /, *, lease: dt.timedelta, attempted: bool = False) -> Any:
        return super().put_claimed(messages[:1000], lease=lease, attempted=attempted)


@caught_by("test_eleven_hundred_are_steered_by_one_command")
class AHundredCancelled(MemoryStore):
    def cancel(self, ids: Any, /, **more: Any) -> Any:
        return [*super().cancel(ids[:100], **more), *(Change(id=id, status="done") for id in ids[100:])]


# -- an exchange that is not all that settle and claim are


@caught_by("test_what_an_exchange_delivered_is_known")
class ExchangeBuriesNothing(MemoryStore):
    def exchange(self, settlements: Any, /, **order: Any) -> Any:
        answer = super().exchange(settlements, **order)
        for each in settlements:
            if isinstance(each.verdict, Delivered):
                self._shelf._tombstones.forget(each.claim.message.id)
        return answer


@caught_by("test_an_exchange_knows_how_often_it_was_lost_and_who_may_have_it")
class ExchangeTrusts(MemoryStore):
    def exchange(self, settlements: Any, /, **order: Any) -> Exchanged:
        answer = super().exchange(settlements, **order)
        for claim in answer.claims:
            changed(self._shelf.rows[claim.message.id], lost=0)
        return Exchanged(answer.lost, [attrs.evolve(claim, lost=0) for claim in answer.claims])


@caught_by("test_an_exchange_takes_nothing_of_a_queue_that_is_suspended_for_a_time")
class ExchangeSeesNoTime(MemoryStore):
    def exchange(self, settlements: Any, /, **order: Any) -> Any:
        shelf = self._shelf
        kept = shelf._suspensions
        shelf._suspensions = {name: each for name, each in kept.items() if each.until is None}
        try:
            return super().exchange(settlements, **order)
        finally:
            shelf._suspensions = kept


def one_by_one(name: str, clause: str, turn: Callable[[list[str]], list[str]]) -> None:
    """A store whose exchange empties a queue before it looks at the next."""

    class OneByOne(MemoryStore):
        def exchange(self, settlements: Any, /, *, limit: int, queues: Any, **order: Any) -> Exchanged:
            lost, claims = self.settle(settlements), list[Claim]()
            for queue in turn(list(queues)):
                claims += self.claim(limit=limit - len(claims), queues=[queue], **order)
            return Exchanged(lost, claims)

    OneByOne.__name__ = name
    caught_by(clause)(OneByOne)


one_by_one("GreedyExchange", "test_the_limit_of_an_exchange_is_shared_evenly_over_the_queues", list)
one_by_one("NoTurns", "test_one_at_a_time_the_queues_take_turns_in_exchanges", sorted)


@caught_by("test_a_message_larger_than_was_asked_for_comes_alone_out_of_an_exchange")
class StuckOnTheLarge(MemoryStore):
    def exchange(self, settlements: Any, /, *, max_bytes: int = 1 << 24, **order: Any) -> Exchanged:
        lost = self.settle(settlements)
        large = any(row.size > max_bytes for row in self._shelf.rows.values())
        return Exchanged(lost, [] if large else self.claim(max_bytes=max_bytes, **order))


@caught_by("test_what_an_exchange_ended_carries_its_evidence")
class ExchangeHidesWhy(MemoryStore):
    def exchange(self, settlements: Any, /, **order: Any) -> Any:
        answer = super().exchange(settlements, **order)
        for each in settlements:
            if (row := self._shelf.rows.get(each.claim.message.id)) is not None:
                row.history = row.history[:-1]
        return answer


@caught_by("test_what_an_exchange_released_was_never_counted")
class ExchangeCharges(MemoryStore):
    def exchange(self, settlements: Any, /, **order: Any) -> Exchanged:
        freed = [each.claim.message.id for each in settlements if isinstance(each.verdict, Released)]
        lost = self.settle(settlements)
        for id in freed:
            changed(self._shelf.rows[id], attempts=1)
        return Exchanged(lost, self.claim(**order))


# -- room that leaks, and room that is there twice


def leaks(name: str, clause: str, verb: str, owed: Callable[[Any, Any, Any], int]) -> None:
    """A store that counts so many messages of a hundred bytes too many (or too few) after a verb of its shelf."""

    class Leaks(Shelf):
        pass

    def leaking(self: Any, *arguments: Any, **more: Any) -> Any:
        before = {id: row.standing.state for id, row in self.rows.items()}
        answer = None
        try:
            answer = getattr(Shelf, verb)(self, *arguments, **more)
        finally:
            number = owed(self, before, (arguments, answer))
            load = Load.of([100] * abs(number))
            self._load = self._load + load if number > 0 else self._load - load
        return answer

    setattr(Leaks, verb, leaking)
    Leaks.__name__ = name
    caught_by(clause)(Leaks)


def gone(shelf: Any, before: Any, _: Any) -> int:
    return -len(before.keys() - shelf.rows.keys())


def refused(_: Any, __: Any, told: Any) -> int:
    return int(told[1] is None)


def done_on_the_queued(shelf: Any, before: Any, told: Any) -> int:
    done = [change.id for change in told[1] if change.status == "done"]
    return sum(before.get(id) is State.QUEUED and shelf.rows[id].standing.queued for id in done)


leaks("RefusedTakesRoom", "test_what_is_refused_or_known_takes_no_room", "put", refused)
leaks("PurgeFreesTwice", "test_what_is_purged_gives_its_room_back_once", "purge", gone)
leaks("PruneFreesTwice", "test_what_is_pruned_gives_its_room_back_once", "prune", gone)
leaks(
    "RequeueTakesTwice",
    "test_what_is_requeued_and_cancelled_takes_and_gives_its_room_once",
    "steer",
    done_on_the_queued,
)
leaks(
    "StaleFrees",
    "test_no_claim_takes_room_and_no_stale_settle_gives_any",
    "settle",
    lambda _, __, told: -len(told[1]),
)
leaks(
    "ReleasedFrees",
    "test_what_goes_back_into_the_queue_keeps_its_room",
    "settle",
    lambda _, __, told: -sum(isinstance(each.verdict, Released) for each in told[0][0]),
)


@caught_by("test_an_exchange_gives_back_the_room_of_what_it_ends_and_of_nothing_else")
class ExchangeKeepsRoom(MemoryStore):
    def exchange(self, settlements: Any, /, **order: Any) -> Any:
        load = self._shelf._load
        answer = super().exchange(settlements, **order)
        self._shelf._load = load
        return answer


@caught_by("test_what_is_put_claimed_takes_its_room_once")
class HandedOverTwice(MemoryStore):
    def put_claimed(self, messages: Any, /, *, lease: dt.timedelta, attempted: bool = False) -> Any:
        claims = super().put_claimed(messages, lease=lease, attempted=attempted)
        self._shelf._load += Load.of(len(claim.message.content) for claim in claims)
        return claims


@caught_by("test_the_content_of_what_is_put_claimed_takes_room")
class HandedOverForNothing(MemoryStore):
    def put_claimed(self, messages: Any, /, *, lease: dt.timedelta, attempted: bool = False) -> Any:
        claims = super().put_claimed(messages, lease=lease, attempted=attempted)
        content = sum(len(claim.message.content) for claim in claims)
        self._shelf._load = attrs.evolve(self._shelf._load, content=self._shelf._load.content - content)
        return claims


@caught_by("test_threads_that_hand_over_at_once_pass_no_limit")
class HandsOverWithoutLimit(MemoryStore):
    def put_claimed(self, messages: Any, /, *, lease: dt.timedelta, attempted: bool = False) -> Any:
        limits, self._shelf._limits = self._shelf._limits, Limits()
        try:
            return super().put_claimed(messages, lease=lease, attempted=attempted)
        finally:
            self._shelf._limits = limits


# -- within the caller's transaction


@caught_by("test_what_was_put_within_a_transaction_keeps_all_that_was_said_of_it")
class WithinAtOnce(OnDisk):
    def within(self, connection: Any, /) -> Any:
        intake = super().within(connection)
        put = intake.put
        intake.put = lambda messages: put([attrs.evolve(m, not_before=None) for m in messages])  # type: ignore[method-assign]  # that is the point
        return intake


@caught_by("test_a_delivered_id_is_known_within_a_transaction")
class WithinForgets(OnDisk):
    def within(self, connection: Any, /) -> Any:
        connection.execute("DELETE FROM outbox_message WHERE state = 'delivered'")
        return super().within(connection)


# -- what was before


@caught_by("test_a_purged_id_is_remembered_since_the_end_of_its_message_and_not_since_the_purge")
class RememberedSinceThePurge(Shelf):
    def discard(self, row: Any, now: int) -> None:
        changed(row, settled=now)
        super().discard(row, now)


@caught_by("test_what_was_tried_before_a_requeue_stays_in_the_history")
class OneOfEachNumber(Shelf):
    def settle(self, settlements: Any, fates: Any, now: int) -> Any:
        stale = super().settle(settlements, fates, now)
        for row in self.rows.values():
            row.history = list({each.number: each for each in row.history}.values())
        return stale
