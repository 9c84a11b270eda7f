"""The stores under measurement: how each is opened, filled, submitted to, claimed from and settled."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import attrs
from laps import Lap, lap

from outbox import (
    Claim,
    Delivered,
    Fate,
    MemoryStore,
    Message,
    Outbox,
    Settlement,
    SQLiteStore,
    Store,
    SupportsBrowse,
    SupportsExchange,
)

__all__ = [
    "CONTENT",
    "KINDS",
    "LEASE",
    "claimed",
    "delivered",
    "exchanged",
    "exchanges",
    "fill",
    "filled",
    "hastily",
    "importable",
    "mail",
    "open_store",
    "submitted",
]

KINDS: Final = ("sqlite", "filesystem", "memory")
LEASE: Final = dt.timedelta(minutes=10)

_HEADERS: Final = (
    b"From: billing@example.com\r\nTo: ann@example.org\r\nSubject: Your invoice\r\n"
    b"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: <invoice@example.com>\r\n\r\n"
)
_LINE: Final = b"The quick brown fox jumps over the lazy dog, and the dog does not mind.\r\n"
CONTENT: Final = (_HEADERS + _LINE * 30)[:2046] + b"\r\n"
"""2 KB, the size of a plain notification."""


def importable(kind: str) -> bool:
    """Whether this release has the store."""
    return kind != "filesystem" or importlib.util.find_spec("outbox.stores.filesystem") is not None


def _type(kind: str) -> Any:
    if kind == "filesystem":
        # Only here: a release that has none is measured without.
        from outbox.stores.filesystem import FilesystemStore  # noqa: PLC0415

        return FilesystemStore
    return {"sqlite": SQLiteStore, "memory": MemoryStore}[kind]


def open_store(kind: str, folder: Path, **settings: Any) -> Any:
    """A store of that kind in *folder*, as it comes unless *settings* say otherwise."""
    places = {"sqlite": [folder / "outbox.db"], "filesystem": [folder / "spool"]}
    return _type(kind)(*places.get(kind, []), **settings)


def mail(**said: Any) -> Message:
    # A copy, so that the store in memory holds what a program would hand it.
    content = CONTENT[:-1] + CONTENT[-1:]
    return Message(recipients=("ann@example.org",), sender="billing@example.com", content=content, **said)


def delivered(claims: Sequence[Claim]) -> list[Settlement]:
    return [
        Settlement(claim, Delivered(fates=dict.fromkeys(claim.message.recipients, Fate.ACCEPTED)))
        for claim in claims
    ]


def batches(number: int, by: int) -> Iterator[list[Message]]:
    for start in range(0, number, by):
        yield [mail() for _ in range(min(by, number - start))]


def fill(store: Store, number: int) -> None:
    for batch in batches(number, 1000):
        store.put(batch)


@contextlib.contextmanager
def hastily(kind: str, folder: Path) -> Iterator[Any]:
    """A store to be filled in preparation of something else; all of it is on the disk when it ends."""
    settings = {"disk": _hasty()} if kind == "filesystem" else {}
    with closing(open_store(kind, folder, **settings)) as store:
        yield store
    if hasattr(os, "sync"):
        os.sync()


def _hasty() -> Any:
    """A disk that syncs nothing, and leaves the same files."""
    from outbox.stores.filesystem.disk import Disk  # noqa: PLC0415 - a release that has none is measured without

    class Hasty(Disk):
        def create(self, folder: int, name: str, data: bytes) -> None:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(name, flags, 0o600, dir_fd=folder)
            try:
                os.write(file, data)
            finally:
                os.close(file)

        def sync(self, folder: int) -> None:
            pass

    return Hasty()


def filled(kind: str, folder: Path, number: int) -> Any:
    """A store with so many messages, opened as it comes."""
    if kind != "memory":
        with hastily(kind, folder) as store:
            fill(store, number)
        return open_store(kind, folder)
    store = open_store(kind, folder)
    fill(store, number)
    return store


def submitted(kind: str, folder: Path, number: int, *, threads: int = 1, by: int = 1) -> Lap:
    """Messages made beforehand, through the front door: ``submit``, or ``submit_many`` by *by*."""
    with closing(open_store(kind, folder)) as store:
        outbox = Outbox(store)
        made = list(batches(number + threads * by, by))
        if by == 1:
            done = lap(outbox.submit, [message for (message,) in made], threads=threads)
        else:
            done = lap(outbox.submit_many, made, threads=threads, size=by)
        _require(store, number + threads * by)
        return done


def _require(store: SupportsBrowse, number: int) -> None:
    """Raise RuntimeError unless so many messages are in the store: what did not happen is fast."""
    found = sum(row.number for row in store.count())
    if found != number:
        raise RuntimeError(f"{store!r} holds {found} messages, and {number} were expected")


def claimed(kind: str, folder: Path, number: int, by: int) -> Lap:
    """Claimed *by* at a time, and settled as delivered, in two calls."""
    with closing(filled(kind, folder, number + by)) as store:

        def take(_: int) -> None:
            claims = store.claim(limit=by, lease=LEASE, queues=["mail"])
            store.settle(delivered(claims))

        done = lap(take, range(number // by + 1), size=by)
        _require(store, number % by)
        return done


def exchanges(kind: str) -> bool:
    """Whether the store settles and claims in one commit."""
    return issubclass(_type(kind), SupportsExchange)


@attrs.define
class _Exchange:
    """A worker's hand: what it holds is settled when it takes the next."""

    store: SupportsExchange
    by: int
    held: Sequence[Claim] = ()

    def __call__(self, _: int) -> None:
        settled = delivered(self.held)
        self.held = self.store.exchange(settled, limit=self.by, lease=LEASE, queues=["mail"]).claims


def exchanged(kind: str, folder: Path, number: int, by: int) -> Lap:
    """The last *by* settled as delivered and the next claimed, in one call."""
    with closing(filled(kind, folder, number + by)) as store:
        done = lap(_Exchange(store, by), range(number // by + 1), size=by)
        # The last of them are still in the hand.
        _require(store, number % by + by)
        return done
