"""What the server or the way to it says, in our words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from outbox.errors import AmbiguousPut, FormatError, StoreError, StoreFull, StoreUnavailable
from outbox.values import printable

from .driver import Cut, Refused, Unreachable
from .place import Place

__all__ = ["translated"]

_MEANINGS: Final[Mapping[str, str]] = {
    "LOADING": "it is still loading its data after a start: it comes by itself",
    "READONLY": "it is a replica, which takes no writes: name the primary, or wait until the failover is over",
    "MISCONF": "it takes no writes because it cannot save them: look at its log and its disk",
    "NOREPLICAS": "it takes no writes because fewer replicas are there than min-replicas-to-write asks for",
    "BUSY": "it is busy with a script that runs for too long: look which (SLOWLOG GET)",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "CLUSTERDOWN": "its cluster is down, as some slots have no node: look at CLUSTER INFO",
    "TRYAGAIN": "its cluster is moving the slot of this store: it comes by itself",
    "MOVED": "the slot of this store is on another node of its cluster: name that node",
    "ASK": "its cluster is moving the slot of this store to another node: it comes by itself, or name that node",
    "NOAUTH": "it wants a user and a password: write redis://user:password@…, or see whether they are right",
    "WRONGPASS": "the user or the password is wrong",
    "NOPERM": "this user may not do that: look at its ACL (docs/redis.md lists what is needed)",
}


def translated(error: Unreachable | Cut | Refused, place: Place, *, put: bool = False) -> StoreError:
    """What to raise for *error*; *put* says that it was met by a put."""
    if isinstance(error, Unreachable):
        return StoreUnavailable(f"{place} cannot be reached: {printable(str(error))}")
    if isinstance(error, Cut):
        if put:
            return AmbiguousPut(
                f"{place}: the connection was lost before the answer came ({printable(str(error))}): whether it is "
                "stored nobody can tell; put it again with the same id, and it is stored once"
            )
        return StoreUnavailable(
            f"{place}: the connection was lost before the answer came: {printable(str(error))}"
        )
    if error.code == "OOM":
        return StoreFull(f"{place} is out of memory (maxmemory): make room or raise it; deliveries go on")
    if error.code == "OUTBOXFORMAT":
        return FormatError(f"{place}: {_newer(error.text.partition(' ')[2])}")
    meaning = _MEANINGS.get(error.code)
    said = printable(error.text)
    if put and not error.nothing_done:
        return AmbiguousPut(
            f"{place} refused in the midst of a put{f': {meaning}' if meaning else ''} ({said}): whether it is stored "
            "nobody can tell; see to it, and put it again with the same id: it is stored once"
        )
    return StoreUnavailable(f"{place} refused: {meaning} ({said})" if meaning else f"{place} refused: {said}")


def _newer(version: str) -> str:
    return f"the store is of format {printable(version)!r}, and this release knows 1: upgrade outbox"
