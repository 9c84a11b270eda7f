"""A message in two steps: durable before the caller's commit, and to be delivered after it.

For a store that is not in the caller's database.  What is staged lies in the
store within another message, its *carrier*, in a queue of its own that is
never due: one put, and nobody can claim it.  To publish is to put what the
carrier holds, and then to remove the carrier; a kill between the two leaves
both, and the next publish finds the id known.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol, runtime_checkable

import attrs

from .codec import decode, encode
from .errors import UnsupportedError
from .lifecycle import State
from .message import Message
from .protocols import Store, SupportsBrowse, SupportsManage

__all__ = ["STAGED", "Stage"]

STAGED: Final = "outbox.staged"
"""The queue of the carriers; no Runner is to serve it."""

_PREFIX: Final = "staged-"
_LONGEST_ID: Final = 64
_PAGE: Final = 100
# A requeue by mistake makes nothing due before this.
_NEVER: Final = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)


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
        self._put([_carrier(message)])

    def publish(self, id: str, submit: Callable[[Message], object]) -> bool:
        """*submit* what is staged under this id, and remove it from here; False where nothing is."""
        message = self._staged(_name(id))
        if message is None:
            return False
        submit(message)
        self.remove(id)
        return True

    def remove(self, id: str) -> bool:
        """Forget it; False where nothing was staged."""
        name = _name(id)
        (change,) = self._store.cancel([name])
        # Cancelled it may have been by somebody who was killed before he purged it.
        (gone,) = self._store.purge([name])
        return "done" in (change.status, gone.status)

    def ids(self, before: dt.datetime) -> Iterator[str]:
        """Those that were staged before then and are still here."""
        after = ""
        while page := self._store.browse(states=[State.QUEUED], queues=[STAGED], after=after, limit=_PAGE):
            for summary in page:
                message = self._staged(summary.id) if summary.submitted_at <= before else None
                if message is not None:
                    yield message.id
            after = page[-1].id

    def _staged(self, name: str) -> Message | None:
        record = self._store.get(name)
        if record is None or record.message.queue != STAGED or record.summary.state is not State.QUEUED:
            return None
        return decode(record.message.content)


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
