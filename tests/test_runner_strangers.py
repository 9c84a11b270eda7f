"""The Runner among strangers: whatever a transport, a listener or a store does, no worker and no message is lost."""

import asyncio
import datetime as dt
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from running import PATIENCE, SECOND, FailingStore, Heard, a_message, the_state

from outbox.errors import OutboxError, RelayUnavailable, StoreError, StoreUnavailable
from outbox.events import Notice, RelayResumed, Settled, StoreFailed
from outbox.lifecycle import Claim, Event, Fate, Settlement, State
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.performer import Tally
from outbox.protocols import Exchanged, Store
from outbox.relay import RelayLimits
from outbox.retry import RetryPolicy
from outbox.runner import Runner
from outbox.stores.memory import MemoryStore
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clock import ManualClock
from outbox.testing.recording import RecordingTransport

HOLD = RetryPolicy(uncertain="hold")
RECIPIENTS = ("a@example.org", "b@example.org")


class Odd(RecordingTransport):
    """Does with the message *bad* what it is told to, and delivers all others."""

    def __init__(self, behaviour: Callable[[Message, Sequence[str]], Any]) -> None:
        super().__init__()
        self.behaviour = behaviour

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        outcome = super().deliver(message, recipients)
        if message.id != "bad":
            return outcome
        answer: Outcome = self.behaviour(message, recipients)
        return answer


def the_bad_one(**fields: Any) -> Message:
    return Message(id="bad", recipients=RECIPIENTS, content=b"Subject: x\r\n\r\n", priority=1, **fields)


def raising(error: BaseException) -> Callable[[Message, Sequence[str]], Any]:
    def behave(_message: Message, _recipients: Sequence[str]) -> Any:
        raise error

    return behave


def reporting(result: Any) -> Callable[[Message, Sequence[str]], Any]:
    return lambda _, recipients: Outcome(results=dict.fromkeys(recipients, result))


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class MyAccepted(Accepted):
    pass


class Silent(RelayUnavailable):
    def __init__(self) -> None:
        pass


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    opened = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "outbox.db")
    yield opened
    opened.close()


# -- what a transport answers


@pytest.mark.parametrize(
    ("behave", "fate", "word"),
    [
        (lambda _m, _r: None, Fate.UNCERTAIN, "Odd.deliver returned None"),
        (lambda _m, _r: "ok", Fate.UNCERTAIN, "a value of type str"),
        (reporting("250 ok"), Fate.UNCERTAIN, "a value of type str"),
        (reporting(None), Fate.UNCERTAIN, "None"),
        (reporting(Accepted), Fate.UNCERTAIN, "a value of type type"),
        (reporting(TempFailed("451 later", retry_after=30)), Fate.WAITING, "451 later"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda _m, r: Outcome.same(r, TempFailed("451"), relay=None), Fate.WAITING, "451"),  # type: ignore[arg-type]  # wrong on purpose
        (lambda _m, r: Outcome.same(r, TempFailed("451"), relay="\udc80"), Fate.WAITING, "451"),
        (
            lambda _m, r: Outcome(results=dict.fromkeys(r, TempFailed("451")), fault="down"),  # type: ignore[arg-type]  # wrong on purpose
            Fate.WAITING,
            "451",
        ),
        (
            lambda _m, r: Outcome(results=dict.fromkeys(r, TempFailed("451")) | {1: Accepted()}),  # type: ignore[dict-item]  # wrong on purpose
            Fate.WAITING,
            "451",
        ),
        (raising(Unspeakable()), Fate.WAITING, "Unspeakable"),
        (raising(SystemExit(3)), Fate.WAITING, "SystemExit: 3"),
        (raising(KeyboardInterrupt()), Fate.WAITING, "KeyboardInterrupt"),
        (raising(GeneratorExit()), Fate.WAITING, "GeneratorExit"),
        (raising(StopIteration()), Fate.WAITING, "StopIteration"),
    ],
)
def test_an_odd_answer_costs_no_message_but_its_own_and_is_told(
    store: Any, behave: Callable[[Message, Sequence[str]], Any], fate: Fate, word: str
) -> None:
    store.put([a_message(n) for n in range(20)])
    store.put([the_bad_one()])
    tally = Runner(store, Odd(behave), workers=1, retry=HOLD).drain()

    assert (tally.delivered, tally.retried + tally.held) == (20, 1)
    (summary,) = store.browse()
    assert set(summary.fates.values()) == {fate}
    assert word in summary.reason
    assert store.get("bad").history, "the attempt can be written and read"


def test_an_acceptance_of_one_s_own_kind_is_an_acceptance(store: Any) -> None:
    store.put([the_bad_one()])
    assert Runner(store, Odd(reporting(MyAccepted("250 mine")))).drain() == Tally(delivered=1)


def test_an_odd_result_beside_a_sound_one_spoils_it_not(store: Any) -> None:
    def half(_message: Message, recipients: Sequence[str]) -> Any:
        first, second = recipients
        return Outcome(results={first: MyAccepted("250"), second: "??"})  # type: ignore[dict-item]  # wrong on purpose

    store.put([the_bad_one()])
    Runner(store, Odd(half), retry=HOLD).drain()
    (summary,) = store.browse()
    assert list(summary.fates.values()) == [Fate.ACCEPTED, Fate.UNCERTAIN]


def test_a_fault_that_says_nothing_is_a_fault_all_the_same(store: Any) -> None:
    store.put([the_bad_one()])
    tally = Runner(store, Odd(raising(Silent()))).drain()
    assert (tally.released, list(tally.faults)) == (1, [""])
    assert isinstance(tally.faults[""], RelayUnavailable)


def test_a_fault_after_some_results_gives_up_nobody_it_kept_from_his_attempt() -> None:
    store = MemoryStore()
    fault = RelayUnavailable("mx:25", "421 closing")

    def half(_message: Message, recipients: Sequence[str]) -> Any:
        return Outcome(results={recipients[0]: Accepted("250"), recipients[1]: Untried()}, fault=fault)

    store.put([the_bad_one()])
    Runner(store, Odd(half), retry=RetryPolicy(attempts=1)).drain()
    (summary,) = store.browse()
    assert (summary.state, list(summary.fates.values())) == (State.QUEUED, [Fate.ACCEPTED, Fate.WAITING])
    assert summary.reason == "mx:25: 421 closing"


# -- what a listener and a store do


@pytest.mark.parametrize("error", [SystemExit(), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_a_listener_raises_every_message_is_delivered(error: BaseException) -> None:
    def bad(_: Notice) -> None:
        raise error

    store = MemoryStore()
    store.put([a_message(n) for n in range(50)])
    assert Runner(store, RecordingTransport(), listeners=[bad]).drain() == Tally(delivered=50)


@pytest.mark.parametrize("error", [SystemExit("gone"), StopIteration()])
def test_a_drain_whose_worker_fails_says_so_and_not_that_all_went_well(error: BaseException) -> None:
    class Broken(MemoryStore):
        def claim(self, **_settings: object) -> Sequence[Claim]:
            raise error

    with pytest.raises(OutboxError, match=type(error).__name__) as raised:
        Runner(Broken(), RecordingTransport(), workers=2).drain()
    assert raised.value.__cause__ is error
    assert "until then: Tally(" in raised.value.__notes__[0]


class Forgetful(MemoryStore):
    """A store whose first settles raise what none should."""

    def __init__(self, failures: int = 1) -> None:
        super().__init__()
        self.extended: list[str] = []
        self.failures = failures

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        self._fail()
        return super().settle(settlements)

    def exchange(self, settlements: Sequence[Settlement], /, **order: Any) -> Exchanged:
        self._fail()
        return super().exchange(settlements, **order)

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise KeyError("a bug")

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        self.extended += [claim.message.id for claim in claims]
        return super().extend(claims, lease=lease)


@pytest.mark.parametrize(("failures", "left"), [(1, False), (2, True)])
def test_what_fells_a_clerk_is_tried_once_more_and_then_left_to_its_lease_and_delivered_after_all(
    failures: int, left: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.crew._AFTER_A_BUG", dt.timedelta(milliseconds=1))
    store, heard = Forgetful(failures), Heard()
    store.put([a_message(n) for n in range(5)])
    runner = Runner(store, RecordingTransport(), workers=1, lease=SECOND, listeners=[heard])
    runner.start()
    try:
        heard.wait_for(Settled, 5)
    finally:
        runner.stop()
    assert store.browse() == []
    assert ("left without a written verdict" in caplog.text) is left


def test_a_drain_that_cannot_note_what_it_sent_names_it() -> None:
    store = FailingStore()
    store.put([a_message()])
    store.failures = {"settle": 10**6}
    with pytest.raises(StoreError, match="handed over, and what came of it is not noted: m1"):
        Runner(store, RecordingTransport(), workers=1).drain()


def test_a_drain_is_patient_with_its_store_while_somebody_delivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.delivery._back_off", lambda *_: dt.timedelta(milliseconds=1))

    class Back(FailingStore):
        def exchange(self, settlements: Sequence[Settlement], /, **order: Any) -> Exchanged:
            try:
                return super().exchange(settlements, **order)
            finally:
                if not self.failures["settle"]:
                    is_back.set()

        def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
            try:
                return super().settle(settlements)
            finally:
                if not self.failures["settle"]:
                    is_back.set()

    class Long(RecordingTransport):
        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            if message.id == "m2":
                assert is_back.wait(PATIENCE)
            return super().deliver(message, recipients)

    store, is_back = Back(), threading.Event()
    store.put([a_message(1), a_message(2)])
    store.failures = {"settle": 20}
    tally = Runner(store, Long(), workers=2).drain()
    assert tally.delivered == 2
    assert store.browse() == []


def test_what_comes_in_after_a_drain_lost_patience_with_its_store_is_written_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A claim that takes long before it fails was begun when nobody delivered."""
    monkeypatch.setattr("outbox.errands._AMONG_SEVERAL", 0.0)
    monkeypatch.setattr("outbox.delivery._back_off", lambda *_: dt.timedelta(milliseconds=1))

    class Bare:
        """Whatever is put can be settled, and nothing more can be claimed."""

        def __init__(self) -> None:
            self.whole, self.failures = MemoryStore(), -1
            self.put, self.extend, self.close = self.whole.put, self.whole.extend, self.whole.close

        def claim(self, **order: Any) -> Sequence[Claim]:
            self.failures += 1
            if self.failures == 0:
                return self.whole.claim(**order)
            if self.failures == 5:  # as often as a drain tries
                assert begun.wait(PATIENCE)
                failed.set()
            raise StoreUnavailable("locked")

        def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
            self.failures = 0
            return self.whole.settle(settlements)

    class Slow(RecordingTransport):
        def relay(self, _message: Message, _recipient: str, /) -> str:
            return "mx:25"

        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            if self.messages:
                begun.set()
                assert failed.wait(PATIENCE)
            return super().deliver(message, recipients)

    store, transport, begun, failed = Bare(), Slow(), threading.Event(), threading.Event()
    store.put([a_message(1), a_message(2)])
    with pytest.raises(StoreUnavailable, match="locked"):
        # The second is let go while the store is asked.
        Runner(store, transport, workers=2, limits=RelayLimits(per_second=2)).drain()
    assert len(transport.messages) == 2
    assert store.whole.browse() == []


# -- probes


def test_a_message_that_expires_while_its_relay_is_paused_keeps_nobody_else_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outbox.relay.breaker._UNAVAILABLE", (0.01, 0.01))
    clock = ManualClock()
    store, transport, heard = MemoryStore(clock=clock), RecordingTransport(), Heard()
    expires = clock.now() + 2 * SECOND
    store.put([Message(id="first", recipients=["x@x"], content=b"", priority=1, expires_at=expires)])
    transport.fault = RelayUnavailable("mx:25", "down")
    runner = Runner(store, transport, clock=clock, workers=1, listeners=[heard])
    runner.start()
    try:
        heard.wait_until(lambda notices: Event.RELEASED in map(_event, notices))
        transport.fault = None
        clock.advance(10 * SECOND)
        store.put([a_message(n) for n in range(3)])
        heard.wait_until(lambda notices: [_event(n) for n in notices].count(Event.DELIVERED) == 3)
    finally:
        runner.stop()
    assert the_state(store, "first") is State.EXPIRED


def _event(notice: Notice) -> Event | None:
    return notice.verdict.event if isinstance(notice, Settled) else None


def test_a_message_that_makes_its_relay_fail_keeps_no_drain_from_delivering_the_others() -> None:
    def refuse(_message: Message, _recipients: Sequence[str]) -> Any:
        raise RelayUnavailable("mx:25", "this one makes it hang up")

    clock = ManualClock()
    store, heard = MemoryStore(clock=clock), Heard()
    store.put([the_bad_one()])
    store.put([a_message(n) for n in range(40)])
    transport = Odd(refuse)
    tally = Runner(store, transport, clock=clock, workers=1, listeners=[heard]).drain()

    assert (tally.delivered, tally.released) == (40, 1)
    assert list(tally.faults) == ["mx:25"], "and it is told"
    assert any(isinstance(notice, RelayResumed) for notice in heard.notices)
    assert [message.id for message in transport.messages].count("bad") == 1
    (summary,) = store.browse()
    assert (summary.state, summary.attempts) == (State.QUEUED, 0)
    assert store.next_due(["mail"]) == dt.timedelta(0), "due for the next drain"


# -- what may have been sent


@pytest.mark.parametrize("at_most_once", [False, True])
def test_what_a_dead_worker_may_have_sent_is_sent_again_only_by_a_person_s_word(at_most_once: bool) -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    store.put([the_bad_one(at_most_once=at_most_once)])
    store.claim(limit=1, lease=SECOND, queues=["mail"])
    clock.advance(SECOND)
    assert [change.status for change in store.requeue(["bad"])] == ["refused"]
    assert [change.status for change in store.requeue(["bad"], uncertain=True)] == ["done"]

    transport = RecordingTransport()
    assert Runner(store, transport, clock=clock).drain().delivered == 1, "the word is obeyed"


def test_an_uncertain_attempt_is_not_forgotten_when_the_next_one_is_refused() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    results: list[Result] = [Uncertain("no reply"), PermFailed("550 gone")]
    transport = RecordingTransport(lambda _m, _r: results.pop(0))
    store.put([a_message()])
    runner = Runner(store, transport, workers=1, clock=clock, retry=RetryPolicy.parse("1m, 1m"))
    assert runner.drain().retried == 1
    clock.advance(dt.timedelta(hours=1))
    assert runner.drain().held == 1
    assert the_state(store, "m1") is State.HELD
    assert [change.status for change in store.requeue(["m1"])] == ["refused"]


def test_what_expires_behind_a_slow_one_of_its_batch_is_not_handed_over() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    expires = clock.now() + SECOND
    store.put([a_message(n) for n in range(2)])
    store.put([Message(id="z", recipients=["x@x"], content=b"", priority=-1, expires_at=expires)])

    def slow(message: Message, _recipient: str) -> Accepted:
        # The third is of the same batch as the second.
        if message.id == "m1":
            clock.advance(2 * SECOND)
        return Accepted()

    transport = RecordingTransport(slow)
    runner = Runner(store, transport, clock=clock, workers=1)
    tally = runner.drain()
    assert (tally.delivered, tally.expired) == (2, 1)
    assert "z" not in [message.id for message in transport.messages]


# -- the keepers


class Unruly(RecordingTransport):
    """A transport whose idle connections cannot be closed."""

    def __init__(self, expire: Callable[[], object]) -> None:
        super().__init__()
        self._expire = expire

    def expire(self) -> None:
        self._expire()


def kept_alive(monkeypatch: pytest.MonkeyPatch, expire: Callable[[], object]) -> None:
    """A lease is extended, and the house is tidied, although *expire* is as it is."""
    monkeypatch.setattr("outbox.delivery._TIDY_EVERY", dt.timedelta(milliseconds=10))
    # By its clock no lease runs out, however late the keeper is on a busy machine.
    store = MemoryStore(clock=ManualClock())
    extended, tidied = threading.Semaphore(0), threading.Event()
    plain_extend = store.extend

    def extend(claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        lost = plain_extend(claims, lease=lease)
        extended.release()
        return lost

    def tidy() -> None:
        tidied.set()
        expire()

    def slow(_message: Message, _recipient: str) -> Accepted:
        assert tidied.wait(PATIENCE)
        for _ in range(4):
            assert extended.acquire(timeout=PATIENCE), "nobody extends the lease any more"
        return Accepted()

    store.extend = extend  # type: ignore[method-assign]  # to see the keeper at work
    transport = Unruly(tidy)
    transport._answers = slow
    store.put([a_message()])
    tally = Runner(store, transport, workers=1, lease=dt.timedelta(milliseconds=600)).drain()
    assert tally == Tally(delivered=1)


@pytest.mark.parametrize("error", [OSError("socket trouble"), SystemExit()])
def test_a_transport_that_cannot_close_its_connections_loses_no_lease(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def expire() -> None:
        raise error

    kept_alive(monkeypatch, expire)


def test_a_transport_that_hangs_at_closing_its_connections_loses_no_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hang = threading.Event()
    try:
        kept_alive(monkeypatch, lambda: hang.wait(PATIENCE))
    finally:
        hang.set()


@pytest.mark.parametrize("once", [False, True])
def test_a_transport_that_breaks_off_when_it_is_asked_for_a_relay_fells_no_clerk(
    once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each clerk fell at the same message, and took down with him what he had claimed with it."""
    monkeypatch.setattr("outbox.crew._AFTER_A_BUG", dt.timedelta(milliseconds=1))

    class BreaksOff(RecordingTransport):
        def relay(self, message: Message, _recipient: str, /) -> str:
            if message.id == "bad":
                raise asyncio.CancelledError
            return "mx"

    store = MemoryStore()
    store.put([a_message(n) for n in range(20)])
    store.put([the_bad_one(at_most_once=once)])
    tally = Runner(store, BreaksOff()).drain()
    assert tally == Tally(delivered=21)


def test_what_ends_the_program_while_a_relay_is_asked_for_ends_a_send() -> None:
    class BreaksOff(RecordingTransport):
        def relay(self, _message: Message, _recipient: str, /) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Runner(MemoryStore(), BreaksOff()).send(a_message())


def test_a_listener_that_hangs_at_what_the_keeper_met_loses_no_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.delivery._TIDY_EVERY", dt.timedelta(milliseconds=10))
    hangs, over = threading.Event(), threading.Event()

    class OneHiccup(MemoryStore):
        def __init__(self) -> None:
            super().__init__(clock=ManualClock())
            self.asked = 0
            self.extended = threading.Semaphore(0)

        def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
            self.asked += 1
            if self.asked == 1:
                raise StoreUnavailable("one hiccup")
            if hangs.is_set():
                self.extended.release()
            return super().extend(claims, lease=lease)

    opened = OneHiccup()

    def listen(notice: Notice) -> None:
        if isinstance(notice, StoreFailed):
            hangs.set()
            over.wait(PATIENCE)

    def slow(_message: Message, _recipient: str) -> Accepted:
        for _ in range(3):
            assert opened.extended.acquire(timeout=PATIENCE / 2), "nobody extends the lease any more"
        over.set()
        return Accepted()

    opened.put([a_message()])
    runner = Runner(
        opened,
        RecordingTransport(slow),
        workers=1,
        lease=dt.timedelta(milliseconds=600),
        listeners=[listen],
    )
    assert runner.drain() == Tally(delivered=1)


def test_a_store_that_fails_oddly_at_extending_is_asked_again() -> None:
    class Buggy(MemoryStore):
        def __init__(self) -> None:
            super().__init__(clock=ManualClock())
            self.asked = threading.Semaphore(0)

        def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
            self.asked.release()
            raise KeyError("a bug")

    store = Buggy()

    def slow(_message: Message, _recipient: str) -> Accepted:
        for _ in range(3):
            assert store.asked.acquire(timeout=PATIENCE)
        return Accepted()

    store.put([a_message()])
    transport = RecordingTransport(slow)
    tally = Runner(store, transport, workers=1, lease=dt.timedelta(milliseconds=300)).drain()
    assert tally.delivered == 1


# -- upkeep


def test_a_program_that_only_drains_prunes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.performer._PRUNE", 10)
    clock = ManualClock()
    store: Store = MemoryStore(clock=clock, remember=SECOND, keep_delivered=SECOND)
    assert isinstance(store, MemoryStore)
    store.put([a_message(n) for n in range(35)])
    Runner(store, RecordingTransport(), clock=clock).drain()
    clock.advance(10 * SECOND)
    assert len(store.browse()) == 35
    assert Runner(store, RecordingTransport(), clock=clock).drain() == Tally()
    assert store.browse() == [], "as many steps as it takes"


def test_a_drain_whose_pruning_fails_returns_what_it_delivered(caplog: pytest.LogCaptureFixture) -> None:
    class Unkempt(MemoryStore):
        def prune(self, *, limit: int = 1000) -> int:
            raise KeyError("a bug")

    store = Unkempt()
    store.put([a_message()])
    with caplog.at_level(logging.ERROR):
        assert Runner(store, RecordingTransport()).drain() == Tally(delivered=1)
    assert "pruning failed" in caplog.text
