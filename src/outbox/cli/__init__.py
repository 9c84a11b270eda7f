"""The ``outbox`` command: one file for each of its commands.

Every way it can end is one line on standard error and an exit status of
sysexits.h; a traceback is shown only to who asks for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from outbox.errors import OutboxError

from .exits import CommandError, Exit, Signalled, exit_of
from .parser import Command, called_as, parse
from .streams import let_go_of_streams, stand_any_terminal

if TYPE_CHECKING:
    from .output import Console

__all__ = ["main"]

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
    command = None
    try:
        command = parse(called_as(sys.argv) if argv is None else argv)
        status = _run(command)
        sys.stdout.flush()
    except BrokenPipeError:
        return 128 + _SIGPIPE
    except KeyboardInterrupt:
        return _ended(128 + _SIGINT, command)
    except Signalled as signalled:
        return _ended(128 + signalled.number, command)
    except Exception as error:  # noqa: BLE001 - whatever it is, a person gets one line and a status
        return _failed(error, _console(command))
    return status


def _run(command: Command) -> int:
    # Not for --help and --version, which are answered before there is a command.
    import logging  # noqa: PLC0415

    from .hearing import LibraryLog, heard_by, level_of  # noqa: PLC0415

    console = command.console
    with heard_by(LibraryLog(console), logging.getLogger("outbox")) as set_level:
        console.turned = lambda verbosity: set_level(level_of(verbosity))
        return command.run(command.options, console)


def _console(command: Command | None) -> Console:
    from .output import Console  # noqa: PLC0415 - see above

    return Console() if command is None else command.console


def _ended(status: int, command: Command | None) -> int:
    if command is not None:
        command.console.progress("")
    return status


def _failed(error: Exception, console: Console) -> int:
    import traceback  # noqa: PLC0415 - see above

    from .output import TRACEBACKS  # noqa: PLC0415

    console.progress("")
    if console.verbosity >= TRACEBACKS or os.environ.get("OUTBOX_DEBUG"):
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
