"""What a command writes, and how: tables that fit a terminal, JSON that a program reads, one-line complaints."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import shutil
import sys
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TextIO

from outbox.locate import spell, without
from outbox.values import printable

__all__ = ["Console", "ago", "columns", "cut", "instant", "let_go_of_streams", "stand_any_terminal"]

_WIDE: Final = frozenset("WF")
_NARROWEST: Final = 60
_LONG: Final = 100_000
_A_MOMENT: Final = dt.timedelta(seconds=1)


class Console:
    """Standard output for what was asked for, standard error for everything else.

    Safe from many threads.  A line of progress stays the last on the
    terminal: whatever else is written goes above it.  What goes to standard
    error never fails: a log that cannot be written (its reader has left, its
    disk is full) must not end who delivers.
    """

    def __init__(self, *, as_json: bool = False, verbosity: int = 0) -> None:
        self.as_json = as_json
        self.verbosity = verbosity
        self._lock = threading.RLock()
        self._shown = 0
        self._secrets: frozenset[str] = frozenset()

    @property
    def width(self) -> int | None:
        """The terminal's columns; None where output is no terminal, and nothing is to be cut."""
        return max(_NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None

    @property
    def live(self) -> bool:
        """Is somebody watching standard error?"""
        return sys.stderr.isatty()

    def line(self, text: str = "") -> None:
        """A line of the answer."""
        print(text, flush=True)

    def data(self, value: Any) -> None:
        """The answer, for a program: one line of JSON."""
        print(json.dumps(value, default=_plain))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> None:
        """Rows in columns under a head; those named in *right* (by their heads) are set to the right."""
        for row in self.rows(head, rows, right=right):
            print(row)

    def rows(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> list[str]:
        """The lines of :meth:`table`, the head first."""
        return columns(head, rows, right=right.split(), width=self.width)

    @contextlib.contextmanager
    def regardless(self, otherwise: str) -> Iterator[None]:
        """Within the block an answer may fail to be written; then *otherwise* is noted, and all goes on."""
        try:
            yield
            sys.stdout.flush()
        except (OSError, ValueError):
            _silence(sys.stdout)
            self.note(f"outbox: {otherwise}")

    def note(self, text: str) -> None:
        """A line beside the answer; ``-q`` leaves it out."""
        if self.verbosity >= 0:
            self.above(text)

    def hide(self, secrets: frozenset[str]) -> None:
        """What :meth:`discreet` is to hide from now on."""
        self._secrets |= secrets

    def discreet(self, text: str) -> str:
        """What somebody else's code says, without the secrets that it was given."""
        return without(text, self._secrets)

    def complain(self, text: str) -> None:
        """One line that says what is wrong, whatever the text held."""
        self.above(f"outbox: {printable(text, _LONG)}")

    def above(self, text: str) -> None:
        """A line on standard error, above the progress."""
        with self._lock:
            self.progress("")
            _write(sys.stderr, text + "\n")

    def progress(self, text: str) -> None:
        """Put *text* in the place of the last progress; ``""`` takes it away."""
        with self._lock:
            if not text and not self._shown:
                return
            text = cut(text, (shutil.get_terminal_size().columns or 80) - 1)
            blank = " " * (self._shown - len(text))
            _write(sys.stderr, f"\r{text}{blank}" + ("" if text else "\r"))
            self._shown = len(text)


def _write(stream: TextIO, text: str) -> None:
    # One write a line: lines of several processes in one log do not mix.
    with contextlib.suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def stand_any_terminal() -> None:
    """Let every way of being started do: with streams that were closed, with encodings that know little."""
    for number in range(3):
        _stop_the_gap(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - open to the end
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _stop_the_gap(number: int) -> None:
    # Else the next socket or database gets this number, and all that is meant for the stream.
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def let_go_of_streams() -> None:
    """What cannot be written goes nowhere: Python tries once more at its end, and would change the status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _silence(stream)


def _silence(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def instant(moment: dt.datetime) -> str:
    """ISO 8601 in UTC, to the second."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(moment: dt.datetime, now: dt.datetime) -> str:
    """``3 min ago``, ``in 58 s``, ``now``."""
    if abs(moment - now) < _A_MOMENT:
        return "now"
    if moment > now:
        return f"in {spell(moment - now)}"
    return f"{spell(now - moment)} ago"


def columns(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = (), width: int | None = None
) -> list[str]:
    """Lines of a table; the last column takes what is left of *width*, and is cut there."""
    table = [list(head), *(list(row) for row in rows)]
    widths = [max(_columns(row[n]) for row in table) for n in range(len(head))]
    lines = []
    for row in table:
        cells = [_pad(cell, widths[n], to_right=head[n] in right) for n, cell in enumerate(row)]
        line = "  ".join(cells).rstrip()
        lines.append(line if width is None else cut(line, width))
    return lines


def cut(text: str, width: int) -> str:
    """At most *width* columns of *text*; an ellipsis says that there was more."""
    if _columns(text) <= width:
        return text
    kept = text[: max(0, width - 1)]
    while _columns(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…"


def _pad(cell: str, width: int, *, to_right: bool) -> str:
    blank = " " * (width - _columns(cell))
    return blank + cell if to_right else cell + blank


def _columns(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(_column(char) for char in text)


def _column(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1
