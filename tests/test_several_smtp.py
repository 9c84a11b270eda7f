"""Chains and routes over real SMTP: whatever happens at which step, nobody gets a mail from two relays."""

import datetime as dt
import random
from collections import Counter

import pytest

from outbox.lifecycle import Fate, State
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted, Outcome, PermFailed, Uncertain
from outbox.retry import RetryPolicy
from outbox.stores.memory import MemoryStore
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import Answer, Heard, SMTPSink
from outbox.transports.chain import ChainTransport
from outbox.transports.route import RouteTransport
from outbox.transports.smtp import SMTPTransport

A, B = "a@example.org", "b@example.net"
MAIL = b"From: s@example.org\r\nMessage-ID: <%s@example.org>\r\n\r\nx\r\n"


def a_mail(*recipients: str, id: str = "m1") -> Message:
    return Message(id=id, sender="s@example.org", recipients=recipients or (A, B), content=MAIL % id.encode())


def smtp(sink: SMTPSink) -> SMTPTransport:
    return SMTPTransport(sink.host, sink.port)


def taken(sink: SMTPSink) -> list[tuple[str, ...]]:
    return [received.recipients for received in sink.messages]


def deliver(first: SMTPSink, second: SMTPSink) -> Outcome:
    chain = ChainTransport(smtp(first), smtp(second))
    try:
        return chain.deliver(a_mail(), (A, B))
    finally:
        chain.close()


@pytest.mark.parametrize(
    ("step", "answer", "by_second"),
    [
        ("connect", Answer("421 too busy", close=True), [(A, B)]),
        ("ehlo", Answer(close=True), [(A, B)]),
        ("mail", Answer("451 later"), [(A, B)]),
        ("mail", Answer("550 never"), []),
        ("rcpt", Answer("450 greylisted"), [(A, B)]),
        ("rcpt", Answer("550 no such user"), []),
        ("data", Answer("451 later"), [(A, B)]),
        ("data", Answer(close=True), [(A, B)]),
        ("dot", Answer("451 later"), [(A, B)]),
        ("dot", Answer("554 spam"), []),
        ("dot", Answer(close=True), []),
        ("dot", Answer(b"25", close=True), []),
    ],
    ids=lambda value: getattr(value, "reply", value) if isinstance(value, Answer) else None,
)
def test_at_each_step_the_next_relay_gets_what_it_could_mend_and_nothing_else(
    step: str, answer: Answer, by_second: list[tuple[str, ...]]
) -> None:
    def hook(heard: Heard) -> Answer | None:
        return answer if heard.step == step else None

    with SMTPSink(hook=hook) as first, SMTPSink() as second:
        outcome = deliver(first, second)

        assert taken(second) == by_second
        kinds = {Accepted} if by_second else {PermFailed, Uncertain}
        assert {type(result) for result in outcome.results.values()} <= kinds
        assert f"{second.host}:{second.port}" in outcome.relay or not by_second


def test_one_recipient_of_two_goes_on_and_each_reply_names_its_relay() -> None:
    with SMTPSink() as first, SMTPSink() as second:
        first.on("rcpt", B, reply="450 4.7.1 greylisted")
        outcome = deliver(first, second)

        assert (taken(first), taken(second)) == ([(A,)], [(B,)])
        names = [f"{sink.host}:{sink.port}" for sink in (first, second)]
        assert outcome.relay == ", ".join(names)
        assert outcome.results == {
            A: Accepted(f"{names[0]}: 250 2.0.0 taken"),
            B: Accepted(f"{names[1]}: 250 2.0.0 taken; before that {names[0]}: 450 4.7.1 greylisted"),
        }


def test_a_route_sends_each_domain_to_its_own_relay_and_one_that_is_down_stops_no_other() -> None:
    store = MemoryStore()
    with SMTPSink() as first, SMTPSink() as second:
        first.on("connect", reply="421 too busy", close=True)
        route = RouteTransport(smtp(second), domains={"example.org": smtp(first)})
        with Outbox(store, route, workers=2) as outbox:
            for number in range(5):
                outbox.submit(a_mail(id=f"m{number}"))
            outbox.drain()
            records = [store.get(f"m{number}") for number in range(5)]

            assert taken(second) == [(B,)] * 5
        assert [record and record.summary.fates for record in records] == [
            {A: Fate.WAITING, B: Fate.ACCEPTED}
        ] * 5


@pytest.mark.parametrize("seed", range(3))
def test_each_copy_too_many_is_matched_to_an_attempt_whose_end_is_not_known(seed: int) -> None:
    rng = random.Random(seed)
    faults = [Answer("451 later"), Answer(close=True), Answer("421 leaving", close=True)]

    def hook(heard: Heard) -> Answer | None:
        chance = {"mail": 0.1, "rcpt": 0.1, "data": 0.1, "dot": 0.5}.get(heard.step, 0.0)
        return rng.choice(faults) if rng.random() < chance else None

    clock, uncertain, messages = ManualClock(), Counter[tuple[str, str]](), 40
    store = MemoryStore(clock=clock, keep_delivered=dt.timedelta(days=90))
    with SMTPSink(hook=hook) as first, SMTPSink(hook=hook) as second:
        chain = ChainTransport(smtp(first), smtp(second), clock=clock, rng=rng)
        with Outbox(store, chain, workers=2, clock=clock, retry=RetryPolicy(timeout=None)) as outbox:
            for number in range(messages):
                outbox.submit(a_mail(id=f"m{number}"))
            for _ in range(500):
                outbox.drain()
                clock.advance(dt.timedelta(hours=3))
                if not store.browse(states=[State.QUEUED], limit=1):
                    break
            copies: Counter[tuple[str, str]] = Counter()
            for received in [*first.messages, *second.messages]:
                id = str(received.email()["Message-ID"]).partition("@")[0].removeprefix("<")
                copies.update((id, recipient) for recipient in received.recipients)
            for number in range(messages):
                record = store.get(f"m{number}")
                assert record is not None
                assert set(record.summary.fates.values()) == {Fate.ACCEPTED}
                for attempt in record.history:
                    uncertain.update(
                        (f"m{number}", r)
                        for r, said in attempt.results.items()
                        if isinstance(said, Uncertain)
                    )

    assert len(copies) == 2 * messages
    assert all(number <= 1 + uncertain[copy] for copy, number in copies.items())
    assert uncertain
    assert taken(second)
