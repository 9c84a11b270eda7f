"""URLs of stores and transports: read strictly, shown without their passwords.

::

    sqlite:///outbox.db               relative to the current directory
    sqlite:////var/lib/outbox.db      absolute; sqlite:///~/outbox.db is in your home directory
    sqlite:///outbox.db?remember=7d&keep_delivered=30d&busy_timeout=30s
    sqlite:////srv/shop.db?prefix=outbox_    tables of that prefix, beside those of another program
    file:///var/spool/outbox          a directory; absolute
    file:///var/spool/outbox?keep_delivered=30d&keep_content=no&max_bytes=2GiB
    redis://user:password@host:6379/0?prefix=shop    a Redis server; rediss:// is the same by TLS
    unix:///run/redis.sock?db=0       the same by a Unix socket
    postgresql://user@host:5432/database?schema=public&remember=7d&sslmode=verify-full
    postgresql:///database?host=/run/postgresql    a Unix socket; what else is said behind ? libpq takes
    memory:                           nothing survives the process
    sqs://eu-central-1/outbox-        queues of Amazon SQS whose names begin so; ?blobs=s3://bucket/outbox for large content
    smtp://host                       port 25; smtp://user@host is port 587, and STARTTLS is required
    smtps://user@host                 TLS from the first byte, port 465
    smtp://[2001:db8::1]:2525?timeout=30s&security=starttls&local_hostname=me.example.org
    lmtp://host                       port 24; lmtp+unix:///run/dovecot/lmtp is a Unix socket, as smtp+unix: is
    python:package.module:factory?key=value    what this call returns: a store or a transport of yours

A store or transport is imported when its URL is asked for, and no other.
Whose scheme is none of these is looked for among what is installed; see
:mod:`.plugins`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from outbox.clock import Clock
from outbox.protocols import Store, Transport

from .grammar import Url
from .sqs import serving
from .stores import MIGRATIONS, STORES, Migration
from .transports import TRANSPORTS

__all__ = ["Migration", "migration_from_url", "store_from_url", "transport_from_url"]

_LOG: Final = logging.getLogger("outbox.locate")


def store_from_url(
    url: str, *, create: bool = True, clock: Clock | None = None, queues: Sequence[str] = ()
) -> Store:
    """Open the store that *url* names.

    Args:
        create: Whether a database that is not there is made, and one of an
            earlier release brought to this one's format.
        queues: Those that are served here: a store that has to make each of
            them (SQS) makes and checks these beside those that *url* names.

    Raises:
        ConfigurationError: the URL cannot be used, or what it names is not
            there and *create* is false; the text says what to write.
        StoreError: it is there and cannot be opened.
    """
    parsed = Url.parse("store", url)
    if parsed.scheme == "sqs":
        parsed = serving(parsed, queues)
    if parsed.scheme in STORES:
        return STORES[parsed.scheme](parsed, create, clock)
    from .plugins import open_store  # noqa: PLC0415 - only where the scheme is none of ours

    return open_store(parsed, create=create, clock=clock)


def migration_from_url(url: str) -> Migration | None:
    """How the store that *url* names is made and brought up to date; None where it does that by itself.

    Raises:
        ConfigurationError: the URL cannot be used; the text says what to write.
        StoreError: it cannot be reached.
    """
    parsed = Url.parse("store", url)
    return MIGRATIONS[parsed.scheme](parsed) if parsed.scheme in MIGRATIONS else None


def transport_from_url(
    url: str, *, password: str | None = None, token: Callable[[], str] | None = None
) -> Transport:
    """The transport that *url* names; it connects when it first delivers.

    Args:
        password: For the user that the URL names; one in the URL itself
            goes before it.
        token: In the password's place, called for each connection: returns
            an access token of that user.

    Raises:
        ConfigurationError: the URL cannot be used; the text says what to write.
    """
    parsed = Url.parse("transport", url)
    if parsed.scheme in TRANSPORTS:
        return TRANSPORTS[parsed.scheme](parsed, password, token)
    if token is not None:
        _LOG.warning("a token is set and not used: %s is no SMTP", parsed.shown)
    from .plugins import open_transport  # noqa: PLC0415 - only where the scheme is none of ours

    return open_transport(parsed, password=password)
