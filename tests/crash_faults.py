"""What befalls a child process in the crash tests: where it is killed, and which of its calls fail."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import attrs
from tracing import Call, Deed, Fail

__all__ = ["BEGIN", "DONE", "KILLS", "LONG", "OVER", "RAISED", "Fault", "Interrupt", "failing", "faults"]

LONG: Final = os.environ.get("OUTBOX_CRASH") == "long"
"""Whether every kind of kill and every error is tried at every call, or one or two of each."""

BEGIN, DONE, RAISED, OVER = "begin", "done", "raised ", "over"
"""What the child says: before its first step, after each, when one raises, and after the last."""

CHANGES: Final = frozenset(
    "create write writev sync truncate allocate chmod chown utime rename link unlink mkdir rmdir".split()  # noqa: SIM905 - a list of words is read as one
)

ERRORS: Final[Mapping[str, Sequence[int]]] = {
    "open": (errno.EMFILE, errno.ENFILE),
    "create": (errno.EMFILE, errno.ENOSPC, errno.EROFS, errno.ENFILE),
    "read": (errno.EIO,),
    "sync": (errno.EIO, errno.ENOSPC),
    "write": (errno.ENOSPC, errno.EIO),
}
_FEW: Final = 6
OTHERS: Final = (errno.ENOSPC, errno.EROFS, errno.EIO)


class Interrupt:
    """Does something at the call of one number, counted while the steps run.

    Args:
        among: Which calls count.
        lasting: Whether what fails goes on failing, at every call of that
            name, until the step has raised.
    """

    def __init__(
        self, number: int, deed: Deed | Fail, among: Callable[[Call], bool], *, lasting: bool = False
    ) -> None:
        self._left = number
        self._deed = deed
        self._among = among
        self._lasting = lasting
        self._running = False
        self.at: Call | None = None

    def __call__(self, call: Call) -> Deed | Fail:
        if call.name == "say":
            self._running = call.path == BEGIN or (self._running and call.path != OVER)
            self._lasting = self._lasting and not call.path.startswith(RAISED)
        elif self._running and self.at is None and self._among(call):
            self._left -= 1
            if not self._left:
                self.at = call
                return self._deed
        elif self._lasting and self.at is not None and self.at.name == call.name:
            return self._deed
        return Deed.ALLOW


def changing(call: Call) -> bool:
    return call.name in CHANGES


def writing(call: Call) -> bool:
    return call.name == "write" and call.size > 1


def failing(call: Call) -> bool:
    return call.name in CHANGES or call.name in ("open", "read")


KILLS: Final[Sequence[tuple[Deed, Callable[[Call], bool]]]] = (
    (Deed.KILL, changing),
    (Deed.TEAR, writing),
    *([(Deed.KILL_AFTER, changing)] if LONG else []),
)


@attrs.frozen
class Fault:
    """An error, whether it lasts, and whether the step is repeated when it is gone, or the child ends."""

    errno: int
    lasting: bool
    repeats: bool

    def __str__(self) -> str:
        return f"{errno.errorcode[self.errno]}{' from then on' if self.lasting else ''}"


def faults(calls: Sequence[Call]) -> Iterator[tuple[int, Fault]]:
    """What may befall each of these, by its number.

    In the short form a share of it, another for each number, but for syncs
    that are few; and of the writes that follow each other, and of what reads,
    only some.
    """
    few = sum(call.name == "sync" for call in calls) <= _FEW
    for number, call in enumerate(calls, 1):
        every = itertools.product(ERRORS.get(call.name, OTHERS), (False, True), (False, True))
        found = [Fault(*each) for each in every]
        if LONG or (few and call.name == "sync"):
            yield from ((number, fault) for fault in found)
        elif call.name in CHANGES:
            if not _amid(calls, number):
                yield number, found[number * 3 % len(found)]
        elif not number % 3:
            yield number, found[number % len(found)]


def _amid(calls: Sequence[Call], number: int) -> bool:
    """Whether the call before it and the one after it are of the same name, on the same file."""
    around = calls[max(0, number - 2) : number + 1]
    return len(around) == 3 and len({(call.name, call.path) for call in around}) == 1
