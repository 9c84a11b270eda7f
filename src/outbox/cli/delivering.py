"""From settings to an Outbox that delivers, with whoever it asks and tells."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from outbox import Outbox, Suppress
from outbox.errors import StoreError
from outbox.events import Listener
from outbox.locate import Config, loaded
from outbox.protocols import Store, Transport

from .opening import opened_store, transport_of
from .originating import origin

__all__ = ["opened_outbox", "outbox_of", "suppress_of"]


@contextlib.contextmanager
def opened_outbox(config: Config, listeners: Sequence[Listener]) -> Iterator[Outbox]:
    """An Outbox with the configured store, transport and settings, closed at the end."""
    with contextlib.closing(transport_of(config)) as transport, opened_store(config, create=True) as store:
        yield outbox_of(store, transport, config, listeners)


def outbox_of(
    store: Store, transport: Transport, config: Config, listeners: Sequence[Listener] = ()
) -> Outbox:
    """An Outbox with the configured settings.

    Raises:
        ConfigurationError: one of them cannot be used.
    """
    return Outbox(
        store,
        transport,
        queues=config.queues,
        retry=config.policies(config.queues),
        workers=config.workers,
        lease=config.lease,
        grace=config.grace,
        limits=config.limits,
        listeners=[*listeners, *_listeners(config), *_bounces(store, config)],
        suppress=suppress_of(config),
        warn_after=config.warn_after,
        reply_rules=config.reply_rules,
        hook=None if config.hook is None else loaded("hook", config.hook),
    )


def _listeners(config: Config) -> list[Listener]:
    return [loaded("listeners", name) for name in config.listeners]


def _bounces(store: Store, config: Config) -> list[Listener]:
    """Who tells the senders, where somebody does; what the last who delivered may have missed is told now.

    Raises:
        ConfigurationError: nobody knows who it would be from.
    """
    said = config.bounce
    if said is None:
        return []
    from outbox import Bounces  # noqa: PLC0415 - it brings the email package, for who wants it

    bounces = Bounces(
        store,
        said.author or f"MAILER-DAEMON@{origin(config, 'bounce.author')}",
        queue=said.queue,
        whole_up_to=said.whole_up_to,
        delayed=said.delayed,
    )
    with contextlib.suppress(StoreError):  # it is met again, and told, by whoever delivers
        bounces.catch_up()
    return [bounces]


def suppress_of(config: Config) -> Suppress | None:
    said = config.suppress
    if said is None:
        return None
    from outbox import SuppressionFile, SuppressionTable  # noqa: PLC0415 - it brings sqlite3

    if said.python:
        asked: Suppress = loaded("suppress.python", said.python)
        return asked
    if said.file is not None:
        return SuppressionFile(said.file)
    return SuppressionTable(said.database or "", said.table, said.column)
