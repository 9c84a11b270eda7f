"""Django's ``connection``: the transaction that ``atomic`` has begun on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from django.core.exceptions import SynchronousOnlyOperation
    from django.db import Error
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'a connection of Django\'s needs Django: pip install "durable-outbox[django]"', name=error.name
    ) from error

from outbox.errors import ConfigurationError, StoreUnavailable

__all__ = ["finder"]


def finder(given: Any) -> Callable[[], Any]:
    """What finds the driver's connection behind ``django.db.connection`` or one of ``connections``.

    Raises:
        ConfigurationError: it is neither.
    """
    if not hasattr(given, "ensure_connection"):
        raise ConfigurationError(
            f"within() takes django.db.connection, or connections[alias], not {type(given).__name__}"
        )
    return lambda: _behind(given)


def _behind(given: Any) -> Any:
    try:
        by_itself = given.get_autocommit()
    except SynchronousOnlyOperation as error:
        raise ConfigurationError(
            f"{error}: do the whole transaction in one function, and call it by sync_to_async"
        ) from error
    except Error as error:
        raise StoreUnavailable(f"Django gives no connection: {error}") from error
    if by_itself:
        raise ConfigurationError(
            f"no transaction is open on the database {given.alias!r}, and each statement is committed by itself: "
            "submit within transaction.atomic()"
        )
    return given.connection
