"""What the library logs is heard by the command alone, for as long as it runs."""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from typing import Final

from .output import TRACEBACKS, Console

__all__ = ["LibraryLog", "heard_by", "level_of"]

_DIALOGUES: Final = "outbox.transports.smtp"


@contextlib.contextmanager
def heard_by(handler: logging.Handler, log: logging.Logger) -> Iterator[Callable[[int], None]]:
    """Within the block *handler*, and nobody above *log*, is told what is logged there, from its level on.

    What it yields sets that level anew.
    """
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(handler.level)
    log.propagate = False

    def set_level(level: int) -> None:
        handler.setLevel(level)
        log.setLevel(level)

    try:
        yield set_level
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


class LibraryLog(logging.Handler):
    """What the library logs, as complaints; what the commands say themselves is left out."""

    def __init__(self, console: Console) -> None:
        super().__init__(level_of(console.verbosity))
        self._console = console
        # Every line of every dialogue is for who asks twice.
        left_out = {"outbox.delivery", "outbox.queue"} | (
            {_DIALOGUES} if console.verbosity < TRACEBACKS else set()
        )
        self.addFilter(lambda record: record.name not in left_out)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._complain(record)
        except Exception:  # noqa: BLE001 - as in logging's own handlers: who logs must not fail by it
            self.handleError(record)

    def _complain(self, record: logging.LogRecord) -> None:
        text = self._console.discreet(record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            text += self._console.discreet(f": {type(error).__name__}: {error}")
            if self._console.verbosity >= TRACEBACKS or os.environ.get("OUTBOX_DEBUG"):
                self._console.above(self._console.discreet("".join(traceback.format_exception(error))))
        self._console.complain(text, record.levelname.lower())


def level_of(verbosity: int) -> int:
    """From which level on the library is heard."""
    if verbosity > 0:
        return logging.DEBUG
    return logging.WARNING if verbosity >= -1 else logging.ERROR
