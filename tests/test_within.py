"""A message exists if and only if the caller's transaction commits: by whatever library his transaction is."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import shops
from shops import ENGINES, SHOPS, Database, Shop, orders

from outbox import FunctionTransport, Message, Outbox
from outbox.errors import ConflictError
from outbox.testing.clauses.scene import ids, mail, take

PATIENCE = dt.timedelta(seconds=30)


class Regret(Exception):
    """The caller's own."""


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    with shops.database(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def outbox(database: Database) -> Iterator[Outbox]:
    with Outbox(database.store()) as outbox:
        yield outbox


@pytest.fixture(params=SHOPS)
def shop(request: pytest.FixtureRequest, database: Database, outbox: Outbox) -> Iterator[Shop]:
    shop = SHOPS[request.param](database)
    yield shop
    shop.close()


def test_an_order_and_its_mail_are_there_together(outbox: Outbox, shop: Shop, database: Database) -> None:
    for number in (1, 2):
        with shop.transaction() as deal:
            deal.order(number)
            outbox.within(deal.connection).submit(mail(f"m{number}"))

    assert orders(database) == [1, 2]
    assert ids(take(outbox.store)) == ["m1", "m2"]


def test_neither_is_there_where_the_transaction_is_undone(
    outbox: Outbox, shop: Shop, database: Database
) -> None:
    with contextlib.suppress(Regret), shop.transaction() as deal:
        deal.order(1)
        outbox.within(deal.connection).submit(mail("a"))
        raise Regret

    assert orders(database) == []
    assert take(outbox.store) == []


def test_neither_is_there_where_the_commit_fails(outbox: Outbox, shop: Shop, database: Database) -> None:
    def buy() -> None:
        with shop.transaction() as deal:
            deal.order(1, "what is not sold")
            outbox.within(deal.connection).submit(mail("a"))

    with pytest.raises(Exception, match=r"(?i)foreign key"):
        buy()

    assert orders(database) == []
    assert take(outbox.store) == []


def test_a_message_is_all_that_was_written_in_a_transaction(outbox: Outbox, shop: Shop) -> None:
    """Who has begun nothing by a statement of his own commits what was submitted, all the same."""
    with shop.transaction() as deal:
        outbox.within(deal.connection).submit(mail("a"))
    with contextlib.suppress(Regret), shop.transaction() as deal:
        outbox.within(deal.connection).submit(mail("b"))
        raise Regret

    assert ids(take(outbox.store)) == ["a"]


def test_a_savepoint_that_is_undone_takes_its_messages_with_it(
    outbox: Outbox, shop: Shop, database: Database
) -> None:
    with shop.transaction() as deal:
        deal.order(1)
        outbox.within(deal.connection).submit(mail("a"))
        with contextlib.suppress(Regret), deal.savepoint():
            deal.order(2)
            outbox.within(deal.connection).submit(mail("b"))
            raise Regret
        with deal.savepoint():
            deal.order(3)
            outbox.within(deal.connection).submit(mail("c"))

    assert orders(database) == [1, 3]
    assert ids(take(outbox.store)) == ["a", "c"]


def test_a_savepoint_that_is_kept_goes_with_its_transaction(
    outbox: Outbox, shop: Shop, database: Database
) -> None:
    with contextlib.suppress(Regret), shop.transaction() as deal:
        deal.order(1)
        with deal.savepoint():
            deal.order(2)
            outbox.within(deal.connection).submit(mail("a"))
        raise Regret

    assert orders(database) == []
    assert take(outbox.store) == []


def test_a_conflict_leaves_the_transaction_as_it_was(outbox: Outbox, shop: Shop, database: Database) -> None:
    outbox.submit(mail("a"))
    with shop.transaction() as deal:
        deal.order(1)
        with pytest.raises(ConflictError):
            outbox.within(deal.connection).submit(mail("a", "other@example.org"))
        deal.order(2)
        outbox.within(deal.connection).submit(mail("b"))

    assert orders(database) == [1, 2]
    assert ids(take(outbox.store)) == ["a", "b"]


def test_what_is_known_is_stored_once(outbox: Outbox, shop: Shop) -> None:
    with shop.transaction() as deal:
        assert outbox.within(deal.connection).submit_many([mail("a"), mail("b")]) == ["a", "b"]
    with shop.transaction() as deal:
        submitter = outbox.within(deal.connection)
        assert [submitter.submit(mail("b")), submitter.submit(mail("c"))] == ["b", "c"]

    assert ids(take(outbox.store)) == ["a", "b", "c"]


def test_a_runner_delivers_it_after_the_commit_and_nothing_before(
    database: Database, outbox: Outbox, shop: Shop
) -> None:
    delivered: list[str] = []
    first, second = threading.Event(), threading.Event()

    def deliver(message: Message, _: str) -> None:
        delivered.append(message.id)
        (first if message.id == "already" else second).set()

    with (
        Outbox(database.store(), FunctionTransport(deliver)) as elsewhere,
        elsewhere.running(),
    ):
        outbox.submit(mail("already"))
        assert first.wait(PATIENCE.total_seconds())
        with shop.transaction() as deal:
            deal.order(1)
            outbox.within(deal.connection).submit(mail("a"))
            # Woken though it is, it finds nothing: what is not committed nobody can see.
            elsewhere.wake()
            assert take(outbox.store) == []
            assert delivered == ["already"]
        assert second.wait(PATIENCE.total_seconds())

    assert delivered == ["already", "a"]
