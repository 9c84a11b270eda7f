"""A message in two steps: durable before the caller's commit, and to be delivered after it.

For a store that is not in the caller's database.  What is staged lies in the
store within another message, its *carrier*, in a queue of its own that is
never due: one put, and nobody can claim it.  To publish is to put what the
carrier holds, and then to remove the carrier; a kill between the two leaves
both, and the next publish finds the id known, for as long as the store
remembers it.

A carrier that is QUEUED is staged.  One that a person HOLDs is, too, and waits
for him.  One that is CLAIMED is on its way to another store; of one that is
there by now the id is known here for that.  Any other holds
nothing that is to be published: it was cancelled, by a person or by whoever
was killed before he had removed it, and the next one of its id takes its place.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol, runtime_checkable

import attrs

from .codec import decode, encode
from .errors import ConflictError, CorruptRecord, FormatError, StoreUnavailable, UnsupportedError
from .lifecycle import STAGED, Record, State
from .message import Message
from .moving import SupportsMove
from .protocols import Expected, Store, SupportsBrowse, SupportsManage, SupportsWait

__all__ = ["Stage"]

_PREFIX: Final = "staged-"
_LONGEST_ID: Final = 64
_PAGE: Final = 100
_TRIES: Final = 5
# A requeue by mistake makes nothing due before this.
_NEVER: Final = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)
_ZERO: Final = dt.timedelta(0)


@runtime_checkable
class _Stages(SupportsBrowse, SupportsManage, Protocol):
    """What a store must be able to do."""


class Stage:
    """See the module.

    Raises:
        UnsupportedError: the store cannot find a message again, or remove one.
    """

    def __init__(self, store: Store) -> None:
        if not isinstance(store, _Stages):
            raise UnsupportedError(
                f"{type(store).__name__} cannot stage: it finds no message again by its id; submit after your commit"
            )
        self._store = store
        self._put = store.put

    def stage(self, message: Message) -> None:
        """Keep it, durable on return; one of the same id and envelope that is staged already stands."""
        carrier = _carrier(message)
        for _ in range(_TRIES):
            if self._stands(carrier):
                return
            self._require_here(carrier.id)
        raise StoreUnavailable(
            f"{message.id} cannot be staged: the id is known, and nothing is there; others stage and remove it all the time: "
            "stage it again, or under another id"
        )

    def publish(self, id: str, submit: Callable[[Message], object]) -> bool:
        """*submit* what is staged under this id, and remove it from here; False where nothing is."""
        message = self._staged(_name(id))
        if message is None:
            self._require_here(_name(id))
            return False
        submit(message)
        self._remove(_name(id))
        return True

    def remove(self, id: str) -> bool:
        """Forget it; False where nothing was staged."""
        name = _name(id)
        try:
            if self._record(name) is None:
                self._require_here(name)
                return False
        except (CorruptRecord, FormatError):
            # It need not be readable to be thrown away.
            pass
        return self._remove(name)

    def _remove(self, name: str) -> bool:
        (change,) = self._store.cancel([name])
        # Cancelled it may have been by somebody who was killed before he purged it.
        (gone,) = self._store.purge([name])
        if gone.status == "leased":
            raise _moving(name)
        if "done" in (change.status, gone.status):
            return True
        self._require_here(name)
        return False

    def _require_here(self, name: str) -> None:
        """Raise StoreUnavailable where it has left: who took it for gone would submit what is published there, too."""
        if isinstance(self._store, SupportsMove) and self._store.has_left(name):
            raise StoreUnavailable(
                f"what was staged as {name} was moved to another store: go on there, once outbox move has ended"
            )

    def ids(self, older_than: dt.timedelta, now: dt.datetime) -> Iterator[str]:
        """Those that were staged so long ago, by the clocks of the store and of *now*, and wait to be published.

        Raises:
            CorruptRecord, FormatError: one cannot be read; all the others were given before.
        """
        before = self._now(now) - older_than if older_than > _ZERO else _NEVER
        unreadable: CorruptRecord | FormatError | None = None
        after = ""
        while page := self._store.browse(states=[State.QUEUED], queues=[STAGED], after=after, limit=_PAGE):
            for summary in page:
                try:
                    message = self._waiting(summary.id) if summary.submitted_at <= before else None
                except (CorruptRecord, FormatError) as error:
                    unreadable = error
                    continue
                if message is not None:
                    yield message.id
            after = page[-1].id
        if unreadable is not None:
            raise unreadable

    def _now(self, now: dt.datetime) -> dt.datetime:
        """By the store's clock, which every carrier is as far from being due by; by the caller's where that is behind."""
        left = self._store.next_due([STAGED]) if isinstance(self._store, SupportsWait) else None
        return now if left is None else min(now, _NEVER - left)

    def _stands(self, carrier: Message) -> bool:
        """Whether it is staged now; False where something was in its place and is there no more."""
        try:
            (result,) = self._put([carrier])
        except ConflictError:
            if self._is_taken(carrier.id):
                raise
            return False
        return result.status == "stored" or self._is_taken(carrier.id)

    def _is_taken(self, name: str) -> bool:
        """Whether something stands under this name; a carrier that holds nothing to be published is removed."""
        record = self._store.get(name)
        if record is None:
            return False
        state = record.summary.state
        if record.message.queue != STAGED or state in (State.QUEUED, State.HELD):
            return True
        if state is State.CLAIMED:
            raise _moving(name)
        self._store.purge([name], expected=Expected(states={state}))
        return False

    def _staged(self, name: str) -> Message | None:
        """What is to be published; None where nothing is.

        Raises:
            StoreUnavailable: not now.
        """
        record = self._record(name)
        if record is None:
            return None
        if record.summary.state is State.CLAIMED:
            raise _moving(name)
        if record.summary.state is State.HELD:
            raise StoreUnavailable(
                f"a person holds what is staged as {name} ({record.summary.reason}): outbox release it, and publish it again"
            )
        return _content(record)

    def _waiting(self, name: str) -> Message | None:
        """What waits to be published; None where it was published, or held, since it was listed."""
        record = self._record(name)
        return None if record is None else _content(record)

    def _record(self, name: str) -> Record | None:
        record = self._store.get(name)
        return record if record is not None and record.message.queue == STAGED else None


def _content(record: Record) -> Message | None:
    return decode(record.message.content) if record.summary.state is State.QUEUED else None


def _moving(name: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"what is staged as {name} is on its way to another store: go on there, once outbox move has ended"
    )


def _carrier(message: Message) -> Message:
    """With its envelope, so that a person sees whom it is for, and another of the same id is a conflict."""
    return attrs.evolve(
        message,
        id=_name(message.id),
        queue=STAGED,
        content=encode(message),
        not_before=_NEVER,
        expires_at=None,
    )


def _name(id: str) -> str:
    name = _PREFIX + id
    if len(name) <= _LONGEST_ID:
        return name
    return _PREFIX + hashlib.sha256(id.encode()).hexdigest()[: _LONGEST_ID - len(_PREFIX)]
