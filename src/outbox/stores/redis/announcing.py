"""What runners say of themselves: fields of one hash."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.protocols import Presence
from outbox.stores.presence import Said, shown, spent

from .caller import Caller

__all__ = ["announce", "announced", "withdraw"]

_HERE = "here"


def announce(caller: Caller, said: Said, now: int) -> None:
    """See :meth:`outbox.protocols.SupportsPresence.announce`."""
    caller.ask("HSET", caller.key(_HERE), said.name, said.data)
    kept = _said(caller)
    gone = [
        *spent([each for each in kept.values() if each], now),
        *(name for name, each in kept.items() if not each),
    ]
    if gone:
        caller.ask("HDEL", caller.key(_HERE), *gone)


def withdraw(caller: Caller, name: str) -> None:
    """See :meth:`outbox.protocols.SupportsPresence.withdraw`."""
    caller.ask("HDEL", caller.key(_HERE), name)


def announced(caller: Caller, now: int) -> Sequence[Presence]:
    """See :meth:`outbox.protocols.SupportsPresence.announced`."""
    return shown(_said(caller).values(), now)


def _said(caller: Caller) -> dict[str, Said | None]:
    """By name; None where it cannot be read."""
    fields = caller.ask("HGETALL", caller.key(_HERE))
    found: dict[str, Said | None] = {}
    for raw, data in zip(fields[::2], fields[1::2], strict=True):
        name = raw.decode("utf-8", "backslashreplace")
        found[name] = Said.read(name, data)
    return found
