"""The Runner: delivers what is due, stands faults, stops cleanly."""

import datetime as dt
import logging
import signal
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from running import PATIENCE, SECOND, FailingStore, Heard, a_message, the_state

from outbox.crew import Crew
from outbox.errors import (
    ConfigurationError,
    RelayMisconfigured,
    RelayUnavailable,
    StoreError,
)
from outbox.events import Notice, RelayPaused, Settled, StoreFailed
from outbox.lifecycle import Claim, Delivered, Fate, State
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain
from outbox.performer import Tally
from outbox.retry import RetryPolicy
from outbox.runner import Runner
from outbox.stores.memory import MemoryStore
from outbox.testing.clock import ManualClock
from outbox.testing.recording import RecordingTransport
from outbox.transports.function import FunctionTransport


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_a_drain_delivers_what_is_due_and_returns_what_became_of_it(store: MemoryStore) -> None:
    store.put([a_message(n) for n in range(250)])
    transport = RecordingTransport()
    tally = Runner(store, transport).drain()
    assert tally == Tally(delivered=250)
    assert {m.id for m in transport.messages} == {f"m{n}" for n in range(250)}
    assert len(transport.messages) == 250


def test_a_drain_of_nothing_returns_at_once(store: MemoryStore) -> None:
    assert Runner(store, RecordingTransport()).drain() == Tally()


def test_a_drain_takes_no_more_than_its_limit(store: MemoryStore) -> None:
    store.put([a_message(n) for n in range(50)])
    assert Runner(store, RecordingTransport()).drain(limit=7).delivered == 7
    assert Runner(store, RecordingTransport()).drain(limit=100).delivered == 43


@pytest.mark.parametrize("limit", [-1, 0, 2.5, "3", True])
def test_a_limit_that_is_no_whole_number_from_one_is_refused_and_nothing_is_claimed(
    store: MemoryStore, limit: Any
) -> None:
    store.put([a_message()])
    with pytest.raises(ConfigurationError, match=r"limit is .*: pass a whole number from 1"):
        Runner(store, RecordingTransport()).drain(limit=limit)
    assert the_state(store, "m1") is State.QUEUED


def test_two_drains_at_once_deliver_each_message_once(store: MemoryStore) -> None:
    store.put([a_message(n) for n in range(300)])
    transport = RecordingTransport()
    runners = [threading.Thread(target=Runner(store, transport).drain) for _ in range(2)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join(PATIENCE)
    assert len(transport.messages) == 300


def test_three_recipients_may_have_three_fates_and_only_the_deferred_one_is_tried_again() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    answers: dict[str, Result] = {
        "taken@example.org": Accepted("250 ok"),
        "later@example.org": TempFailed("451 greylisted"),
        "never@example.org": PermFailed("550 no such user"),
    }
    transport = RecordingTransport(answers)
    store.put([a_message(recipients=list(answers))])
    runner = Runner(store, transport, retry=RetryPolicy.parse("1m"), clock=clock)
    assert runner.drain().retried == 1
    assert runner.drain() == Tally(), "it is not due yet"
    clock.advance(dt.timedelta(minutes=2))
    assert runner.drain().dead == 1
    assert [d.recipients for d in transport.deliveries] == [tuple(answers), ("later@example.org",)]
    record = store.get("m1")
    assert record is not None
    assert record.summary.state is State.DEAD
    assert dict(record.summary.fates) == {
        "taken@example.org": Fate.ACCEPTED,
        "later@example.org": Fate.FAILED,
        "never@example.org": Fate.FAILED,
    }
    assert record.history[0].results == answers


def test_a_relay_that_is_down_charges_no_message_and_is_named_in_the_tally(store: MemoryStore) -> None:
    store.put([a_message(n) for n in range(100)])
    transport = RecordingTransport()
    transport.fault = RelayUnavailable("mx:25", "connection refused")
    tally = Runner(store, transport).drain()
    assert str(tally.faults["mx:25"]) == "mx:25: connection refused"
    assert tally.delivered == 0
    assert 1 <= tally.released <= 8, "a closed relay costs a write for each worker at most twice"
    assert all(s.attempts == 0 and s.state is State.QUEUED for s in store.browse(limit=200))


def test_a_drain_after_a_relay_fault_finds_the_message_due_at_once(store: MemoryStore) -> None:
    store.put([a_message()])
    transport = RecordingTransport()
    transport.fault = RelayMisconfigured("mx:465", "535 wrong password")
    assert Runner(store, transport).drain().faults
    assert Runner(store, transport).drain().faults, (
        "the second drain says it too, and does not exit as if all were well"
    )
    transport.fault = None
    assert Runner(store, transport).drain().delivered == 1


def test_a_misconfigured_relay_is_said_loudly_and_kills_nothing(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.put([a_message()])
    transport = RecordingTransport()
    transport.fault = RelayMisconfigured("mx:465", "certificate has expired")
    Runner(store, transport, workers=1).drain()
    assert the_state(store, "m1") is State.QUEUED
    assert {r.levelno for r in caplog.records if "certificate has expired" in r.message} == {logging.ERROR}


def test_an_exception_of_a_transport_is_a_temporary_failure_of_that_message_alone(store: MemoryStore) -> None:
    def deliver(message: Message, _: str) -> None:
        if message.id == "m1":
            raise ZeroDivisionError("oops")

    store.put([a_message(n) for n in range(3)])
    tally = Runner(store, FunctionTransport(deliver)).drain()
    assert (tally.delivered, tally.retried) == (2, 1)
    record = store.get("m1")
    assert record is not None
    assert record.summary.reason == "to@example.org: ZeroDivisionError: oops"


def test_a_transport_that_reports_nothing_is_uncertain_and_held_where_the_policy_says_so(
    store: MemoryStore,
) -> None:
    class Silent(RecordingTransport):
        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            return Outcome(results={})

    store.put([a_message()])
    Runner(store, Silent(), retry=RetryPolicy(uncertain="hold")).drain()
    assert the_state(store, "m1") is State.HELD


def test_only_the_queues_it_serves_are_claimed(store: MemoryStore) -> None:
    store.put([a_message(1), a_message(2, queue="tasks")])
    Runner(store, RecordingTransport()).drain()
    assert the_state(store, "m2") is State.QUEUED


def test_each_queue_has_its_own_policy(store: MemoryStore) -> None:
    store.put([a_message(1), a_message(2, queue="bulk")])
    transport = RecordingTransport(lambda _message, _recipient: TempFailed("451 later"))
    retry = {"bulk": RetryPolicy(attempts=1)}
    Runner(store, transport, queues=["mail", "bulk"], retry=retry).drain()
    assert the_state(store, "m1") is State.QUEUED
    assert the_state(store, "m2") is State.DEAD


def test_a_started_runner_delivers_what_is_put_later(store: MemoryStore) -> None:
    heard = Heard()
    runner = Runner(store, RecordingTransport(), listeners=[heard])
    runner.start()
    try:
        for number in range(20):
            store.put([a_message(number)])
            heard.wait_for(Settled, number + 1)
    finally:
        assert runner.stop()


def test_starting_twice_is_refused(store: MemoryStore) -> None:
    runner = Runner(store, RecordingTransport())
    runner.start()
    try:
        with pytest.raises(ConfigurationError, match="running already"):
            runner.start()
    finally:
        runner.stop()
    runner.start()
    runner.stop()


def test_a_stop_lets_the_message_under_way_finish_and_releases_the_rest(store: MemoryStore) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def deliver(_message: Message, _recipient: str) -> None:
        under_way.set()
        assert go_on.wait(PATIENCE)

    store.put([a_message(n) for n in range(5)])
    runner = Runner(store, FunctionTransport(deliver), workers=1)
    runner.start()
    assert under_way.wait(PATIENCE)
    stopping = threading.Thread(target=runner.stop)
    stopping.start()
    go_on.set()
    stopping.join(PATIENCE)
    states = [s.state for s in store.browse()]
    assert State.CLAIMED not in states
    assert len(states) == 4, "the one under way was delivered, nothing else was begun"
    assert all(s.attempts == 0 for s in store.browse()), "what was released was never attempted"


def test_a_hanging_transaction_is_abandoned_after_the_grace_time(store: MemoryStore) -> None:
    under_way, go_on = threading.Event(), threading.Event()

    def hang(_message: Message, _recipient: str) -> None:
        under_way.set()
        go_on.wait(PATIENCE)

    store.put([a_message()])
    runner = Runner(store, FunctionTransport(hang), workers=1)
    runner.start()
    assert under_way.wait(PATIENCE)
    assert not runner.stop(grace=dt.timedelta(0))
    go_on.set()


def test_run_forever_ends_when_it_is_stopped_from_elsewhere(store: MemoryStore) -> None:
    heard = Heard()
    runner = Runner(store, RecordingTransport(), listeners=[heard])
    thread = threading.Thread(target=runner.run_forever)
    thread.start()
    store.put([a_message()])
    heard.wait_for(Settled)
    runner.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_living_worker_keeps_its_lease() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    extended, lease = threading.Event(), dt.timedelta(milliseconds=300)
    plain_extend = store.extend

    def extend(claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        lost = plain_extend(claims, lease=lease)
        # As much as passes from one time to the next, however late a busy machine lets him come.
        clock.advance(lease / 3)
        extended.set()
        return lost

    store.extend = extend  # type: ignore[method-assign]  # to see the keeper at work
    store.put([a_message()])
    deliveries: list[str] = []

    def slow(message: Message, _recipient: str) -> None:
        deliveries.append(message.id)
        for _ in range(6):
            extended.clear()
            assert extended.wait(PATIENCE)

    tally = Runner(store, FunctionTransport(slow), lease=lease).drain()
    assert tally.delivered == 1
    assert deliveries == ["m1"], "twice the lease went by, and nobody else was given it"


def test_a_store_that_fails_for_a_while_is_asked_again() -> None:
    store, heard = FailingStore(), Heard()
    store.put([a_message()])
    store.failures = {"claim": 2, "settle": 2}
    transport = RecordingTransport()
    tally = Runner(store, transport, workers=1, listeners=[heard]).drain()
    assert tally.delivered == 1
    assert len(transport.messages) == 1, "a settle that fails sends nothing twice"
    assert sum(isinstance(n, StoreFailed) for n in heard.notices) == 4


def test_a_drain_over_a_store_that_fails_for_good_raises_its_error() -> None:
    store = FailingStore()
    store.failures = {"claim": 10**6}
    with pytest.raises(StoreError, match="disk full"):
        Runner(store, RecordingTransport(), workers=1).drain()


def test_a_listener_that_raises_changes_nothing(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    def bad(_: Notice) -> None:
        raise RuntimeError("the listener is broken")

    store.put([a_message()])
    assert Runner(store, RecordingTransport(), listeners=[bad]).drain().delivered == 1
    assert "a listener failed" in caplog.text


def test_a_worker_that_dies_of_a_bug_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    class Buggy(MemoryStore):
        broken = True

        def claim(self, **settings: object) -> Sequence[Claim]:
            if self.broken:
                self.broken = False
                raise RuntimeError("a bug")
            return super().claim(**settings)  # type: ignore[arg-type]  # passed on as they came

    store, heard = Buggy(), Heard()
    store.put([a_message()])
    runner = Runner(store, RecordingTransport(), workers=1, listeners=[heard])
    runner.start()
    try:
        heard.wait_for(Settled)
    finally:
        runner.stop()
    assert "a worker failed" in caplog.text


def test_a_relay_that_comes_back_is_probed_and_used() -> None:
    clock = ManualClock()
    store, heard, transport = MemoryStore(clock=clock), Heard(), RecordingTransport()
    store.put([a_message(n) for n in range(10)])
    transport.fault = RelayUnavailable("mx:25", "refused")
    runner = Runner(store, transport, clock=clock, listeners=[heard])
    assert runner.drain().released >= 1
    assert sum(isinstance(n, RelayPaused) for n in heard.notices) >= 1
    transport.fault = None
    clock.advance(dt.timedelta(minutes=10))
    assert runner.drain().delivered == 10


def test_an_uncertain_delivery_is_retried_with_the_same_bytes() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    results: list[Result] = [Uncertain("no reply after the final dot"), Accepted("250 ok")]
    transport = RecordingTransport(lambda _m, _r: results.pop(0))
    store.put([a_message()])
    runner = Runner(store, transport, workers=1, clock=clock)
    assert runner.drain().retried == 1
    clock.advance(dt.timedelta(hours=3))
    assert runner.drain().delivered == 1
    first, second = transport.messages
    assert first == second


def test_suspects_go_one_at_a_time_with_nothing_else_in_flight() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    store.put([a_message(n) for n in range(12)])
    for _ in range(2):
        store.claim(limit=6, lease=SECOND, queues=["mail"])  # a worker that dies with its batch
    clock.advance(2 * SECOND)
    lock, in_flight, crowds = threading.Lock(), 0, []

    def deliver(_message: Message, _recipient: str) -> None:
        nonlocal in_flight
        with lock:
            in_flight += 1
            crowds.append(in_flight)
        with lock:
            in_flight -= 1

    tally = Runner(store, FunctionTransport(deliver), clock=clock, workers=4).drain()
    assert tally.delivered == 12
    assert set(crowds) == {1}


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"queues": "mail"}, "queues"),
        ({"queues": []}, "queues"),
        ({"workers": 0}, "workers"),
        ({"lease": dt.timedelta(0)}, "lease"),
        ({"retry": "1m, 5m"}, "RetryPolicy.parse"),
        ({"retry": {"mail": "1m"}}, "RetryPolicy.parse"),
        ({"retry": 5}, "RetryPolicy.parse"),
    ],
)
def test_a_wrong_setting_is_named(store: MemoryStore, settings: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        Runner(store, RecordingTransport(), **settings)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="sends a signal to the main thread")
def test_an_exception_in_the_draining_thread_stops_it_and_is_raised_again(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        caught.set()
        raise Interrupted

    def join(crew: Crew) -> None:
        joining.set()
        plain(crew)

    def deliver(_message: Message, _recipient: str) -> None:
        assert joining.wait(60)  # the draining thread waits for this one
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert caught.wait(60)
        left_behind.append(raised.wait(0.2))

    caught, raised, joining, plain = threading.Event(), threading.Event(), threading.Event(), Crew.join
    monkeypatch.setattr(Crew, "join", join)
    left_behind: list[bool] = []
    store.put([a_message(n) for n in range(3)])
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupted):
            Runner(store, FunctionTransport(deliver), workers=1).drain()
        raised.set()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert left_behind == [False], "what is under way ends before drain does"
    assert [s.state for s in store.browse()] == [State.QUEUED] * 2, "nothing is left under a lease"


def test_delivered_verdicts_carry_their_evidence(store: MemoryStore) -> None:
    heard = Heard()
    store.put([a_message()])
    Runner(store, RecordingTransport(), listeners=[heard]).drain()
    (settled,) = [n for n in heard.notices if isinstance(n, Settled)]
    assert isinstance(settled.verdict, Delivered)
    assert settled.verdict.outcome is not None
    assert settled.verdict.outcome.results == {"to@example.org": Accepted("250 recorded")}
