"""What lies staged: nobody is to serve its queue, and it waits for a publish or an unstage alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import attrs

from outbox.lifecycle import STAGED, State, Summary
from outbox.locate import spell
from outbox.protocols import QueueCount, Store, SupportsBrowse

from .columns import at_least

__all__ = ["ADVICE", "Staged", "is_staged"]

ADVICE: Final = (
    "a program may have died between stage and publish: have it reconcile what it finds in outbox.staged(); "
    f"outbox list --queue {STAGED} names them, outbox cancel ID unstages one"
)
_OLD: Final = dt.timedelta(days=1)
"""No transaction is open for so long."""
_SAMPLE: Final = 100


def is_staged(summary: Summary) -> bool:
    return summary.queue == STAGED and summary.state is State.QUEUED


@attrs.frozen(kw_only=True)
class Staged:
    """How many there are, and since when the oldest; *more*: of both only what was seen of many."""

    number: int
    more: bool
    oldest_at: dt.datetime

    @classmethod
    def of(cls, store: Store, counts: Sequence[QueueCount]) -> Staged | None:
        """As the store counted them; None where nothing is staged."""
        for count in counts:
            if count.queue == STAGED and count.state is State.QUEUED:
                oldest_at = count.oldest_at or _oldest(store)
                if oldest_at is not None:
                    return cls(number=count.number, more=count.more, oldest_at=oldest_at)
        return None

    def is_old(self, now: dt.datetime) -> bool:
        return now - self.oldest_at >= _OLD

    def phrase(self, now: dt.datetime) -> str:
        """``2 messages are staged, the oldest for 5 min: …``."""
        are = "message is" if self.number == 1 and not self.more else "messages are"
        age = spell(max(dt.timedelta(0), now - self.oldest_at))
        return (
            f"{at_least(self.number, self.more)} {are} staged, the oldest for {age}{' or more' if self.more else ''}: "
            "the program that staged them publishes or unstages them, and no runner is to"
        )

    def data(self) -> dict[str, Any]:
        """For a program."""
        return attrs.asdict(self)


def _oldest(store: Store) -> dt.datetime | None:
    """Of some of them, where they were too many to be counted."""
    if not isinstance(store, SupportsBrowse):
        return None
    page = store.browse(states=[State.QUEUED], queues=[STAGED], limit=_SAMPLE)
    return min((each.submitted_at for each in page), default=None)
