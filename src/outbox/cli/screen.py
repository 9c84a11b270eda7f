"""A terminal that is painted on again and again, and given back as it was, however the painting ends.

Its user hears what happens meanwhile: a key, another size, an hour that has
come.  It is stopped by Ctrl-Z and goes on by ``fg``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from outbox.clock import SystemClock

from .bell import Bell

__all__ = ["Screen"]

_OTHER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"
"""With its own lines, so that what stood on the terminal stands there again afterwards; and no cursor."""
_BACK: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"
_MANY: Final = 64


class Screen:
    """A context manager, for the main thread."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._bell = Bell()
        self._keys = _Keys()
        self._before: dict[Any, Any] = {}
        self._there = False

    def __enter__(self) -> Self:
        for name, act in (("SIGWINCH", lambda *_: None), ("SIGTSTP", self._rest)):
            if hasattr(signal, name):
                number = getattr(signal, name)
                self._before[number] = signal.signal(number, act)
        if self._keys.descriptor is not None:
            self._bell.watch(self._keys.descriptor)
        self._enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()
        for number, before in self._before.items():
            signal.signal(number, before)
        self._bell.__exit__()

    def _enter(self) -> None:
        self._there = True
        self._keys.take_singly()
        _write(_OTHER_SCREEN)

    def leave(self) -> None:
        """Give the terminal back; harmless where it is given back already."""
        if self._there:
            self._there = False
            with contextlib.suppress(OSError, ValueError):
                _write(_BACK)
            self._keys.give_back()

    def _rest(self, number: int, _frame: object) -> None:
        """Be stopped as any other process, and come back."""
        self.leave()
        ours = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Somebody said fg.
        signal.signal(number, ours)
        self._enter()
        self._bell.ring()

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""
        return shutil.get_terminal_size()

    def paint(self, lines: Sequence[str]) -> None:
        """Put these in the place of what is there; they fit."""
        _write(_HOME + "\n".join(f"{line}{_REST_OF_LINE}" for line in lines) + _REST_OF_SCREEN)

    def heard(self, seconds: float, *, changed: Callable[[], object]) -> str:
        """The key that is pressed within so many seconds, or ``""``; *changed* is called where what is painted may fit no more."""
        until = self._clock.monotonic() + seconds
        while (left := until - self._clock.monotonic()) > 0:
            if self._bell.wait(left):
                return self._keys.read()
            if self._clock.monotonic() < until:
                changed()
        return ""


class _Keys:
    """Standard input, each key as it is pressed; where that is no terminal, none."""

    def __init__(self) -> None:
        self.descriptor: int | None = None
        self._before: Any = None
        with contextlib.suppress(ImportError, OSError, ValueError):
            import termios  # noqa: PLC0415 - POSIX alone has it

            self._termios = termios
            if sys.stdin.isatty():
                self.descriptor = sys.stdin.fileno()

    def take_singly(self) -> None:
        """Without waiting for the end of a line, and without showing them; Ctrl-C stays Ctrl-C."""
        if self.descriptor is None:
            return
        termios = self._termios
        self._before = termios.tcgetattr(self.descriptor)
        mode = termios.tcgetattr(self.descriptor)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.descriptor, termios.TCSADRAIN, mode)

    def give_back(self) -> None:
        if self._before is not None and self.descriptor is not None:
            with contextlib.suppress(self._termios.error):
                self._termios.tcsetattr(self.descriptor, self._termios.TCSAFLUSH, self._before)

    def read(self) -> str:
        """What was pressed; of a terminal that is gone, the end."""
        if self.descriptor is None:
            return ""
        try:
            pressed = os.read(self.descriptor, _MANY)
        except OSError:
            pressed = b""
        return pressed.decode(errors="replace") or "\x04"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
