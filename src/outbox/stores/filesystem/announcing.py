"""What runners say of themselves: a small file each, which is not synced, and replaced by a rename."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from outbox.errors import CorruptRecord
from outbox.protocols import Presence
from outbox.stores.names import is_id
from outbox.stores.presence import AT_MOST, Said, shown, spent

from . import reading
from .disk import Kind
from .folders import Folders
from .names import HERE

__all__ = ["announce", "announced", "is_name", "withdraw"]

_DRAFT: Final = ".draft"


def is_name(name: str) -> bool:
    """Whether a file of this name is one of ours."""
    return is_id(name.removesuffix(_DRAFT))


def announce(folders: Folders, said: Said, now: int) -> None:
    """See :meth:`outbox.protocols.SupportsPresence.announce`."""
    draft = said.name + _DRAFT
    folders.jot(HERE, draft, said.data.encode() + b"\n")
    folders.move(HERE, draft, HERE, said.name)
    if len(_names(folders)) > AT_MOST:
        for name in _gone(folders, now):
            withdraw(folders, name)


def withdraw(folders: Folders, name: str) -> None:
    """See :meth:`outbox.protocols.SupportsPresence.withdraw`."""
    for each in (name, name + _DRAFT) if is_id(name) else ():
        folders.unlink(HERE, each)


def announced(folders: Folders, now: int) -> Sequence[Presence]:
    """See :meth:`outbox.protocols.SupportsPresence.announced`."""
    return shown(dict(_said(folders)).values(), now)


def _gone(folders: Folders, now: int) -> list[str]:
    kept = dict(_said(folders))
    return [
        *spent([each for each in kept.values() if each], now),
        *(name for name, each in kept.items() if not each),
    ]


def _said(folders: Folders) -> Iterator[tuple[str, Said | None]]:
    for name in _names(folders):
        with contextlib.suppress(FileNotFoundError):
            yield name, _read(folders, name)


def _names(folders: Folders) -> list[str]:
    """Of a draft, too, that somebody left who was killed."""
    return list({name.removesuffix(_DRAFT) for name in folders.entries(HERE, Kind.FILE) if is_name(name)})


def _read(folders: Folders, name: str) -> Said | None:
    try:
        return Said.read(name, reading.content(folders, HERE, name))
    except CorruptRecord:
        return None
