"""Which of the messages that go on waiting have waited for long enough to be told of."""

from __future__ import annotations

import datetime as dt
import threading
from collections import OrderedDict
from typing import Final

from .events import Delayed, Notice, Settled
from .lifecycle import Released, Retry

__all__ = ["Delays"]

_REMEMBERED: Final = 100_000


class Delays:
    """Tells of each message once.  Safe from many threads.

    The ids of the last hundred thousand are remembered; with more than that
    late at a time some are told of again.
    """

    def __init__(self, after: dt.timedelta | None) -> None:
        self._after = after
        self._lock = threading.Lock()
        self._told: OrderedDict[str, None] = OrderedDict()

    def of(self, notice: Notice) -> Delayed | None:
        """What is to be told after *notice*; nearly always nothing."""
        if self._after is None or not isinstance(notice, Settled):
            return None
        with self._lock:
            return self._after_settling(notice, self._after)

    def _after_settling(self, notice: Settled, after: dt.timedelta) -> Delayed | None:
        id, verdict = notice.claim.message.id, notice.verdict
        if not isinstance(verdict, Retry | Released):
            self._told.pop(id, None)
            return None
        if notice.claim.age < after or id in self._told:
            return None
        self._told[id] = None
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return Delayed(notice.claim, verdict)
