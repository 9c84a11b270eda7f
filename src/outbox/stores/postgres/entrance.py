"""How messages come in: by a commit of their own, or by the caller's."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

import attrs

from outbox.errors import AmbiguousPut, StoreError, StoreUnavailable
from outbox.lifecycle import Claim, PutResult
from outbox.message import Message
from outbox.moving import Batch
from outbox.stores import intake
from outbox.stores.content import Codings
from outbox.stores.instants import width
from outbox.stores.limits import Load
from outbox.stores.retention import Retention

from . import arriving, claiming, putting, rows, settling
from .claiming import Taken, Unreadable
from .crowding import Crowd
from .links import Links, transaction
from .listening import Herald
from .naming import Sql
from .translation import Lost

__all__ = ["Entrance"]

T = TypeVar("T")

_TRIES: Final = 10
_AGAIN: Final = "put it again with the same id"


@attrs.define
class _Commit:
    """Whether the commit of a put may have been sent."""

    sent: bool = False


@attrs.frozen
class Stored:
    """What a put answers, and the ids of what is new, due, and of a queue that goes on."""

    results: Sequence[PutResult]
    due: Sequence[str]


@attrs.frozen(kw_only=True, eq=False)
class Entrance:
    """See the module."""

    links: Links
    codings: Codings
    retention: Retention
    crowd: Crowd
    herald: Herald
    now: Callable[[], int | None]

    def put(self, messages: Sequence[Message]) -> Sequence[PutResult]:
        """Store them; what nobody knows takes one round trip, where no limit has to be asked for."""
        drafts = putting.drafts(messages, self.codings)
        new, results = intake.sift(drafts, {})
        if new and not self.crowd.limited and self._at_once(new):
            return results
        return self._transaction(drafts, lambda sql: self._stored(sql, drafts).results)

    def put_claimed(
        self, messages: Sequence[Message], *, lease: dt.timedelta, attempted: bool
    ) -> Sequence[Claim]:
        """Store them under a lease of the caller's."""
        drafts = putting.drafts(messages, self.codings)
        ids: list[str] = []

        def put(sql: Sql) -> list[rows.Row]:
            ids[:] = self._stored(sql, drafts, attempted=attempted).due
            return claiming.take(sql, ids, lease, self.now()).fetchall() if ids else []

        found = self._transaction(drafts, put)
        taken: Taken = claiming.taken(found, ids, self.codings)
        # What is not held now is when its lease is over; the others are stored, and the caller's.
        with contextlib.suppress(StoreError):
            self.hold(taken.unreadable)
        return taken.claims

    def hold(self, found: Sequence[Unreadable]) -> None:
        """Hold what was taken and cannot be read."""
        for each in found:
            self.links.use(functools.partial(settling.hold, found=each, now=self.now()))

    def put_within(self, sql: Sql, messages: Sequence[Message]) -> Sequence[PutResult]:
        """Store them, and leave the commit to whose transaction it is."""
        stored = self._stored(sql, putting.drafts(messages, self.codings))
        self.herald.tell_within(sql, _queues(messages))
        return stored.results

    def give(self, batch: Batch) -> Sequence[str]:
        """Store what comes from another store, once."""
        made = arriving.arrivals(batch, self.codings)
        return self._transaction(
            [each.draft for each in made],
            lambda sql: arriving.give(
                sql, batch, made, codings=self.codings, crowd=self.crowd, now=self.now()
            ),
            again="give the same batch again",
        )

    def _at_once(self, new: Sequence[putting.Draft]) -> bool:
        """One statement, which is its own transaction; False where one of them is there."""
        commit = _Commit(sent=True)

        def put(sql: Sql) -> bool:
            listened = putting.store(sql, new, self.codings, self.now())
            if listened:
                self._tell(sql, new)
            return listened is not None

        with _ambiguous(commit):
            return self.links.use(put)

    def _transaction(
        self, drafts: Sequence[putting.Draft], act: Callable[[Sql], T], *, again: str = _AGAIN
    ) -> T:
        commit = _Commit()

        def put(sql: Sql) -> T:
            commit.sent = False
            with transaction(sql):
                answer = act(sql)
                commit.sent = True
            self._tell(sql, drafts)
            return answer

        try:
            with _ambiguous(commit, again):
                return self.links.use(put)
        except BaseException:
            self.crowd.forget()
            raise

    def _tell(self, sql: Sql, drafts: Sequence[putting.Draft]) -> None:
        self.herald.tell(sql, _queues(draft.message for draft in drafts))

    def _stored(self, sql: Sql, drafts: Sequence[putting.Draft], *, attempted: bool = False) -> Stored:
        """Store what is new, within a transaction; where it raises nothing is written, and the transaction goes on."""
        known: dict[str, bytes] | None = None if self.crowd.limited else {}
        for _ in range(_TRIES):
            if known is None:
                known = self._known(sql, drafts)
            new, results = intake.sift(drafts, known)
            if not new:
                return Stored(results, [])
            if self.crowd.limited:
                self.crowd.admit(sql, Load.of(len(draft.message.content) for draft in new))
            sql.execute("SAVEPOINT outbox")
            written = putting.insert(sql, new, self.codings, self.now(), attempted=attempted).fetchall()
            if len(written) == len(new):
                sql.execute("RELEASE SAVEPOINT outbox")
                due = {id for id, ready in written if ready}
                return Stored(results, [draft.id for draft in new if draft.id in due])
            # Some are there: which, and with what envelope, decides what becomes of all.
            sql.execute("ROLLBACK TO SAVEPOINT outbox")
            sql.execute("RELEASE SAVEPOINT outbox")
            known = None
        raise StoreUnavailable(
            f"{self.links.name}: others put and purge the same ids all the time: put again"
        )

    def _known(self, sql: Sql, drafts: Sequence[putting.Draft]) -> dict[str, bytes]:
        ids = [draft.id for draft in drafts]
        return putting.known(sql, ids, width(self.retention.remember), self.now())


def _queues(messages: Iterator[Message] | Sequence[Message]) -> set[str]:
    return {message.queue for message in messages if message.not_before is None}


@contextlib.contextmanager
def _ambiguous(commit: _Commit, again: str = _AGAIN) -> Iterator[None]:
    try:
        yield
    except Lost as error:
        if not commit.sent:
            raise
        raise AmbiguousPut(f"{error}; whether it was stored nobody can tell: {again}") from error.__cause__
