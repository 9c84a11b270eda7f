"""What the system knows of a runner's process, where that is one of this machine."""

from __future__ import annotations

import datetime as dt
import enum
import os
from pathlib import Path
from typing import Final

from outbox.bulletin import Bulletin

__all__ = ["Standing", "standing"]

_PROC: Final = Path("/proc")
_STATE: Final = 0
_BEGAN: Final = 19
"""Fields of proc(5)'s stat, counted from behind the process's name."""
_SLACK: Final = 5.0


class Standing(enum.Enum):
    """How a process stands."""

    UNKNOWN = "unknown"
    RUNNING = "running"
    STOPPED = "stopped"
    HANGING = "hanging"
    GONE = "gone"


def standing(said: Bulletin, age: dt.timedelta) -> Standing:
    """How the process of a runner stands that said this so long *age* ago.

    Unknown is one of another machine or container, and all where there is no
    /proc.  ``RUNNING`` may hang in its own code; ``HANGING`` waits within the
    kernel, mostly for a disk.
    """
    if not said.place or said.pid <= 1 or (said.host, said.place) != _here():
        return Standing.UNKNOWN
    try:
        fields = (_PROC / str(said.pid) / "stat").read_text().rpartition(")")[2].split()
        passed = float((_PROC / "uptime").read_text().split()[0])
        older = passed - int(fields[_BEGAN]) / os.sysconf("SC_CLK_TCK") - said.up - age.total_seconds()
    except (OSError, ValueError, IndexError):
        return _unseen(said.pid)
    if older < -_SLACK or fields[_STATE] in "ZX":
        return Standing.GONE  # and its number is another's by now
    return {"T": Standing.STOPPED, "t": Standing.STOPPED, "D": Standing.HANGING}.get(
        fields[_STATE], Standing.RUNNING
    )


def _unseen(pid: int) -> Standing:
    """Of a process whose files are not there, or hidden from us (hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return Standing.GONE
    except OSError:
        pass
    return Standing.UNKNOWN


def _here() -> tuple[str, str]:
    # Only where somebody delivers is it asked for: the other commands need not load it.
    import socket  # noqa: PLC0415

    try:
        return socket.gethostname(), os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - what it leads to is no path
    except OSError:
        return "", ""
