"""What is asked amiss: names that no message can have, and numbers beyond all counting."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from outbox.errors import ConfigurationError
from outbox.protocols import (
    SupportsBrowse,
    SupportsExchange,
    SupportsMaintain,
    SupportsManage,
    SupportsSuspend,
    SupportsWait,
    Suspension,
)

from .scene import LEASE, Clauses, Whole, clause, ids, mail, put, raises, statuses, take

__all__ = ["AskClauses"]

_NO_TEXT: Final[Sequence[Any]] = (None, 5, 2.5, b"a")
_NO_IDS: Final[Sequence[Any]] = (
    *("\ud800", "a\udcff", "a\0", "\0", "", "A", "a b", "../a", "a/b", "é", "a" * 65, "x" * 5000),
    *_NO_TEXT,
)
_NO_QUEUES: Final[Sequence[Any]] = ("\ud800", "mail\0", "", "Mail", "a b", "../mail", "a" * 65, *_NO_TEXT)
_MANY: Final = sys.maxsize * sys.maxsize


class AskClauses(Clauses):
    """An odd question has an answer, and that is one of ours."""

    # -- ids

    @clause(SupportsBrowse)
    def test_an_id_that_no_message_can_have_has_no_record(self, store: Whole) -> None:
        put(store, "a")

        assert [store.get(name) for name in _NO_IDS] == [None] * len(_NO_IDS)

    @clause(SupportsManage)
    def test_an_id_that_no_message_can_have_is_unknown_and_the_others_are_done(self, store: Whole) -> None:
        put(store, "a", "b")
        commands: Sequence[Callable[..., Any]] = (store.requeue, store.cancel, store.requeue, store.cancel)

        for command in (*commands, store.purge):
            changes = command(["b", *_NO_IDS, "a"])
            assert [change.id for change in changes] == ["b", *_NO_IDS, "a"]
            assert statuses(changes) == ["done", *["unknown"] * len(_NO_IDS), "done"]

    @clause(SupportsManage)
    def test_one_bare_id_is_not_taken_for_its_letters(self, store: Whole) -> None:
        put(store, "a", "b")

        for command in (store.requeue, store.cancel, store.purge):
            with raises(ConfigurationError, "['ab']"):
                command("ab")

    @clause(SupportsBrowse)
    def test_a_page_begins_after_any_text(self, store: Whole) -> None:
        put(store, "a", "b", "b0", "c")
        begin = {"": "a", "\0": "a", "A": "a", "a\0": "b", "aa": "b", "b": "b0", "b\0": "b0", "b\ud800": "c"}
        begin |= {"b/": "b0", "bé": "c", "a\U0010ffff": "b", "b0\udcff": "c"}

        for after, first in begin.items():
            assert store.browse(after=after, limit=1)[0].id == first, repr(after)
        for after in ("c", "\ud800", "\udcff" * 5000, "é"):
            assert list(store.browse(after=after)) == []

    @clause(SupportsBrowse)
    def test_a_page_begins_after_a_text_and_nothing_else(self, store: Whole) -> None:
        for after in _NO_TEXT:
            with raises(ConfigurationError, "after", type(after).__name__):
                store.browse(after=after)

    # -- queues

    def test_a_queue_that_no_message_can_have_cannot_be_claimed_from(self, store: Whole) -> None:
        put(store, "a")

        for name in _NO_QUEUES:
            with raises(ConfigurationError, "queue"):
                store.claim(limit=1, lease=LEASE, queues=["mail", name])
        assert [claim.attempt for claim in take(store)] == [1]

    @clause(SupportsExchange)
    def test_a_queue_that_no_message_can_have_cannot_be_exchanged_with(self, store: Whole) -> None:
        for name in _NO_QUEUES:
            with raises(ConfigurationError, "queue"):
                store.exchange([], limit=1, lease=LEASE, queues=[name])

    @clause(SupportsBrowse)
    def test_a_queue_that_no_message_can_have_cannot_be_listed(self, store: Whole) -> None:
        for name in _NO_QUEUES:
            with raises(ConfigurationError, "queue"):
                store.browse(queues=[name])

    @clause(SupportsWait)
    def test_a_queue_that_no_message_can_have_is_never_due(self, store: Whole) -> None:
        for name in _NO_QUEUES:
            with raises(ConfigurationError, "queue"):
                store.next_due([name])

    @clause(SupportsSuspend)
    def test_what_no_message_can_have_cannot_be_suspended(self, store: Whole) -> None:
        put(store, "a")

        for name in _NO_QUEUES:
            with raises(ConfigurationError, "queue"):
                store.suspend(Suspension(kind="queue", value=name))
        for kind in ("relay", "domain", "attribute"):
            for value in ("\ud800", "a\0b", *_NO_TEXT):
                with raises(ConfigurationError, kind):
                    store.suspend(Suspension(kind=kind, value=value))
        for reason in ("\ud800", "a\0b", *_NO_TEXT):
            with raises(ConfigurationError, "reason"):
                store.suspend(Suspension(kind="queue", value="mail", reason=reason))
        assert list(store.suspensions()) == []
        assert ids(take(store)) == ["a"]

    @clause(SupportsSuspend)
    def test_what_cannot_be_suspended_cannot_be_taken_back(self, store: Whole) -> None:
        for kind, value in (
            ("queue", "\ud800"),
            ("queue", "Mail"),
            ("relay", "\0"),
            ("relay", 5),
            ("x", "y"),
        ):
            with raises(ConfigurationError, "suspension"):
                store.unsuspend(kind, value)  # type: ignore[arg-type]  # what a caller without types may say

    # -- numbers

    def test_a_claim_of_more_than_can_be_is_a_claim_of_all(self, store: Whole) -> None:
        put(store, "a", "b", mail("c", queue="other"))

        claims = store.claim(limit=_MANY, lease=dt.timedelta.max, queues=["mail", "other"], max_bytes=_MANY)

        assert sorted(ids(claims)) == ["a", "b", "c"]

    @clause(SupportsExchange)
    def test_an_exchange_for_more_than_can_be_is_one_for_all(self, store: Whole) -> None:
        put(store, "a", "b")

        assert len(store.exchange([], limit=_MANY, lease=LEASE, queues=["mail"], max_bytes=_MANY).claims) == 2

    @clause(SupportsBrowse)
    def test_a_page_of_more_than_can_be_is_all(self, store: Whole) -> None:
        put(store, "a", "b")

        assert [summary.id for summary in store.browse(limit=_MANY)] == ["a", "b"]

    @clause(SupportsMaintain)
    def test_more_than_can_be_can_be_pruned(self, store: Whole) -> None:
        put(store, "a")

        assert store.prune(limit=_MANY) == 0
