"""A message in two steps: durable before the caller's commit, delivered once it is published, and never by itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from outbox import FilesystemStore, FunctionTransport, MemoryStore, Message, Outbox, SQLiteStore, Submitted
from outbox.errors import ConflictError, InvalidMessage, StoreUnavailable, UnsupportedError
from outbox.events import Notice
from outbox.protocols import Store
from outbox.testing.clauses.scene import DAY, ids, mail, take
from outbox.testing.clock import ManualClock

MAIL = b"From: ann@example.org\r\nTo: bob@example.org\r\nSubject: your order\r\n\r\nThank you.\r\n"
STORES: dict[str, Callable[[ManualClock, Path], Store]] = {
    "memory": lambda clock, _: MemoryStore(clock=clock),
    "sqlite": lambda clock, path: SQLiteStore(path / "outbox.db", clock=clock),
    "filesystem": lambda clock, path: FilesystemStore(path / "spool", clock=clock),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, clock: ManualClock, tmp_path: Path) -> Iterator[Store]:
    store = STORES[request.param](clock, tmp_path)
    yield store
    store.close()


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


def test_a_kill_between_the_two_halves_of_an_unstage_leaves_what_the_next_one_mends(outbox: Outbox) -> None:
    outbox.stage(mail("a"))
    outbox.store.cancel(["staged-a"])  # type: ignore[attr-defined]  # each of these stores can

    assert outbox.publish("a") is False
    assert outbox.unstage("a") is True
    outbox.stage(mail("a"))
    assert outbox.publish("a") is True


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
