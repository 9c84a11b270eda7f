"""The store in SQS beside the memory store: whatever is done to both, they give out the same claims.

The state machine of the suite goes where SQS cannot follow: it puts an id
twice, and delays by microseconds.  This one keeps to what is promised, and to
whole seconds; it takes all that is due each time, as does a Runner that keeps
up.  Two objects work on the queues, as two processes would: either settles
what the other claimed, dies, or cannot write all of a verdict at once.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import tempfile
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import hypothesis.strategies as st
import pytest
from examples import examples
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sqs_server import open_sqs
from sqs_wire import Wire

from outbox.clock import Clock
from outbox.errors import StoreUnavailable
from outbox.lifecycle import Claim, Dead, Delivered, Fate, Held, Released, Retry, Settlement, Verdict
from outbox.message import Message
from outbox.stores.sqs import SQSStore
from outbox.testing import StoreStateMachine
from outbox.testing.clock import ManualClock
from outbox.testing.comparing import anonymous
from outbox.testing.modelling import Model

QUEUES = ("mail", "mail.bulk")
LEASE = dt.timedelta(minutes=5)
STEPS = st.sampled_from((1, 59, 299, 300, 301, 900, 901, 4000))
DELAYS = st.sampled_from((0, 1, 60, 899, 900, 901, 1800, 5000)).map(
    lambda number: dt.timedelta(seconds=number)
)
WHO = st.integers(0, 1)
BROKEN = st.sampled_from((None, None, "send_message_batch", "delete_message_batch"))


class SuiteMachine(StoreStateMachine):
    def open(self, clock: Clock, path: Path, **settings: Any) -> SQSStore:
        return open_sqs(clock, path, **settings)


def test_the_state_machine_says_which_guarantees_keep_it_from_walking() -> None:
    with pytest.raises(
        unittest.SkipTest, match="lacks the guarantee of at most once, atomicity, deduplication"
    ):
        SuiteMachine.TestCase("runTest").runTest()


@attrs.frozen
class Pair:
    """One claim as the store and as the model gave it out, and when its lease runs out."""

    ours: Claim
    theirs: Claim
    until: dt.datetime
    extended: bool = False


@attrs.frozen
class Wish:
    """A message to be, and a verdict to come: what is chosen before it is known of whom."""

    recipients: int
    queue: str
    large: bool
    priority: int
    delay: dt.timedelta | None


WISHES = st.builds(
    Wish,
    recipients=st.integers(1, 3),
    queue=st.sampled_from(QUEUES),
    large=st.integers(0, 3).map(lambda number: number == 0),
    priority=st.integers(-1, 1),
    delay=st.none() | DELAYS,
)


class SQSMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.path = Path(tempfile.mkdtemp(prefix="outbox-"))
        self.stores = [self.opened(), self.opened()]
        self.model = Model(clock=self.clock)
        self.number = 0
        self.held: list[Pair] = []

    def opened(self) -> SQSStore:
        return open_sqs(self.clock, self.path)

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.path)

    # -- what is promised

    @initialize(wishes=st.lists(WISHES, min_size=3, max_size=12))
    def begin(self, wishes: Sequence[Wish]) -> None:
        self.put(0, wishes)
        self.claim_what_is_due(1, 30)

    @rule(who=WHO, wishes=st.lists(WISHES, min_size=1, max_size=12))
    def put(self, who: int, wishes: Sequence[Wish]) -> None:
        batch = [self.message(wish) for wish in wishes]
        ours, theirs = self.stores[who].put(batch), self.model.put(batch)
        assert [each.status for each in ours] == [each.status for each in theirs]

    def message(self, wish: Wish) -> Message:
        self.number += 1
        name = f"m{self.number:04}"
        return Message(
            id=name,
            recipients=tuple(f"{n}@example.org" for n in range(wish.recipients)),
            sender="s@example.org",
            queue=wish.queue,
            content=name.encode() * (50_000 if wish.large else 1),
            priority=wish.priority,
            not_before=None if wish.delay is None else self.clock.now() + wish.delay,
        )

    @rule(seconds=STEPS)
    def wait(self, seconds: int) -> None:
        self.clock.advance(dt.timedelta(seconds=seconds))

    @rule(who=WHO, limit=st.sampled_from((4, 30)))
    def claim_what_is_due(self, who: int, limit: int) -> None:
        while claims := self.claimed(who, limit):
            until = self.clock.now() + LEASE
            theirs = self.model.follow([claim.message.id for claim in claims], lease=LEASE)
            assert anonymous(claims) == anonymous(theirs)
            names = {claim.message.id for claim in claims}
            self.held = [pair for pair in self.held if pair.ours.message.id not in names]
            self.held += [Pair(*pair, until) for pair in zip(claims, theirs, strict=True)]

    def claimed(self, who: int, limit: int) -> Sequence[Claim]:
        due = self.model.due(QUEUES)
        claims = self.stores[who].claim(limit=limit, lease=LEASE, queues=QUEUES)
        assert len({claim.message.id for claim in claims}) == len(claims) <= limit
        assert {claim.message.id for claim in claims} <= {row.id for row in due}
        assert bool(claims) == bool(due), [row.id for row in due]
        assert len(claims) == 1 or not any(claim.lost for claim in claims)
        return claims

    def some(self, data: st.DataObject, *, living: bool) -> list[Pair]:
        pairs = [pair for pair in self.held if (pair.until > self.clock.now()) == living]
        return (
            data.draw(st.lists(st.sampled_from(pairs), min_size=1, unique=True, max_size=8)) if pairs else []
        )

    @precondition(lambda self: self.held)
    @rule(who=WHO, data=st.data(), broken=BROKEN)
    def settle(self, who: int, data: st.DataObject, broken: str | None) -> None:
        some = self.some(data, living=True)
        verdicts = [self.verdict(data, pair.ours) for pair in some]
        ours = [Settlement(pair.ours, v) for pair, v in zip(some, verdicts, strict=True)]
        theirs = [Settlement(pair.theirs, v) for pair, v in zip(some, verdicts, strict=True)]
        if broken is None:
            assert list(self.stores[who].settle(ours)) == []
        else:
            self.write_by_half(who, ours, broken)
            # What was written counts as stale, the rest is written now.
            self.stores[who].settle(ours)
        assert list(self.model.settle(theirs)) == []
        self.held = [pair for pair in self.held if pair not in some]

    def write_by_half(self, who: int, settlements: Sequence[Settlement], verb: str) -> None:
        wire = Wire(self.stores[who])
        wire.refuse(verb, 0)
        with contextlib.suppress(StoreUnavailable):
            self.stores[who].settle(settlements)
        wire.heal()

    def verdict(self, data: st.DataObject, claim: Claim) -> Verdict:
        delay = data.draw(DELAYS)
        fates = {
            r: data.draw(st.sampled_from((Fate.ACCEPTED, fate))) if fate.open else fate
            for r, fate in claim.fates.items()
        }
        given_up = {r: fate.given_up for r, fate in fates.items()}
        choice: st.SearchStrategy[Verdict] = st.sampled_from(
            (
                Retry(delay=delay, fates=fates, reason="451 later"),
                Retry(delay=delay, fates=fates, reason="451 later"),
                Released(delay=delay, fates=claim.fates, reason="the relay is down"),
                Delivered(fates=dict.fromkeys(fates, Fate.ACCEPTED)),
                Dead(fates=given_up, reason="550 no such user"),
                Held(fates=given_up, reason="no reply after the dot"),
            )
        )
        return data.draw(choice)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def extend(self, data: st.DataObject) -> None:
        some = self.some(data, living=True)
        for store in self.stores:
            assert list(store.extend([pair.ours for pair in some], lease=LEASE)) == []
        assert list(self.model.extend([pair.theirs for pair in some], lease=LEASE)) == []
        until = self.clock.now() + LEASE
        self.held = [
            attrs.evolve(pair, until=until, extended=True) if pair in some else pair for pair in self.held
        ]

    @precondition(lambda self: self.held)
    @rule(who=WHO, data=st.data())
    def come_too_late(self, who: int, data: st.DataObject) -> None:
        """It changes nothing, unless everybody has the message."""
        some = [pair.ours for pair in self.some(data, living=False)]
        late = [Settlement(claim, Retry(delay=LEASE, fates=claim.fates, reason="451")) for claim in some]
        assert list(self.stores[who].settle(late)) == some
        assert list(self.stores[who].extend(some, lease=LEASE)) == some

    @precondition(lambda self: self.held)
    @rule(who=WHO, data=st.data())
    def tell_late_that_everybody_has_it(self, who: int, data: st.DataObject) -> None:
        some = self.some(data, living=False)
        told = [Delivered(fates=dict.fromkeys(pair.ours.fates, Fate.ACCEPTED)) for pair in some]
        late = [Settlement(pair.ours, v) for pair, v in zip(some, told, strict=True)]
        assert list(self.stores[who].settle(late)) == []
        theirs = self.model.follow([pair.ours.message.id for pair in some], lease=LEASE)
        assert list(self.model.settle([Settlement(c, v) for c, v in zip(theirs, told, strict=True)])) == []
        self.held = [pair for pair in self.held if pair not in some]

    @rule(who=WHO, closed=st.booleans())
    def begin_anew(self, who: int, *, closed: bool) -> None:
        if closed:
            self.stores[who].close()
        self.stores[who] = self.opened()
        # To the new one a lease ends when its token says; whoever extended it had to settle it.
        self.held = [pair for pair in self.held if not pair.extended]


TestSQSMachine = SQSMachine.TestCase
TestSQSMachine.settings = settings(
    max_examples=examples(12),
    stateful_step_count=25,
    deadline=None,
    # To make a failure smaller takes minutes here, of each run that fails.
    phases=set(Phase) - {Phase.shrink},
)
