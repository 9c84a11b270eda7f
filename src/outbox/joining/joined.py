"""The seam: who hands over a connection of some library is given an intake for the driver's that is behind it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from outbox.errors import ConfigurationError
from outbox.lifecycle import PutResult
from outbox.message import Message
from outbox.protocols import Intake, SupportsTransaction

__all__ = ["join"]

Find: TypeAlias = Callable[[], Any]
"""Finds the driver's connection that the caller's transaction is on; raises where there is none."""

_TELLING: Final = ("commit", "execute")
"""Methods that every connection has one of; of an asynchronous one it is a coroutine function."""


def join(store: SupportsTransaction, connection: Any) -> Intake:
    """An intake whose messages exist if and only if the transaction on *connection* commits.

    Raises:
        ConfigurationError: nothing can be put within a transaction of this
            object's, and the text says by what it can.
    """
    find = _finder(connection)
    if find is None:
        _require_usable(connection, connection)
        return store.within(connection)
    return _Joined(store, connection, find)


class _Joined:
    """See :func:`join`."""

    def __init__(self, store: SupportsTransaction, given: Any, find: Find) -> None:
        self._store = store
        self._given = given
        self._find = find

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        """See :meth:`outbox.protocols.Intake.put`; there if and only if the caller's transaction commits."""
        connection = self._find()
        _require_usable(connection, self._given)
        return self._store.within(connection).put(messages)


def _finder(connection: Any) -> Find | None:
    """None where no library that we know of stands between the program and the driver."""
    libraries = _libraries(connection)
    if "sqlalchemy" in libraries:
        _require_synchronous(connection, connection)
        from . import sqlalchemy  # noqa: PLC0415 - it is there only where the program uses it

        return sqlalchemy.finder(connection)
    if "django" in libraries:
        from . import django  # noqa: PLC0415 - the same

        return django.finder(connection)
    return None


def _libraries(connection: Any) -> set[str]:
    # Not type(): a proxy of werkzeug's says by __class__ what it stands for.
    return {kind.__module__.partition(".")[0] for kind in connection.__class__.__mro__}


def _require_usable(connection: Any, given: Any) -> None:
    _require_synchronous(connection, given)
    if "psycopg2" in _libraries(connection):
        raise ConfigurationError(
            "the connection is psycopg2's, and the store speaks by psycopg 3: name it in the URL of the engine "
            '("postgresql+psycopg://..."); Django takes it where it is installed'
        )


def _require_synchronous(connection: Any, given: Any) -> None:
    kind = connection.__class__
    if any(inspect.iscoroutinefunction(getattr(kind, name, None)) for name in _TELLING):
        raise ConfigurationError(
            f"{_named(given)} is asynchronous, and outbox is not: do the whole transaction on a synchronous connection, "
            "in a thread (asyncio.to_thread); or stage the message before the commit and publish it after"
        )


def _named(thing: Any) -> str:
    kind = thing.__class__
    return f"{kind.__module__.partition('.')[0]}'s {kind.__qualname__}"
