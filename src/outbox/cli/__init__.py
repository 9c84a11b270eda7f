"""The ``outbox`` command: one file for each of its commands.

Every way it can end is one line on standard error and an exit status of
sysexits.h; a traceback is shown only to who asks for it.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from outbox.errors import OutboxError

from .exits import CommandError, Exit, exit_of
from .hearing import heard_by
from .output import Console, let_go_of_streams, stand_any_terminal
from .parser import parse
from .signals import Signalled

__all__ = ["main"]

_TRACEBACKS = 2
_DIALOGUES = "outbox.transports.smtp"
_SIGINT = 2
_SIGPIPE = 13


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for and return the exit status; ``--help`` raises SystemExit."""
    stand_any_terminal()
    try:
        return _status(argv)
    finally:
        let_go_of_streams()


def _status(argv: Sequence[str] | None) -> int:
    console = Console()
    try:
        command = parse(sys.argv[1:] if argv is None else argv)
        console = command.console
        with heard_by(_LibraryLog(console), logging.getLogger("outbox")):
            status = command.run(command.options, console)
        sys.stdout.flush()
    except BrokenPipeError:
        return 128 + _SIGPIPE
    except KeyboardInterrupt:
        return _ended(128 + _SIGINT, console)
    except Signalled as signalled:
        return _ended(128 + signalled.number, console)
    except Exception as error:  # noqa: BLE001 - whatever it is, a person gets one line and a status
        return _failed(error, console)
    return status


def _ended(status: int, console: Console) -> int:
    console.progress("")
    return status


def _failed(error: Exception, console: Console) -> int:
    console.progress("")
    if console.verbosity >= _TRACEBACKS or os.environ.get("OUTBOX_DEBUG"):
        console.above(console.discreet("".join(traceback.format_exception(error))))
    match error:
        case CommandError():
            status, text = error.status, str(error)
        case OutboxError():
            status, text = exit_of(error), console.discreet(str(error))
        case RuntimeError() if "start new thread" in str(error):
            status, text = Exit.TEMPORARY, "the system gives no more threads: raise its limits (ulimit -u)"
        case MemoryError():
            status, text = Exit.TEMPORARY, "the system gives no more memory"
        case BlockingIOError():
            status, text = Exit.TEMPORARY, f"the system is at its limits: {error.strerror}"
        case OSError():
            where = f": {error.filename}" if error.filename else ""
            status, text = Exit.IO_ERROR, f"{error.strerror or error}{where}"
        case _:
            status, text = Exit.SOFTWARE, console.discreet(_bug(error))
    console.complain(text)
    return status


def _bug(error: Exception) -> str:
    return (
        f"this is a bug in outbox, or in a plug-in of yours: {type(error).__name__}: {error} "
        "(please report it; OUTBOX_DEBUG=1 or -vv shows the traceback)"
    )


class _LibraryLog(logging.Handler):
    """What the library logs, as complaints; what the commands say themselves is left out."""

    def __init__(self, console: Console) -> None:
        super().__init__(_level(console.verbosity))
        self._console = console
        # Every line of every dialogue is for who asks twice.
        left_out = {"outbox.delivery"} | ({_DIALOGUES} if console.verbosity < _TRACEBACKS else set())
        self.addFilter(lambda record: record.name not in left_out)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._complain(record)
        except Exception:  # noqa: BLE001 - as in logging's own handlers: who logs must not fail by it
            self.handleError(record)

    def _complain(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += self._console.discreet(f": {type(error).__name__}: {error}")
            if self._console.verbosity >= _TRACEBACKS or os.environ.get("OUTBOX_DEBUG"):
                self._console.above(self._console.discreet("".join(traceback.format_exception(error))))
        self._console.complain(f"{record.levelname.lower()}: {text}")


def _level(verbosity: int) -> int:
    if verbosity > 0:
        return logging.DEBUG
    return logging.WARNING if verbosity >= -1 else logging.ERROR
