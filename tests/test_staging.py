"""A message in two steps: durable before the caller's commit, delivered once it is published, and never by itself."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import attrs
import pytest
from moves import moved
from postgres_places import Places
from redis_places import open_redis

from outbox import FilesystemStore, FunctionTransport, MemoryStore, Message, Outbox, SQLiteStore, Submitted
from outbox.errors import ConflictError, CorruptRecord, InvalidMessage, StoreUnavailable, UnsupportedError
from outbox.events import Notice
from outbox.moving import SupportsMove
from outbox.protocols import Store, SupportsBrowse, SupportsHold, SupportsManage
from outbox.testing.clauses.scene import DAY, ids, mail, take
from outbox.testing.clock import ManualClock

MAIL = b"From: ann@example.org\r\nTo: bob@example.org\r\nSubject: your order\r\n\r\nThank you.\r\n"


@runtime_checkable
class Steered(SupportsBrowse, SupportsManage, SupportsHold, Protocol):
    """A store whose messages a person can look at and steer."""


MINUTE = dt.timedelta(minutes=1)
STORES: dict[str, Callable[[ManualClock, Path], Store]] = {
    "memory": lambda clock, _: MemoryStore(clock=clock),
    "sqlite": lambda clock, path: SQLiteStore(path / "outbox.db", clock=clock),
    "filesystem": lambda clock, path: FilesystemStore(path / "spool", clock=clock),
    "redis": lambda clock, path: open_redis(path, clock=clock),
}


@pytest.fixture(params=[*STORES, "postgres"])
def store(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[Store]:
    if request.param in STORES:
        with contextlib.closing(STORES[request.param](clock, tmp_path)) as store:
            yield store
        return
    postgres: Places = request.getfixturevalue("postgres")
    with contextlib.closing(postgres.open(tmp_path, clock=clock)) as store:
        yield store
    postgres.leave(tmp_path)


@pytest.fixture
def steered(store: Store) -> Steered:
    """The same, with what a person can say to it."""
    assert isinstance(store, Steered)
    return store


@pytest.fixture
def told() -> list[Notice]:
    return []


@pytest.fixture
def outbox(store: Store, clock: ManualClock, told: list[Notice]) -> Outbox:
    return Outbox(store, clock=clock, listeners=[told.append])


def test_what_is_staged_is_delivered_once_it_is_published_and_as_it_was_said(
    outbox: Outbox, clock: ManualClock
) -> None:
    message = Message(
        id="a",
        recipients=("ann@example.com", "bob@example.com"),
        content=b"hello\r\n",
        sender="shop@example.org",
        queue="mail.bulk",
        priority=7,
        attributes={"order": "1"},
        expires_at=clock.now() + DAY,
    )
    outbox.stage(message)
    assert list(outbox.store.claim(limit=9, lease=DAY, queues=["mail.bulk"])) == []

    assert outbox.publish("a") is True

    (claim,) = outbox.store.claim(limit=9, lease=DAY, queues=["mail.bulk"])
    assert claim.message == message
    assert claim.message.attributes == message.attributes


def test_a_mail_is_staged_by_its_headers(outbox: Outbox) -> None:
    id = outbox.stage(MAIL, recipients=["carl@example.org"], priority=3)
    outbox.publish(id)

    (claim,) = take(outbox.store)
    assert (claim.message.id, claim.message.priority) == (id, 3)
    assert claim.message.recipients == ("carl@example.org",)


def test_what_breaks_a_rule_is_refused_when_it_is_staged(outbox: Outbox) -> None:
    with pytest.raises(InvalidMessage):
        outbox.stage(b"To: bob@example.org\r\n\r\nno sender\r\n", recipients=["carl\r\n@example.org"])

    assert list(outbox.staged()) == []


def test_what_is_never_published_is_never_delivered_and_never_lost(
    store: Store, outbox: Outbox, clock: ManualClock
) -> None:
    outbox.stage(mail("a"))
    clock.advance(400 * DAY)
    with Outbox(store, FunctionTransport(lambda *_: None), clock=clock, queues=["mail"]) as delivering:
        assert delivering.drain().delivered == 0, "it was never published"
        assert list(delivering.staged()) == ["a"]


def test_a_runner_that_serves_the_queue_of_the_staged_delivers_nothing_of_it(
    outbox: Outbox, clock: ManualClock
) -> None:
    outbox.stage(mail("a"))
    clock.advance(400 * DAY)

    assert list(outbox.store.claim(limit=9, lease=DAY, queues=["outbox.staged"])) == []


def test_publishing_twice_submits_once(outbox: Outbox) -> None:
    outbox.stage(mail("a"))

    assert [outbox.publish("a"), outbox.publish("a")] == [True, False]
    assert ids(take(outbox.store)) == ["a"]


def test_what_was_unstaged_is_gone_and_its_id_is_free(outbox: Outbox) -> None:
    outbox.stage(mail("a"))

    assert [outbox.unstage("a"), outbox.unstage("a"), outbox.publish("a")] == [True, False, False]
    assert take(outbox.store) == []
    outbox.stage(mail("a", "other@example.org"))
    outbox.publish("a")
    (claim,) = take(outbox.store)
    assert claim.message.recipients == ("other@example.org",)


def test_staging_twice_stages_once_and_the_first_stands(outbox: Outbox) -> None:
    outbox.stage(mail("a"))
    outbox.stage(attrs.evolve(mail("a"), content=b"rendered anew\r\n"))
    with pytest.raises(ConflictError):
        outbox.stage(mail("a", "other@example.org"))

    assert list(outbox.staged()) == ["a"]
    outbox.publish("a")
    (claim,) = take(outbox.store)
    assert claim.message == mail("a")


def test_an_id_that_was_submitted_with_another_envelope_stays_staged(outbox: Outbox) -> None:
    outbox.submit(mail("a"))
    outbox.stage(mail("a", "other@example.org"))

    with pytest.raises(ConflictError):
        outbox.publish("a")
    assert list(outbox.staged()) == ["a"]
    assert ids(take(outbox.store)) == ["a"]


@pytest.mark.parametrize("id", ["a", "a" * 57, "a" * 58, "a" * 64])
def test_an_id_may_be_as_long_as_any(outbox: Outbox, id: str) -> None:
    outbox.stage(mail(id))

    assert list(outbox.staged()) == [id]
    assert outbox.publish(id)
    assert ids(take(outbox.store)) == [id]


def test_those_that_are_older_are_listed_page_by_page(outbox: Outbox, clock: ManualClock) -> None:
    old = [f"m{number:03}" for number in range(120)]
    for id in old:
        outbox.stage(mail(id))
    clock.advance(DAY)
    outbox.stage(mail("young"))

    assert list(outbox.staged(older_than=DAY)) == old
    assert list(outbox.staged()) == [*old, "young"]


def test_each_can_be_published_or_unstaged_while_they_are_listed(outbox: Outbox) -> None:
    for number in range(6):
        outbox.stage(mail(f"m{number}"))
    committed = {"m1", "m4", "m5"}

    for id in outbox.staged():
        assert outbox.publish(id) if id in committed else outbox.unstage(id)

    assert list(outbox.staged()) == []
    assert ids(take(outbox.store)) == ["m1", "m4", "m5"]


def test_a_kill_between_the_two_halves_of_a_publish_leaves_what_the_next_one_mends(outbox: Outbox) -> None:
    outbox.stage(mail("a"))
    outbox.submit(mail("a"))  # the first half; it was killed before the second

    assert outbox.publish("a") is True
    assert list(outbox.staged()) == []
    assert ids(take(outbox.store)) == ["a"]


def test_a_kill_between_the_two_halves_of_an_unstage_leaves_what_the_next_one_mends(
    outbox: Outbox, steered: Steered
) -> None:
    outbox.stage(mail("a"))
    steered.cancel(["staged-a"])

    assert outbox.publish("a") is False
    assert outbox.unstage("a") is True
    outbox.stage(mail("a"))
    assert outbox.publish("a") is True


# -- what else can have become of what was staged


def test_what_is_staged_again_after_a_kill_while_it_was_unstaged_is_staged_as_it_is_now(
    outbox: Outbox, steered: Steered
) -> None:
    """It is not taken for staged because its id is known: it would be published by nobody."""
    outbox.stage(mail("a"))
    steered.cancel(["staged-a"])

    outbox.stage(attrs.evolve(mail("a"), content=b"rendered anew\r\n"))

    assert list(outbox.staged()) == ["a"]
    assert outbox.publish("a") is True
    (claim,) = take(outbox.store)
    assert claim.message.content == b"rendered anew\r\n"


def test_an_id_that_was_being_unstaged_when_it_was_killed_is_free_for_another_envelope(
    outbox: Outbox, steered: Steered
) -> None:
    outbox.stage(mail("a"))
    steered.cancel(["staged-a"])

    outbox.stage(mail("a", "other@example.org"))

    assert outbox.publish("a") is True
    (claim,) = take(outbox.store)
    assert claim.message.recipients == ("other@example.org",)


def test_what_a_person_holds_is_staged_and_waits_for_him(outbox: Outbox, steered: Steered) -> None:
    outbox.stage(mail("a"))
    outbox.stage(mail("b"))
    steered.hold(["staged-a"], reason="ask Ann first")

    outbox.stage(mail("a"))
    with pytest.raises(StoreUnavailable, match="ask Ann first"):
        outbox.publish("a")
    assert list(outbox.staged()) == ["b"], "it does not stop who goes through the others"

    steered.release(["staged-a"])
    assert list(outbox.staged()) == ["a", "b"]
    assert outbox.publish("a") is True


def test_what_a_person_holds_can_be_unstaged(outbox: Outbox, steered: Steered) -> None:
    outbox.stage(mail("a"))
    steered.hold(["staged-a"])

    assert outbox.unstage("a") is True
    assert steered.get("staged-a") is None


def test_what_a_person_has_cancelled_and_put_back_is_staged(outbox: Outbox, steered: Steered) -> None:
    outbox.stage(mail("a"))
    steered.cancel(["staged-a"])
    assert list(outbox.staged()) == []

    steered.requeue(["staged-a"])
    assert list(outbox.staged()) == ["a"]
    assert outbox.publish("a") is True


def test_what_is_on_its_way_to_another_store_is_neither_published_nor_staged_nor_forgotten_here(
    outbox: Outbox, steered: Steered, store: Store
) -> None:
    assert isinstance(store, SupportsMove)
    outbox.stage(mail("a"))
    store.take(to="elsewhere", limit=10)

    for verb in (
        lambda: outbox.publish("a"),
        lambda: outbox.unstage("a"),
        lambda: outbox.stage(mail("a")),
    ):
        with pytest.raises(StoreUnavailable, match="on its way to another store"):
            verb()
    assert list(outbox.staged()) == []
    assert steered.get("staged-a") is not None
    assert steered.get("a") is None


def test_what_has_left_for_another_store_is_published_there_and_not_taken_for_nothing(
    outbox: Outbox, steered: Steered, store: Store, clock: ManualClock
) -> None:
    """Who is told that nothing is staged submits the message himself: it would be sent by both."""
    assert isinstance(store, SupportsMove)
    other = MemoryStore(clock=clock)
    outbox.stage(mail("a"))
    assert moved(store, other, joins=True).moved == 1

    for verb in (
        lambda: outbox.publish("a"),
        lambda: outbox.unstage("a"),
        lambda: outbox.stage(mail("a")),
    ):
        with pytest.raises(StoreUnavailable, match="was moved to another store"):
            verb()
    assert take(store) == []
    assert Outbox(other, clock=clock).publish("a") is True
    assert ids(take(other)) == ["a"]
    with pytest.raises(StoreUnavailable, match="was moved to another store"):
        outbox.publish("a")


@pytest.mark.parametrize("verb", ["publish", "unstage"])
def test_what_leaves_at_the_moment_when_it_is_removed_is_not_taken_for_removed(
    verb: str, outbox: Outbox, store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(store, SupportsMove)
    assert isinstance(store, SupportsManage)
    other = MemoryStore(clock=clock)
    outbox.stage(mail("a"))
    cancel = store.cancel

    def late(ids: object) -> object:
        moved(store, other, joins=True)
        return cancel(ids)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(store, "cancel", late)
    with pytest.raises(StoreUnavailable, match="was moved to another store"):
        getattr(outbox, verb)("a")
    monkeypatch.undo()

    # Whether it was submitted here or not, it is once in both together.
    assert Outbox(other, clock=clock).publish("a") is True
    assert len(ids(take(store)) + ids(take(other))) == 1


def test_a_message_of_the_caller_s_own_with_such_a_name_is_left_alone(
    outbox: Outbox, steered: Steered
) -> None:
    outbox.submit(mail("staged-a"))
    with pytest.raises(ConflictError):
        outbox.stage(mail("a"))
    assert [outbox.publish("a"), outbox.unstage("a")] == [False, False]
    steered.cancel(["staged-a"])
    with pytest.raises(ConflictError):
        outbox.stage(mail("a"))

    assert steered.get("staged-a") is not None


def test_one_that_cannot_be_read_stops_none_of_the_others_and_is_told_of(
    outbox: Outbox, steered: Steered, monkeypatch: pytest.MonkeyPatch
) -> None:
    for id in "abc":
        outbox.stage(mail(id))
    get = steered.get

    def damaged(id: str) -> object:
        if id == "staged-a":
            raise CorruptRecord("staged-a: it cannot be read")
        return get(id)

    monkeypatch.setattr(steered, "get", damaged)
    staged = outbox.staged()

    assert [next(staged), next(staged)] == ["b", "c"]
    with pytest.raises(CorruptRecord, match="staged-a"):
        next(staged)
    assert outbox.unstage("a") is True
    assert list(outbox.staged()) == ["b", "c"]


def test_a_submit_is_told_when_it_is_published(outbox: Outbox, told: list[Notice]) -> None:
    outbox.stage(mail("a"))
    assert told == []

    outbox.publish("a")
    assert [type(notice) for notice in told] == [Submitted]


def test_a_put_that_fails_leaves_it_staged(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox.stage(mail("a"))

    def fail(_: object) -> None:
        raise StoreUnavailable("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr(outbox, "_intake", type("Away", (), {"put": staticmethod(fail)})())
        with pytest.raises(StoreUnavailable):
            outbox.publish("a")

    assert list(outbox.staged()) == ["a"]
    assert outbox.publish("a")


class Blind:
    """A store that has the five verbs and nothing else."""

    put = claim = extend = settle = close = lambda *_, **__: None


def test_a_store_that_finds_nothing_again_says_so() -> None:
    blind: Store = Blind()  # type: ignore[assignment]  # it is never asked

    with pytest.raises(UnsupportedError, match="cannot stage"):
        Outbox(blind).stage(mail("a"))


def test_a_clock_decides_what_is_older(outbox: Outbox, clock: ManualClock) -> None:
    outbox.stage(mail("a"))

    assert list(outbox.staged(older_than=dt.timedelta(seconds=1))) == []
    clock.advance(dt.timedelta(seconds=1))
    assert list(outbox.staged(older_than=dt.timedelta(seconds=1))) == ["a"]


def test_a_host_whose_clock_is_ahead_takes_nothing_for_older_than_it_is(
    outbox: Outbox, store: Store, clock: ManualClock
) -> None:
    """What is younger than its transaction may yet be committed: to unstage it would lose it."""
    hasty = ManualClock(clock.now() + 5 * MINUTE)
    there = Outbox(store, clock=hasty)
    outbox.stage(mail("a"))

    assert list(there.staged(older_than=MINUTE)) == []
    clock.advance(MINUTE)
    hasty.advance(MINUTE)
    assert list(there.staged(older_than=MINUTE)) == ["a"]


def test_a_host_whose_clock_is_behind_sees_it_all_the_same_when_it_asks_for_all(
    outbox: Outbox, store: Store, clock: ManualClock
) -> None:
    outbox.stage(mail("a"))

    assert list(Outbox(store, clock=ManualClock(clock.now() - DAY)).staged()) == ["a"]
