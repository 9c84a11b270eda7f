"""What a store has, in numbers: looked at when somebody asks, and no more often than it can bear."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs

from outbox.clock import Clock, SystemClock
from outbox.lifecycle import State
from outbox.protocols import QueueCount, SupportsBrowse, SupportsSuspend, Suspension
from outbox.values import printable

from .measures import MOST, OTHER, Metric

__all__ = ["OF_THE_STORE", "Census", "Sample", "Seen", "look_at"]

_LOG: Final = logging.getLogger("outbox.metrics")

MESSAGES: Final = Metric("messages", "gauge", ("queue", "state"), "Messages in the store.")
DUE: Final = Metric("due", "gauge", ("queue",), "Messages that could be claimed now, and are not.")
OLDEST_DUE: Final = Metric(
    "oldest_due_age_seconds",
    "gauge",
    ("queue",),
    "Since when the first of those has been due; 0 where none is.",
    "s",
)
OLDEST: Final = Metric(
    "oldest_age_seconds", "gauge", ("queue",), "Age of the oldest message that is not settled.", "s"
)
SUSPENDED: Final = Metric(
    "suspensions", "gauge", ("kind",), "What is suspended now, by kind: queue, relay, domain, attribute."
)
STORE_UP: Final = Metric("store_up", "gauge", (), "Whether the store could be counted at the last try.")
COUNT_TOOK: Final = Metric(
    "store_count_seconds", "gauge", (), "How long the store took to be counted, the last time.", "s"
)
COUNT_AGE: Final = Metric("store_count_age_seconds", "gauge", (), "How old these counts are.", "s")
OF_THE_STORE: Final = (MESSAGES, DUE, OLDEST_DUE, OLDEST, SUSPENDED, STORE_UP, COUNT_TOOK, COUNT_AGE)


@attrs.frozen
class Sample:
    """One number of the store."""

    metric: Metric
    values: tuple[str, ...]
    number: float


_AT_LEAST: Final = 5.0
_SHARE: Final = 20
_GOING_ON: Final = (State.QUEUED, State.CLAIMED)
_SUSPENDABLE: Final = ("queue", "relay", "domain", "attribute")


@attrs.frozen
class Seen:
    """What a store has, at one look."""

    counts: Sequence[QueueCount]
    suspensions: Sequence[Suspension]


def look_at(store: object) -> Seen:
    """Look at a store; of one that cannot be looked at nothing is seen."""
    return Seen(
        store.count() if isinstance(store, SupportsBrowse) else (),
        store.suspensions() if isinstance(store, SupportsSuspend) else (),
    )


class Census:
    """What a store has, looked at no more often than it can bear: at most a twentieth of the time goes into it.

    A look counts all that is there: a second where a million messages wait
    in SQLite.  So there is one every five seconds at most, and where it took
    longer only when twenty times as long has passed; whoever asks meanwhile
    is told of the last one.  Ages are those of now in any case.

    Args:
        look: Looks; may raise, and the store is then told to be down.
        queues: Those that are shown with zeros where they have nothing.
    """

    def __init__(
        self, look: Callable[[], Seen], *, queues: Sequence[str] = (), clock: Clock | None = None
    ) -> None:
        self._look = look
        self._queues = frozenset(queues)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._seen: Seen | None = None
        self._took = 0.0
        self._at: float | None = None

    def begin(self, queues: Sequence[str]) -> None:
        """Show these queues, too, with zeros where they have nothing."""
        self._queues |= frozenset(queues)

    def take(self) -> Sequence[Sample]:
        """The numbers of now."""
        # Who comes while another counts is told of the last count; of none, he waits for the first.
        if self._lock.acquire(blocking=self._at is None):
            try:
                self._renew()
            finally:
                self._lock.release()
        return list(self._samples(self._seen))

    def _renew(self) -> None:
        begun = self._clock.monotonic()
        if self._at is not None and begun - self._at < max(_AT_LEAST, _SHARE * self._took):
            return
        try:
            self._seen = self._look()
        except Exception as error:  # noqa: BLE001 - whatever it is, who asks is told that the store is down
            if self._seen is not None or self._at is None:
                _LOG.warning("the store cannot be counted: %s", printable(str(error)))
            self._seen = None
        self._at = self._clock.monotonic()
        self._took = self._at - begun

    def _samples(self, seen: Seen | None) -> Iterator[Sample]:
        yield Sample(STORE_UP, (), seen is not None)
        yield Sample(COUNT_TOOK, (), self._took)
        yield Sample(COUNT_AGE, (), self._clock.monotonic() - (self._at or 0.0))
        if seen is None:
            return
        for kind in _SUSPENDABLE:
            yield Sample(SUSPENDED, (kind,), sum(each.kind == kind for each in seen.suspensions))
        yield from self._of_queues(seen.counts)

    def _of_queues(self, counts: Sequence[QueueCount]) -> Iterator[Sample]:
        for queue, of_queue in sorted(self._by_queue(counts).items()):
            for state in State:
                number = sum(count.number for count in of_queue if count.state is state)
                yield Sample(MESSAGES, (queue, state), number)
            yield from self._ages(queue, [count for count in of_queue if count.state in _GOING_ON])

    def _by_queue(self, counts: Sequence[QueueCount]) -> Mapping[str, Sequence[QueueCount]]:
        """Under their names; of those that nobody configured, what is beyond a number is one."""
        found: dict[str, list[QueueCount]] = {queue: [] for queue in self._queues}
        strangers = sorted({count.queue for count in counts} - found.keys())
        names = dict.fromkeys(strangers[MOST:], OTHER)
        for count in counts:
            found.setdefault(names.get(count.queue, count.queue), []).append(count)
        return found

    def _ages(self, queue: str, going_on: Sequence[QueueCount]) -> Iterator[Sample]:
        now = self._clock.now()
        due = [count.oldest_due_at for count in going_on if count.due and count.oldest_due_at]
        oldest = [count.oldest_at for count in going_on if count.oldest_at]
        yield Sample(DUE, (queue,), sum(count.due for count in going_on))
        for metric, instants in ((OLDEST_DUE, due), (OLDEST, oldest)):
            age = (now - min(instants)).total_seconds() if instants else 0.0
            yield Sample(metric, (queue,), max(0.0, age))
