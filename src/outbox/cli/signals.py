"""SIGTERM and Ctrl-C: the first ends the work in good order, the second ends the process.

What comes within half a second of the first is an echo of it: `timeout`
signals its child and then the child's group, and many wrappers hand on a
Ctrl-C that the terminal has sent to everybody already.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

from outbox.clock import SystemClock

__all__ = ["Signalled", "heeded"]

_ECHO: Final = 0.5
_NAMES: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")


class Signalled(BaseException):
    """A signal asks for the end; *number* is which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def heeded(words: str) -> Iterator[None]:
    """Within the block the first signal writes *words* and raises :class:`Signalled` in the main thread.

    The second leaves the process at once, with the status 128 + its number.
    A signal that whoever started us had ignored (nohup) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    heeding = [number for number in numbers if before[number] is not signal.SIG_IGN]

    clock = SystemClock()
    first: list[float] = []

    def leave(number: int, _frame: FrameType | None) -> None:
        if clock.monotonic() - first[0] < _ECHO:
            return
        _say("outbox: left at once; what was under way is taken up again when its lease ends\n")
        os._exit(128 + number)

    def stop(number: int, _frame: FrameType | None) -> None:
        first.append(clock.monotonic())
        for each in heeding:
            signal.signal(each, leave)
        _say(words)
        raise Signalled(number)

    for number in heeding:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heeding:
            signal.signal(number, before[number])


def _say(words: str) -> None:
    # sys.stderr may be in use by the very code that the signal interrupted.
    with contextlib.suppress(OSError):
        os.write(2, words.encode())
