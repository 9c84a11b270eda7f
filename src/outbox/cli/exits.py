"""What an exit status says: the numbers of sysexits.h, which mail programs and cron jobs already read."""

from __future__ import annotations

import enum

from outbox.errors import (
    ConfigurationError,
    ConflictError,
    CorruptRecord,
    FormatError,
    InvalidMessage,
    OutboxError,
    RelayMisconfigured,
    UnsupportedError,
)

__all__ = ["CommandError", "Exit", "Signalled", "exit_of"]


class Exit(enum.IntEnum):
    """Why a command ended."""

    OK = 0
    NOT_ALL = 1  # something that was asked for was refused, or a check found an error
    USAGE = 64
    DATA = 65  # the message, or its id, cannot be taken as it is
    NO_INPUT = 66
    NO_USER = 67  # a bare name that leads nowhere
    UNSUPPORTED = 69
    SOFTWARE = 70  # a bug
    IO_ERROR = 74
    TEMPORARY = 75  # the same command may succeed later, untouched
    CONFIGURATION = 78  # a person has to mend something first


class CommandError(Exception):
    """What a command itself has to complain of; *text* is one line for a person."""

    def __init__(self, status: Exit, text: str) -> None:
        super().__init__(text)
        self.status = status


class Signalled(BaseException):
    """A signal asks for the end; *number* is which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def exit_of(error: OutboxError) -> Exit:
    """The status that an error of outbox ends a command with."""
    match error:
        case InvalidMessage() | ConflictError():
            return Exit.DATA
        case ConfigurationError() | FormatError() | RelayMisconfigured():
            return Exit.CONFIGURATION
        case UnsupportedError():
            return Exit.UNSUPPORTED
        case CorruptRecord():
            return Exit.IO_ERROR
    if type(error) is OutboxError:
        return Exit.SOFTWARE
    return Exit.CONFIGURATION if _barred(error.__cause__) else Exit.TEMPORARY


def _barred(cause: BaseException | None) -> bool:
    """A file that we may not open or write is mended by a person, not by waiting."""
    names = ("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_READONLY")
    return isinstance(cause, PermissionError) or getattr(cause, "sqlite_errorname", "").startswith(names)
