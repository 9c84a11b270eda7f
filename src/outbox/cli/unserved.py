"""Mail that is due in a queue that nobody serves here: it would wait for ever, and silently."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from outbox.clock import SystemClock
from outbox.errors import StoreError
from outbox.lifecycle import STAGED, State
from outbox.locate import Config, spell
from outbox.protocols import QueueCount, Store, SupportsBrowse

from .output import Console

__all__ = ["unserved", "warn_of_unserved"]

_PATIENCE: Final = dt.timedelta(minutes=10)
"""A neighbour (the next line of a crontab) has taken it by then, if there is one."""


def unserved(counts: Sequence[QueueCount], served: Collection[str]) -> list[QueueCount]:
    """What waits in queues that are not among those *served*, and ought to be: what is staged waits for no runner."""
    others = {*served, STAGED}
    return [count for count in counts if count.state is State.QUEUED and count.queue not in others]


def warn_of_unserved(store: Store, config: Config, console: Console) -> None:
    """Name the queues whose mail has been due for long; to a person at a terminal, all whose mail is due."""
    now = SystemClock().now()
    for count, since in _due_elsewhere(store, config):
        if console.live or now - since >= _PATIENCE:
            messages = "message" if count.due == 1 else "messages"
            console.complain(
                f"warning: {count.due:,} due {messages} of queue {count.queue}, the first for {spell(now - since)}, "
                f"cannot be delivered here (served: {', '.join(config.queues)}): see outbox status"
            )


def _due_elsewhere(store: Store, config: Config) -> Iterator[tuple[QueueCount, dt.datetime]]:
    try:
        counts = store.count() if isinstance(store, SupportsBrowse) else ()
    except StoreError:
        return  # who delivers meets the same error, and tells it
    for count in counts:
        if count.due and count.oldest_due_at and count.queue not in config.queues:
            yield count, count.oldest_due_at
