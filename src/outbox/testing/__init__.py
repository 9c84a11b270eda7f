"""For tests: the contracts of stores and transports as suites, a receiver, doubles, and a clock that stands still.

``StoreSuite`` and ``TransportSuite`` need pytest and ``StoreStateMachine`` hypothesis
(``pip install "durable-outbox[testing]"``), the others need nothing; what is
heavy is imported when its name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import ManualClock
from .recording import RecordingTransport

__all__ = [
    "Behaviour",
    "ManualClock",
    "RecordingTransport",
    "Rig",
    "SMTPSink",
    "StoreStateMachine",
    "StoreSuite",
    "TransportSuite",
]

if TYPE_CHECKING:
    from .smtp_sink import SMTPSink
    from .state_machine import StoreStateMachine
    from .store_suite import StoreSuite
    from .transport_clauses.scene import Behaviour, Rig
    from .transport_suite import TransportSuite
else:
    # Hidden from type checkers, which would take it to mean that any name exists.

    def __getattr__(name: str) -> object:
        if name == "SMTPSink":
            from .smtp_sink import SMTPSink  # noqa: PLC0415 - brings sockets and TLS

            return SMTPSink
        if name == "StoreSuite":
            from .store_suite import StoreSuite  # noqa: PLC0415 - needs pytest

            return StoreSuite
        if name == "TransportSuite":
            from .transport_suite import TransportSuite  # noqa: PLC0415 - needs pytest

            return TransportSuite
        if name in ("Behaviour", "Rig"):
            from . import transport_suite  # noqa: PLC0415 - pytest has to know of the clauses before they are imported

            return getattr(transport_suite, name)
        if name == "StoreStateMachine":
            from .state_machine import StoreStateMachine  # noqa: PLC0415 - needs hypothesis

            return StoreStateMachine
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(__all__)
