"""A crew at work: its clerk, its workers and the desk between them, on threads, with strangers on every side."""

import contextlib
import datetime as dt
import re
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from running import PATIENCE, SECOND, FailingStore, Heard, a_message, the_state

from outbox.desk import Desk
from outbox.errors import ConfigurationError, RelayUnavailable, StoreUnavailable
from outbox.events import LeaseLost, Notice, Settled, StoreFailed
from outbox.lifecycle import Claim, Delivered, Settlement, State
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed
from outbox.performer import Tally
from outbox.protocols import Delivery, Exchanged, Store, SupportsExchange
from outbox.runner import Runner
from outbox.stores.memory import MemoryStore
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clock import ManualClock

DOWN = RelayUnavailable("mx:25", "421 closing")
OK = Accepted("250 ok")


class Batches:
    """A batch transport; *before* is called with each message's id before it is handed over, and may raise."""

    def __init__(self, before: Callable[[str], object] = lambda _: None, *, ahead: bool = False) -> None:
        self.before = before
        self.ahead = ahead
        self.seen: list[str] = []

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        pulled = iter(deliveries)
        delivery = next(pulled, None)
        while delivery is not None:
            following = next(pulled, None) if self.ahead else None
            self.before(delivery.message.id)
            self.seen.append(delivery.message.id)
            yield Outcome.same(delivery.recipients, OK)
            delivery = following if self.ahead else next(pulled, None)

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self.seen.append(message.id)
        return Outcome.same(recipients, OK)

    def close(self) -> None:
        pass


class ByDomain:
    """A transport that leads to a relay for each domain; *before* is called with the message's id."""

    def __init__(self, before: Callable[[str], object] = lambda _: None) -> None:
        self.before = before
        self.seen: list[str] = []

    def relay(self, _message: Message, recipient: str, /) -> str:
        return recipient.partition("@")[2]

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self.before(message.id)
        self.seen.append(message.id)
        return Outcome.same(recipients, OK)

    def close(self) -> None:
        pass


class Gate:
    """Something that a delivery of this id waits at until it is opened."""

    def __init__(self, id: str = "m0") -> None:
        self.id = id
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, id: str) -> None:
        if id == self.id:
            self.reached.set()
            assert self.opened.wait(PATIENCE)


def once(error: BaseException, at: str) -> Callable[[str], None]:
    """Raises it at the first delivery of this id."""
    left = [error]

    def before(id: str) -> None:
        if id == at and left:
            raise left.pop()

    return before


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def delivered(notices: Sequence[Notice]) -> int:
    return sum(isinstance(n, Settled) and isinstance(n.verdict, Delivered) for n in notices)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the desk was asked what to do."""
    counts: Counter[str] = Counter()
    for name in ("take", "collect"):
        plain = getattr(Desk, name)

        def counted(*args: Any, _plain: Any = plain, _name: str = name) -> Any:
            counts[_name] += 1
            return _plain(*args)

        monkeypatch.setattr(Desk, name, counted)
    return counts


# -- a run and what befalls it


def test_what_was_pulled_ahead_and_not_told_of_is_delivered_by_the_next(store: MemoryStore) -> None:
    store.put([a_message(n) for n in range(30)])
    transport = Batches(once(ValueError("oops"), "m17"), ahead=True)
    tally = Runner(store, transport, workers=2).drain()
    assert tally == Tally(delivered=29, retried=1)
    assert len(transport.seen) == len(set(transport.seen)) == 29


def test_a_relay_fault_in_the_middle_of_a_batch_charges_nobody_and_costs_no_other_his_turn(
    store: MemoryStore,
) -> None:
    store.put([a_message(n) for n in range(30)])
    transport = Batches(once(DOWN, "m17"), ahead=True)
    tally = Runner(store, transport, workers=1).drain()
    assert (tally.delivered, tally.released, list(tally.faults)) == (29, 1, ["mx:25"])
    (summary,) = store.browse()
    assert (summary.id, summary.attempts) == ("m17", 0)


def test_a_stop_in_the_middle_of_a_batch_lets_that_message_finish_and_gives_back_the_rest(
    store: MemoryStore,
) -> None:
    store.put([a_message(n) for n in range(10, 40)])
    gate = Gate("m25")
    runner = Runner(store, Batches(gate, ahead=True), workers=1)
    runner.start()
    assert gate.reached.wait(PATIENCE)
    stopping = threading.Thread(target=runner.stop)
    stopping.start()
    while the_state(store, "m27") is not State.QUEUED:
        threading.Event().wait(0.001)
    gate.opened.set()
    stopping.join(PATIENCE)
    left = store.browse()
    assert [summary.id for summary in left] == [f"m{n}" for n in range(26, 40)]
    assert {(summary.state, summary.attempts) for summary in left} == {(State.QUEUED, 0)}


def test_a_stop_forgets_nothing_that_was_sent_before_anything_was_reported(store: MemoryStore) -> None:
    class Lists(Batches):
        def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
            outcomes = list(super().deliver_many(deliveries))
            if len(outcomes) > 1:
                runner.stop()
            return cast("Generator[Outcome, None, None]", outcomes)  # as a stranger might

    transport = Lists()
    runner = Runner(store, transport, workers=1)
    store.put([a_message(n) for n in range(30)])
    tally = runner.drain()
    assert 2 < len(transport.seen) == len(set(transport.seen)) == tally.delivered < 30
    assert {summary.state for summary in store.browse()} == {State.QUEUED}


def test_while_the_store_falters_nothing_is_begun_and_what_was_sent_is_written_once_it_works_again() -> None:
    store, heard = FailingStore(), Heard()
    store.put([a_message(n) for n in range(40)])
    store.failures = {"settle": 3}
    begun_before: list[int] = []
    transport = Batches()

    def note(notice: Notice) -> None:
        if isinstance(notice, StoreFailed):
            begun_before.append(len(transport.seen))

    runner = Runner(store, transport, workers=1, listeners=[note, heard])
    runner.start()
    try:
        heard.wait_until(lambda notices: delivered(notices) == 40)
    finally:
        runner.stop()
    assert len(set(begun_before[1:])) == 1, "between one failure and the next nothing was begun"
    assert len(transport.seen) == len(set(transport.seen)) == 40


class ClaimsNothingMore(MemoryStore):
    """Its exchange raises what is no StoreError, as where a content has a coding that it was opened without."""

    def __init__(self) -> None:
        super().__init__()
        self.raised = threading.Event()

    def exchange(self, settlements: Sequence[Settlement], /, **settings: Any) -> Exchanged:
        self.raised.set()
        raise ConfigurationError("a content in a coding that it was opened without")

    def left(self) -> Counter[State]:
        return Counter(summary.state for summary in self.browse())


def test_what_was_sent_when_a_clerk_fell_is_written_by_the_next_one_and_sent_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """205 of 600 went out twice: each clerk who fell forgot what he had in hand, and the workers went on."""
    monkeypatch.setattr("outbox.crew._AFTER_A_BUG", dt.timedelta(milliseconds=1))
    store, heard, transport = ClaimsNothingMore(), Heard(), Batches()
    store.put([a_message(n) for n in range(30)])
    runner = Runner(store, transport, workers=2, listeners=[heard])
    runner.start()
    try:
        heard.wait_until(lambda notices: delivered(notices) == 30)
    finally:
        assert runner.stop()
    assert store.raised.is_set()
    assert len(transport.seen) == len(set(transport.seen)) == 30
    assert store.left() == {}


def test_what_was_sent_when_a_drain_s_clerk_fell_is_written_and_the_rest_given_back() -> None:
    store, transport = ClaimsNothingMore(), Batches()
    store.put([a_message(n) for n in range(30)])
    with pytest.raises(ConfigurationError, match="opened without"):
        Runner(store, transport, workers=2).drain()
    assert transport.seen
    assert store.left() == {State.QUEUED: 30 - len(transport.seen)}


def test_what_was_sent_when_a_clerk_fell_is_written_though_the_runner_is_stopped_before_there_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outbox.crew._AFTER_A_BUG", dt.timedelta(hours=1))
    store, transport = ClaimsNothingMore(), Batches()
    store.put([a_message(n) for n in range(30)])
    runner = Runner(store, transport, workers=2)
    runner.start()
    assert store.raised.wait(PATIENCE)
    assert runner.stop()
    assert transport.seen
    assert store.left() == {State.QUEUED: 30 - len(transport.seen)}


def test_a_lease_lost_in_the_middle_of_a_run_is_told_and_that_message_is_another_s() -> None:
    clock = ManualClock()
    store, heard = MemoryStore(clock=clock), Heard()
    store.put([a_message(n) for n in range(10, 13)])
    gate = Gate("m10")
    transport = Batches(gate)
    runner = Runner(store, transport, workers=1, clock=clock, lease=10 * SECOND, listeners=[heard])
    runner.start()
    try:
        assert gate.reached.wait(PATIENCE)
        clock.advance(11 * SECOND)
        taken: list[str] = []
        while "m10" not in taken:
            taken += [c.message.id for c in store.claim(limit=1, lease=60 * SECOND, queues=["mail"])]
            assert taken
        gate.opened.set()
        heard.wait_for(LeaseLost)
    finally:
        runner.stop()
    (lost,) = (notice for notice in heard.notices if isinstance(notice, LeaseLost))
    assert isinstance(lost.verdict, Delivered), "it says what it would have written"


class Torn:
    """A store that settles and claims in two commits, and cannot wait."""

    def __init__(self, store: Store) -> None:
        self.put, self.claim, self.extend, self.close = store.put, store.claim, store.extend, store.close
        self.settle = store.settle


def test_a_store_that_cannot_exchange_is_served_in_two_steps(store: MemoryStore) -> None:
    torn = Torn(store)
    assert not isinstance(torn, SupportsExchange)
    store.put([a_message(n) for n in range(300)])
    transport = Batches()
    assert Runner(torn, transport).drain() == Tally(delivered=300)
    assert len(transport.seen) == 300


def test_a_store_that_cannot_wait_is_asked_again(store: MemoryStore) -> None:
    heard = Heard()
    runner = Runner(Torn(store), Batches(), listeners=[heard])
    runner.start()
    try:
        store.put([a_message()])
        heard.wait_for(Settled)
    finally:
        runner.stop()


# -- waking up


def test_after_a_relay_s_pause_the_mail_goes_on_by_itself(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.relay.breaker._UNAVAILABLE", (0.02, 0.02))
    store.put([a_message(n) for n in range(20)])
    heard = Heard()
    runner = Runner(store, Batches(once(DOWN, "m0")), workers=2, listeners=[heard])
    runner.start()
    try:
        heard.wait_until(lambda notices: delivered(notices) == 20)
    finally:
        runner.stop()


def test_what_is_put_between_the_look_and_the_wait_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.shift._POLL_AT_MOST", dt.timedelta(hours=1))

    class Crossing(SQLiteStore):
        def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
            due = super().next_due(queues)
            self.put([a_message()])
            return due

    heard = Heard()
    with contextlib.closing(Crossing(tmp_path / "outbox.db")) as store:
        runner = Runner(store, Batches(), listeners=[heard])
        runner.start()
        try:
            heard.wait_for(Settled)
        finally:
            runner.stop()


def test_a_store_whose_news_cannot_be_heard_is_asked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(MemoryStore):
        def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
            raise TypeError("not today")

    monkeypatch.setattr("outbox.crew._AFTER_A_BUG", dt.timedelta(milliseconds=1))
    store, heard = Deaf(), Heard()
    runner = Runner(store, Batches(), listeners=[heard])
    runner.start()
    try:
        for number in range(3):
            store.put([a_message(number)])
            heard.wait_for(Settled, number + 1)
    finally:
        runner.stop()


def test_a_store_that_cannot_end_its_waits_keeps_no_runner_from_stopping(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Stubborn(MemoryStore):
        broken = True

        def wake(self) -> None:
            super().wake()
            if self.broken:
                raise StoreUnavailable("gone")

    runner = Runner(Stubborn(), Batches())
    runner.start()
    assert runner.stop()
    assert "failed to end its waits" in caplog.text


def test_a_runner_at_rest_asks_its_desk_nothing(store: MemoryStore, asked: Counter[str]) -> None:
    runner = Runner(store, Batches())
    runner.start()
    try:
        before = -1
        while before != asked.total():
            before = asked.total()
            threading.Event().wait(0.1)
    finally:
        runner.stop()
    assert asked.total() < 50


@pytest.mark.parametrize("draining", [True, False])
def test_a_transport_that_fails_before_it_pulls_is_not_called_again_and_again(
    store: MemoryStore, asked: Counter[str], draining: bool
) -> None:
    class Hasty(Batches):
        def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
            self.seen.append("called")
            raise RelayUnavailable("mx:25", "refused")

    store.put([a_message(n) for n in range(5)])
    transport, heard = Hasty(), Heard()
    runner = Runner(store, transport, workers=1, listeners=[heard])
    if draining:
        assert runner.drain().faults
    else:
        runner.start()
        heard.wait_for(Settled)
        runner.stop()
    assert len(transport.seen) <= 2
    assert asked.total() < 60


def test_a_drain_that_waits_for_one_relay_serves_the_others_and_writes_nothing_meanwhile(
    asked: Counter[str],
) -> None:
    class Counting(MemoryStore):
        written = 0

        def exchange(self, settlements: Sequence[Settlement], /, **settings: Any) -> Exchanged:
            self.written += 1
            return super().exchange(settlements, **settings)

    store, gate = Counting(), Gate("m0")
    store.put([a_message(n, recipients=["x@slow" if n < 20 else "x@good"]) for n in range(40)])
    transport = ByDomain(gate)
    runner = Runner(store, transport, workers=2)
    tally: list[Tally] = []
    drain = threading.Thread(target=lambda: tally.append(runner.drain()))
    drain.start()
    assert gate.reached.wait(PATIENCE)
    while len(transport.seen) < 20 and drain.is_alive():
        threading.Event().wait(0.05)
    assert len(transport.seen) == 20, "what is for the good relay is there"
    threading.Event().wait(1.2)
    assert store.written < 40
    assert asked.total() < 200
    gate.opened.set()
    drain.join(PATIENCE)
    assert tally == [Tally(delivered=40)]


# -- listeners, who are called by the clerk


def test_a_listener_may_submit_send_and_drain(store: MemoryStore) -> None:
    heard = Heard()
    done: list[str] = []

    def busy(notice: Notice) -> None:
        if isinstance(notice, Settled) and notice.claim.message.id == "m1":
            store.put([a_message(2)])
            done.append(runner.send(a_message(3)).id)
            store.put([a_message(4)])
            runner.drain()

    store.put([a_message(1)])
    runner = Runner(store, Batches(), workers=2, listeners=[heard, busy])
    runner.start()
    try:
        heard.wait_until(lambda notices: delivered(notices) == 4)
    finally:
        runner.stop()
    assert done == ["m3"]


def test_a_listener_that_stops_the_runner_loses_nothing(store: MemoryStore) -> None:
    def stopping(notice: Notice) -> None:
        if isinstance(notice, Settled):
            assert not runner.stop()

    store.put([a_message(n) for n in range(200)])
    transport = Batches()
    runner = Runner(store, transport, listeners=[stopping])
    assert runner.run_forever()
    left = store.browse(limit=300)
    assert len(left) + len(transport.seen) == 200
    assert {(summary.state, summary.attempts) for summary in left} <= {(State.QUEUED, 0)}


def test_while_a_listener_blocks_no_more_is_claimed_and_a_stop_is_bounded(store: MemoryStore) -> None:
    blocked, go_on = threading.Event(), threading.Event()

    def blocking(_: Notice) -> None:
        blocked.set()
        assert go_on.wait(PATIENCE)

    store.put([a_message(n) for n in range(1000)])
    transport = Batches()
    runner = Runner(store, transport, workers=2, listeners=[blocking])
    runner.start()
    assert blocked.wait(PATIENCE)
    assert not runner.stop(dt.timedelta(milliseconds=20))
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "outbox-clerk":
            thread.join(PATIENCE)
    left = store.browse(limit=1000)
    assert len(left) + len(transport.seen) == 1000, "what was sent is written when he goes on"
    assert {summary.state for summary in left} == {State.QUEUED}


# -- a clerk who falls


def test_what_a_clerk_had_claimed_when_he_fell_is_taken_up_when_its_lease_runs_out(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.crew._AFTER_A_BUG", dt.timedelta(milliseconds=1))

    class Rude(ByDomain):
        def relay(self, message: Message, recipient: str, /) -> str:
            if not fallen.is_set():
                fallen.set()
                raise SystemExit("no")
            return super().relay(message, recipient)

    fallen = threading.Event()
    store.put([a_message()])
    heard = Heard()
    runner = Runner(store, Rude(), lease=dt.timedelta(milliseconds=500), listeners=[heard])
    runner.start()
    try:
        heard.wait_for(Settled)
    finally:
        runner.stop()
    assert fallen.is_set()
    assert store.browse() == []


def test_a_drain_that_cannot_note_what_it_delivered_names_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outbox.delivery._back_off", lambda *_: dt.timedelta(milliseconds=1))
    store = FailingStore()
    store.put([a_message(n, recipients=[f"x@relay{n}"]) for n in range(2)])
    gate = Gate("m1")
    store.failures = {"settle": 10**6}
    errors: list[BaseException] = []

    def together(id: str) -> None:
        gate(id)
        assert gate.reached.wait(PATIENCE)

    def drain() -> None:
        try:
            Runner(store, ByDomain(together), workers=2).drain()
        except StoreUnavailable as error:
            errors.append(error)

    draining = threading.Thread(target=drain)
    draining.start()
    assert gate.reached.wait(PATIENCE)
    gate.opened.set()
    draining.join(PATIENCE)
    (error,) = errors
    told = re.search("handed over, and what came of it is not noted: ([^;]*);", str(error))
    assert told is not None
    assert sorted(told[1].split(", ")) == ["m0", "m1"]


def test_a_grace_time_that_runs_out_while_the_store_hangs_leaves_what_was_sent_to_be_written() -> None:
    hanging, go_on = threading.Event(), threading.Event()

    class Hanging(MemoryStore):
        def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
            hanging.set()
            assert go_on.wait(PATIENCE)
            return super().settle(settlements)

        def exchange(self, settlements: Sequence[Settlement], /, **settings: Any) -> Exchanged:
            hanging.set()
            assert go_on.wait(PATIENCE)
            return super().exchange(settlements, **settings)

    store = Hanging()
    store.put([a_message()])
    runner = Runner(store, Batches(), workers=1)
    runner.start()
    assert hanging.wait(PATIENCE)
    assert not runner.stop(dt.timedelta(milliseconds=20))
    clerks = [thread for thread in threading.enumerate() if thread.name == "outbox-clerk"]
    go_on.set()
    for clerk in clerks:
        clerk.join(PATIENCE)
    assert store.browse() == []


class PuttingOff(Batches):
    """Puts everybody off, but those of the ids in *refused*, whom it refuses; *runs* are how many came in each."""

    def __init__(self, refused: Sequence[str] = ()) -> None:
        super().__init__()
        self.refused = refused
        self.runs: list[int] = []

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        self.runs.append(0)
        for delivery in deliveries:
            self.runs[-1] += 1
            refused = delivery.message.id in self.refused
            yield Outcome.same(
                delivery.recipients, PermFailed("550 no") if refused else TempFailed("451 later")
            )


def test_a_relay_that_puts_everybody_off_is_asked_for_one_message_after_the_other(store: MemoryStore) -> None:
    transport = PuttingOff()
    store.put([a_message(number) for number in range(40)])
    assert Runner(store, transport, workers=1).drain().retried == 40
    assert transport.runs == [1] * 40


def test_one_that_refuses_them_is_asked_for_more(store: MemoryStore) -> None:
    transport = PuttingOff([f"m{number}" for number in range(40)])
    store.put([a_message(number) for number in range(40)])
    assert Runner(store, transport, workers=1).drain().dead == 40
    assert max(transport.runs) > 1
