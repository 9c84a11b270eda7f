"""Rules for what relays say: who says so is left alone, or spoken to slowly, for a while."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from outbox import (
    Accepted,
    ConfigurationError,
    MemoryStore,
    Message,
    Outbox,
    Outcome,
    PermFailed,
    RelayPaused,
    RelayUnavailable,
    ReplyRule,
    Result,
    TempFailed,
)
from outbox.relay import RelayLimits, Relays
from outbox.replies import ruling
from outbox.testing import ManualClock

MINUTE = dt.timedelta(minutes=1)
THROTTLED = TempFailed("421 4.7.0 Too many mails from you")


def said(*results: Result, relay: str = "mx.example.com:25", fault: Any = None) -> Outcome:
    return Outcome(results={f"r{n}@x": result for n, result in enumerate(results)}, relay=relay, fault=fault)


@attrs.define
class Throttling:
    """A relay that answers as it is told."""

    answer: Result
    taken: list[str] = attrs.Factory(list)

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self.taken.append(message.id)
        return Outcome(results=dict.fromkeys(recipients, self.answer), relay="mx.example.com:25")

    def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("result", [THROTTLED, PermFailed("554 TOO MANY mails")])
def test_an_answer_that_is_found_pauses_its_relay(result: Result) -> None:
    rules = [ReplyRule(pattern="too many", lasting=MINUTE)]
    found = ruling(rules, said(Accepted("250 too many thanks"), result), "")
    assert found is not None
    assert found.fault is not None
    assert (found.fault.relay, found.fault.retry_after) == ("mx.example.com:25", MINUTE)


@pytest.mark.parametrize(
    "report",
    [
        said(Accepted("250 too many thanks")),
        said(TempFailed("450 greylisted")),
        said(THROTTLED, relay="mx.example.org:25"),
        said(TempFailed()),
    ],
)
def test_what_a_rule_is_not_for_changes_nothing(report: Outcome) -> None:
    assert ruling([ReplyRule(pattern="too many", relay="*.example.com:25")], report, "") is None


@pytest.mark.parametrize("pattern", ["[2001:DB8::5]:25", "[2001:db8::?]:*", "*:25", "[*"])
def test_a_rule_for_a_relay_that_is_an_address_in_brackets_finds_it(pattern: str) -> None:
    rule = ReplyRule(pattern="too many", relay=pattern)

    assert ruling([rule], said(THROTTLED, relay="[2001:db8::5]:25"), "") is not None
    assert ruling([rule], said(THROTTLED, relay="5:2525"), "") is None


def test_the_first_rule_that_finds_something_counts() -> None:
    rules = [
        ReplyRule(pattern="nothing"),
        ReplyRule(pattern="many", per_second=2),
        ReplyRule(pattern="mails"),
    ]
    found = ruling(rules, said(THROTTLED), "")
    assert found is not None
    assert (found.fault, found.per_second) == (None, 2)


@pytest.mark.parametrize(("asked", "wait"), [(60, 120), (3600, 3600)])
def test_a_fault_is_prolonged_and_stays_what_it_is(asked: int, wait: int) -> None:
    retry_after = dt.timedelta(seconds=asked)
    fault = RelayUnavailable("mx.example.com:25", "421 too many connections", retry_after=retry_after)
    found = ruling([ReplyRule(pattern="too many", lasting=2 * MINUTE)], fault, "")
    assert found is not None
    assert isinstance(found.fault, RelayUnavailable)
    assert found.fault.reason == "421 too many connections"
    assert found.fault.retry_after == dt.timedelta(seconds=wait)
    assert fault.retry_after == retry_after


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pattern": "("}, "no regular expression"),
        ({"pattern": "x*"}, "found in every reply"),
        ({"pattern": "x", "lasting": dt.timedelta(0)}, "lasting"),
        ({"pattern": "x", "lasting": dt.timedelta(days=2)}, "lasting"),
        ({"pattern": "x", "per_second": 0}, "per_second"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        ReplyRule(**settings)


def test_a_drain_leaves_a_relay_alone_that_said_so() -> None:
    clock, relay, notices = ManualClock(), Throttling(THROTTLED), list[Any]()
    outbox = Outbox(
        MemoryStore(clock=clock),
        relay,
        clock=clock,
        listeners=[notices.append],
        reply_rules=[ReplyRule(pattern="too many", lasting=10 * MINUTE)],
    )
    outbox.submit_many([Message(recipients=["ann@example.com"], content=b"", id=f"m{n}") for n in range(5)])
    tally = outbox.drain()

    assert len(relay.taken) == 1
    assert (tally.retried, tally.dead) == (1, 0)
    (paused,) = [each for each in notices if isinstance(each, RelayPaused)]
    assert paused.wait >= 10 * MINUTE
    assert "a rule of yours" in str(paused.fault)
    assert "Too many mails" in str(paused.fault)


def test_without_a_rule_it_is_asked_again_and_again() -> None:
    clock, relay = ManualClock(), Throttling(THROTTLED)
    outbox = Outbox(MemoryStore(clock=clock), relay, clock=clock)
    outbox.submit_many([Message(recipients=["ann@example.com"], content=b"", id=f"m{n}") for n in range(5)])
    outbox.drain()
    assert len(relay.taken) == 5


def test_a_slowed_relay_gets_one_message_at_a_time_until_it_is_over(relays: Relays) -> None:
    relays.slow("mx", now=100.0, per_second=0.5, lasting=60.0)
    assert wait(relays, 100.0) == pytest.approx(2.0)
    assert goes(relays, 102.0) == 1
    assert wait(relays, 102.5) == pytest.approx(1.5)
    assert goes(relays, 160.0) > 1


def test_slowing_again_begins_anew_and_adds_nothing(relays: Relays) -> None:
    for _ in range(3):
        relays.slow("mx", now=100.0, per_second=0.5, lasting=60.0)
    relays.slow("mx", now=150.0, per_second=1.0, lasting=60.0)
    assert wait(relays, 150.0) == pytest.approx(1.0)
    assert goes(relays, 205.0) == 1
    assert goes(relays, 210.0) > 1


@pytest.fixture
def relays() -> Relays:
    """One relay that has proven itself, at the time 0."""
    import random  # noqa: PLC0415 - a die for one

    relays = Relays(random.Random(1), limits=RelayLimits(per_second=1000))
    for n in range(20):
        go = relays.admit("mx", float(n), f"m{n}", wanted=100)
        relays.answered("mx", f"m{n}")
        relays.leave("mx", float(n), go)  # type: ignore[arg-type]  # a Go, for the relay is well
    return relays


def wait(relays: Relays, now: float) -> float:
    closed = relays.closed_for("mx", now)
    return closed.delay.total_seconds() if closed else 0.0


def goes(relays: Relays, now: float) -> int:
    go = relays.admit("mx", now, "next", wanted=50)
    number: int = getattr(go, "number", 0)
    return number
