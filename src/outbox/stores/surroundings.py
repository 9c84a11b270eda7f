"""What a store stands on, as findings: room on its disk, and a clock that agrees with what is stored."""

from __future__ import annotations

import os
import shutil
from typing import Final

from outbox.errors import StoreFull
from outbox.protocols import Finding
from outbox.values import printable

from .limits import Limits

__all__ = ["AHEAD", "clock", "room"]

AHEAD: Final = 60 * 1_000_000
"""Microseconds by which what was submitted may be ahead of the clock: clocks are corrected by seconds all the time."""
_ENOUGH: Final = 1 << 30
_SHARE: Final = 20
_MIB: Final = 1 << 20


def room(directory: str | os.PathLike[str], limits: Limits, *, reserve: int = 0) -> Finding:
    """Whether the disk has room: an error where nothing is put any more, a warning where that is near.

    Near is less than a twentieth of the disk, and less than a GiB.

    Args:
        reserve: As in :meth:`~outbox.stores.limits.Limits.require_free`.
    """
    name = printable(os.fspath(directory))
    try:
        limits.require_free(directory, reserve=reserve)
        usage = shutil.disk_usage(directory)
    except StoreFull as error:
        return Finding(
            "error", f"nothing can be submitted: {error}", f"make room there (df -h {name}); outbox purge"
        )
    except OSError as error:
        return Finding("warning", f"the disk of {name} does not tell how full it is: {error.strerror}")
    left = f"{usage.free / _MIB:,.0f} MiB of {usage.total / _MIB:,.0f} left"
    if usage.free < min(_ENOUGH, usage.total // _SHARE):
        return Finding(
            "warning",
            f"the disk of {name} is nearly full: {left}",
            f"make room there (df -h {name}) before nothing can be submitted; outbox purge",
        )
    return Finding("ok", f"the disk of {name} has room: {left}")


def clock(number: int, by: int) -> Finding:
    """Whether what waits was submitted before now.

    Args:
        number: How many wait that are not due, and were submitted or tried later than :data:`AHEAD` from now.
        by: How far ahead the latest of them is, in microseconds.
    """
    if not number:
        return Finding("ok", "the clock agrees with the store: nothing that waits comes from the future")
    wait = "message that waits was" if number == 1 else "messages that wait were"
    return Finding(
        "error",
        f"the clock is wrong, or was: {number:,} {wait} submitted or tried in the future, "
        f"up to {_spelled(by)} from now",
        "look at the clock of this machine (timedatectl); when it is right: outbox requeue --state queued",
    )


def _spelled(microseconds: int) -> str:
    minutes = microseconds // AHEAD
    if minutes < 120:  # noqa: PLR2004 - two hours
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 2880 else f"{minutes // 1440} d"  # noqa: PLR2004 - two days
