"""Outbox.send: delivered now in the caller's thread, and a crash at any moment loses nothing."""

import datetime as dt
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest
from relays import Relay, a_message
from running import PATIENCE, FailingStore, Heard

from outbox.errors import (
    ConfigurationError,
    ConflictError,
    InvalidMessage,
    RelayUnavailable,
    StoreFull,
    StoreUnavailable,
    UnsupportedError,
)
from outbox.events import Notice, RelayPaused, Settled, StoreFailed
from outbox.lifecycle import Claim, Dead, Delivered, Expired, Fate, Held, Record, Released, Retry, State
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Uncertain
from outbox.performer import Orders
from outbox.protocols import Store, SupportsBrowse, Suspension
from outbox.retry import RetryPolicy
from outbox.runner import Runner
from outbox.sender import Sender
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.memory import MemoryStore
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clock import ManualClock
from outbox.transports.route import RouteTransport

ANN, BOB = "ann@a.example", "bob@b.example"
BUSY, CUT, NO_USER = TempFailed("451 busy"), Uncertain("cut after the dot"), PermFailed("550 no such user")
MINUTE = dt.timedelta(minutes=1)
DOWN = RelayUnavailable("a:25", "connection refused")


def the_record(store: MemoryStore, id: str = "m1") -> Record:
    record = store.get(id)
    assert record is not None
    return record


def fates(store: MemoryStore) -> dict[str, Fate]:
    return dict(the_record(store).summary.fates)


@pytest.fixture(autouse=True)
def _no_keeper_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test does not close is ended after it, as closing would."""
    made: list[Sender] = []

    class Noted(Sender):
        def __init__(self, orders: Orders) -> None:
            super().__init__(orders)
            made.append(self)

    monkeypatch.setattr("outbox.runner.Sender", Noted)
    yield
    for sender in made:
        sender.see_out(0)


class Hasty(random.Random):
    """Chance that never lets anybody wait."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


class Watching(Relay):
    """A relay that has somebody look at the moment in which it is handed a message."""

    def __init__(self, look: Callable[[], object]) -> None:
        super().__init__("a:25")
        self.look = look
        self.saw: list[object] = []

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self.saw.append(self.look())
        return super().deliver(message, recipients)


# --- stored first --------------------------------------------------------------------------------


def test_it_is_delivered_when_send_returns() -> None:
    relay, store = Relay("a:25"), MemoryStore(keep_delivered=MINUTE)
    sent = Outbox(store, relay).send(a_message(ANN, BOB))

    assert (sent.id, sent.delivered, sent.noted) == ("m1", True, True)
    assert relay.seen == [(ANN, BOB)]
    assert the_record(store).summary.state is State.DELIVERED
    assert isinstance(sent.verdict, Delivered)


def test_it_goes_in_the_caller_s_own_thread() -> None:
    relay = Watching(threading.current_thread)
    Outbox(MemoryStore(), relay).send(a_message())

    assert relay.saw == [threading.current_thread()]


def test_while_it_is_handed_over_it_stands_in_the_store_under_a_lease_that_nobody_else_has() -> None:
    store = MemoryStore()
    relay = Watching(
        lambda: (
            the_record(store).summary.state,
            len(store.claim(limit=9, lease=MINUTE, queues=["mail"])),
        )
    )
    Outbox(store, relay).send(a_message())

    assert relay.saw == [(State.CLAIMED, 0)]


def test_a_mail_is_sent_with_an_envelope_of_one_s_own() -> None:
    relay = Relay("a:25")
    sent = Outbox(MemoryStore(), relay).send(
        b"From: a@example.org\r\nTo: b@example.org\r\n\r\nhello\r\n", recipients=[ANN], id="chosen"
    )

    assert (sent.id, relay.seen) == ("chosen", [(ANN,)])


@pytest.mark.parametrize(
    ("answer", "verdict", "fate", "state"),
    [
        (BUSY, Retry, Fate.WAITING, State.QUEUED),
        (CUT, Retry, Fate.DOUBTFUL, State.QUEUED),
        (NO_USER, Dead, Fate.FAILED, State.DEAD),
        (OSError("no file left"), Retry, Fate.WAITING, State.QUEUED),
        (DOWN, Released, Fate.WAITING, State.QUEUED),
    ],
    ids=["put off", "uncertain", "refused", "raised", "relay down"],
)
@pytest.mark.parametrize("store_first", [True, False])
def test_what_came_of_it_is_returned_and_stands_in_the_store(
    answer: TempFailed, verdict: type, fate: Fate, state: State, *, store_first: bool
) -> None:
    store = MemoryStore()
    sent = Outbox(store, Relay("a:25", answer)).send(a_message(ANN), store_first=store_first)

    assert isinstance(sent.verdict, verdict)
    assert not sent.delivered
    assert (sent.noted, fates(store), the_record(store).summary.state) == (True, {ANN: fate}, state)
    assert the_record(store).summary.attempts == (0 if verdict is Released else 1)


@pytest.mark.parametrize("store_first", [True, False])
def test_a_runner_takes_over_what_the_direct_attempt_left_and_nobody_else(*, store_first: bool) -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    relay = Relay("a:25", answers={BOB: BUSY})
    outbox = Outbox(store, relay, clock=clock)
    outbox.send(a_message(ANN, BOB), store_first=store_first)
    relay.answers = {}
    assert outbox.drain().delivered == 0
    clock.advance(2 * MINUTE)

    assert outbox.drain().delivered == 1
    assert relay.seen == [(ANN, BOB), (BOB,)]


def test_an_interrupt_leaves_the_message_to_its_lease_and_a_runner_takes_over() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    relay = Relay("a:25", KeyboardInterrupt())
    outbox = Outbox(store, relay, clock=clock)
    with pytest.raises(KeyboardInterrupt):
        outbox.send(a_message(ANN))
    assert the_record(store).summary.state is State.CLAIMED
    relay.answer = BUSY
    clock.advance(MINUTE)
    outbox.drain()

    assert fates(store) == {ANN: Fate.DOUBTFUL}


def test_an_interrupted_probe_leaves_the_relay_to_the_next_message() -> None:
    clock = ManualClock()
    relay = Relay("a:25", DOWN)
    outbox = Outbox(MemoryStore(clock=clock), relay, clock=clock)
    outbox.send(a_message(id="m1"))
    clock.advance(MINUTE)
    relay.answer = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        outbox.send(a_message(id="m2"))
    relay.answer = Accepted()

    assert outbox.send(a_message(id="m3")).delivered


@pytest.mark.parametrize("store_first", [True, False])
def test_a_message_that_expired_while_one_relay_had_it_goes_to_no_other(*, store_first: bool) -> None:
    clock, last = ManualClock(), Relay("r:25")
    store = MemoryStore(clock=clock)
    route = RouteTransport(last, domains={"a.example": Watching(lambda: clock.advance(MINUTE))})
    message = attrs.evolve(a_message(ANN, BOB), expires_at=clock.now() + dt.timedelta(seconds=50))
    Outbox(store, route, clock=clock, lease=2 * MINUTE).send(message, store_first=store_first)

    assert last.seen == []
    assert fates(store) == {ANN: Fate.ACCEPTED, BOB: Fate.WAITING}


def test_whose_lease_was_lost_hands_nothing_to_another_relay() -> None:
    clock, last = ManualClock(), Relay("r:25")
    route = RouteTransport(last, domains={"a.example": Watching(lambda: clock.advance(2 * MINUTE))})
    Outbox(MemoryStore(clock=clock), route, clock=clock).send(a_message(ANN, BOB))

    assert last.seen == []


def test_an_at_most_once_message_that_was_interrupted_is_held() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    outbox = Outbox(store, Relay("a:25", KeyboardInterrupt()), clock=clock)
    with pytest.raises(KeyboardInterrupt):
        outbox.send(attrs.evolve(a_message(ANN), at_most_once=True))
    clock.advance(MINUTE)
    outbox.drain()

    assert the_record(store).summary.state is State.HELD


def test_an_at_most_once_message_that_may_have_been_sent_is_held_at_once() -> None:
    store = MemoryStore()
    sent = Outbox(store, Relay("a:25", CUT)).send(attrs.evolve(a_message(ANN), at_most_once=True))

    assert isinstance(sent.verdict, Held)
    assert fates(store) == {ANN: Fate.UNCERTAIN}


def test_a_process_that_dies_while_it_sends_leaves_the_message_in_the_store(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    program = """
import os, sys
from outbox import FunctionTransport, Message, Outbox, SQLiteStore
outbox = Outbox(SQLiteStore(sys.argv[1]), FunctionTransport(lambda message, recipient: os._exit(9)))
outbox.send(Message(id="m1", recipients=("a@example.org",), content=b"x"))
"""
    run = subprocess.run([sys.executable, "-c", program, path], check=False)
    assert run.returncode == 9
    store = SQLiteStore(path)
    record = store.get("m1")
    store.close()

    assert record is not None
    assert (record.summary.state, record.summary.attempts) == (State.CLAIMED, 1)


@pytest.mark.parametrize(
    "kind",
    [
        MemoryStore,
        SQLiteStore,
        pytest.param(
            FilesystemStore, marks=pytest.mark.skipif(os.name == "nt", reason="no such store there")
        ),
    ],
)
@pytest.mark.parametrize("store_first", [True, False])
def test_every_store_here_can_do_it(kind: type, tmp_path: Path, *, store_first: bool) -> None:
    with Outbox(
        kind() if kind is MemoryStore else kind(tmp_path / "store"), Relay("a:25", answers={BOB: BUSY})
    ) as outbox:
        sent = outbox.send(a_message(ANN, BOB), store_first=store_first)
        assert isinstance(outbox.store, SupportsBrowse)
        record = outbox.store.get("m1")

    assert (type(sent.verdict), sent.noted) == (Retry, True)
    assert record is not None
    assert record.summary.fates == {ANN: Fate.ACCEPTED, BOB: Fate.WAITING}
    assert record.summary.state is State.QUEUED


def test_a_lease_is_extended_for_as_long_as_the_relay_takes() -> None:
    class Extended(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.times = threading.Semaphore(0)

        def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
            lost = super().extend(claims, lease=lease)
            self.times.release()
            return lost

    store = Extended()
    relay = Watching(lambda: all(store.times.acquire(timeout=PATIENCE) for _ in range(2)))
    sent = Outbox(store, relay, lease=dt.timedelta(milliseconds=60)).send(a_message())

    assert relay.saw == [True]
    assert sent.delivered


def keepers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "outbox-sender-keeper"}


def test_the_keeper_ends_when_nothing_is_under_way_and_the_next_send_has_one_again() -> None:
    others = keepers()
    seen: list[threading.Thread] = []
    relay = Watching(lambda: seen.extend(keepers() - others - set(seen)))
    outbox = Outbox(MemoryStore(), relay, lease=dt.timedelta(milliseconds=30))
    for number in range(2):
        outbox.send(a_message(id=f"m{number}"))
        assert len(seen) == number + 1
        seen[number].join(PATIENCE)
        assert not seen[number].is_alive()


def test_a_closed_outbox_leaves_no_keeper_behind() -> None:
    others = keepers()
    with Outbox(MemoryStore(), Relay("a:25")) as outbox:
        outbox.send(a_message())
        assert keepers() - others

    assert not keepers() - others


def test_whose_lease_was_lost_is_told_that_another_has_it() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)

    def take_over() -> int:
        clock.advance(2 * MINUTE)
        return len(store.claim(limit=1, lease=MINUTE, queues=["mail"]))

    relay = Watching(take_over)
    sent = Outbox(store, relay, clock=clock).send(a_message())

    assert relay.saw == [1]
    assert (sent.delivered, sent.noted) == (True, False)
    assert the_record(store).summary.state is State.CLAIMED


# --- what is not sent ----------------------------------------------------------------------------


def test_a_known_id_is_not_sent_again() -> None:
    relay = Relay("a:25")
    outbox = Outbox(MemoryStore(), relay)
    outbox.send(a_message())
    again = outbox.send(a_message())

    assert (again.verdict, again.delivered, len(relay.seen)) == (None, False, 1)


def test_a_known_id_with_another_envelope_is_a_conflict() -> None:
    relay = Relay("a:25")
    outbox = Outbox(MemoryStore(), relay)
    outbox.submit(a_message(ANN))
    with pytest.raises(ConflictError):
        outbox.send(a_message(BOB))

    assert relay.seen == []


@pytest.mark.parametrize("store_first", [True, False])
def test_what_is_not_due_is_stored_and_waits(*, store_first: bool) -> None:
    clock, relay = ManualClock(), Relay("a:25")
    store = MemoryStore(clock=clock)
    later = attrs.evolve(a_message(), not_before=clock.now() + MINUTE)
    sent = Outbox(store, relay, clock=clock).send(later, store_first=store_first)

    assert (sent.verdict, relay.seen) == (None, [])
    assert the_record(store).summary.state is State.QUEUED


@pytest.mark.parametrize("store_first", [True, False])
def test_what_is_in_a_suspended_queue_is_stored_and_waits(*, store_first: bool) -> None:
    store, relay = MemoryStore(), Relay("a:25")
    store.suspend(Suspension(kind="queue", value="mail"))
    sent = Outbox(store, relay).send(a_message(), store_first=store_first)

    assert (sent.verdict, relay.seen) == (None, [])
    assert the_record(store).summary.state is State.QUEUED


@pytest.mark.parametrize("store_first", [True, False])
def test_what_has_expired_is_not_handed_over(*, store_first: bool) -> None:
    clock, relay = ManualClock(), Relay("a:25")
    store = MemoryStore(clock=clock)
    old = attrs.evolve(a_message(), expires_at=clock.now())
    sent = Outbox(store, relay, clock=clock).send(old, store_first=store_first)

    assert isinstance(sent.verdict, Expired)
    assert relay.seen == []
    assert the_record(store).summary.state is State.EXPIRED


def test_a_queue_that_is_not_served_here_is_refused_and_nothing_is_stored() -> None:
    store, relay = MemoryStore(), Relay("a:25")
    with pytest.raises(ConfigurationError, match="queue 'tasks' is not served here"):
        Outbox(store, relay).send(a_message(queue="tasks"))

    assert (store.get("m1"), relay.seen) == (None, [])


def test_without_a_transport_nothing_can_be_sent() -> None:
    with pytest.raises(ConfigurationError, match="only submits"):
        Outbox(MemoryStore()).send(a_message())


def test_a_mail_that_breaks_a_rule_is_refused_as_by_submit() -> None:
    with pytest.raises(InvalidMessage):
        Outbox(MemoryStore(), Relay("a:25")).send(b"no header at all")


@pytest.mark.parametrize("store_first", [True, False])
def test_a_store_that_cannot_lease_what_it_is_given_says_so_and_nothing_is_sent(*, store_first: bool) -> None:
    class Narrow:
        """A store without SupportsHandOver."""

        def __init__(self) -> None:
            inner = MemoryStore()
            self.put, self.claim, self.extend = inner.put, inner.claim, inner.extend
            self.settle, self.close, self.get = inner.settle, inner.close, inner.get

    narrow, relay = Narrow(), Relay("a:25")
    store: Store = narrow
    with pytest.raises(UnsupportedError, match=r"Narrow cannot store a message under a lease.*submit\(\) it"):
        Outbox(store, relay).send(a_message(), store_first=store_first)

    assert (narrow.get("m1"), relay.seen) == (None, [])


# --- like a Runner -------------------------------------------------------------------------------


def test_the_policy_of_the_queue_judges() -> None:
    store = MemoryStore()
    outbox = Outbox(store, Relay("a:25", BUSY), retry={"mail": RetryPolicy(attempts=1)})

    assert isinstance(outbox.send(a_message()).verdict, Dead)


def test_listeners_are_told_in_the_caller_s_thread() -> None:
    heard = Heard()
    Outbox(MemoryStore(), Relay("a:25"), listeners=[heard]).send(a_message())
    (notice,) = heard.notices

    assert isinstance(notice, Settled)
    assert notice.claim.message.id == "m1"


def test_a_relay_that_is_down_is_asked_once_and_the_others_wait_without_it() -> None:
    store, relay, heard = MemoryStore(), Relay("a:25", DOWN), Heard()
    outbox = Outbox(store, relay, listeners=[heard])
    sent = [outbox.send(a_message(id=f"m{n}"), store_first=n != 1) for n in range(3)]

    assert [type(each.verdict) for each in sent] == [Released] * 3
    assert len(relay.seen) == 1
    assert sum(isinstance(notice, RelayPaused) for notice in heard.notices) == 1
    assert {count.state: count.number for count in store.count()} == {State.QUEUED: 3}


@pytest.mark.parametrize("store_first", [True, False])
def test_each_relay_of_a_route_has_its_share(*, store_first: bool) -> None:
    store, good = MemoryStore(), Relay("r:25")
    third = Relay("c:25", BUSY)
    route = RouteTransport(good, domains={"a.example": Relay("a:25", DOWN), "c.example": third})
    Outbox(store, route).send(a_message(ANN, BOB, "eve@c.example"), store_first=store_first)

    assert fates(store) == {ANN: Fate.WAITING, BOB: Fate.ACCEPTED, "eve@c.example": Fate.WAITING}
    assert len(good.seen) == len(third.seen) == 1


def test_a_settle_that_fails_is_asked_again() -> None:
    store = FailingStore()
    store.failures = {"settle": 2}

    assert Runner(store, Relay("a:25"), rng=Hasty()).send(a_message()).delivered


def test_what_was_handed_over_and_cannot_be_noted_is_named() -> None:
    store = FailingStore()
    store.failures = {"settle": 99}
    with pytest.raises(StoreUnavailable, match="handed over, and what came of it is not noted: m1"):
        Runner(store, Relay("a:25"), rng=Hasty()).send(a_message())


def test_closing_waits_for_what_is_under_way() -> None:
    store = MemoryStore(keep_delivered=MINUTE)
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> bool:
        begun.set()
        return go_on.wait(PATIENCE)

    runner = Runner(store, Watching(wait))
    thread = threading.Thread(target=runner.send, args=(a_message(),))
    thread.start()
    assert begun.wait(PATIENCE)
    assert not runner.stop(dt.timedelta(0))
    go_on.set()
    assert runner.stop()
    thread.join(PATIENCE)

    assert the_record(store).summary.state is State.DELIVERED


def test_a_listener_may_stop_the_runner_that_sends() -> None:
    runner: list[Runner] = []
    ended: list[bool] = []
    runner.append(Runner(MemoryStore(), Relay("a:25"), listeners=[lambda _: ended.append(runner[0].stop())]))

    assert runner[0].send(a_message()).delivered
    assert ended == [False], "its own thread is what is under way"


def test_two_that_send_and_whose_listeners_stop_the_runner_do_not_wait_for_each_other() -> None:
    together = threading.Barrier(2)
    stopped: list[bool] = []

    def stop(_notice: Notice) -> None:
        together.wait(PATIENCE)
        stopped.append(runner.stop(dt.timedelta(hours=1)))

    relay = Watching(lambda: True)
    runner = Runner(MemoryStore(), relay, listeners=[stop])
    senders = [
        threading.Thread(target=runner.send, args=(a_message(id=f"m{n}"),), daemon=True) for n in range(2)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(PATIENCE)
        assert not sender.is_alive()
    assert stopped == [False, False]


def test_what_the_keeper_met_is_told_in_the_caller_s_thread_behind_the_delivery() -> None:
    """Told by the keeper, a listener that takes long keeps the lease from being extended: a second copy."""

    class Fails(MemoryStore):
        def __init__(self) -> None:
            super().__init__()
            self.times = threading.Semaphore(0)

        def extend(self, _claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
            self.times.release()
            raise StoreUnavailable("disk full")

    told: list[tuple[type[Notice], threading.Thread]] = []
    store = Fails()
    relay = Watching(lambda: all(store.times.acquire(timeout=PATIENCE) for _ in range(2)))
    outbox = Outbox(
        store,
        relay,
        lease=dt.timedelta(milliseconds=150),
        listeners=[lambda notice: told.append((type(notice), threading.current_thread()))],
    )
    outbox.send(a_message())
    assert StoreFailed in [kind for kind, _ in told]
    assert {thread for _, thread in told} == {threading.current_thread()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_sends_with_a_keeper_of_its_own() -> None:
    relay = Watching(lambda: len(keepers()))
    outbox = Outbox(MemoryStore(), relay)
    outbox.send(a_message())
    child = os.fork()
    if child == 0:
        outbox.send(a_message(id="m2"))
        os._exit(7 if relay.saw[1] == 1 else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 7


# --- stored only where it has to be --------------------------------------------------------------


def test_what_all_took_is_not_stored_at_all() -> None:
    class Closed(MemoryStore):
        def put_claimed(
            self, messages: Sequence[Message], /, *, lease: dt.timedelta, attempted: bool = False
        ) -> Sequence[Claim]:
            raise AssertionError("nothing was to be stored")

    relay = Relay("a:25")
    sent = Outbox(Closed(), relay).send(a_message(), store_first=False)

    assert (sent.delivered, sent.noted, relay.seen) == (True, True, [("ann@a.example",)])


@pytest.mark.parametrize("make", [MemoryStore, SQLiteStore, FilesystemStore])
def test_what_came_of_it_is_noted_though_its_queue_was_suspended_meanwhile(
    make: Callable[..., Store], tmp_path: Path
) -> None:
    class Paused(Relay):
        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            if not self.seen:
                store.suspend(Suspension(kind="queue", value="mail"))
            return super().deliver(message, recipients)

    store: Any = make() if make is MemoryStore else make(tmp_path / "store")
    relay = Paused("a:25", answers={BOB: BUSY})
    with closing(Outbox(store, relay, retry=RetryPolicy(schedule=[dt.timedelta(0)]))) as outbox:
        assert outbox.send(a_message(ANN, BOB), store_first=False).noted
        assert fates(store) == {ANN: Fate.ACCEPTED, BOB: Fate.WAITING}
        assert outbox.drain().delivered == 0

        store.unsuspend("queue", "mail")
        relay.answers = {}
        assert outbox.drain().delivered == 1
    assert relay.seen == [(ANN, BOB), (BOB,)]


def test_an_at_most_once_message_is_always_stored_first() -> None:
    store, relay = MemoryStore(), Relay("a:25")
    with pytest.raises(UnsupportedError, match="at-most-once: send it with store_first=True"):
        Outbox(store, relay).send(attrs.evolve(a_message(), at_most_once=True), store_first=False)

    assert (store.get("m1"), relay.seen) == (None, [])


def test_a_store_that_fails_to_take_it_in_is_asked_again() -> None:
    class Failing(MemoryStore):
        failures = 2

        def put_claimed(
            self, messages: Sequence[Message], /, *, lease: dt.timedelta, attempted: bool = False
        ) -> Sequence[Claim]:
            self.failures -= 1
            if self.failures >= 0:
                raise StoreUnavailable("disk full")
            return super().put_claimed(messages, lease=lease, attempted=attempted)

    store = Failing()
    sent = Runner(store, Relay("a:25", BUSY), rng=Hasty()).send(a_message(ANN), store_first=False)

    assert (sent.noted, fates(store)) == (True, {ANN: Fate.WAITING})


def test_a_settle_that_fails_stores_it_once_and_loses_no_fate() -> None:
    store = FailingStore()
    store.failures = {"settle": 2}
    relay = Relay("a:25", answers={BOB: BUSY})
    sent = Runner(store, relay, rng=Hasty()).send(a_message(ANN, BOB), store_first=False)

    assert sent.noted
    assert fates(store) == {ANN: Fate.ACCEPTED, BOB: Fate.WAITING}


def test_what_is_kept_nowhere_is_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore(max_messages=1)
    store.put([a_message(id="other")])
    with pytest.raises(StoreFull) as caught:
        Runner(store, Relay("a:25", BUSY), rng=Hasty()).send(a_message(), store_first=False)

    lost = "m1 was not delivered to everybody, and is stored nowhere: send it again"
    assert caught.value.__notes__ == [lost]
    assert lost in caplog.text
    assert "lease" not in caplog.text + str(caught.value)


def test_an_id_that_the_store_knows_keeps_what_it_knows() -> None:
    store = MemoryStore()
    outbox = Outbox(store, Relay("a:25", NO_USER))
    outbox.submit(a_message(ANN))
    sent = outbox.send(a_message(ANN), store_first=False)

    assert (type(sent.verdict), sent.noted, fates(store)) == (Dead, False, {ANN: Fate.WAITING})


def test_an_interrupt_loses_what_was_not_stored_as_was_said(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    with pytest.raises(KeyboardInterrupt) as caught:
        Outbox(store, Relay("a:25", KeyboardInterrupt())).send(a_message(), store_first=False)

    assert store.get("m1") is None
    assert [note[:24] for note in caught.value.__notes__] == ["m1 is stored nowhere: wh"]
    assert "m1 is stored nowhere" in caplog.text
    assert "lease" not in caplog.text
