"""From settings to an open store, and to a transport: what a command that only looks needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from outbox.errors import ConfigurationError
from outbox.locate import Config, store_from_url, transport_from_url
from outbox.protocols import Store, Transport

__all__ = ["opened_store", "store_url", "transport_of"]


@contextlib.contextmanager
def opened_store(config: Config, *, create: bool = False) -> Iterator[Store]:
    """The configured store, closed at the end.

    Args:
        create: Whether one that is not there is made, and one of an earlier release migrated.

    Raises:
        ConfigurationError: none is named; or it is ``memory:``, which would
            be empty at the start and forgotten at the end of a command.
    """
    store = store_from_url(store_url(config), create=create, queues=config.queues)
    try:
        yield store
    finally:
        store.close()


def store_url(config: Config) -> str:
    """The URL of the configured store; raises ConfigurationError as :func:`opened_store` does."""
    if not config.store:
        where = f" or store = ... in {config.file}" if config.file else " or a configuration file"
        raise ConfigurationError(
            f"no store is named: say --store sqlite:///outbox.db, or set OUTBOX_STORE{where} (try: outbox demo)"
        )
    if config.store.partition(":")[0] == "memory":
        raise ConfigurationError(
            "store memory: is forgotten when this command ends: name a database, such as sqlite:///outbox.db"
        )
    return config.store


def transport_of(config: Config) -> Transport:
    """The configured transport, with what authenticates it; whoever asks closes it.

    Raises:
        ConfigurationError: none is named, or it cannot be made.
    """
    if not config.transport:
        raise ConfigurationError(
            "no transport is named: say --transport smtp://host:port, or set OUTBOX_TRANSPORT"
        )
    return transport_from_url(config.transport, password=config.smtp_password(), token=config.smtp_token())
