"""Leader and followers: the writes of many threads share one commit, and nobody waits to fill it.

A thread that finds nobody writing leads: it performs its own write and
whatever has queued up by then, and on leaving hands the lead to the first of
those who came meanwhile.  A thread alone therefore waits for nobody, and of
many each waits for the commit under way and for its own.

*Interrupts.*  Ctrl-C, or a signal handler that raises, can end any thread's
part at any point.  So what a write is waiting for is never told by a wake-up
alone, but stands in the group, under its lock; and whoever leaves, however
he leaves, first puts that right.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar, cast

import attrs

from outbox.errors import StoreUnavailable

from .naming import Sql

__all__ = ["Group", "Share", "Write"]

T = TypeVar("T")

_MOST: Final = 128
"""Writes that share a commit at most: so that the last of very many does not wait for all of them."""
_MOST_CONTENT: Final = 8 << 20
_PATIENCE: Final = 60.0
"""Seconds in which any write comes to its end that waits for no other process, unless the disk itself hangs."""


@attrs.frozen
class Share(Generic[T]):
    """One of several writes that can be performed as one.

    Attributes:
        perform: Does all of them; returns, for each part in order, the
            result or the error.  What errs has written nothing.
        part: What this one adds.
    """

    perform: Callable[[Sql, Sequence[Any]], Sequence[T | Exception]]
    part: Any


class Write(Generic[T]):
    """One write: what it does within a transaction, and what came of it.

    It may be performed again after a rollback, and may leave nothing behind
    but what it writes.

    Args:
        durable: Whether it has to be on the disk when it is answered.
        content: How many bytes of content it writes.
        share: What writes of the same kind can do for all at once, and this
            one's part in it; None is nothing.
        deadline: Until when it waits for other processes, on the monotonic clock.
        patience: For how many seconds a write waits for other processes: so
            long may the one before it take, and its own time besides.
    """

    __slots__ = (
        "_told",
        "abandoned",
        "answered",
        "content",
        "deadline",
        "durable",
        "error",
        "led",
        "patience",
        "perform",
        "result",
        "share",
    )

    def __init__(
        self,
        perform: Callable[[Sql], T],
        *,
        durable: bool = True,
        content: int = 0,
        share: Share[T] | None = None,
        deadline: float = 0.0,
        patience: float = 0.0,
    ) -> None:
        self.perform = perform
        self.share = share
        self.durable = durable
        self.content = content
        self.deadline = deadline
        self.patience = patience + _PATIENCE
        self.result: T | None = None
        self.error: BaseException | None = None
        self.answered = False
        self.led = False
        self.abandoned = False
        self._told = threading.Lock()
        self._told.acquire()

    def tell(self) -> None:
        """Let its thread look again: it is answered, or is to lead."""
        try:
            self._told.release()
        except RuntimeError:
            return  # told already

    def wait(self, seconds: float) -> bool:
        """Whether there was something to look at in so many seconds; -1 is for ever."""
        return self._told.acquire(timeout=seconds)

    def answer(self) -> T:
        if self.error is not None:
            raise self.error
        return cast(T, self.result)


class Group:
    """Whose turn it is to write.

    Args:
        perform: Does all of some writes and answers each; those that it does
            not answer are performed by the next who leads.
        tidy: Called by the leader when the others have their answers, and
            before anybody else may write.
    """

    def __init__(self, perform: Callable[[Sequence[Write[Any]]], None], tidy: Callable[[], None]) -> None:
        self._perform = perform
        self._tidy = tidy
        self._lock = threading.Lock()
        self._waiting: deque[Write[Any]] = deque()
        self._leader: Write[Any] | None = None
        self._batch: list[Write[Any]] = []
        self._inside: set[int] = set()

    def run(self, write: Write[T]) -> T:
        """Perform it, alone or with others.

        Raises:
            StoreUnavailable: this very thread is in the middle of another
                write, or another thread's did not end.
        """
        me = threading.get_ident()
        if me in self._inside:
            raise StoreUnavailable(
                "a signal handler interrupted a write of this thread, and cannot write before that is done: "
                "let the handler set a flag, or hand its work to another thread"
            )
        try:
            self._inside.add(me)
            self._take_part(write)
        finally:
            self._inside.discard(me)
        return write.answer()

    def _take_part(self, write: Write[Any]) -> None:
        try:
            with self._lock:
                if self._leader is None:
                    self._leader = write
                else:
                    self._waiting.append(write)
            while not write.answered:
                if self._leader is write:
                    self._lead(write)
                elif not write.wait(write.patience):
                    self._withdraw(write)
        finally:
            try:
                self._leave(write)
            except BaseException:
                # Interrupted: as long as this is not done, nobody else is served.
                self._leave(write)
                raise

    def _withdraw(self, write: Write[Any]) -> None:
        """Raise StoreUnavailable, unless it has been taken in hand, and may be done yet."""
        with self._lock:
            if write in self._waiting:
                raise StoreUnavailable(
                    f"another thread of this process has been writing for longer than {write.patience:g} s"
                )
            taken = self._leader is not write
        if taken:
            write.wait(-1)

    def _lead(self, write: Write[Any]) -> None:
        write.led = True
        with self._lock:
            self._fill(write)
        self._perform(tuple(self._batch))
        self._tell_answered()
        self._tidy()

    def _fill(self, first: Write[Any]) -> None:
        """The batch of a leader: his own write, and as many as waited."""
        waiting, batch = self._waiting, self._batch
        if waiting and waiting[0] is first:
            waiting.popleft()
        batch.append(first)
        room = _MOST_CONTENT - first.content
        while waiting and len(batch) < _MOST and waiting[0].content <= room:
            batch.append(waiting[0])
            room -= waiting.popleft().content

    def _tell_answered(self) -> None:
        for write in self._batch:
            if write.answered:
                write.tell()

    def _leave(self, write: Write[Any]) -> None:
        """Nothing waits for this write any more; can be done again where it was interrupted."""
        if write.answered and not write.led:
            return
        with self._lock:
            write.abandoned = not write.answered
            if write.abandoned and write in self._waiting:
                self._waiting.remove(write)
            if self._leader is write:
                self._tell_answered()
                self._give_back(write)
                self._leader = self._waiting[0] if self._waiting else None
            following = self._leader
            if following is not None:
                if self._waiting and self._waiting[0] is following:
                    self._waiting.popleft()
                following.tell()

    def _give_back(self, mine: Write[Any]) -> None:
        """What was taken in hand and not done goes back to where it was."""
        for write in reversed(self._batch):
            done = write is mine or write.answered or write.abandoned
            if not done and write not in self._waiting:
                self._waiting.appendleft(write)
        self._batch.clear()
