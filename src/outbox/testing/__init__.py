"""For tests: the contract of stores as a suite and a state machine, doubles, and a clock that stands still.

``StoreSuite`` needs pytest and ``StoreStateMachine`` hypothesis
(``pip install "durable-outbox[testing]"``), the others need nothing; what is
heavy is imported when its name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .clock import ManualClock
from .recording import RecordingTransport

__all__ = ["ManualClock", "RecordingTransport", "SMTPSink", "StoreStateMachine", "StoreSuite"]

if TYPE_CHECKING:
    from .smtp_sink import SMTPSink
    from .state_machine import StoreStateMachine
    from .store_suite import StoreSuite
else:
    # Hidden from type checkers, which would take it to mean that any name exists.

    def __getattr__(name: str) -> object:
        if name == "SMTPSink":
            from .smtp_sink import SMTPSink  # noqa: PLC0415 - brings sockets and TLS

            return SMTPSink
        if name == "StoreSuite":
            from .store_suite import StoreSuite  # noqa: PLC0415 - needs pytest

            return StoreSuite
        if name == "StoreStateMachine":
            from .state_machine import StoreStateMachine  # noqa: PLC0415 - needs hypothesis

            return StoreStateMachine
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(__all__)
