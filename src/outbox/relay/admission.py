"""What is answered to who asks whether a relay may be spoken to."""

from __future__ import annotations

import datetime as dt
import math
from typing import Final, TypeAlias

import attrs

from outbox.errors import RelayFault

__all__ = ["ROUNDING", "UNANSWERED", "Admission", "Go", "Pause", "Wait", "lasting"]

UNANSWERED: Final = 30.0
"""The seconds after which a relay that is not known yet is tried with a further message."""
ROUNDING: Final = 1e-6
"""The seconds by which one may come too soon: no timedelta is exact to less."""
_LONGEST: Final = dt.timedelta(days=1)


@attrs.frozen
class Go:
    """Hand over up to *number* messages, over one connection.

    *probe*: it is one message, and the others wait for what becomes of it.
    *at* is the moment of the admission, *generation* how often the relay had
    failed by then.
    """

    probe: bool = False
    number: int = 1
    at: float = attrs.field(default=0.0, eq=False)
    generation: int = attrs.field(default=0, eq=False)


@attrs.frozen
class Wait:
    """Not now: ask again after *delay*.

    *probing*: or as soon as the probe under way has reported; *under_way* are
    the seconds since it went.  *passing*: it is this message that lets others
    go first; for them the relay is open.  *full*: or as soon as somebody leaves, for all
    of the relay's connections are taken.  *limited*: it is well, and a rate
    that a user set is reached; *drawing*: or, of one that several processes
    keep, what this one may send is being asked for.  *fault* is what the relay is paused for; None
    where it is not known yet, or only room or a limit is missing.
    """

    delay: dt.timedelta
    reason: str
    probing: bool = False
    fault: RelayFault | None = None
    under_way: float = 0.0
    passing: bool = False
    full: bool = False
    limited: bool = False
    drawing: bool = False


Admission: TypeAlias = Go | Wait


@attrs.frozen
class Pause:
    """A relay is left alone for *delay*, because of *fault*.

    *news*: by this very failure, and not by another before it.
    """

    delay: dt.timedelta
    news: bool
    fault: RelayFault | None = None


def lasting(seconds: float) -> dt.timedelta:
    """So long, and a day at most: never shorter by a rounding, for who comes too soon has come in vain."""
    if seconds >= _LONGEST.total_seconds():
        return _LONGEST
    return dt.timedelta(microseconds=math.ceil(seconds * 1e6))
