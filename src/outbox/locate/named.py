"""Functions of a user's program, by the names that the configuration file gives them."""

from __future__ import annotations

from typing import Any

from outbox.errors import ConfigurationError
from outbox.values import printable

__all__ = ["loaded"]


def loaded(key: str, name: str) -> Any:
    """What ``package.module:name`` leads to, which can be called; *key* is whose value that is.

    Raises:
        ConfigurationError: it leads nowhere, or to what cannot be called.
    """
    from importlib.metadata import EntryPoint  # noqa: PLC0415 - slow, and for who names something

    try:
        found = EntryPoint(name=key, value=name, group="").load()
    except Exception as error:
        why = printable(f"{type(error).__name__}: {error}", 300)
        raise ConfigurationError(
            f"{key}: {name} cannot be loaded: {why}; is it installed where outbox is?"
        ) from error
    if not callable(found):
        raise ConfigurationError(f"{key}: {name} is {type(found).__name__}, which cannot be called")
    return found
