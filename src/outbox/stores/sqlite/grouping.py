"""Leader and followers: the writes of many threads share one commit, and nobody waits to fill it.

A thread that finds nobody writing leads: it performs its own write and
whatever has queued up by then, and on leaving hands the lead to the first of
those who came meanwhile.  A thread alone therefore waits for nobody, and of
many each waits for the commit under way and for its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar, cast

import attrs

from .naming import Sql

__all__ = ["Group", "Share", "Write"]

T = TypeVar("T")

_MOST: Final = 128
"""Writes that share a commit at most: so that the last of very many does not wait for all of them."""
_MOST_CONTENT: Final = 8 << 20


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
    """

    __slots__ = ("_told", "answered", "content", "durable", "error", "perform", "result", "share")

    def __init__(
        self,
        perform: Callable[[Sql], T],
        *,
        durable: bool = True,
        content: int = 0,
        share: Share[T] | None = None,
    ) -> None:
        self.perform = perform
        self.share = share
        self.durable = durable
        self.content = content
        self.result: T | None = None
        self.error: BaseException | None = None
        self.answered = False
        self._told = threading.Lock()
        self._told.acquire()

    def tell(self) -> None:
        """End the thread's wait: it is answered, or is to lead."""
        self._told.release()

    def wait(self, seconds: float) -> bool:
        return self._told.acquire(timeout=seconds)

    def answer(self) -> T:
        if self.error is not None:
            raise self.error
        return cast(T, self.result)


class Group:
    """Whose turn it is to write.

    Args:
        perform: Does all of some writes and answers each; what it raises
            goes to the leader alone, and the others are performed after it.
        tidy: Called by the leader when the others have their answers, and
            before anybody else may write.
    """

    def __init__(self, perform: Callable[[Sequence[Write[Any]]], None], tidy: Callable[[], None]) -> None:
        self._perform = perform
        self._tidy = tidy
        self._lock = threading.Lock()
        self._waiting: deque[Write[Any]] = deque()
        self._led = False

    def run(self, write: Write[T], patience: float) -> T:
        """Perform it, alone or with others.

        Raises:
            TimeoutError: nobody came to perform it in *patience* seconds.
        """
        with self._lock:
            lead = not self._led
            self._led = True
            if not lead:
                self._waiting.append(write)
        if not lead:
            self._follow(write, patience)
        if not write.answered:
            self._lead(write)
        return write.answer()

    def _follow(self, write: Write[Any], patience: float) -> None:
        try:
            told = write.wait(patience)
        except BaseException:
            self._leave(write)
            raise
        if not told and self._withdraw(write):
            raise TimeoutError
        if not told:
            # Somebody has taken it in hand, or has just handed over the lead.
            write.wait(-1)

    def _withdraw(self, write: Write[Any]) -> bool:
        with self._lock:
            if write not in self._waiting:
                return False
            self._waiting.remove(write)
            return True

    def _leave(self, write: Write[Any]) -> None:
        """An interrupt ended the wait: nobody may go on waiting for this thread to lead."""
        if not self._withdraw(write):
            write.wait(-1)
            if not write.answered:
                self._hand_over([])

    def _lead(self, first: Write[Any]) -> None:
        others = self._others(first)
        try:
            self._perform([first, *others])
            for write in others:
                write.tell()
            others = []
            self._tidy()
        finally:
            self._hand_over([write for write in others if not write.answered])
            for write in others:
                if write.answered:
                    write.tell()

    def _others(self, first: Write[Any]) -> list[Write[Any]]:
        others: list[Write[Any]] = []
        room = _MOST_CONTENT - first.content
        with self._lock:
            while self._waiting and len(others) < _MOST - 1 and self._waiting[0].content <= room:
                others.append(self._waiting.popleft())
                room -= others[-1].content
        return others

    def _hand_over(self, left: Sequence[Write[Any]]) -> None:
        with self._lock:
            self._waiting.extendleft(reversed(left))
            following = self._waiting.popleft() if self._waiting else None
            self._led = following is not None
        if following is not None:
            following.tell()
