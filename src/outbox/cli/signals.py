"""What the signals ask for: the end in good order, the end at once, and, where it is offered, new settings.

The first SIGTERM or Ctrl-C ends the work in good order, the second ends the
process.  What comes within half a second of the first is an echo of it:
`timeout` signals its child and then the child's group, and many wrappers hand
on a Ctrl-C that the terminal has sent to everybody already.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, TypeAlias

import attrs

from outbox.clock import SystemClock

from .exits import Signalled

__all__ = ["Asked", "heeded", "reloads_later"]

_ECHO: Final = 0.5
_STDERR: Final = 2
_LEFT: Final = "what was under way is taken up again when its lease ends"
_NAMES: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")

_Handler: TypeAlias = Callable[[int, FrameType | None], None]


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
def reloads_later() -> Iterator[None]:
    """Within the block a SIGHUP is kept for the :func:`heeded` in it that reloads: until then it would end the process."""
    hang_up = getattr(signal, "SIGHUP", None)
    here = threading.current_thread() is threading.main_thread()
    if hang_up is None or not here or signal.getsignal(hang_up) is not signal.SIG_DFL:
        yield
        return
    signal.signal(hang_up, _Kept())
    try:
        yield
    finally:
        signal.signal(hang_up, signal.SIG_DFL)


class _Kept:
    """A signal that nobody heeds yet."""

    came = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True


@contextlib.contextmanager
def heeded(
    words: str,
    *,
    reloads: bool = False,
    patient: bool = False,
    last: bool = False,
    leaving: Callable[[], object] = lambda: None,
    left: str = _LEFT,
) -> Iterator[Asked]:
    """Within the block the first signal writes *words* and raises :class:`Signalled` in the main thread.

    The second calls *leaving* and leaves the process at once, with the status
    128 + its number.  A signal that whoever started us had ignored (nohup)
    stays ignored.

    Args:
        reloads: SIGHUP asks for new settings, and not for the end.
        last: The process ends with the block where the end was asked for: no echo may end it sooner.
        left: What becomes of what is under way when the second leaves.
        patient: The second changes nothing, until the process has ended: somebody else kills it where it takes too long.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in _numbers()}
    handlers = _handlers(asked, words, leaving, left, set(before), patient=patient)
    if reloads and hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = _reload(asked)
    heeding = {number: handlers[number] for number in before if before[number] is not signal.SIG_IGN}
    for number, handler in heeding.items():
        signal.signal(number, handler)
    asked.reload = asked.reload or (
        reloads and any(isinstance(each, _Kept) and each.came for each in before.values())
    )
    try:
        yield asked
    finally:
        ending = patient or (last and asked.stop is not None)
        for number in heeding:
            # Python's own end lays what is handled to rest while much is still to be done; not what is ignored.
            signal.signal(number, signal.SIG_IGN if ending else before[number])


def _numbers() -> list[Any]:
    return [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


def _reload(asked: Asked) -> _Handler:
    def reload(_number: int, _frame: FrameType | None) -> None:
        asked.reload = True

    return reload


def _handlers(
    asked: Asked, words: str, leaving: Callable[[], object], left: str, numbers: set[Any], *, patient: bool
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
        _say(f"outbox: left at once; {left}\n")
        os._exit(128 + number)

    return dict.fromkeys(numbers, stop)


def _say(words: str) -> None:
    # sys.stderr may be in use by the very code that the signal interrupted; and where nobody
    # reads it, waiting for him would keep every further signal from being heard.
    with contextlib.suppress(OSError):
        if _can_be_written(_STDERR):
            os.write(_STDERR, words.encode())


def _can_be_written(descriptor: int) -> bool:
    # Windows can ask so of sockets only.
    return os.name != "posix" or bool(select.select([], [descriptor], [], 0)[1])
