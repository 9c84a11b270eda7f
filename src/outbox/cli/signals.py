"""What the signals ask for: the end in good order, the end at once, and, where it is offered, new settings.

The first SIGTERM or Ctrl-C ends the work in good order, the second ends the
process.  What comes within half a second of the first is an echo of it:
`timeout` signals its child and then the child's group, and many wrappers hand
on a Ctrl-C that the terminal has sent to everybody already.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, TypeAlias

import attrs

from outbox.clock import SystemClock

__all__ = ["Asked", "Signalled", "heeded"]

_ECHO: Final = 0.5
_NAMES: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")

_Handler: TypeAlias = Callable[[int, FrameType | None], None]


class Signalled(BaseException):
    """A signal asks for the end; *number* is which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@attrs.define
class Asked:
    """What the signals have asked for so far.

    *raising*: the first that asks for the end is raised in the main thread,
    wherever that stands; who sets it to False looks at *stop* instead.
    """

    stop: int | None = None
    reload: bool = False
    raising: bool = True


@contextlib.contextmanager
def heeded(
    words: str,
    *,
    reloads: bool = False,
    patient: bool = False,
    leaving: Callable[[], object] = lambda: None,
) -> Iterator[Asked]:
    """Within the block the first signal writes *words* and raises :class:`Signalled` in the main thread.

    The second calls *leaving* and leaves the process at once, with the status
    128 + its number.  A signal that whoever started us had ignored (nohup)
    stays ignored.

    Args:
        reloads: SIGHUP asks for new settings, and not for the end.
        patient: The second changes nothing, until the process has ended: somebody else kills it where it takes too long.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in _numbers()}
    handlers = _handlers(asked, words, leaving, set(before), patient=patient)
    if reloads and hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = _reload(asked)
    heeding = {number: handlers[number] for number in before if before[number] is not signal.SIG_IGN}
    for number, handler in heeding.items():
        signal.signal(number, handler)
    try:
        yield asked
    finally:
        for number in heeding:
            signal.signal(number, signal.SIG_IGN if patient else before[number])


def _numbers() -> list[Any]:
    return [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


def _reload(asked: Asked) -> _Handler:
    def reload(_number: int, _frame: FrameType | None) -> None:
        asked.reload = True

    return reload


def _handlers(
    asked: Asked, words: str, leaving: Callable[[], object], numbers: set[Any], *, patient: bool
) -> dict[Any, _Handler]:
    clock = SystemClock()
    first: list[float] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if first:
            leave(number)
            return
        first.append(clock.monotonic())
        asked.stop = number
        _say(words)
        if asked.raising:
            raise Signalled(number)

    def leave(number: int) -> None:
        if patient or clock.monotonic() - first[0] < _ECHO:
            return
        leaving()
        _say("outbox: left at once; what was under way is taken up again when its lease ends\n")
        os._exit(128 + number)

    return dict.fromkeys(numbers, stop)


def _say(words: str) -> None:
    # sys.stderr may be in use by the very code that the signal interrupted.
    with contextlib.suppress(OSError):
        os.write(2, words.encode())
