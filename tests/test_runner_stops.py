"""How a run begins and ends: nothing is left under way that somebody was told has ended."""

import datetime as dt
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence

import pytest
from running import PATIENCE, SECOND, Heard, a_message

from outbox.crew import Crew
from outbox.desk import Desk
from outbox.errors import ConfigurationError, OutboxError
from outbox.events import Notice, Settled
from outbox.lifecycle import Claim, State
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted
from outbox.performer import Orders
from outbox.runner import Runner
from outbox.sender import Sender, Sent
from outbox.shift import Shift
from outbox.stores.memory import MemoryStore
from outbox.testing.recording import RecordingTransport

HOUR = dt.timedelta(hours=1)

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")


class InThread(threading.Thread):
    """A call in a thread of its own, whose result can be waited for."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.answer: object = None
        self.start()

    def run(self) -> None:
        self.answer = self.call()

    def result(self) -> object:
        self.join(PATIENCE)
        assert not self.is_alive(), "it still waits"
        return self.answer


class Slow(RecordingTransport):
    """Waits in every delivery until it may go on."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.under_way, self.go_on = threading.Event(), threading.Event()

    def _wait(self, _message: Message, _recipient: str) -> Accepted:
        self.under_way.set()
        assert self.go_on.wait(PATIENCE)
        return Accepted()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def slow() -> Iterator[Slow]:
    transport = Slow()
    yield transport
    transport.go_on.set()


OTHERS: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
"""Threads that a test before has left hanging, and that have not ended yet."""


@pytest.fixture(autouse=True)
def others() -> None:
    OTHERS.update(threading.enumerate())


def our_threads() -> list[str]:
    """Those that go on: one that has done its last has a moment to be gone."""
    ours = [each for each in set(threading.enumerate()) - set(OTHERS) if each.name.startswith("outbox-")]
    for each in ours:
        each.join(1)
    return [each.name for each in ours if each.is_alive()]


def wait_until_stopping(runner: Runner) -> None:
    (crew,) = runner._running.crews
    crew.wait_until_stopped()


# -- run_forever


def test_run_forever_returns_when_the_last_transaction_has_ended_and_no_sooner(
    store: MemoryStore, slow: Slow
) -> None:
    store.put([a_message()])
    runner = Runner(store, slow, workers=1)
    running = InThread(runner.run_forever)
    assert slow.under_way.wait(PATIENCE)
    stopping = InThread(runner.stop)
    wait_until_stopping(runner)
    running.join(0.1)
    assert running.is_alive(), "a program that goes on would close the store under the last transaction"
    slow.go_on.set()
    assert (running.result(), stopping.result()) == (True, True)
    assert store.browse() == []


def test_run_forever_says_that_a_transaction_was_left_hanging(store: MemoryStore, slow: Slow) -> None:
    store.put([a_message()])
    runner = Runner(store, slow, workers=1)
    running = InThread(runner.run_forever)
    assert slow.under_way.wait(PATIENCE)
    assert runner.stop(grace=dt.timedelta(0)) is False
    assert running.result() is False


def test_run_forever_on_a_running_runner_is_refused_and_stops_nothing(store: MemoryStore) -> None:
    heard = Heard()
    runner = Runner(store, RecordingTransport(), listeners=[heard])
    runner.start()
    try:
        with pytest.raises(ConfigurationError, match="running already"):
            runner.run_forever()
        store.put([a_message()])
        heard.wait_for(Settled)
    finally:
        assert runner.stop()


def test_run_forever_raises_where_its_workers_ended_although_nobody_stopped_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken(MemoryStore):
        def claim(self, **_settings: object) -> Sequence[Claim]:
            raise KeyError("a bug")

    def die(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Shift, "forsake", die)
    with pytest.raises(OutboxError, match="MemoryError"):
        Runner(Broken(), RecordingTransport(), workers=2).run_forever()


# -- stop


def test_every_stop_waits_until_all_has_ended(store: MemoryStore, slow: Slow) -> None:
    store.put([a_message()])
    runner = Runner(store, slow, workers=1)
    runner.start()
    assert slow.under_way.wait(PATIENCE)
    first = InThread(runner.stop)
    wait_until_stopping(runner)
    second = InThread(runner.stop)
    second.join(0.1)
    assert second.is_alive(), "the message is still under way"
    slow.go_on.set()
    assert (first.result(), second.result()) == (True, True)


def test_the_shortest_grace_of_several_stops_counts(store: MemoryStore, slow: Slow) -> None:
    store.put([a_message()])
    runner = Runner(store, slow, workers=1)
    runner.start()
    assert slow.under_way.wait(PATIENCE)
    first = InThread(runner.stop)
    wait_until_stopping(runner)
    assert runner.stop(grace=dt.timedelta(0)) is False
    assert first.result() is False
    assert runner.stop() is True, "what was left behind runs no more, as far as this Runner goes"


def test_a_stop_by_a_listener_asks_and_does_not_wait_for_itself(store: MemoryStore) -> None:
    stopped: list[bool] = []

    def listen(notice: Notice) -> None:
        if isinstance(notice, Settled):
            stopped.append(runner.stop())

    runner = Runner(store, RecordingTransport(), listeners=[listen], grace=dt.timedelta(hours=1))
    running = InThread(runner.run_forever)
    store.put([a_message()])
    assert running.result() is True
    assert stopped == [False]
    runner.start()
    assert runner.stop(), "it can be started again"


def test_a_stop_by_a_transport_that_closes_what_idled_does_not_wait_for_itself(
    store: MemoryStore, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tidier waited for the last transaction, and then for himself."""
    monkeypatch.setattr("outbox.delivery._TIDY_EVERY", dt.timedelta(milliseconds=10))
    stopped: list[bool] = []

    class Tidied(Slow):
        def expire(self) -> None:
            if self.under_way.is_set() and not stopped:
                stopped.append(runner.stop())
                self.go_on.set()

    runner = Runner(store, Tidied(), workers=1, grace=HOUR)
    store.put([a_message()])
    assert InThread(runner.run_forever).result() is True
    assert stopped == [False]


def test_a_stop_by_a_store_that_is_asked_to_extend_does_not_wait_for_itself(slow: Slow) -> None:
    stopped: list[bool] = []

    class Stops(MemoryStore):
        def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
            stopped.append(runner.stop())
            slow.go_on.set()
            return super().extend(claims, lease=lease)

    store = Stops()
    runner = Runner(store, slow, workers=1, grace=HOUR, lease=dt.timedelta(milliseconds=90))
    store.put([a_message()])
    assert InThread(runner.run_forever).result() is True
    assert stopped[0] is False


def test_two_crews_whose_listeners_stop_their_runner_do_not_wait_for_each_other(store: MemoryStore) -> None:
    together = threading.Barrier(2)
    stopped: list[bool] = []

    def listen(notice: Notice) -> None:
        if isinstance(notice, Settled):
            together.wait(PATIENCE)
            stopped.append(runner.stop())

    class Both(RecordingTransport):
        under_way = threading.Event()

        def __init__(self) -> None:
            super().__init__(self._wait)

        def _wait(self, _message: Message, _recipient: str) -> Accepted:
            self.under_way.set()
            together.wait(PATIENCE)
            return Accepted()

    transport = Both()
    runner = Runner(store, transport, workers=1, listeners=[listen], grace=HOUR)
    store.put([a_message(1)])
    running = InThread(runner.run_forever)
    assert transport.under_way.wait(PATIENCE)
    store.put([a_message(2)])
    drain = InThread(runner.drain)
    assert running.result() is True
    assert drain.result() is not None
    assert stopped == [False, False]


def test_a_stop_ends_a_drain_when_what_is_under_way_has_ended(store: MemoryStore, slow: Slow) -> None:
    store.put([a_message(n) for n in range(50)])
    runner = Runner(store, slow, workers=1)
    drain = InThread(runner.drain)
    assert slow.under_way.wait(PATIENCE)
    stopping = InThread(runner.stop)
    wait_until_stopping(runner)
    slow.go_on.set()
    assert stopping.result() is True
    assert drain.result() is not None
    assert len(slow.messages) == 1
    assert {summary.state for summary in store.browse()} == {State.QUEUED}


def test_any_grace_is_understood(store: MemoryStore) -> None:
    runner = Runner(store, RecordingTransport())
    runner.start()
    assert runner.stop(grace=dt.timedelta.max)


def test_a_runner_that_cannot_start_all_its_threads_leaves_none(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = threading.Thread.start, list[threading.Thread]()

    def start(thread: threading.Thread) -> None:
        if len(begun) == 4:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        begin(thread)

    runner = Runner(store, RecordingTransport())
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            runner.start()
    assert our_threads() == []
    runner.start()
    assert runner.stop()


# -- a signal handler stops it: in this very thread, in the midst of whatever it does


@pytest.mark.parametrize("at", ["keeper", "tidier", "listener", "worker-1", "worker-2", "clerk"])
def test_a_stop_that_interrupts_the_start_waits_for_no_thread_that_is_not_there_yet(
    store: MemoryStore, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, stopped = threading.Thread.start, list[bool]()

    def start(thread: threading.Thread) -> None:
        begin(thread)
        if thread.name == f"outbox-{at}":
            stopped.append(runner.stop())

    runner = Runner(store, RecordingTransport(), workers=2, grace=HOUR)
    monkeypatch.setattr(threading.Thread, "start", start)
    assert InThread(runner.run_forever).result() is True
    assert stopped == [True]
    assert our_threads() == []


def test_a_stop_that_interrupts_a_call_of_its_runner_does_not_wait_for_it(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[bool] = []

    class Interrupted(Sender):
        def __init__(self, orders: Orders) -> None:
            stopped.append(runner.stop())
            super().__init__(orders)

    monkeypatch.setattr("outbox.runner.Sender", Interrupted)
    runner = Runner(store, RecordingTransport(), grace=HOUR)
    runner.start()
    sent = InThread(lambda: runner.send(a_message())).result()
    assert isinstance(sent, Sent)
    assert sent.delivered
    assert stopped == [True], "nothing was under way here yet"
    assert runner.stop()


def test_a_stop_that_interrupts_a_stop_leaves_the_waiting_to_it(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[bool] = []
    plain = Desk.stop

    def interrupted(desk: Desk) -> None:
        if not stopped:
            stopped.append(False)
            stopped[0] = runner.stop()
        plain(desk)

    runner = Runner(store, RecordingTransport(), grace=HOUR)
    runner.start()
    monkeypatch.setattr(Desk, "stop", interrupted)
    assert InThread(runner.stop).result() is True
    assert stopped == [False]
    assert our_threads() == []


def test_a_close_that_interrupts_the_making_of_a_runner_does_not_wait_for_it(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(store, RecordingTransport())
    closed: list[object] = []

    class Interrupted(weakref.WeakSet[Runner]):
        def add(self, item: Runner) -> None:
            super().add(item)
            closed.append(outbox.close())  # type: ignore[func-returns-value]  # that it returns

    outbox._runners = Interrupted()
    InThread(outbox.runner).result()
    assert closed == [None]


def test_a_stop_that_interrupts_a_wait_for_the_end_leaves_it_to_see_the_end(
    store: MemoryStore, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[object] = []
    plain = Crew._all_ended

    def interrupted(crew: Crew) -> bool:
        ended = plain(crew)
        if isinstance(threading.current_thread(), InThread) and not stopped:
            stopped.append(None)
            slow.go_on.set()
            stopped[0] = runner.stop()
        return ended

    monkeypatch.setattr(Crew, "_all_ended", interrupted)
    runner = Runner(store, slow, workers=1, grace=HOUR)
    drain = InThread(runner.drain)
    assert drain.result() is not None
    assert stopped == [True]


# -- Outbox


def test_leaving_an_outbox_stops_the_runners_it_made_before_its_store_is_closed(slow: Slow) -> None:
    store = MemoryStore()
    with Outbox(store, slow, workers=1) as outbox:
        outbox.submit(a_message())
        outbox.runner().start()  # nobody keeps it, and its threads do
        assert slow.under_way.wait(PATIENCE)
        threading.Timer(0.1, slow.go_on.set).start()
    assert our_threads() == []
    assert store._shelf.rows == {}, "the last transaction was settled"


# -- suspects


def test_a_suspect_beside_a_slow_transaction_stalls_nobody(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.suspects._FOR_ISOLATION", 0.01)
    store, heard = MemoryStore(), Heard()
    store.put([a_message(0)])
    runner = Runner(store, slow, queues=["slow", "mail"], workers=2, listeners=[heard])
    slow._answers = lambda m, r: slow._wait(m, r) if m.queue == "slow" else Accepted()
    runner.start()
    try:
        # Others wait for the first message to a relay.
        heard.wait_for(Settled)
        store.put([a_message(1, queue="slow")])
        assert slow.under_way.wait(PATIENCE)
        store.put([Message(id="suspect", recipients=["x@x"], content=b"", priority=1)])
        store.claim(limit=1, lease=dt.timedelta(0), queues=["mail"])
        store.put([a_message(n) for n in range(2, 20)])
        heard.wait_for(Settled, 19)
    finally:
        slow.go_on.set()
        runner.stop()
    assert len(slow.messages) >= 20


# -- fork


def forked(child: Callable[[], bool]) -> int:
    """The exit status of a child that answers: 0 for True."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            watchdog = threading.Timer(PATIENCE, os._exit, [3])
            watchdog.daemon = True
            watchdog.start()
            status = 0 if child() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@forking
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_none_of_its_parent_s_threads_to_stop_and_can_start_its_own(
    store: MemoryStore,
) -> None:
    runner = Runner(store, RecordingTransport(), grace=dt.timedelta(hours=1))
    runner.start()

    def child() -> bool:
        stopped = runner.stop()
        runner.start()
        return stopped and runner.stop()

    try:
        assert forked(child) == 0
    finally:
        assert runner.stop()


@forking
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_finds_a_memory_store_free_and_whole(store: MemoryStore) -> None:
    over = threading.Event()

    def hammer() -> None:
        while not over.is_set():
            store.put([Message(recipients=["x@x"], content=b"")])
            store.claim(limit=5, lease=SECOND, queues=["mail"])

    threads = [InThread(hammer) for _ in range(3)]
    try:
        statuses = [forked(lambda: bool(store.put([a_message()]))) for _ in range(30)]
    finally:
        over.set()
    for thread in threads:
        thread.result()
    assert set(statuses) == {0}
