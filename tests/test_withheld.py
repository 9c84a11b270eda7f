"""Recipients who are suppressed, and what is suspended: the Runner delivers to everybody else."""

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from relays import Relay, a_message
from running import FailingStore, Heard

from outbox import SMTPTransport, sender, shift
from outbox.desk import Desk
from outbox.errors import StoreUnavailable
from outbox.events import Settled
from outbox.lifecycle import Claim, Expired, Fate, Record, Released, State
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Untried
from outbox.protocols import Suspension
from outbox.retry import RetryPolicy
from outbox.runner import Runner
from outbox.screening import Suppress
from outbox.stores.memory import MemoryStore
from outbox.testing.clock import ManualClock

ANN, BOB = "ann@a.example", "bob@b.example"
W, A, F = Fate.WAITING, Fate.ACCEPTED, Fate.FAILED
OF_A = Suspension(kind="domain", value="a.example", reason="a move")
HOUR = dt.timedelta(hours=1)


class Handed:
    """What a transport that keeps it was handed, by message."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, tuple[str, ...]]] = []

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self.seen.append((message.id, tuple(recipients)))
        return Outcome.same(recipients, Accepted("250 ok"))

    def close(self) -> None:
        pass


class HandedBatches(Handed):
    """In batches, and always one pulled ahead."""

    def deliver_many(self, deliveries: Any, /) -> Any:
        pulled = iter(deliveries)
        delivery = next(pulled, None)
        while delivery is not None:
            following = next(pulled, None)
            yield self.deliver(delivery.message, delivery.recipients)
            delivery = following


class HandedByDomain(Handed):
    def relay(self, _message: Message, recipient: str, /) -> str:
        return recipient.partition("@")[2]


EVERY_WAY = pytest.mark.parametrize("kind", [Handed, HandedBatches, HandedByDomain])


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def the_record(store: MemoryStore, id: str = "m1") -> Record:
    record = store.get(id)
    assert record is not None
    return record


def never(*refused: str) -> Callable[[Message, Sequence[str]], set[str]]:
    return lambda _message, recipients: set(recipients) & set(refused)


def flattened(seen: Sequence[tuple[str, tuple[str, ...]]]) -> set[tuple[str, str]]:
    return {(id, recipient) for id, share in seen for recipient in share}


# -- suppressed


@EVERY_WAY
def test_who_is_suppressed_is_not_handed_over_and_all_others_are(
    store: MemoryStore, kind: type[Handed]
) -> None:
    transport = kind()
    outbox = Outbox(store, transport, suppress=never(ANN))
    outbox.submit_many([a_message(ANN, BOB), a_message(ANN, id="m2"), a_message(BOB, id="m3")])
    tally = outbox.drain()
    assert flattened(transport.seen) == {("m1", BOB), ("m3", BOB)}
    assert (tally.dead, tally.delivered) == (2, 1)
    both, none = the_record(store), the_record(store, "m2")
    assert both.summary.fates == {ANN: F, BOB: A}
    assert none.summary.reason.startswith(f"{ANN}: not sent: suppressed")
    assert isinstance(none.history[-1].results[ANN], PermFailed)


def test_a_delivery_whose_recipients_are_all_suppressed_never_asks_the_transport(store: MemoryStore) -> None:
    transport = HandedBatches()
    outbox = Outbox(store, transport, suppress=never(ANN))
    outbox.submit_many([a_message(ANN, id=f"m{number}") for number in range(20)])
    assert outbox.drain().dead == 20
    assert transport.seen == []


def test_who_is_suppressed_is_not_written_to_by_send_either(store: MemoryStore) -> None:
    transport = Handed()
    outbox = Outbox(store, transport, suppress=never(ANN))
    assert not outbox.send(a_message(ANN, BOB)).delivered
    outbox.send(a_message(ANN, id="m2"), store_first=False)
    assert transport.seen == [("m1", (BOB,))]
    assert the_record(store, "m2").summary.state is State.DEAD


def breaks(*_: object) -> set[str]:
    raise SystemExit("the list is not there")


@EVERY_WAY
@pytest.mark.parametrize("suppress", [breaks, lambda *_: None, lambda *_: ANN])
def test_where_it_cannot_be_told_who_is_suppressed_nobody_is_written_to_and_all_are_put_off(
    store: MemoryStore, kind: type[Handed], suppress: Any, caplog: pytest.LogCaptureFixture
) -> None:
    transport = kind()
    outbox = Outbox(store, transport, suppress=suppress)
    outbox.submit(a_message(ANN, BOB))
    assert outbox.drain().retried == 1
    assert transport.seen == []
    record = the_record(store)
    assert record.summary.fates == {ANN: W, BOB: W}
    assert all(isinstance(each, TempFailed) for each in record.history[-1].results.values())
    assert "suppress failed on m1" in caplog.text


# A suppress may take long, and all that is asked before a delivery is asked behind it.


def nobody_while(happens: Callable[[], object]) -> Suppress:
    def suppress(_message: Message, _recipients: Sequence[str]) -> tuple[str, ...]:
        happens()
        return ()

    return suppress


@EVERY_WAY
def test_what_expires_while_suppress_is_asked_is_not_handed_over(kind: type[Handed]) -> None:
    clock, transport = ManualClock(), kind()
    store = MemoryStore(clock=clock)
    outbox = Outbox(
        store, transport, clock=clock, lease=2 * HOUR, suppress=nobody_while(lambda: clock.advance(HOUR))
    )
    expiring = Message(id="m1", recipients=[ANN], content=b"x", expires_at=clock.now() + HOUR)
    outbox.submit(expiring)
    assert outbox.drain().expired == 1
    sent = outbox.send(attrs.evolve(expiring, id="m2", expires_at=clock.now() + HOUR))
    assert isinstance(sent.verdict, Expired)
    assert transport.seen == []


@EVERY_WAY
def test_what_is_another_s_when_suppress_has_answered_is_not_handed_over(kind: type[Handed]) -> None:
    clock, transport = ManualClock(), kind()
    store = MemoryStore(clock=clock)
    taken: list[Claim] = []

    def another_takes_it() -> None:
        clock.advance(HOUR)
        taken.extend(store.claim(limit=1, lease=2 * HOUR, queues=["mail"]))

    outbox = Outbox(store, transport, clock=clock, suppress=nobody_while(another_takes_it))
    outbox.submit(a_message(ANN))
    assert outbox.drain().lost == 1
    assert not outbox.send(a_message(ANN, id="m2")).noted
    assert [claim.message.id for claim in taken] == ["m1", "m2"]
    assert transport.seen == []


@EVERY_WAY
def test_what_waited_for_its_suppress_is_given_back_where_the_runner_stops(
    store: MemoryStore, kind: type[Handed]
) -> None:
    """It was handed over when the grace time was long over, and nobody wrote it: a second copy."""
    transport, stopped = kind(), list[bool]()
    runner = Runner(store, transport, suppress=nobody_while(lambda: stopped.append(runner.stop())))
    store.put([a_message(ANN), a_message(BOB, id="m2")])
    runner.drain()
    assert set(stopped) == {False}
    assert transport.seen == []
    assert {summary.state for summary in store.browse()} == {State.QUEUED}


def test_what_ends_the_program_while_suppress_is_asked_ends_a_send(store: MemoryStore) -> None:
    transport = Handed()
    with pytest.raises(SystemExit):
        Outbox(store, transport, suppress=breaks).send(a_message())
    assert transport.seen == []


def test_a_probe_that_is_suppressed_leaves_its_relay_to_the_next(store: MemoryStore) -> None:
    transport = Handed()
    outbox = Outbox(store, transport, suppress=never(ANN), workers=1)
    outbox.submit(a_message(ANN))
    outbox.submit(a_message(BOB, id="m2"))
    outbox.drain()
    assert transport.seen == [("m2", (BOB,))]


# -- suspended


@EVERY_WAY
def test_of_a_suspended_domain_nobody_is_handed_over_and_all_others_are(
    store: MemoryStore, kind: type[Handed]
) -> None:
    store.suspend(OF_A)
    transport = kind()
    outbox = Outbox(store, transport)
    outbox.submit_many([a_message(ANN, BOB), a_message(ANN, id="m2"), a_message(BOB, id="m3")])
    tally = outbox.drain()
    assert flattened(transport.seen) == {("m1", BOB), ("m3", BOB)}
    assert (tally.retried, tally.released, tally.delivered) == (1, 1, 1)
    both, none = the_record(store), the_record(store, "m2")
    assert both.summary.fates == {ANN: W, BOB: A}
    assert isinstance(both.history[-1].results[ANN], Untried)
    assert both.summary.reason == f"{ANN}: suspended: domain a.example: a move"
    assert none.summary.reason == "suspended: domain a.example: a move"
    assert (none.summary.attempts, none.summary.fates, none.history) == (0, {ANN: W}, ())
    assert none.summary.due_at is not None
    assert none.summary.due_at - none.summary.submitted_at > dt.timedelta(seconds=30)


def test_an_attribute_and_a_relay_are_suspended_too(store: MemoryStore) -> None:
    store.suspend(Suspension(kind="attribute", value="campaign=spring"))
    store.suspend(Suspension(kind="relay", value="a.example"))
    transport = HandedByDomain()
    outbox = Outbox(store, transport)
    spring = Message(id="m1", recipients=[BOB], content=b"x", attributes={"campaign": "spring"})
    outbox.submit_many([spring, a_message(ANN, BOB, id="m2"), a_message(ANN, id="m3")])
    tally = outbox.drain()
    assert transport.seen == [("m2", (BOB,))]
    assert (tally.released, tally.retried) == (2, 1)


def test_who_is_suspended_is_not_given_up_with_the_last_attempt_of_the_others(store: MemoryStore) -> None:
    store.suspend(OF_A)
    outbox = Outbox(store, Relay("b:25", TempFailed("451 busy")), retry=RetryPolicy(attempts=1))
    outbox.submit(a_message(ANN, BOB))
    outbox.drain()
    record = the_record(store)
    assert (record.summary.state, record.summary.fates) == (State.QUEUED, {ANN: W, BOB: F})


def test_who_was_suspended_is_written_to_when_that_is_taken_back(store: MemoryStore) -> None:
    store.suspend(OF_A)
    transport = Handed()
    outbox = Outbox(store, transport)
    outbox.submit(a_message(ANN))
    outbox.drain()
    store.unsuspend("domain", "a.example")
    store.requeue(["m1"])
    assert outbox.drain().delivered == 1


@pytest.mark.parametrize("store_first", [True, False])
def test_what_is_suspended_is_not_sent_directly_either_and_waits(
    store: MemoryStore, store_first: bool
) -> None:
    store.suspend(OF_A)
    transport = Handed()
    sent = Outbox(store, transport).send(a_message(ANN), store_first=store_first)
    assert isinstance(sent.verdict, Released)
    assert sent.verdict.reason == "suspended: domain a.example: a move"
    assert transport.seen == []
    assert the_record(store).summary.state is State.QUEUED


def test_mail_behind_a_thousand_that_are_suspended_is_reached_in_few_claims(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = 0
    exchange, claim = store.exchange, store.claim

    def counted(verb: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **settings: Any) -> Any:
            nonlocal claims
            claims += 1
            return verb(*given, **settings)

        return call

    monkeypatch.setattr(store, "exchange", counted(exchange))
    monkeypatch.setattr(store, "claim", counted(claim))
    store.suspend(OF_A)
    transport = Handed()
    outbox = Outbox(store, transport)
    outbox.submit_many([a_message(ANN, id=f"a{number}") for number in range(1000)])
    outbox.submit(a_message(BOB))
    tally = outbox.drain()
    assert (tally.delivered, tally.released) == (1, 1000)
    assert claims < 50


def test_what_is_suspended_takes_no_place_among_what_lies_ready(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    dealt: list[str] = []
    deal = Desk.deal

    def seen(desk: Desk, lane: Any, claim: Claim, *rest: Any) -> None:
        dealt.append(claim.message.id)
        deal(desk, lane, claim, *rest)

    monkeypatch.setattr(Desk, "deal", seen)
    store.suspend(OF_A)
    outbox = Outbox(store, Handed())
    outbox.submit_many([a_message(ANN), a_message(BOB, id="m2")])
    assert outbox.drain().released == 1
    assert dealt == ["m2"]


def test_what_is_suspended_while_a_claim_lies_ready_is_given_back_when_it_is_pulled(
    store: MemoryStore,
) -> None:
    """One worker is at work, and what he is to deliver next is suspended meanwhile and read again."""
    runner: Runner

    def suspend_all(_message: Message, recipients: Sequence[str]) -> set[str]:
        if ANN not in recipients:
            store.suspend(OF_A)
            for crew in runner._running.crews:
                crew._shift.screener.look(older=0.0)
        return set()

    transport = HandedBatches()
    outbox = Outbox(store, transport, suppress=suspend_all, workers=1)
    runner = outbox.runner()
    outbox.submit_many([a_message(BOB, id=f"a{number}") for number in range(4)])
    outbox.submit(a_message(ANN, id="b1"))
    tally = runner.drain()
    assert (tally.delivered, tally.released) == (4, 1)
    assert the_record(store, "b1").summary.attempts == 0


class Unreadable(FailingStore):
    def suspensions(self) -> Sequence[Suspension]:
        self._maybe_fail("suspensions")
        return super().suspensions()


def test_nothing_is_claimed_before_it_is_known_what_is_suspended() -> None:
    store, heard, transport = Unreadable(), Heard(), Handed()
    store.suspend(OF_A)
    store.failures["suspensions"] = 2
    outbox = Outbox(store, transport, listeners=[heard])
    outbox.submit(a_message(ANN))
    with outbox.running():
        heard.wait_for(Settled)
    assert transport.seen == []
    (notice,) = (each for each in heard.notices if isinstance(each, Settled))
    assert isinstance(notice.verdict, Released)


def test_nothing_is_sent_directly_before_it_is_known_what_is_suspended() -> None:
    store, transport = Unreadable(), Handed()
    store.failures["suspensions"] = 1
    with pytest.raises(StoreUnavailable):
        Outbox(store, transport).send(a_message())
    assert (transport.seen, store.get("m1")) == ([], None)


def test_a_running_runner_feels_at_its_next_claim_what_was_suspended_a_moment_ago(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.shift._A_MOMENT", 0.0)
    heard, transport = Heard(), Handed()
    outbox = Outbox(store, transport, listeners=[heard])
    with outbox.running():
        outbox.submit(a_message(ANN))
        heard.wait_for(Settled)
        store.suspend(OF_A)
        outbox.submit(a_message(ANN, id="m2"))
        heard.wait_for(Settled, number=2)
    assert [id for id, _ in transport.seen] == ["m1"]
    assert the_record(store, "m2").summary.reason == "suspended: domain a.example: a move"


def test_a_moment_is_no_more_than_two_seconds() -> None:
    assert shift._A_MOMENT <= 2
    assert sender._SUSPENSIONS_KNOWN <= 2


class Named(Handed):
    """A transport with one relay, which says what that is called."""

    name = "smtp.a.example:25"


@pytest.mark.parametrize(
    ("kind", "value", "stops"),
    [
        (Named, "smtp.a.example:25", True),
        (Named, "*", True),
        (Named, "smtp.b.example:25", False),
        (Handed, "*", True),
        (HandedByDomain, "*", True),
        (HandedByDomain, "smtp.a.example:25", False),
    ],
)
def test_one_relay_is_suspended_by_its_name_and_all_by_an_asterisk(
    store: MemoryStore, kind: type[Handed], value: str, stops: bool
) -> None:
    store.suspend(Suspension(kind="relay", value=value))
    transport = kind()
    outbox = Outbox(store, transport)
    outbox.submit(a_message(ANN))
    assert outbox.drain().released == stops
    assert len(transport.seen) != stops


def test_an_smtp_transport_is_called_what_its_outcomes_call_it() -> None:
    with contextlib.closing(SMTPTransport("smtp.a.example", 587)) as transport:
        assert transport.name == "smtp.a.example:587"
