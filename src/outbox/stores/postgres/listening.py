"""Who tells of news, and how it is heard: NOTIFY once a transaction and queue, LISTEN on a connection of its own.

A notification is a hint, and polling is the truth: behind a pooler that hands
a session on after each transaction nobody listens, and all that happens is
that a wait is longer.  Whoever would listen there would leave the session
listening for whoever comes next, and so it is looked first whether it stays.

A put tells in a transaction of its own behind the commit, and that one waits
for no disk: PostgreSQL lets those who notify commit one after the other, and
so would have all who put wait for each other's fsync.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import os
import random
import select
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from outbox.clock import SystemClock
from outbox.errors import StoreError, StoreUnavailable
from outbox.stores.forking import Hooks, watch_forks
from outbox.stores.news import News

from .driver import Connection, Error
from .links import Links
from .naming import Names, Sql
from .schema import CHANNEL

__all__ = ["LISTENED", "LISTENS", "Herald", "Lookout"]

# The name of the table becomes that of this schema's, in a text too.
_KEY: Final = "hashtext('who listens'), hashtext('outbox_message')"
LISTENS: Final = f"SELECT set_config('lock_timeout', '1s', true), pg_advisory_lock_shared({_KEY})"
"""Says that its connection listens; waited for is at most who just looks whether anybody does."""
LISTENED: Final = f"CASE WHEN pg_try_advisory_lock({_KEY}) THEN NOT pg_advisory_unlock({_KEY}) ELSE true END"
"""Whether somebody listens, as an expression: each who does holds a lock together with the others."""

_TELL: Final = """
    SELECT set_config('synchronous_commit', 'off', true), pg_notify(%(channel)s, %(by)s || ' ' || queue)
    FROM unnest(%(queues)s::text[]) AS q (queue)
"""
_TELL_WITHIN: Final = """
    SELECT pg_notify(%(channel)s, %(by)s || ' ' || queue) FROM unnest(%(queues)s::text[]) AS q (queue)
"""
_SESSION: Final = "SELECT pg_backend_pid()"
_LOOKS: Final = 3
_ANYBODY: Final = "-"
_SLEEPY: Final = 4
"""So many times as long it is from look to look at last, where nothing comes."""
_AGAIN: Final = 5.0
"""Seconds until somebody who could not listen tries again."""


def channel(names: Names) -> str:
    return f"{CHANNEL}.{names.schema}"


class Herald:
    """Tells others of what can be claimed now.

    Attributes:
        name: What this store object tells its own news from others' by.
    """

    def __init__(self, names: Names, *, tells: bool) -> None:
        self.rename()
        self._channel = channel(names)
        self._tells = tells

    def rename(self) -> None:
        """Take a name that nobody has: in a forked child, whose news is none of its parent's own."""
        self.name = os.urandom(6).hex()

    def tell(self, sql: Sql, queues: Iterable[str]) -> None:
        """Of what is committed; that it cannot be told harms nobody."""
        each = sorted(set(queues))
        if self._tells and each:
            with contextlib.suppress(Error):
                sql.execute(_TELL, self._said(each, self.name))

    def tell_within(self, sql: Sql, queues: Iterable[str]) -> None:
        """Of what is there when the caller's transaction commits: then everybody hears of it, this process too."""
        each = sorted(set(queues))
        if self._tells and each:
            sql.execute(_TELL_WITHIN, self._said(each, _ANYBODY))

    def _said(self, queues: Sequence[str], by: str) -> dict[str, object]:
        return {"channel": self._channel, "by": by, "queues": queues}


class HandedOn(StoreError):
    """Whoever listens here leaves a session that listens to whoever comes next."""


class _Ear:
    """A connection that listens; for one thread at a time, :meth:`release` apart.

    Attributes:
        told: Whether there may be something to hear.

    Raises:
        StoreError: there is no connection to be had.
        HandedOn: a pooler hands its session on.
    """

    def __init__(self, links: Links, names: Names) -> None:
        self._connection: Connection = links.connect(hears=True)
        self._socket = self._connection.fileno()
        self._bell = os.pipe()
        for end in self._bell:
            os.set_blocking(end, False)
        self._closing = weakref.finalize(self, _close, self._connection, self._bell)
        self._closing.atexit = False
        self.told = False
        sql = Sql(self._connection, names)
        try:
            if self._is_handed_on(sql, links):
                raise HandedOn(f"a pooler hands the sessions of {links.name} on")
            sql.execute(LISTENS)
            self._connection.execute(f'LISTEN "{channel(names)}"'.encode())
        except StoreError:
            self.close()
            raise
        except Error as error:
            self.close()
            raise StoreUnavailable(f"{links.name} does not let anybody listen") from error

    def _is_handed_on(self, sql: Sql, links: Links) -> bool:
        """Whether its session is seen to be another than before, or somebody else's as well."""
        first = _session(sql)
        for _ in range(_LOOKS):
            # Asked twice by itself, for sessions may be dealt out in turn.
            if _session(sql) != first:
                return True
            if first == self._connection.info.backend_pid:
                # A pooler makes up a number of its own.
                return False
            if links.use(_session) == first:
                return True
        return False

    def acquire(self, *, timeout: float) -> None:
        """Sleep until something is heard, or somebody calls :meth:`release`; at most *timeout* seconds."""
        poll = select.poll()
        poll.register(self._bell[0], select.POLLIN)
        poll.register(self._socket, select.POLLIN)
        ready = dict(poll.poll(math.ceil(timeout * 1000)))
        if self._bell[0] in ready:
            with contextlib.suppress(OSError):
                os.read(self._bell[0], 1 << 12)
        self.told |= self._socket in ready

    def release(self) -> None:
        """Wake whoever sleeps, or keep the next one from it."""
        with contextlib.suppress(OSError):
            os.write(self._bell[1], b"!")

    def heard(self) -> list[str]:
        """What was told since this was last asked.

        Raises:
            StoreUnavailable: the connection is gone.
        """
        self.told = False
        try:
            return [each.payload for each in self._connection.notifies(timeout=0)]
        except Error as error:
            raise StoreUnavailable("the connection that listens is gone") from error

    def close(self) -> None:
        self._closing()

    def abandon(self) -> None:
        """In a forked child, whose parent goes on listening."""
        self._closing.detach()


def _session(sql: Sql) -> object:
    ((number,),) = sql.execute(_SESSION).fetchall()
    return number


def _close(connection: Connection, ends: Iterable[int]) -> None:
    with contextlib.suppress(Error):
        connection.close()
    for end in ends:
        os.close(end)


class Lookout:
    """The waits of one process: of the threads that wait, one listens for all, and each looks now and then.

    Args:
        look: Whether something of these queues can be claimed now.
        poll: How long from look to look while there is something now and then; where nothing comes it grows.
        listens: Whether to listen at all.
    """

    def __init__(
        self,
        links: Links,
        names: Names,
        herald: Herald,
        look: Callable[[Sequence[str]], bool],
        *,
        poll: dt.timedelta,
        listens: bool,
    ) -> None:
        self.news = News()
        self._links = links
        self._names = names
        self._herald = herald
        self._look = look
        self._poll = poll.total_seconds()
        self._listens = listens
        self._random = random.Random()  # noqa: S311 - so that many who wait do not look at once
        self._closed = False
        self._abandoned: list[object] = []
        self._begin()
        watch_forks(self, _FORKS)

    def _begin(self) -> None:
        """What belongs to one process."""
        self._thread = threading.local()
        self._ear: _Ear | None = None
        self._again_at = 0.0
        # Who listens, by thread.  To enter and to leave are one step each, and so need no lock.
        self._listener: dict[None, int] = {}
        self._queues: dict[str, None] = {}

    def looks(self, queues: Sequence[str]) -> None:
        """This thread is about to see all that there is in these."""
        self.news.look()
        self.serves(queues)
        self._thread.idle = True

    def serves(self, queues: Sequence[str]) -> None:
        """What is waited for from now on is of these."""
        self._thread.queues = list(queues)
        self._queues.update(dict.fromkeys(queues))

    def wait(self, timeout: dt.timedelta) -> bool:
        """See :meth:`outbox.protocols.SupportsWait.wait`."""
        clock, me = SystemClock(), threading.get_ident()
        begun = clock.monotonic()
        until, pause = begun + timeout.total_seconds(), self._poll
        look_at = begun + self._jittered(pause)
        try:
            while True:
                ear, fresh = self._listening(me)
                now = clock.monotonic()
                # Of what was put before it listened nobody told.
                look_at = now if fresh else look_at
                if self.news.wait(min(until, look_at) - now, unless=self._stirred(ear), bed=ear):
                    self._thread.idle = False
                    return True
                if ear is not None and ear.told:
                    continue
                now = clock.monotonic()
                if now >= look_at:
                    if self._found():
                        return True
                    pause = min(2 * pause, _SLEEPY * self._poll)
                    look_at = now + self._jittered(pause)
                if now >= until:
                    return False
        finally:
            self._leave(me)

    def _jittered(self, seconds: float) -> float:
        return seconds * (0.75 + self._random.random() / 2)

    def _found(self) -> bool:
        """Whether there is something now where there was nothing when this thread last looked."""
        queues = getattr(self._thread, "queues", ())
        due = bool(queues) and self._look(queues)
        was_idle, self._thread.idle = getattr(self._thread, "idle", True), not due
        return due and was_idle

    # -- who listens

    def _listening(self, me: int) -> tuple[_Ear | None, bool]:
        """The ear, where this thread is the one that listens, with what it has heard told; and whether it is new."""
        if not self._listens or self._closed or self._listener.setdefault(None, me) != me:
            return None, False
        ear, fresh = self._ear, False
        try:
            if ear is None:
                ear, fresh = self._opened(), True
            if ear is not None:
                self._tell_of(ear.heard())
        except StoreError:
            self._deafen()
            # Whatever it was about to tell.
            return None, True
        return ear, fresh and ear is not None

    def _opened(self) -> _Ear | None:
        now = SystemClock().monotonic()
        if now < self._again_at:
            return None
        # Whoever is refused does not ask again at once.
        self._again_at = now + self._jittered(_AGAIN)
        try:
            self._ear = _Ear(self._links, self._names)
        except HandedOn:
            self._listens = False
        return self._ear

    def _deafen(self) -> None:
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.close()

    def _tell_of(self, payloads: Iterable[str]) -> None:
        for payload in payloads:
            by, _, queue = payload.partition(" ")
            if by != self._herald.name and queue in self._queues:
                self.news.tell()

    def _stirred(self, ear: _Ear | None) -> Callable[[], bool]:
        """What ends a nap beside news: something to hear, or nobody who listens."""
        if ear is not None:
            return lambda: ear.told
        return lambda: self._ear is not None and not self._listener

    def _leave(self, me: int) -> None:
        if self._listener.get(None) == me:
            self._listener.pop(None, None)
            if self._closed:
                self._deafen()
            self.news.nudge()

    def close(self) -> None:
        """End every wait."""
        self._closed = True
        self.news.tell()
        if not self._listener:
            self._deafen()

    def _after_in_child(self) -> None:
        if self._ear is not None:
            self._ear.abandon()
        self._abandoned.append(self._ear)
        self._herald.rename()
        self._begin()


_FORKS: Final[Hooks[Lookout]] = Hooks(
    before=lambda _: None,
    in_parent=lambda _: None,
    in_child=Lookout._after_in_child,  # noqa: SLF001 - its own
)
