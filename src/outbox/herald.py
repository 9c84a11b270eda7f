"""Says in the store that a runner is here, and how it finds its relays: see :mod:`outbox.bulletin`."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from .breakers import Breakers
from .bulletin import Bulletin, RelayBulletin, written
from .clock import Clock
from .errors import OutboxError
from .protocols import Store, SupportsPresence, Transport
from .relay import Condition

__all__ = ["Herald"]

_EVERY: Final = 29.0
"""Seconds: of three looks of the tidier, ten seconds apart, the third."""
_HOLDS: Final = dt.timedelta(seconds=90)
_WINDOW: Final = 300.0


class Herald:
    """One for each crew, in the hands of its tidier; *changed* may be called by anybody.

    It fails silently: who needs the store for more is told of its errors.

    Args:
        done: What became of the claims so far.
        in_hand: How many messages are under a lease.
        late: Says nothing before it is asked for the second time: for a
            drain, which is mostly over by then.
    """

    def __init__(
        self,
        store: Store,
        transport: Transport,
        breakers: Breakers,
        clock: Clock,
        *,
        queues: tuple[str, ...],
        workers: int,
        done: Callable[[], Mapping[str, int]],
        in_hand: Callable[[], int],
        late: bool,
    ) -> None:
        self._store = store if isinstance(store, SupportsPresence) else None
        name: object = getattr(transport, "name", "")
        self._transport = name if isinstance(name, str) else ""
        self._breakers = breakers
        self._clock = clock
        self._queues = queues
        self._workers = workers
        self._done = done
        self._in_hand = in_hand
        self._late = late
        self._name = f"runner-{os.urandom(8).hex()}"
        self._begun, self._begun_at = clock.monotonic(), clock.now()
        self._said_at: float | None = None
        self._changed = threading.Event()
        self._samples: deque[tuple[float, Mapping[str, int]]] = deque([(self._begun, {})])

    def changed(self) -> None:
        """A relay was paused, or is well again: worth saying at the next look."""
        self._changed.set()

    def look(self) -> None:
        """Say how things stand, where that is due."""
        if self._store is None:
            return
        now = self._clock.monotonic()
        self._sample(now)
        if self._late:
            self._late = False
        elif self._said_at is None or now - self._said_at >= _EVERY or self._changed.is_set():
            self._changed.clear()
            self._said_at = now
            with contextlib.suppress(OutboxError):
                self._store.announce(self._name, written(self._bulletin(now)), for_=_HOLDS)

    def leave(self) -> None:
        """Take back what was said: this is a clean end."""
        if self._store is not None and self._said_at is not None:
            self._said_at = None
            with contextlib.suppress(OutboxError):
                self._store.withdraw(self._name)

    def _sample(self, now: float) -> None:
        self._samples.append((now, dict(self._done())))
        while now - self._samples[1][0] >= _WINDOW:
            self._samples.popleft()

    def _bulletin(self, now: float) -> Bulletin:
        # Only a runner that speaks to relays gets here: who submits need not load it.
        import socket  # noqa: PLC0415

        (since, before), (_, until) = self._samples[0], self._samples[-1]
        conditions = self._breakers.conditions()
        return Bulletin(
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=self._queues,
            workers=self._workers,
            up=now - self._begun,
            in_hand=self._in_hand(),
            window=now - since,
            done={word: number - before.get(word, 0) for word, number in until.items()},
            relays=tuple(self._relay(each) for each in conditions),
            clock_moved=self._clock_moved(now),
            place=_place(),
        )

    def _clock_moved(self, now: float) -> float:
        passed = (self._clock.now() - self._begun_at).total_seconds()
        return round(passed - (now - self._begun), 1)

    def _relay(self, condition: Condition) -> RelayBulletin:
        fault: Any = condition.fault
        return RelayBulletin(
            name=condition.key or self._transport,
            state=condition.state,
            opens_in=condition.opens_in,
            fault="" if fault is None else str(fault),
            misconfigured=fault is not None and fault.costly,
            connections=condition.connections,
            limited_for=condition.limited_for,
            shared=condition.shared,
        )


def _place() -> str:
    """Where this process has its number; nothing where the system does not tell."""
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - what it leads to is no path
    except OSError:
        return ""
