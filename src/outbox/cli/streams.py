"""Standard output and standard error, in whatever state a command is started with, and left to."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

__all__ = ["let_go_of_streams", "silence", "stand_any_terminal"]


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
            silence(stream)


def silence(stream: TextIO) -> None:
    """What is still to be written to *stream* goes nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
