"""Several processes that deliver, and the one that starts them, replaces what dies, and ends them.

Nothing here delivers: the supervisor opens the store and the transport only
to see that they can be opened, has one thread, and sleeps by a bell.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Sequence
from typing import Any, Final

import attrs

from outbox.clock import Clock, SystemClock
from outbox.errors import OutboxError

from .exits import CommandError, Exit
from .journal import Entry
from .lifeline import Child, Orders
from .serving import Post, stopped
from .settings import Settings

__all__ = ["Supervisor"]

_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 30.0
_WELL: Final = 60.0
_STILLBORN_AT_MOST: Final = 5
_BEYOND_GRACE: Final = 5.0
_BEGUN_WITHIN: Final = 60.0
_GONE_WITHIN: Final = 5.0
_LAST_STEPS: Final = 0.02
_NEVER: Final = math.inf
_LOWEST: Final = 64
"""The lowest status that says something of the cause (sysexits.h)."""


@attrs.define(eq=False)
class _Place:
    """Where one process works: who is there, who comes in his stead, and when the next one may begin."""

    number: int
    child: Child | None = None
    successor: Child | None = None
    due_at: float = -_NEVER
    _wait: float = 0.0

    @property
    def tried(self) -> bool:
        """Whether one has died there."""
        return self._wait > 0.0

    def put_off(self, lived: float, now: float) -> float:
        """One has died there: when the next may begin.  Ever later, until one has lived for a minute."""
        longer = min(2 * self._wait, _LONGEST_WAIT)
        self._wait = _FIRST_WAIT if lived >= _WELL else max(_FIRST_WAIT, longer)
        self.due_at = now + self._wait
        return self._wait


@attrs.define
class _Relief:
    """New settings on their way: *places* still have the old ones; *proven*: one process has begun with the new."""

    settings: Settings
    places: list[_Place]
    proven: bool = False


class Supervisor:
    """Keeps so many processes at work.

    One that dies is replaced: at once at first, then ever later, at most
    every 30 s, and for ever: what kills it may be a message, and all others
    must go on.  Given up is only where none is at work and five in a row have
    died before they could begin: neither waiting nor another process mends
    that.

    Args:
        arguments: What Python is to be told, to start a process.
        watchdog: A process that was silent for so many seconds is killed, and replaced; so is, always,
            one that has not begun within a minute, or within this where it is longer.
    """

    def __init__(
        self,
        post: Post,
        settings: Settings,
        *,
        processes: int,
        arguments: Sequence[str],
        watchdog: float | None,
        clock: Clock | None = None,
    ) -> None:
        self._post = post
        self._settings = settings
        self._arguments = arguments
        self._watchdog = watchdog
        self._begun_within = max(watchdog or 0.0, _BEGUN_WITHIN)
        self._clock = clock or SystemClock()
        self._places = [_Place(number + 1) for number in range(processes)]
        self._leaving: list[Child] = []
        self._relief: _Relief | None = None
        self._stillborn = 0
        self._told_ready = False
        self._status = int(Exit.OK)

    def supervise(self) -> int:
        """Until the end is asked for; the exit status.

        Raises:
            CommandError: no process lives for long enough to deliver anything.
        """
        post = self._post
        post.begin(self._settings.config)
        try:
            while post.asked.stop is None:
                self._steer()
                self._sleep()
            post.superior.stopping()
            for child in self._children():
                self._dismiss(child)
            while self._children():
                self._sleep()
        finally:
            self.kill()
        stopped(post.journal)
        return self._status

    def kill(self) -> None:
        """End all of them at once; from a signal handler, too."""
        for child in self._children():
            child.kill()

    def _children(self) -> list[Child]:
        there = [child for place in self._places for child in (place.child, place.successor)]
        return [child for child in (*there, *self._leaving) if child is not None]

    # -- who has to begin, and where

    def _steer(self) -> None:
        now = self._clock.monotonic()
        if self._post.asked.reload:
            self._post.asked.reload = False
            self._reload()
        for place in self._places:
            if place.child is None and place.successor is None and place.due_at <= now:
                place.child = self._start(place, self._settings)
        if self._relief is not None:
            self._relieve(self._relief, now)
        elif not self._told_ready and self._can_deliver():
            self._tell_ready()

    def _can_deliver(self) -> bool:
        """One is at work, and of no other it is still to be seen whether it can begin."""
        begun = [place.child is not None and place.child.ready for place in self._places]
        return any(begun) and all(b or place.tried for b, place in zip(begun, self._places, strict=True))

    def _start(self, place: _Place, settings: Settings) -> Child | None:
        beat = None if self._watchdog is None else self._watchdog / 4
        try:
            orders = Orders(settings=settings, beat=beat, among=len(self._places))
            child = Child(place.number, self._arguments, orders, self._clock)
        except OSError as error:
            self._replace(place, 0.0, f"could not be started ({error.strerror})", Exit.TEMPORARY)
            return None
        self._post.bell.watch(child.pipe)
        return child

    def _tell_ready(self) -> None:
        self._told_ready = True
        self._post.superior.ready(self._post.words(self._settings.config))

    # -- new settings

    def _reload(self) -> None:
        self._post.superior.reloading()
        for child in self._children():
            child.reopen_log()
        try:
            settings = self._post.reread()
            self._post.adopt(settings)
        except Exception as error:  # noqa: BLE001 - whatever it is, what runs goes on
            self._refuse(error)
        else:
            self._call_back()
            self._relief = _Relief(settings, list(self._places))

    def _call_back(self) -> None:
        """Newer settings are there: who comes with older ones must not keep them waiting, least of all one that hangs."""
        for place in self._places:
            if place.successor is not None:
                self._leaving.append(place.successor)
                self._dismiss(place.successor)
                place.successor = None

    def _relieve(self, relief: _Relief, now: float) -> None:
        """One after the other: the next begins when the one before has ended."""
        if self._changing():
            return
        while relief.places and self._has_new(relief.places[0], relief):
            del relief.places[0]
        if not relief.places:
            self._relief = None
            self._post.changed(relief.settings.config)
            self._tell_ready()
        elif relief.places[0].due_at <= now:
            relief.places[0].successor = self._start(relief.places[0], relief.settings)

    def _changing(self) -> bool:
        return bool(self._leaving) or any(place.successor for place in self._places)

    def _has_new(self, place: _Place, relief: _Relief) -> bool:
        return place.child is not None and place.child.settings is relief.settings

    def _refuse(self, error: Exception) -> None:
        self._post.refuse(error)
        self._tell_ready()

    # -- what happens meanwhile

    def _sleep(self) -> None:
        """Wait for what happens next, and see to it."""
        heard = self._post.bell.wait(self._timeout())
        self._post.superior.alive()
        for child in self._children():
            if not child.gone and child.pipe in heard:
                self._hear(child)
            if child.status is not None:
                self._ended(child)
            elif self._patience(child) <= 0 and not self._heard_after_all(child):
                self._lose_patience(child)

    def _timeout(self) -> float | None:
        now, waits = self._clock.monotonic(), [self._post.superior.beat or _NEVER]
        if self._post.asked.stop is None:
            waiting = [place for place in self._places if place.child is None and place.successor is None]
            if self._relief is not None and not self._changing():
                waiting += self._relief.places[:1]
            waits += [place.due_at - now for place in waiting]
        for child in self._children():
            # What has closed its pipe, or was killed, is ending; nothing tells us when it has.
            waits.append(min(self._patience(child), _LAST_STEPS if child.gone or child.killed else _NEVER))
        return None if min(waits) == _NEVER else max(0.0, min(waits))

    def _patience(self, child: Child) -> float:
        """For how many seconds more it may be as it is."""
        if child.killed:
            return _NEVER
        if child.end_by is not None:
            return child.end_by - self._clock.monotonic()
        if child.gone:
            return _GONE_WITHIN - child.silence
        if not child.ready:
            return self._begun_within - child.age
        return _NEVER if self._watchdog is None else self._watchdog - child.silence

    def _heard_after_all(self, child: Child) -> bool:
        """Where we were stopped ourselves, what it said meanwhile is still to be heard."""
        if child.gone or child.pipe not in self._post.bell.wait(0):
            return False
        self._hear(child)
        return self._patience(child) > 0

    def _hear(self, child: Child) -> None:
        newly = child.hear()
        if child.gone:
            self._post.bell.forget(child.pipe)
        if not newly:
            return
        self._stillborn = 0
        for place in self._places:
            if place.successor is child and self._relief is not None:
                self._relief.proven, self._settings = True, self._relief.settings
                before, place.child, place.successor = place.child, child, None
                if before is not None:
                    self._leaving.append(before)
                    self._dismiss(before)

    def _dismiss(self, child: Child) -> None:
        child.ask(child.settings.config.grace.total_seconds() + _BEYOND_GRACE)

    def _lose_patience(self, child: Child) -> None:
        if child.asked:
            why = "did not end in its grace time"
        elif child.gone:
            why = "closed its pipe, and lives"
        elif child.ready:
            why = f"was silent for {child.silence:.0f} s"
        else:
            why = f"did not begin within {child.age:.0f} s"
        self._warn(child.number, f"{why}: it is killed", child)
        child.kill()

    def _ended(self, child: Child) -> None:
        if not child.gone:
            self._post.bell.forget(child.pipe)
        child.bury()
        place = next((p for p in self._places if child in {p.child, p.successor}), None)
        if child.asked:
            self._depart(child, place)
        elif place is not None and place.successor is child:
            place.successor = None
            self._lost_successor(place, child)
        elif place is not None:
            place.child = None
            self._replace(place, child.age if child.ready else 0.0, child.end, child.status or 0, child)

    def _depart(self, child: Child, place: _Place | None) -> None:
        """As it was asked to."""
        if place is None:
            self._leaving.remove(child)
        elif place.child is child:
            place.child = None
        else:
            place.successor = None
        if child.ready and child.status and self._post.asked.stop is not None:
            # Killed: what it had under way waits for its lease to run out.
            self._status = max(self._status, child.status if child.status > 0 else Exit.TEMPORARY)

    def _lost_successor(self, place: _Place, child: Child) -> None:
        if self._relief is not None and not self._relief.proven:
            self._relief = None
            with contextlib.suppress(OutboxError):
                self._post.adopt(self._settings)
            self._refuse(CommandError(Exit.CONFIGURATION, f"a process that began with them {child.end}"))
        else:
            self._replace(place, 0.0, child.end, child.status or 0, child)
            self._tell_ready()  # the settings are in force; how long this place goes without is not known

    def _replace(
        self, place: _Place, lived: float, end: str, status: int, child: Child | None = None
    ) -> None:
        wait = place.put_off(lived, self._clock.monotonic())
        if lived == 0.0:
            self._stillborn += 1
        at_work = any(other.ready for other in self._children())
        if self._stillborn >= _STILLBORN_AT_MOST and not at_work:
            raise CommandError(
                Exit(status) if status in set(Exit) and status >= _LOWEST else Exit.SOFTWARE,
                f"gave up: {self._stillborn} processes in a row died before they could deliver, and none is left; "
                f"the last {end}",
            )
        self._warn(place.number, f"{end}; another begins in {wait:.1f} s", child)

    def _warn(self, number: int, what: str, child: Child | None) -> None:
        fields: dict[str, Any] = {"msg": "process", "process": number, "what": what}
        if child is not None:
            fields["pid"] = child.pid
        self._post.journal.write(Entry(logging.WARNING, fields, f"process {number} {what}"))
