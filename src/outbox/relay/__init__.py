"""Which relay may be spoken to, over how many connections, how fast: state machines that decide and do nothing.

They read no clock and no die of their own: the moment comes with every call,
in seconds of the caller's monotonic clock, and the randomness is handed in.
They are not safe for threads by themselves: :mod:`outbox.breakers` asks them
under one lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from outbox.lazily import names_of

__all__ = [
    "EVERY_OTHER",
    "LATE",
    "UNANSWERED",
    "Admission",
    "Condition",
    "Draft",
    "Drawn",
    "Go",
    "Order",
    "Pause",
    "RelayLimits",
    "Relays",
    "Wait",
    "draw",
    "limits_by_key",
]

if TYPE_CHECKING:
    from .admission import UNANSWERED, Admission, Go, Pause, Wait
    from .condition import Condition
    from .limits import EVERY_OTHER, RelayLimits, limits_by_key
    from .relays import Relays
    from .sharing import LATE, Draft, Drawn, Order, draw
else:
    # Hidden from type checkers, which would take it to mean that any name exists.

    _LAZY: Final = {
        "Admission": ".admission",
        "Condition": ".condition",
        "Draft": ".sharing",
        "Drawn": ".sharing",
        "EVERY_OTHER": ".limits",
        "Go": ".admission",
        "LATE": ".sharing",
        "Order": ".sharing",
        "Pause": ".admission",
        "RelayLimits": ".limits",
        "Relays": ".relays",
        "UNANSWERED": ".admission",
        "Wait": ".admission",
        "draw": ".sharing",
        "limits_by_key": ".limits",
    }

    __getattr__ = names_of(__name__, _LAZY)

    def __dir__() -> list[str]:
        return sorted(__all__)
