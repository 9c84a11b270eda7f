"""Every exception that outbox raises, in one tree.

::

    OutboxError
    ├── ConfigurationError (ValueError)   a setting, URL or file that cannot be used as it is
    ├── InvalidMessage (ValueError)       a message that must not be stored; nothing was
    ├── UnsupportedError                  asked of a store, transport or platform that cannot do it
    ├── StoreError
    │   ├── StoreUnavailable              the store cannot be reached or written now; try again
    │   ├── StoreFull                     no room, or a limit the user set is reached
    │   ├── ConflictError                 the id is known with another envelope
    │   ├── AmbiguousPut                  nobody can tell whether it was stored; repeat with the same id
    │   ├── CorruptRecord                 a stored record cannot be read
    │   └── FormatError                   the store was written in a format this release does not know
    └── RelayFault                        the relay's condition, not the message's
        ├── RelayUnavailable              no connection, no greeting, a 421 before a transaction
        └── RelayMisconfigured            a certificate, credential or setting that waiting will not mend

Exceptions of drivers and of the operating system are translated where they
are called, and stand in ``__cause__``.  No message carries a secret.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

from .values import printable

__all__ = [
    "AmbiguousPut",
    "ConfigurationError",
    "ConflictError",
    "CorruptRecord",
    "FormatError",
    "InvalidMessage",
    "OutboxError",
    "RelayFault",
    "RelayMisconfigured",
    "RelayUnavailable",
    "StoreError",
    "StoreFull",
    "StoreUnavailable",
    "UnsupportedError",
]


class OutboxError(Exception):
    """The root: ``except OutboxError`` catches whatever outbox raises on purpose."""


class ConfigurationError(OutboxError, ValueError):
    """A setting, URL, file or argument cannot be used; the text names it and what to do."""


class InvalidMessage(OutboxError, ValueError):
    """The message breaks a rule that the text names.  Nothing was stored."""


class UnsupportedError(OutboxError):
    """What was asked for is beyond this store, transport or platform."""


class StoreError(OutboxError):
    """The store could not do what was asked.

    *left*: of a settle, or an exchange, that wrote what came of some and could
    not of others, the keys of the claims of which nothing is written (those
    others', and whose token was stale); None where nothing was, or nobody can
    tell.  It is said where what stands in the way is in the way of those
    messages alone: others are begun meanwhile.
    """

    left: Collection[tuple[str, str]] | None = None


class StoreUnavailable(StoreError):
    """The store cannot be reached, read or written at the moment; nothing was lost."""


class StoreFull(StoreError):
    """There is no room, or a limit that the user set is reached.  Deliveries go on."""


class ConflictError(StoreError):
    """The id is known already, with another sender, other recipients or another queue."""


class AmbiguousPut(StoreError):
    """The answer to a commit was lost.  Repeat the put with the same id: it stores at most once."""


class CorruptRecord(StoreError):
    """A stored record cannot be read; it is held for a person and stops no other."""


class FormatError(StoreError):
    """The store was written in a format that this release does not know."""


class RelayFault(OutboxError):
    """A condition of the relay that says nothing of the message, and costs it no attempt.

    A transport raises it only while nothing is known of any recipient;
    otherwise it returns an :class:`~outbox.Outcome` that carries the fault.
    Its text is escaped and capped, for much of it was said by a stranger.

    *retry_after* is the least wait that the relay asked for, for all messages,
    where it did: so long it is left alone, a day at most.

    *costly*: asking again may cost more than an answer.  A password was said,
    and each that is wrong may be one of those after which its account is
    locked.  Such a relay is asked as seldom as a misconfigured one.
    """

    retry_after: dt.timedelta | None = None
    costly: bool = False

    def __init__(self, relay: str, reason: str, *, retry_after: dt.timedelta | None = None) -> None:
        super().__init__(relay, reason)
        self.relay = relay
        self.reason = reason
        if retry_after is not None:
            self.retry_after = retry_after

    def __str__(self) -> str:
        return printable(f"{self.relay}: {self.reason}")


class RelayUnavailable(RelayFault):
    """The relay did not answer, or closed before a transaction began; it may recover by itself."""


class RelayMisconfigured(RelayFault):
    """The relay refuses us for a reason that only a person can mend (TLS, credentials, settings)."""

    costly = True
