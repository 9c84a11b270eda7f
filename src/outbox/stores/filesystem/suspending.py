"""What is suspended: a small file each, replaced by a rename, for every process that uses the spool.

Only one process at a time changes them, under a lock of their folder.  The
bell is rung afterwards: so a claim looks at them again only when it has been.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote

from outbox.errors import CorruptRecord
from outbox.protocols import Suspension
from outbox.stores.instants import micros, moment
from outbox.stores.suspending import in_force, served

from . import reading
from .disk import Kind
from .folders import Folders
from .names import SECOND, SUSPENDED, stamp, unstamp

__all__ = ["Suspended", "is_name", "prune", "suspend", "suspensions", "unsuspend"]

_DRAFT: Final = "draft"
_LONGEST: Final = 200
_MONTH: Final = 30 * 86_400 * SECOND
_KINDS: Final = ("queue", "relay", "domain", "attribute")


def _name(kind: str, value: str) -> str:
    """What its file is called: a name has at most 255 bytes, and no slash."""
    text = quote(value, safe="", errors="surrogatepass")
    if len(text) > _LONGEST:
        # No value is escaped to this, for a percent sign is.
        text = f"{text[:100]}%~{hashlib.sha256(text.encode()).hexdigest()}"
    return f"{kind},{text}"


def is_name(name: str) -> bool:
    """Whether a file of this name is one of ours."""
    kind, comma, _ = name.partition(",")
    return name == _DRAFT or (comma != "" and kind in _KINDS)


def suspend(folders: Folders, suspension: Suspension) -> None:
    """See :meth:`outbox.protocols.SupportsSuspend.suspend`."""
    until = None if suspension.until is None else stamp(micros(suspension.until))
    fields = {"kind": suspension.kind, "value": suspension.value, "until": until, "reason": suspension.reason}
    name = _name(suspension.kind, suspension.value)
    with folders.lock(SUSPENDED):
        # What a crash has left there says nothing.
        folders.unlink(SUSPENDED, _DRAFT)
        folders.create(SUSPENDED, _DRAFT, json.dumps(fields).encode() + b"\n")
        folders.move(SUSPENDED, _DRAFT, SUSPENDED, name)
        folders.sync([SUSPENDED])


def unsuspend(folders: Folders, kind: str, value: str, now: int) -> bool:
    """See :meth:`outbox.protocols.SupportsSuspend.unsuspend`."""
    name = _name(kind, value)
    with folders.lock(SUSPENDED):
        found = list(_read(folders, [name]))
        folders.unlink(SUSPENDED, name)
        folders.sync([SUSPENDED])
    return bool(in_force(found, now))


def suspensions(folders: Folders, now: int) -> list[Suspension]:
    """See :meth:`outbox.protocols.SupportsSuspend.suspensions`."""
    return in_force(_read(folders, _names(folders)), now)


def prune(folders: Folders, now: int) -> None:
    """Forget those that have been over for long: a clock that is set back a little brings one back."""
    for each in _read(folders, _names(folders)):
        if each.until is not None and micros(each.until) < now - _MONTH:
            unsuspend(folders, each.kind, each.value, now)


def _names(folders: Folders, prefix: str = "") -> list[str]:
    names = folders.entries(SUSPENDED, Kind.FILE)
    return [name for name in names if name != _DRAFT and is_name(name) and name.startswith(prefix)]


def _read(folders: Folders, names: Sequence[str]) -> Iterator[Suspension]:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            try:
                yield _suspension(reading.content(folders, SUSPENDED, name), name)
            except CorruptRecord as error:
                # It stays in force until a person has looked.
                kind, _, value = name.partition(",")
                yield _unreadable(kind, unquote(value, errors="surrogatepass"), str(error))


def _suspension(data: bytes, name: str) -> Suspension:
    try:
        fields: dict[str, Any] = json.loads(data)
        until = fields["until"]
        _require_its_own(fields, name)
        return Suspension(
            kind=fields["kind"],
            value=fields["value"],
            until=None if until is None else moment(unstamp(until)),
            reason=fields["reason"],
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptRecord(f"its file cannot be read: {error}") from error


def _require_its_own(fields: dict[str, Any], name: str) -> None:
    texts = [fields[name] for name in ("kind", "value", "reason")]
    if not all(isinstance(text, str) for text in texts) or _name(*texts[:2]) != name:
        raise ValueError("it tells of something else than its name")


def _unreadable(kind: Any, value: str, reason: str) -> Suspension:
    return Suspension(kind=kind, value=value, reason=reason)


class Suspended:
    """The suspended queues as this store object last saw them."""

    def __init__(self) -> None:
        self._seen: tuple[int, Sequence[Suspension]] | None = None

    def served(self, folders: Folders, queues: Sequence[str], bell: int, now: int) -> list[str]:
        """Those of *queues* that are not suspended; *bell* was read before."""
        seen = self._seen
        if seen is None or seen[0] != bell:
            # Put there whole: threads come here at once.
            seen = self._seen = bell, list(_read(folders, _names(folders, "queue,")))
        return served(queues, in_force(seen[1], now))
