"""The store in SQS beside the memory store: whatever is done to both, they give out the same claims.

The state machine of the suite goes where SQS cannot follow: it puts an id
twice, brings stale tokens and delays by microseconds.  This walk keeps to
what is promised, and to whole seconds; it takes all that is due each time,
as does a Runner that keeps up.
"""

from __future__ import annotations

import datetime as dt
import random
import unittest
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from sqs_server import open_sqs

from outbox.clock import Clock
from outbox.lifecycle import Claim, Dead, Delivered, Fate, Held, Released, Retry, Settlement, Verdict
from outbox.message import Message
from outbox.stores.sqs import SQSStore
from outbox.testing import StoreStateMachine
from outbox.testing.clock import ManualClock
from outbox.testing.comparing import anonymous
from outbox.testing.modelling import Model

QUEUES = ("mail", "mail.bulk")
LEASE = dt.timedelta(minutes=5)
STEPS = (0, 1, 59, 299, 300, 301, 900, 901, 4000)
DELAYS = (0, 1, 60, 899, 900, 901, 1800, 5000)
LIMITS = (4, 30)


class SQSMachine(StoreStateMachine):
    def open(self, clock: Clock, path: Path, **settings: Any) -> SQSStore:
        return open_sqs(clock, path, **settings)


def test_the_state_machine_says_which_guarantees_keep_it_from_walking() -> None:
    with pytest.raises(
        unittest.SkipTest, match="lacks the guarantee of at most once, atomicity, deduplication"
    ):
        SQSMachine.TestCase("runTest").runTest()


@attrs.frozen
class Pair:
    """One claim as the store and as the model gave it out, and when its lease runs out."""

    ours: Claim
    theirs: Claim
    until: dt.datetime


class Walk:
    def __init__(self, seed: int, path: Path) -> None:
        self.dice = random.Random(seed)
        self.clock = ManualClock()
        self.store = open_sqs(self.clock, path)
        self.model = Model(clock=self.clock)
        self.numbers = iter(range(10_000))
        self.held: list[Pair] = []

    def step(self) -> None:
        self.dice.choices((self.put, self.claim, self.settle, self.extend), (3, 4, 5, 1))[0]()

    def put(self) -> None:
        batch = [self.message() for _ in range(self.dice.randint(1, 12))]
        assert [r.status for r in self.store.put(batch)] == [r.status for r in self.model.put(batch)]

    def message(self) -> Message:
        name = f"m{next(self.numbers):04}"
        delay = dt.timedelta(seconds=self.dice.choice(DELAYS))
        return Message(
            id=name,
            recipients=tuple(f"{n}@example.org" for n in range(self.dice.randint(1, 3))),
            sender="s@example.org",
            queue=self.dice.choice(QUEUES),
            content=name.encode() * self.dice.choice((1, 1, 100_000)),
            priority=self.dice.randint(-1, 1),
            not_before=self.dice.choice((None, self.clock.now() + delay)),
        )

    def claim(self) -> None:
        self.clock.advance(dt.timedelta(seconds=self.dice.choice(STEPS)))
        limit = self.dice.choice(LIMITS)
        while claims := self.claimed(limit):
            until = self.clock.now() + LEASE
            theirs = self.model.follow([claim.message.id for claim in claims], lease=LEASE)
            assert anonymous(claims) == anonymous(theirs)
            self.held += [Pair(*pair, until) for pair in zip(claims, theirs, strict=True)]

    def claimed(self, limit: int) -> Sequence[Claim]:
        due = self.model.due(QUEUES)
        claims = self.store.claim(limit=limit, lease=LEASE, queues=QUEUES)
        assert {claim.message.id for claim in claims} <= {row.id for row in due}
        assert bool(claims) == bool(due), [row.id for row in due]
        assert len(claims) == 1 or not any(claim.lost for claim in claims)
        return claims

    def living(self) -> list[Pair]:
        self.held = [each for each in self.held if each.until > self.clock.now()]
        return self.dice.sample(self.held, min(len(self.held), self.dice.randint(0, 8)))

    def settle(self) -> None:
        some = self.living()
        verdicts = [self.verdict(each.ours) for each in some]
        ours = self.store.settle([Settlement(each.ours, v) for each, v in zip(some, verdicts, strict=True)])
        theirs = self.model.settle(
            [Settlement(each.theirs, v) for each, v in zip(some, verdicts, strict=True)]
        )
        assert (list(ours), list(theirs)) == ([], [])
        self.held = [each for each in self.held if each not in some]

    def verdict(self, claim: Claim) -> Verdict:
        delay = dt.timedelta(seconds=self.dice.choice(DELAYS))
        fates = {
            r: self.dice.choice((Fate.ACCEPTED, fate)) if fate.open else fate
            for r, fate in claim.fates.items()
        }
        given_up = {r: fate.given_up for r, fate in fates.items()}
        return self.dice.choice(
            (
                Retry(delay=delay, fates=fates, reason="451 later"),
                Retry(delay=delay, fates=fates, reason="451 later"),
                Released(delay=delay, fates=claim.fates, reason="the relay is down"),
                Delivered(fates=dict.fromkeys(fates, Fate.ACCEPTED)),
                Dead(fates=given_up, reason="550 no such user"),
                Held(fates=given_up, reason="no reply after the dot"),
            )
        )

    def extend(self) -> None:
        some = self.living()
        assert list(self.store.extend([each.ours for each in some], lease=LEASE)) == []
        assert list(self.model.extend([each.theirs for each in some], lease=LEASE)) == []
        until = self.clock.now() + LEASE
        self.held = [attrs.evolve(each, until=until) if each in some else each for each in self.held]


@pytest.mark.parametrize("seed", range(3))
def test_it_gives_out_what_the_memory_store_gives_out(seed: int, tmp_path: Path) -> None:
    walk = Walk(seed, tmp_path)
    for _ in range(30):
        walk.step()
    walk.store.close()
