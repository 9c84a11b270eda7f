"""Durable outgoing messages: stored before ``submit`` returns, delivered in the background.

These are the public names.  What loads a database driver, a network library
or the ``email`` package is imported when its name is first used, so that
``import outbox`` brings nothing that a program may never need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

from .clock import Clock, SystemClock
from .errors import (
    AmbiguousPut,
    ConfigurationError,
    ConflictError,
    CorruptRecord,
    FormatError,
    InvalidMessage,
    OutboxError,
    RelayFault,
    RelayMisconfigured,
    RelayUnavailable,
    StoreError,
    StoreFull,
    StoreUnavailable,
    UnsupportedError,
)
from .events import LeaseLost, Listener, Notice, RelayPaused, RelayResumed, Settled, StoreFailed
from .judge import Hook
from .lifecycle import (
    Attempt,
    Claim,
    Dead,
    Delivered,
    Event,
    Expired,
    Fate,
    Held,
    PutResult,
    Record,
    Released,
    Retry,
    Settlement,
    State,
    Summary,
    Verdict,
)
from .message import Message, new_id
from .outbox import Outbox
from .outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from .protocols import (
    Change,
    Delivery,
    Exchanged,
    Finding,
    Guarantee,
    Intake,
    QueueCount,
    Store,
    SupportsBatch,
    SupportsBrowse,
    SupportsExchange,
    SupportsHandOver,
    SupportsIdle,
    SupportsMaintain,
    SupportsManage,
    SupportsRelays,
    SupportsSuspend,
    SupportsTransaction,
    SupportsWait,
    Suspension,
    Transport,
)
from .relay import RelayLimits
from .retry import RetryPolicy
from .runner import Runner, Sent, Tally
from .screening import Suppress

__all__ = [
    "Accepted",
    "AmbiguousPut",
    "Attempt",
    "ChainTransport",
    "Change",
    "Claim",
    "Clock",
    "ConfigurationError",
    "ConflictError",
    "CorruptRecord",
    "Dead",
    "Delivered",
    "Delivery",
    "Event",
    "Exchanged",
    "Expired",
    "Fate",
    "FilesystemStore",
    "Finding",
    "FormatError",
    "FunctionTransport",
    "Guarantee",
    "Held",
    "Hook",
    "Intake",
    "InvalidMessage",
    "LeaseLost",
    "Listener",
    "MemoryStore",
    "Message",
    "Notice",
    "Outbox",
    "OutboxError",
    "Outcome",
    "PermFailed",
    "PutResult",
    "QueueCount",
    "Record",
    "RelayFault",
    "RelayLimits",
    "RelayMisconfigured",
    "RelayPaused",
    "RelayResumed",
    "RelayUnavailable",
    "Released",
    "Result",
    "Retry",
    "RetryPolicy",
    "RouteTransport",
    "Runner",
    "SMTPTransport",
    "SQLiteStore",
    "Sent",
    "Settled",
    "Settlement",
    "State",
    "Store",
    "StoreError",
    "StoreFailed",
    "StoreFull",
    "StoreUnavailable",
    "Summary",
    "SupportsBatch",
    "SupportsBrowse",
    "SupportsExchange",
    "SupportsHandOver",
    "SupportsIdle",
    "SupportsMaintain",
    "SupportsManage",
    "SupportsRelays",
    "SupportsSuspend",
    "SupportsTransaction",
    "SupportsWait",
    "Suppress",
    "Suspension",
    "SystemClock",
    "Tally",
    "TempFailed",
    "Transport",
    "Uncertain",
    "UnsupportedError",
    "Untried",
    "Verdict",
    "from_email",
    "new_id",
]

if TYPE_CHECKING:
    from .mail import from_email
    from .stores.filesystem import FilesystemStore
    from .stores.memory import MemoryStore
    from .stores.sqlite import SQLiteStore
    from .transports.chain import ChainTransport
    from .transports.function import FunctionTransport
    from .transports.route import RouteTransport
    from .transports.smtp import SMTPTransport

    __version__: str
else:
    # Hidden from type checkers, which would take it to mean that any name exists.

    _LAZY: Final = {
        "ChainTransport": ".transports.chain",
        "FilesystemStore": ".stores.filesystem",
        "FunctionTransport": ".transports.function",
        "MemoryStore": ".stores.memory",
        "RouteTransport": ".transports.route",
        "SMTPTransport": ".transports.smtp",
        "SQLiteStore": ".stores.sqlite",
        "from_email": ".mail",
    }

    def __getattr__(name: str) -> object:
        if name == "__version__":
            return import_module("importlib.metadata").version("durable-outbox")
        if name in _LAZY:
            return getattr(import_module(_LAZY[name], __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted([*__all__, "__version__"])
