"""A relay that takes calls and never answers, beside a good one: what waits for it costs the others nothing, and few writes.

What it costs in time is the benchmark's to say (``benchmarks/drain.py``, section ``hang``); here it is counted.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from outbox.events import Notice, Settled
from outbox.lifecycle import Claim, Delivered, Settlement, State
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted, Outcome
from outbox.protocols import Exchanged
from outbox.stores.memory import MemoryStore
from outbox.testing.recording import RecordingTransport
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.route import RouteTransport
from outbox.transports.smtp import SMTPTransport

AHEAD, GOOD, WORKERS = 1000, 300, 4
PATIENCE = 120.0


class Counting(MemoryStore):
    """Counts the leases and verdicts of the messages for the dead relay, and the calls that had any."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = self.calls = 0
        self.seconds = 0.0
        self._counting = threading.Lock()

    def claim(self, **said: Any) -> Sequence[Claim]:
        claims = super().claim(**said)
        self._count(claims)
        return claims

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        self._count([settlement.claim for settlement in settlements])
        return super().settle(settlements)

    def exchange(self, settlements: Sequence[Settlement], /, **said: Any) -> Exchanged:
        exchanged = super().exchange(settlements, **said)
        self._count([*(settlement.claim for settlement in settlements), *exchanged.claims])
        return exchanged

    def _count(self, claims: Sequence[Claim]) -> None:
        dead = sum(is_dead(claim.message) for claim in claims)
        with self._counting:
            self.writes, self.calls = self.writes + dead, self.calls + bool(dead)


class Hanging:
    """Never answers, until it is let go; *begun* is how many messages it was handed."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.begun = 0

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self.begun += 1
        assert self.let_go.wait(PATIENCE)
        return Outcome.same(recipients, Accepted("250 at last"))

    def close(self) -> None:
        self.let_go.set()


class Arrived:
    """A listener that waits for the good relay's messages, and keeps who came late."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self.good = self.dead = 0

    def __call__(self, notice: Notice) -> None:
        if isinstance(notice, Settled) and isinstance(notice.verdict, Delivered):
            with self._news:
                dead = is_dead(notice.claim.message)
                self.good, self.dead = self.good + (not dead), self.dead + dead
                self._news.notify_all()

    def wait_for(self, *, good: int, dead: int = 0) -> None:
        with self._news:
            came = self._news.wait_for(lambda: self.good >= good and self.dead >= dead, PATIENCE)
            assert came, f"{self.good} of {good} good ones and {self.dead} of {dead} others arrived"


def is_dead(message: Message) -> bool:
    return message.recipients[0].endswith("@dead.example")


def the_mail(ahead: int, good: int) -> list[Message]:
    """Those for the dead relay first: their ids are smaller, and they are due as early."""
    return [
        Message(id=f"{kind}{each:04}", recipients=[f"to@{host}.example"], content=b"Subject: x\r\n\r\nx\r\n")
        for kind, host, number in (("a", "dead", ahead), ("b", "good", good))
        for each in range(number)
    ]


def times_put_aside(seconds: float) -> int:
    """For a second at first, and then for as long as it has hung already."""
    return 1 if seconds < 1 else 2 + math.floor(math.log2(seconds))


@pytest.fixture(scope="module")
def hung() -> Iterator[tuple[Counting, Hanging, Arrived]]:
    """What there was to see when the last of the good ones had arrived, and the dead one still hung."""
    store, hanging, arrived = Counting(), Hanging(), Arrived()
    transport = RouteTransport(domains={"dead.example": hanging, "good.example": RecordingTransport()})
    store.put(the_mail(AHEAD, GOOD))
    with Outbox(store, transport, workers=WORKERS, listeners=[arrived]) as outbox:
        runner = outbox.runner()
        start = time.monotonic()
        runner.start()
        try:
            arrived.wait_for(good=GOOD)
            assert not hanging.let_go.is_set()
            assert arrived.dead == 0
            seen = Counting()
            seen.writes, seen.calls, seen.seconds = store.writes, store.calls, time.monotonic() - start
            yield seen, hanging, arrived
        finally:
            hanging.let_go.set()
            runner.stop()


def test_what_is_for_a_good_relay_arrives_while_another_hangs_with_a_thousand_ahead(
    hung: tuple[Counting, Hanging, Arrived],
) -> None:
    _, _, arrived = hung
    assert (arrived.good, arrived.dead) == (GOOD, 0)


def test_a_relay_that_hangs_has_one_worker_and_not_more_than_half_of_them(
    hung: tuple[Counting, Hanging, Arrived],
) -> None:
    _, hanging, _ = hung
    assert 1 <= hanging.begun <= WORKERS // 2


def test_what_waits_for_a_relay_that_hangs_is_put_aside_once_and_then_for_longer_and_longer(
    hung: tuple[Counting, Hanging, Arrived],
) -> None:
    store, _, _ = hung
    # Each time is two writes, a lease and its return.
    assert store.writes <= 2 * AHEAD * times_put_aside(store.seconds)


def test_what_waits_for_a_relay_that_hangs_is_put_aside_by_batches(
    hung: tuple[Counting, Hanging, Arrived],
) -> None:
    store, _, _ = hung
    assert store.calls <= 3 * AHEAD / 20 * times_put_aside(store.seconds)


def test_when_a_relay_answers_at_last_all_that_waited_for_it_arrives() -> None:
    store, hanging, arrived = MemoryStore(), Hanging(), Arrived()
    transport = RouteTransport(domains={"dead.example": hanging, "good.example": RecordingTransport()})
    store.put(the_mail(20, 5))
    with Outbox(store, transport, workers=WORKERS, listeners=[arrived]) as outbox, outbox.running():
        arrived.wait_for(good=5)
        hanging.let_go.set()
        arrived.wait_for(good=5, dead=20)
        assert not store.browse(states=[State.QUEUED, State.CLAIMED])


def test_a_server_that_takes_calls_and_says_nothing_is_called_a_few_times_and_holds_up_nobody() -> None:
    store, arrived = MemoryStore(), Arrived()
    timeout = dt.timedelta(milliseconds=100)
    with SMTPSink() as silent, SMTPSink() as good:
        silent.on("connect")
        routes = {
            "dead.example": SMTPTransport(silent.host, silent.port, timeout=timeout),
            "good.example": SMTPTransport(good.host, good.port),
        }
        store.put(the_mail(200, 50))
        with Outbox(store, RouteTransport(domains=routes), workers=WORKERS, listeners=[arrived]) as outbox:
            runner = outbox.runner()
            runner.start()
            arrived.wait_for(good=50)
            assert runner.stop()
            assert {(each.state, each.number) for each in store.count()} == {(State.QUEUED, 200)}
        # One that was not known was tried with one message; the pause behind it lasts for seconds.
        assert 1 <= silent.connections <= 2
        assert arrived.dead == 0
