"""What a command writes, and how: tables that fit a terminal, JSON that a program reads, one-line complaints."""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TextIO

from outbox.clock import SystemClock
from outbox.formats import as_json, logfmt
from outbox.locate import Hiding, spell
from outbox.values import printable, words_of

from .columns import Toned, cut, laid_out, width_of, wrapped
from .streams import silence

__all__ = ["TRACEBACKS", "Console", "ago", "can_be_steered", "instant"]

TRACEBACKS: Final = 2
"""From this verbosity on they are shown."""
_NARROWEST: Final = 60
_DUMB: Final = frozenset(("", "dumb", "unknown"))
_LONG: Final = 100_000
_LATER: Final = 20
_NO_TEXTS: Final = frozenset((bool, int, float, dt.timedelta))
_A_MOMENT: Final = dt.timedelta(seconds=1)


class Console:
    """Standard output for what was asked for, standard error for everything else.

    Safe from many threads.  A line of progress stays the last on the
    terminal: whatever else is written goes above it.  What goes to standard
    error never fails: a log that cannot be written (its reader has left, its
    disk is full) must not end who delivers.
    """

    def __init__(self, *, as_json: bool = False, verbosity: int = 0, plain: bool = False) -> None:
        self.as_json = as_json
        self.verbosity = verbosity
        self._plain = plain
        self._bar: Any = None
        self._later: collections.deque[str] | None = None
        self.form: Literal["text", "logfmt", "json"] | None = None
        self._lock = threading.RLock()
        self.turned: Callable[[int], object] = lambda _verbosity: None
        self._shown = 0
        self._secrets: frozenset[str] = frozenset()
        self._hiding = Hiding(())
        self._held: list[tuple[str, str]] | None = None

    def turn(self, verbosity: int) -> None:
        """Say more, or less, from now on."""
        self.verbosity = verbosity
        self.turned(verbosity)

    @property
    def width(self) -> int | None:
        """The terminal's columns; None where output is no terminal, and nothing is to be cut."""
        return max(_NARROWEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None

    @property
    def live(self) -> bool:
        """Is somebody watching standard error?"""
        return sys.stderr.isatty()

    @property
    def worded(self) -> bool:
        """Is what happens told in words?  *form* says so; where it says nothing, to who is watching."""
        return self.live if self.form is None else self.form == "text"

    @property
    def asks(self) -> bool:
        """Is somebody there who can be asked?"""
        return self.live and sys.stdin.isatty()

    def agrees(self, question: str) -> bool:
        """Whether the person at the terminal says yes; whatever else is said is a no."""
        self.progress("")
        _write(sys.stderr, f"{question} [y/N] ")
        try:
            return sys.stdin.readline().strip().lower() in ("y", "yes")
        except KeyboardInterrupt:
            _write(sys.stderr, "\n")  # nobody has ended the line of the question
            raise

    def line(self, *parts: str) -> None:
        """A line of the answer; where the terminal can, each part with its weight.

        What the terminal has no letters for takes more room in escapes, and goes on below.
        """
        whole = "".join(parts)
        said = _spelled(whole, sys.stdout)
        if said == whole:
            print(self.dressed(*parts), flush=True)
            return
        for line in wrapped(said, self.width, "    "):
            print(line, flush=True)

    def dressed(self, *parts: str) -> str:
        """What :meth:`line` writes."""
        toned = any(isinstance(part, Toned) and part.tone for part in parts)
        rich = self._rich(sys.stdout) if toned else None
        return "".join(parts) if rich is None else rich.dressed(parts)

    def _rich(self, stream: TextIO) -> Any:
        """What gives lines their weight; None where they are to be plain."""
        if self._plain or os.environ.get("NO_COLOR") or not can_be_steered(stream):
            return None
        try:
            # Slow to load, and of use on a terminal only.
            from . import rich  # noqa: PLC0415
        except ImportError:
            return None
        return rich

    def wrapped(self, text: str, indent: str = "") -> None:
        """A text of the answer, on as many lines as the terminal needs; all but the first begin with *indent*."""
        for line in wrapped(_spelled(text, sys.stdout), self.width, indent):
            self.line(line)

    def data(self, value: Any) -> None:
        """The answer, for a program: one line of JSON."""
        print(json.dumps(value, default=_plain))

    def table(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "", give: str = ""
    ) -> None:
        """Rows in columns under a head.

        Those named in *right* (by their heads) are set to the right, and those in *give* are cut where there is no room.
        """
        for row in self.rows(head, rows, right=right, give=give):
            self.line(*row)

    def rows(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "", give: str = ""
    ) -> list[list[str]]:
        """The lines of :meth:`table`, the head first, each in its parts."""
        table = [[_spelled(cell, sys.stdout) for cell in row] for row in rows]
        return laid_out(head, table, right=right.split(), width=self.width, give=give.split())

    @contextlib.contextmanager
    def regardless(self, otherwise: str) -> Iterator[None]:
        """Within the block an answer may fail to be written; then *otherwise* is noted, and all goes on."""
        try:
            yield
            sys.stdout.flush()
        except (OSError, ValueError):
            silence(sys.stdout)
            self.note(f"outbox: {otherwise}")

    def note(self, text: str) -> None:
        """A line beside the answer; ``-q`` leaves it out."""
        if self.verbosity >= 0:
            width = shutil.get_terminal_size().columns if self.live else None
            for line in wrapped(_spelled(text, sys.stderr), width, "  "):
                self.above(line)

    def hide(self, secrets: frozenset[str]) -> None:
        """What :meth:`discreet` is to hide from now on."""
        self._secrets |= secrets
        self._hiding = Hiding(self._secrets)

    def discreet(self, text: str) -> str:
        """What somebody else's code says, without the secrets that it was given."""
        return self._hiding(text)

    def complain(self, text: str, level: str = "") -> None:
        """One line that says what is wrong, whatever the text held; with *level*, of what the library logged."""
        if self._held is not None:
            self._held.append((text, level))
        elif self.form in {"logfmt", "json"}:
            warned = text.removeprefix("warning: ")
            self.entry(
                level or ("error" if warned == text else "warning"), {"msg": warned}, SystemClock().now()
            )
        else:
            self.above(f"outbox: {printable(f'{level}: {text}' if level else text, _LONG)}")

    @contextlib.contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Within the block complaints wait until their form is known: for a call of what it gives, or for its end."""
        self._held = []
        try:
            yield self._let_go
        finally:
            self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held or (), None
        for text, level in held:
            self.complain(text, level)

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """Within the block complaints are lines of a log, too, where nobody watches and nobody said how they look."""
        before = self.form
        if not self.worded:
            self.form = self.form or "logfmt"
        try:
            yield
        finally:
            self.form = before

    def entry(self, level: str, fields: Mapping[str, Any], at: dt.datetime) -> None:
        """One line of a log, without secrets in what its fields say."""
        write = as_json if self.form == "json" else logfmt
        # Before they are written: in quotes a secret may not look like itself.
        shown = {name: _worded(value) for name, value in fields.items()}
        if self._hiding.may_find("\n".join(each for each in shown.values() if isinstance(each, str))):
            shown = {name: self.discreet(v) if isinstance(v, str) else v for name, v in shown.items()}
        self.above(write({"time": instant(at), "level": level} | shown))

    @contextlib.contextmanager
    def later(self) -> Iterator[None]:
        """Within the block the terminal is painted on: the last lines that belong above it are written at the end."""
        self._later = collections.deque(maxlen=_LATER) if self.live else None
        try:
            yield
        finally:
            kept, self._later = self._later, None
            for text in kept or ():
                self.above(text)

    def above(self, text: str) -> None:
        """A line on standard error, above the progress."""
        with self._lock:
            if self._later is not None:
                self._later.append(text)
                return
            self.progress("")
            _write(sys.stderr, text + "\n")

    def progress(self, text: str, done: int = 0, total: int | None = None) -> None:
        """Put *text* in the place of the last progress, where somebody watches; ``""`` takes it away.

        Where it is known how many there are in *total*, and the terminal can show one, there is a bar.
        """
        with self._lock:
            if not (text and self.live) and not self._shown:
                return
            width = (shutil.get_terminal_size().columns or 80) - 1
            line = cut(text, width)
            used = width_of(line)
            if text and total and (rich := self._rich(sys.stderr)) is not None:
                if self._bar is None or self._bar.total != total:
                    self._bar = rich.Bar(total)
                line, used = self._bar.line(text, done, width), width
            blank = " " * (min(self._shown, width) - used)
            _write(sys.stderr, f"\r{line}{blank}" + ("" if text else "\r"))
            self._shown = used


def _worded(value: Any) -> Any:
    """As a formatter would write it, but for what is no text."""
    return value if value is None or type(value) in _NO_TEXTS else words_of(value)


def can_be_steered(stream: TextIO) -> bool:
    """Is it a terminal that knows more than the next line?"""
    return stream.isatty() and os.environ.get("TERM", "") not in _DUMB


def _write(stream: TextIO, text: str) -> None:
    # One write a line: lines of several processes in one log do not mix.
    with contextlib.suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()


def _spelled(text: str, stream: TextIO) -> str:
    """*text* as *stream* will have it, where it has not the letters for it: so that its width is known before."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        # One column for what says in one that there was more.
        shown = text.replace("…", "~").encode(encoding, "backslashreplace").decode(encoding)
        return Toned.like(shown, text)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


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
