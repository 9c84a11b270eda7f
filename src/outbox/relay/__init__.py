"""Which relay may be spoken to, over how many connections, how fast: state machines that decide and do nothing.

They read no clock and no die of their own: the moment comes with every call,
in seconds of the caller's monotonic clock, and the randomness is handed in.
They are not safe for threads by themselves: :mod:`outbox.breakers` asks them
under one lock.
"""

from __future__ import annotations

from .admission import UNANSWERED, Admission, Go, Pause, Wait
from .limits import RelayLimits, limits_by_key
from .relays import Relays

__all__ = ["UNANSWERED", "Admission", "Go", "Pause", "RelayLimits", "Relays", "Wait", "limits_by_key"]
