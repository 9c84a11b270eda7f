"""The two pipes between a supervisor and each of its processes.

The process's standard input brings its settings, later the word that the log
file is to be opened anew, and stays open for as long as the supervisor lives
and wants it to go on; the end of it asks for the end,
and nothing that happens to the supervisor can keep that end from coming.  The
standard output brings back that the process is ready, and that it is alive.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final

import attrs

from outbox.clock import Clock
from outbox.locate import Config

from .exits import CommandError, Exit
from .settings import Settings

__all__ = [
    "ALIVE",
    "READY",
    "REOPEN",
    "Child",
    "Lifeline",
    "Orders",
    "as_we_were_started",
    "be_left_alone",
    "taken_line",
]

READY: Final = b"r"
ALIVE: Final = b"a"
REOPEN: Final = b"o"
_STDIN: Final = 0
_MANY: Final = 4096
_LENGTH: Final = 8


@attrs.frozen(kw_only=True)
class Orders:
    """What a process is told: the settings, as its supervisor has checked them, and how often to say that it lives.

    Not read from the file again: by the time that a process has to be
    replaced that may hold what nobody has checked yet.  Limits are those of
    all processes together: each is told its share *among* them.
    """

    settings: Settings
    beat: float | None
    among: int = 1

    def write(self, pipe: BinaryIO) -> None:
        """Down the pipe of a process that has just begun."""
        config = self.settings.config
        fields = {field.name: getattr(config, field.name) for field in attrs.fields(Config)}
        # What is read-only cannot be pickled.
        fields["retry_by_queue"] = dict(config.retry_by_queue)
        fields["limits"] = {key: limits.among(self.among) for key, limits in config.limits.items()}
        text = pickle.dumps((fields, self.settings.log, self.settings.log_file, self.beat))
        pipe.write(len(text).to_bytes(_LENGTH, "big") + text)
        pipe.flush()

    @classmethod
    def read(cls, descriptor: int) -> Orders:
        """From the pipe, as the first thing that a process does.

        Raises:
            CommandError: there is nobody at the other end.
        """
        text = _read(descriptor, int.from_bytes(_read(descriptor, _LENGTH), "big"))
        fields, log, log_file, beat = pickle.loads(text)  # noqa: S301 - as multiprocessing does: from who started us, who else has the pipe
        return cls(settings=Settings(config=Config(**fields), log=log, log_file=log_file), beat=beat)


def _read(descriptor: int, length: int) -> bytes:
    text = b""
    while len(text) < length:
        more = os.read(descriptor, length - len(text))
        if not more:
            raise CommandError(
                Exit.USAGE,
                "the supervisor that started this process is gone, or it had none: "
                "--supervised is for the processes that `outbox run --processes` starts",
            )
        text += more
    return text


class Lifeline:
    """What a process has of its supervisor; it is told what systemd would be."""

    def __init__(self, beat: float | None) -> None:
        self.beat = beat
        # Nobody else may write there: not a print() of a plug-in, nor what it starts.
        self._pipe = os.dup(1)
        os.set_blocking(self._pipe, False)
        os.dup2(2, 1)

    def ready(self, words: str) -> None:  # noqa: ARG002 - the supervisor has words of its own
        self._say(READY)

    def reloading(self) -> None:
        """Nothing: a supervised process is replaced."""

    def stopping(self) -> None:
        """Nothing: the supervisor asked for it."""

    def alive(self) -> None:
        if self.beat is not None:
            self._say(ALIVE)

    def _say(self, word: bytes) -> None:
        # One that does not read has other troubles; its end comes by the other pipe.
        with contextlib.suppress(OSError):
            os.write(self._pipe, word)


class Child:
    """One process, from its start to its end, as its supervisor has it."""

    def __init__(self, number: int, arguments: Sequence[str], orders: Orders, clock: Clock) -> None:
        """Start it, as Python with these *arguments*.

        Raises:
            OSError: the system gives no more processes.
        """
        self.number = number
        self.settings = orders.settings
        self.ready = False
        self.gone = False
        self.killed = False
        self.end_by: float | None = None
        self._clock = clock
        self.heard_at = self.begun_at = clock.monotonic()
        # Anew, and not forked: nothing that this process has open or locked comes along.  A group of
        # its own: what a terminal sends to all reaches it through us, once.
        with _withheld():
            self._process = subprocess.Popen(  # noqa: S603 - this command itself
                [sys.executable, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                process_group=0,
            )
        with contextlib.suppress(OSError):  # one that has ended already is found so
            orders.write(self._stdin)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def pipe(self) -> int:
        """The descriptor that it is heard by."""
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        return self._process.stdout.fileno()

    @property
    def _stdin(self) -> Any:
        return self._process.stdin

    @property
    def age(self) -> float:
        """Its age in seconds."""
        return self._clock.monotonic() - self.begun_at

    @property
    def asked(self) -> bool:
        """Whether it has been asked to end."""
        return self.end_by is not None

    @property
    def silence(self) -> float:
        """How long ago it was heard, in seconds."""
        return self._clock.monotonic() - self.heard_at

    @property
    def status(self) -> int | None:
        """How it ended; negative: by which signal; None: it has not."""
        return self._process.poll()

    def hear(self) -> bool:
        """Take what it has said; True where it is ready, and was not before."""
        said = os.read(self.pipe, _MANY)
        self.gone = not said
        self.heard_at = self._clock.monotonic()
        newly = READY in said and not self.ready
        self.ready = self.ready or newly
        return newly

    def reopen_log(self) -> None:
        """Have it open its log file anew."""
        with contextlib.suppress(OSError, ValueError):  # one that ends already
            self._stdin.write(REOPEN)
            self._stdin.flush()

    def ask(self, patience: float) -> None:
        """Ask it to end in good order; it is overdue when *patience* has passed."""
        if self.asked:
            return
        self.end_by = self._clock.monotonic() + patience
        self._process.terminate()  # while it starts it does not look at its pipe
        with contextlib.suppress(OSError):
            self._stdin.close()

    def kill(self) -> None:
        """End it at once; harmless where it has ended."""
        self.killed = True
        self._process.kill()

    def bury(self) -> None:
        """It has ended: give back what is left of it."""
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    @property
    def end(self) -> str:
        """How it ended, in words."""
        status = self.status or 0
        if status >= 0:
            return f"ended with status {status}"
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-status).name}"
        return f"was killed by signal {-status}"


@contextlib.contextmanager
def _withheld() -> Iterator[None]:
    """What is started within the block has the signals that are not for it withheld, until it can ignore them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _not_for_processes())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def be_left_alone() -> None:
    """Ignore what is not for a process, which :class:`Child` has started with these signals withheld.

    SIGHUP is for the supervisor, who replaces us; and a terminal may stop
    whoever writes from behind, as we do (``stty tostop``).
    """
    for number in _not_for_processes():
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _not_for_processes())


def _not_for_processes() -> set[Any]:
    return {getattr(signal, name) for name in ("SIGHUP", "SIGTTOU") if hasattr(signal, name)}


def taken_line() -> int:
    """Standard input under a number of our own: what a plug-in starts must not inherit it, nor read it empty."""
    line, nothing = os.dup(_STDIN), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _STDIN)
    os.close(nothing)
    return line


def as_we_were_started() -> list[str]:
    """How Python is told to start another process of this command, as it was started itself.

    `-m` would let modules of the current directory in, which the command itself does not.
    """
    try:
        let_in = os.getcwd() in sys.path or "" in sys.path  # noqa: PTH109 - as sys.path has it
    except OSError:  # it was removed
        let_in = False
    return ["-m", "outbox"] if let_in else ["-P", "-m", "outbox"]
