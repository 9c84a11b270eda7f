"""A message as the memory store keeps it, and what can be seen of it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from outbox.lifecycle import Attempt, Record, State, Summary
from outbox.message import Message
from outbox.protocols import QueueCount

from . import standing as standings
from .instants import moment
from .selection import Candidate
from .standing import Standing

__all__ = ["Row", "counted"]


@attrs.define(kw_only=True, eq=False)
class Row:
    """A message and where it stands.

    *place* names its entry in one of its queue's heaps; an entry that bears
    another number has been left behind, and is dropped when it comes up.
    *size* is that of the content as it was put, whether it is still there or not.
    """

    message: Message
    digest: bytes
    size: int
    standing: Standing
    generation: int = 0
    place: int = 0
    history: list[Attempt] = attrs.Factory(list)

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def candidate(self) -> Candidate:
        key = (-self.message.priority, self.standing.due, self.message.id)
        return Candidate(key, self.size)

    @property
    def summary(self) -> Summary:
        message = self.message
        return standings.summary(
            self.standing,
            id=message.id,
            queue=message.queue,
            priority=message.priority,
            sender=message.sender,
            recipients=message.recipients,
            size=self.size,
            attributes=message.attributes,
        )

    @property
    def record(self) -> Record:
        return Record(summary=self.summary, message=self.message, history=self.history)


def counted(queue: str, state: State, group: Sequence[Standing], now: int, *, served: bool) -> QueueCount:
    """The row of ``count`` for these messages; none of them is due while their queue is not *served*."""
    due = [standing.due for standing in group if served and standing.queued and standing.due <= now]
    return QueueCount(
        queue=queue,
        state=state,
        number=len(group),
        due=len(due),
        oldest_at=moment(min(standing.submitted for standing in group)),
        oldest_due_at=moment(min(due)) if due else None,
    )
