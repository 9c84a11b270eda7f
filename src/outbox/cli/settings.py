"""From options to an open store and transport: an option goes before the environment, that before the file."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import attrs

from outbox import Outbox
from outbox.errors import ConfigurationError, UnsupportedError
from outbox.events import Listener
from outbox.locate import (
    Config,
    entries,
    holds_secret,
    masked,
    parse_duration,
    store_from_url,
    transport_from_url,
)
from outbox.protocols import Store, SupportsBrowse, SupportsManage, Transport
from outbox.values import quoted

from .output import Console

__all__ = [
    "add_duration",
    "add_serving",
    "browsable",
    "config_of",
    "domain",
    "manageable",
    "message_id",
    "opened_outbox",
    "opened_store",
    "outbox_of",
    "queue",
    "transport_of",
    "whole",
]

T = TypeVar("T")

_ID: Final = re.compile(r"[a-z0-9_-]{1,64}", re.ASCII)
_MOST: Final = 1_000_000_000


def config_of(options: argparse.Namespace, console: Console) -> Config:
    """The configuration with what this command line overrules."""
    config = Config.load(options.config)
    overruled: dict[str, Any] = {}
    for name in ("store", "transport"):
        url = getattr(options, name)
        if url:
            overruled[name] = url
            _warn_of_secret(name, url, console)
    for name in ("queues", "workers", "lease", "grace", "domain"):
        value = getattr(options, name, None)
        if value is not None:
            overruled[name] = value
    config = attrs.evolve(config, **overruled)
    console.hide(config.secrets())
    return config


def _warn_of_secret(name: str, url: str, console: Console) -> None:
    if holds_secret(url):
        # The value of an option that nobody knows is hidden, too: it may be mistyped, and it may be a token.
        what = "the password" if ":***@" in masked(url) else "what may be a password"
        console.complain(
            f"warning: {what} in --{name} can be seen by everybody on this machine who lists processes; "
            f"{_BETTER[name] if url.partition(':')[0] in _BY_FILE else _ELSEWHERE[name]}"
        )


_ELSEWHERE: Final = {
    name: f"put the URL into OUTBOX_{name.upper()} or the configuration file"
    for name in ("store", "transport")
}
_BETTER: Final = _ELSEWHERE | {"transport": "put it into a file and name that with OUTBOX_SMTP_PASSWORD_FILE"}
_BY_FILE: Final = frozenset({"smtp", "smtps", "lmtp"})
"""What a password file is read for."""


def add_serving(parser: argparse.ArgumentParser) -> None:
    """The options of the commands that deliver."""
    parser.add_argument(
        "--queue",
        dest="queues",
        metavar="NAME",
        type=queue,
        action="append",
        help="serve this queue, and no other that is not named (may be repeated; default: mail)",
    )
    parser.add_argument(
        "--workers",
        "--threads",
        metavar="N",
        type=_workers,
        help="deliver so many at once, each on a thread of its own (default: 4)",
    )
    parser.add_argument(
        "--lease",
        metavar="TIME",
        type=_lease,
        help="after a crash a message is taken up again when this has passed (default: 60s)",
    )
    parser.add_argument(
        "--grace",
        metavar="TIME",
        type=_grace,
        help="how long a stop waits for what is under way (default: 30s)",
    )


def add_duration(parser: argparse.ArgumentParser, name: str, *, help: str) -> None:
    """An option whose value is a duration, such as 30s or 2h."""
    parser.add_argument(name, metavar="TIME", type=_duration, help=help)


def whole(text: str, most: int = _MOST) -> int:
    """What an option that counts takes: a number from 1."""
    # As text first: thousands of digits are no number to Python either.
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(most)) else 0
    if not 1 <= number <= most:
        raise argparse.ArgumentTypeError(f"{quoted(text, 40)} is not a whole number from 1 to {most:,}")
    return number


def message_id(text: str) -> str:
    """An id, or how one begins."""
    if not _ID.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{quoted(text, 80)} is no id: those are of a-z, 0-9, '_' and '-'")
    return text


def queue(text: str) -> str:
    """A queue's name."""
    return _refused_by_argparse(entries.queue, text)


def domain(text: str) -> str:
    """What completes a bare name."""
    return _refused_by_argparse(entries.domain, text)


def _workers(text: str) -> int:
    return whole(text, entries.MAX_WORKERS)


def _lease(text: str) -> Any:
    return _refused_by_argparse(entries.lease, text)


def _grace(text: str) -> Any:
    return _refused_by_argparse(entries.grace, text)


def _duration(text: str) -> Any:
    return _refused_by_argparse(parse_duration, text)


def _refused_by_argparse(reader: Callable[[str], T], text: str) -> T:
    try:
        return reader(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


@contextlib.contextmanager
def opened_store(config: Config, *, create: bool = False) -> Iterator[Store]:
    """The configured store, closed at the end.

    Args:
        create: Whether one that is not there is made, and one of an earlier release migrated.

    Raises:
        ConfigurationError: none is named; or it is ``memory:``, which would
            be empty at the start and forgotten at the end of a command.
    """
    store = store_from_url(_store_url(config), create=create)
    try:
        yield store
    finally:
        store.close()


def _store_url(config: Config) -> str:
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


@contextlib.contextmanager
def opened_outbox(config: Config, listeners: Sequence[Listener]) -> Iterator[Outbox]:
    """An Outbox with the configured store, transport and settings, closed at the end."""
    with contextlib.closing(transport_of(config)) as transport, opened_store(config, create=True) as store:
        yield outbox_of(store, transport, config, listeners)


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
        listeners=listeners,
    )


def browsable(store: Store) -> SupportsBrowse:
    """The store as one that can be looked at.

    Raises:
        UnsupportedError: it cannot.
    """
    if not isinstance(store, SupportsBrowse):
        raise UnsupportedError("the messages of this store cannot be looked at: it does not do `browse`")
    return store


def manageable(store: Store) -> SupportsManage:
    """The store as one that a person can steer.

    Raises:
        UnsupportedError: it cannot.
    """
    if not isinstance(store, SupportsManage):
        raise UnsupportedError(
            "the messages of this store cannot be changed by hand: it does not do `requeue`, `cancel` and `purge`"
        )
    return store
