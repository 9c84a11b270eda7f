"""How the hand is filled: whom to ask, for how many, and how long to wait for the first."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from outbox.errors import StoreError

from .fetching import Fetching
from .hand import Got, Hand
from .post import BATCH
from .spans import Lease

__all__ = ["Asked", "Filling"]

_LOG: Final = logging.getLogger("outbox.stores.sqs")
_REQUESTS: Final = 100
"""For messages, by one claim: much may be there that is to be passed on, and no lease waits for that."""
_DOUBLINGS: Final = 5
_SHARE: Final = 3
"""The part of a lease that may be over when the message comes which was waited for."""


@attrs.define(kw_only=True)
class Asked:
    """One claim: the queues that may have more, how often it may still ask, and what came of that."""

    names: Sequence[str]
    limit: int
    max_bytes: int
    lease: Lease
    left: list[str] = attrs.Factory(list)
    requests: int = _REQUESTS
    came: bool = False
    error: StoreError | None = None


class Filling:
    """Fetches until there is as much in hand as was asked for, or nothing more comes.

    Where nothing is there it waits for the first message: for a second, and
    twice as long each time in vain, up to *poll* seconds, for all queues
    together.  Not while somebody has a claim: whoever waits here may be the
    one who is to settle it.  And not for long where the lease is short: it is
    counted from before the wait, for SQS does not say when a message came.
    """

    def __init__(
        self,
        fetching: Fetching,
        hand: Hand,
        lock: threading.Lock,
        *,
        poll: int,
        now: Callable[[], int],
    ) -> None:
        self._fetching = fetching
        self._hand = hand
        self._lock = lock
        self._poll = poll
        self._now = now
        self._waited = 0
        self._in_vain = 0
        self._failing: dict[str, str] = {}

    def fill(self, asked: Asked) -> None:
        with self._lock:
            if self._hand.lone(asked.names):
                return
            turn = self._hand.in_turn(asked.names)
            busy = self._hand.any(asked.names) or self._hand.waited_for(asked.lease.now)
        longest = 0 if busy else self._longest(asked.lease)
        if not longest or (len(turn) > 1 and not self._in_vain):
            # Who waits for a queue that is empty keeps those waiting in which there is mail.
            self._take_in(asked, turn)
        if longest and not asked.came:
            self._await(asked, turn, longest)
        if not busy:
            self._in_vain = 0 if asked.came else self._in_vain + 1

    def _longest(self, lease: Lease) -> int:
        """Seconds, for all queues together."""
        return min(self._poll, 1 << min(self._in_vain, _DOUBLINGS), lease.seconds // _SHARE)

    def _await(self, asked: Asked, turn: Sequence[str], longest: int) -> None:
        """Each for its part of the time; of more queues than there are seconds some now, and the others the next time."""
        first = self._waited % len(turn)
        waited_for = [*turn[first:], *turn[:first]][:longest]
        for queue in waited_for:
            self._waited += len(turn) > longest
            self._fetch(asked, queue, min(asked.limit, BATCH), longest // len(waited_for))
            if asked.came:
                return self._take_in(asked, turn)
        return None

    def _take_in(self, asked: Asked, turn: Sequence[str]) -> None:
        """Whatever is there now."""
        asked.left = list(turn)
        while asked.left and asked.requests:
            with self._lock:
                ready = {queue: self._hand.ready(queue) for queue in asked.names}
                full = self._hand.size(asked.names) >= asked.max_bytes
            missing = asked.limit - sum(ready.values())
            # What came first would be over when the last comes.
            late = self._now() > asked.lease.middle
            if missing <= 0 or (any(ready.values()) and (full or late)):
                return
            queue = min(asked.left, key=ready.__getitem__)
            if not self._fetch(asked, queue, min(-(-missing // len(asked.left)), BATCH), 0):
                asked.left.remove(queue)

    def _fetch(self, asked: Asked, queue: str, number: int, wait: int) -> bool:
        """Whether there may be more of this queue that is worth to be asked for."""
        asked.requests -= 1
        lease = asked.lease.at(self._now())
        try:
            fetched = self._fetching.fetch(queue, number, lease=lease.seconds, wait=wait)
        except StoreError as error:
            self.failed(asked, queue, error)
            return False
        self._failing.pop(queue, None)
        with self._lock:
            self._hand.add(
                Got(queue=queue, handle=handle, slip=slip, until=lease.until, last=lease.last)
                for handle, slip in fetched.ready
            )
            crowded = self._hand.crowded(queue)
            sated = not fetched.ready and self._hand.any(asked.names)
        asked.came |= bool(fetched)
        self._fetching.pass_on(queue, fetched, lease.until)
        return bool(fetched) and not crowded and not sated

    def failed(self, asked: Asked, queue: str, error: StoreError) -> None:
        """The others are served all the same; whoever gets nothing is told."""
        asked.error = asked.error or error
        if self._failing.get(queue) != str(error):
            self._failing[queue] = str(error)
            _LOG.warning("queue %s is not served: %s", queue, error)
