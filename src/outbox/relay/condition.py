"""How a relay is found at a moment, for whoever looks."""

from __future__ import annotations

from typing import Literal

import attrs

from outbox.errors import RelayFault

__all__ = ["Condition"]


@attrs.frozen(kw_only=True)
class Condition:
    """Of one relay, by its key.

    Attributes:
        state: ``new`` (not tried yet), ``well``, ``paused`` or ``probing``
            (its pause is over, and one message finds out how it is).
        opens_in: Seconds until its pause is over.
        connections: How many are in use.
        limited_for: Seconds until a limit lets the next message go.
        shared: Whether its limits are kept by several processes together.
    """

    key: str
    state: Literal["new", "well", "paused", "probing"]
    opens_in: float = 0.0
    fault: RelayFault | None = None
    connections: int = 0
    limited_for: float = 0.0
    shared: bool = False
