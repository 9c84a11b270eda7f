"""Whose an exception is: the driver's, this package's, or a stranger's in the midst of theirs (a signal handler's)."""

from __future__ import annotations

from typing import Final

import psycopg

__all__ = ["interruption", "is_foreign", "is_from_driver"]

_DRIVER: Final = ("psycopg", "psycopg_binary", "psycopg_c")
_OURS: Final = (*_DRIVER, "outbox", "")


def is_from_driver(error: BaseException) -> bool:
    """Whether it was raised within the driver, and not by what calls it or is called by it."""
    return _raised_in(error) in _DRIVER


def is_foreign(error: BaseException) -> bool:
    """Whether a signal handler raised it, or anybody else who is neither the driver nor this package."""
    if isinstance(error, psycopg.Error):
        return False
    # Of some the driver strips the traceback.
    kind = type(error).__module__.partition(".")[0]
    named = kind not in (*_OURS, "builtins") or isinstance(error, TimeoutError)
    return named or not isinstance(error, Exception) or _raised_in(error) not in _OURS


def _raised_in(error: BaseException) -> str:
    raised = error.__traceback__
    while raised is not None and raised.tb_next is not None:
        raised = raised.tb_next
    within = "" if raised is None else str(raised.tb_frame.f_globals.get("__name__", ""))
    return within.partition(".")[0]


def interruption(error: BaseException, before: BaseException | None) -> BaseException | None:
    """What a signal handler raised in the midst of what the driver did, where *error* took its place; None where none did.

    The driver says of what it had to leave half done that it cannot go on.

    Args:
        before: What was being handled already when the driver was asked.
    """
    found, each = None, error.__context__
    while each is not None and each is not before:
        if not isinstance(each, psycopg.Error) and (
            not isinstance(each, Exception) or _raised_in(each) not in _OURS
        ):
            found = each
        each = each.__context__
    return found
