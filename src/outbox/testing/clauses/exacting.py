"""Nothing is rounded, cut or folded: instants, spans, names, attributes, and however many come at once."""

from __future__ import annotations

import datetime as dt
import unicodedata
from typing import Final

import attrs

from outbox.lifecycle import Claim, Fate, Retry, Settlement
from outbox.message import Message
from outbox.outcome import Outcome, TempFailed
from outbox.protocols import (
    Guarantee,
    SupportsBrowse,
    SupportsExchange,
    SupportsHandOver,
    SupportsManage,
)
from outbox.testing.clock import ManualClock

from .scene import (
    DAY,
    LEASE,
    ZERO,
    Clauses,
    Whole,
    all_of,
    clause,
    dead,
    delivered,
    ids,
    known,
    mail,
    put,
    released,
    retry,
    settle,
    statuses,
    summaries,
    take,
)

__all__ = ["ExactClauses"]

MICRO: Final = dt.timedelta(microseconds=1)
PART: Final = dt.timedelta(microseconds=900_001)
"""Less than a second, and more than its milliseconds."""
MANY: Final = 2000
SEVERAL: Final = 1100
"""More than whoever works a thousand at a time takes at once."""


def claimed_at_last(store: Whole, clock: ManualClock, span: dt.timedelta) -> Claim:
    """What comes when *span* is over, and not a microsecond before."""
    clock.advance(span - MICRO)
    assert take(store) == []
    clock.advance(MICRO)
    (claim,) = take(store, lease=DAY)
    return claim


class ExactClauses(Clauses):
    """To the last microsecond, the last character and the last message."""

    @clause(Guarantee.DELAYS)
    def test_a_delay_of_part_of_a_second_is_as_long_as_was_said(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store)
        for verdict in (retry, released, retry):
            settle(store, claim, verdict(claim, PART))
            claim = claimed_at_last(store, clock, PART)

    @clause(Guarantee.LEASES)
    def test_a_lease_of_part_of_a_second_is_as_long_as_was_said(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        (claim,) = take(store, lease=PART)
        clock.advance(PART - MICRO)
        assert list(store.extend([claim], lease=PART)) == []

        claimed_at_last(store, clock, PART)

    @clause(Guarantee.LEASES, SupportsExchange)
    def test_a_lease_of_part_of_a_second_is_as_long_in_an_exchange(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        assert len(store.exchange([], limit=1, lease=PART, queues=("mail",)).claims) == 1

        claimed_at_last(store, clock, PART)

    @clause(Guarantee.DELAYS, SupportsExchange)
    def test_a_delay_of_part_of_a_second_is_as_long_in_an_exchange(
        self, store: Whole, clock: ManualClock
    ) -> None:
        put(store, "a")
        for verdict in (retry, released):
            (claim,) = take(store)
            verdicts = [Settlement(claim, verdict(claim, PART))]
            store.exchange(verdicts, limit=0, lease=PART, queues=("mail",))
            settle(store, again := claimed_at_last(store, clock, PART), retry(again))

    @clause(Guarantee.LEASES, SupportsHandOver)
    def test_a_lease_of_part_of_a_second_is_as_long_where_it_was_put_claimed(
        self, store: Whole, clock: ManualClock
    ) -> None:
        assert len(store.put_claimed([mail("a")], lease=PART)) == 1

        claimed_at_last(store, clock, PART)

    @clause(Guarantee.DELAYS)
    def test_what_is_scheduled_for_part_of_a_second_is_due_then_and_ages_since(
        self, store: Whole, clock: ManualClock
    ) -> None:
        clock.advance(300_007 * MICRO)
        now = clock.now()
        message = mail("a", not_before=now + PART, expires_at=now + 3 * PART)
        put(store, message)

        claim = claimed_at_last(store, clock, PART)
        assert claim.message == message
        assert (claim.age, claim.expires_in) == (ZERO, 2 * PART)
        settle(store, claim, retry(claim))
        clock.advance(7 * MICRO)
        (claim,) = take(store)
        assert (claim.age, claim.expires_in) == (7 * MICRO, 2 * PART - 7 * MICRO)

    def test_the_age_is_told_to_the_microsecond(self, store: Whole, clock: ManualClock) -> None:
        clock.advance(PART)
        put(store, "a")
        clock.advance(MICRO)

        (claim,) = take(store)
        assert claim.age == MICRO

    @clause(SupportsBrowse, Guarantee.LEASES, Guarantee.DELAYS)
    def test_every_instant_of_a_record_is_told_to_the_microsecond(
        self, store: Whole, clock: ManualClock
    ) -> None:
        clock.advance(PART)
        submitted_at = clock.now()
        put(store, "a")
        clock.advance(PART)
        (claim,) = take(store, lease=PART)
        assert summaries(store)["a"].leased_until == clock.now() + PART
        result = TempFailed("451 later", retry_after=PART)
        verdict = attrs.evolve(retry(claim, PART), outcome=Outcome.same(claim.recipients, result))
        settle(store, claim, verdict)
        retried_at = clock.now()
        assert summaries(store)["a"].due_at == retried_at + PART
        claim = claimed_at_last(store, clock, PART)
        clock.advance(MICRO)
        settle(store, claim, dead(claim))

        record = known(store, "a")
        assert (record.summary.submitted_at, record.summary.settled_at) == (submitted_at, clock.now())
        assert [attempt.at for attempt in record.history] == [retried_at, clock.now()]
        assert dict(record.history[0].results) == {"a@example.org": result}

    # -- names

    @clause(SupportsBrowse)
    def test_names_that_differ_in_their_last_character_are_not_the_same(self, store: Whole) -> None:
        long = "x" * 63
        names, queues = [f"{long}{end}" for end in "ab"], [f"{'q' * 63}{end}" for end in "ab"]
        for message in (
            *(mail(name, "x@example.org", queue=queues[0]) for name in names),
            mail("b", queue=queues[1]),
        ):
            assert statuses(store.put([message])) == ["stored"]

        assert ids(take(store, 9, queues[1])) == ["b"]
        assert ids(take(store, 9, queues[0])) == names
        assert [known(store, name).message.id for name in names] == names

    def test_recipients_that_are_nearly_alike_have_each_a_fate_of_their_own(self, store: Whole) -> None:
        accents = [unicodedata.normalize(form, "é@example.org") for form in ("NFC", "NFD")]
        alike = ["A@example.org", "a@example.org", *accents, "a@example.org."]
        fates = dict(
            zip(alike, [Fate.ACCEPTED, Fate.WAITING, Fate.FAILED, Fate.DOUBTFUL, Fate.UNCERTAIN], strict=True)
        )
        put(store, mail("a", *alike))
        (claim,) = take(store)
        settle(store, claim, Retry(delay=ZERO, fates=fates))

        (again,) = take(store)
        assert again.fates == fates
        assert again.recipients == (alike[1], alike[3])

    def test_each_of_many_recipients_has_a_fate_of_his_own(self, store: Whole) -> None:
        many = [f"r{n}@example.org" for n in range(MANY)]
        fates = {name: Fate.ACCEPTED if n % 3 else Fate.WAITING for n, name in enumerate(many)}
        put(store, mail("a", *many))
        (claim,) = take(store)
        settle(store, claim, Retry(delay=ZERO, fates=fates))

        (again,) = take(store)
        assert again.fates == fates
        settle(store, again, delivered(again))

    def test_attributes_and_sender_come_out_as_they_went_in(self, store: Whole) -> None:
        attributes = {
            "a=b": "c=d",
            "two\nlines": "e\nf=g",
            "n\0": "\0",
            "long": "v" * 70_000,
            " ": " x ",
            "É": "é",
        }
        message = mail("a", sender="Ann.Émile@Example.ORG", attributes=attributes)
        put(store, message)

        (claim,) = take(store)
        assert claim.message == message
        assert dict(claim.message.attributes) == attributes

    @clause(SupportsHandOver, Guarantee.LEASES)
    def test_what_is_put_claimed_keeps_all_that_was_said_of_it(
        self, store: Whole, clock: ManualClock
    ) -> None:
        message = said(clock, "a")
        (first,) = store.put_claimed([message], lease=PART)
        clock.advance(PART)
        (second,) = take(store)

        for claim in (first, second):
            assert claim.message == message
            assert claim.message.attributes == message.attributes
        assert (first.expires_in, second.expires_in) == (DAY, DAY - PART)

    # -- numbers

    def test_two_thousand_are_put_claimed_extended_and_settled_like_one(
        self, store: Whole, clock: ManualClock
    ) -> None:
        names = [f"m{n:04}" for n in range(self.many)]
        assert statuses(store.put([mail(name, content=b"") for name in names])) == ["stored"] * len(names)
        claims = all_of(store)
        assert sorted(ids(claims)) == names

        assert list(store.extend(claims, lease=2 * LEASE)) == []
        clock.advance(LEASE)
        assert take(store) == []
        assert list(store.settle([Settlement(claim, retry(claim)) for claim in claims])) == []
        claims = all_of(store)
        assert [claim.attempt for claim in claims] == [2] * len(names)
        assert list(store.settle([Settlement(claim, delivered(claim)) for claim in claims])) == []
        clock.advance(DAY)
        assert take(store) == []

    @clause(SupportsExchange)
    def test_eleven_hundred_are_settled_by_one_exchange(self, store: Whole, clock: ManualClock) -> None:
        put(store, *(mail(f"m{n:04}", content=b"") for n in range(SEVERAL)))
        claims = all_of(store)
        settlements = [Settlement(claim, dead(claim)) for claim in claims]

        assert list(store.exchange(settlements, limit=1, lease=DAY, queues=("mail",)).lost) == []
        clock.advance(DAY)
        assert take(store) == []

    @clause(SupportsHandOver)
    def test_eleven_hundred_are_put_claimed_at_once(self, store: Whole) -> None:
        names = [f"m{n:04}" for n in range(SEVERAL)]

        assert ids(store.put_claimed([mail(name, content=b"") for name in names], lease=DAY)) == names
        assert take(store) == []

    @clause(SupportsManage)
    def test_eleven_hundred_are_steered_by_one_command(self, store: Whole) -> None:
        names = [f"m{n:04}" for n in range(SEVERAL)]
        put(store, *(mail(name, content=b"") for name in names))
        for command in (store.cancel, store.requeue, store.cancel, store.purge):
            assert statuses(command(names)) == ["done"] * SEVERAL

        assert statuses(store.cancel(names)) == ["unknown"] * SEVERAL
        assert take(store) == []


def said(clock: ManualClock, id: str, **fields: object) -> Message:
    """A message of which everything is said that can be, but when it is due."""
    return Message(
        id=id,
        recipients=("X@example.org", "y@example.org"),
        content=b"\x00\xff",
        sender="Ann@Example.org",
        priority=3,
        attributes={"tenant": "blue ✓"},
        expires_at=clock.now() + DAY,
        at_most_once=True,
        **fields,  # type: ignore[arg-type]  # the names are typed at the calls
    )
