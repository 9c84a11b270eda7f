"""Ids that are known of messages that are gone: what of them is told to another store, and what another store tells."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from outbox.moving import Remembered
from outbox.stores import carrying
from outbox.stores.instants import micros, moment, width
from outbox.stores.retention import Retention

from .caller import Caller
from .durability import lasting
from .scripts import REMEMBER, REMEMBERED
from .steering import LEFT, is_gone

__all__ = ["has_left", "remember", "remembered"]

_AT_ONCE: Final = 1000
_DIGEST: Final = re.compile(rb"\t((?:[0-9A-Fa-f]{2})*)\t[0-9]+")
"""Of what came to its end here, or is known to have done so elsewhere."""
_LAST: Final = "~"
"""Behind every id."""


def has_left(caller: Caller, id: str) -> bool:
    """See :meth:`outbox.moving.SupportsMove.has_left`."""
    text = caller.ask("HGET", caller.key("row"), id)
    return text is not None and is_gone(text) and text.endswith(LEFT.encode())


def remembered(
    caller: Caller, retention: Retention, now: int, after: Remembered | None, limit: int
) -> list[Remembered]:
    """See :meth:`outbox.moving.SupportsMove.remembered`."""
    asked = carrying.page(retention.known_since(now), after, limit)
    behind = max((int(asked["settled"]), str(asked["id"])), (int(asked["since"]), _LAST))
    found: list[Remembered] = []
    for settled, id, text in _gone(caller, behind[0]):
        if len(found) >= limit:
            break
        digest = _DIGEST.fullmatch(text)
        if digest is not None and (settled, id) > behind:
            found.append(Remembered(id, bytes.fromhex(digest[1].decode()), moment(settled)))
    return found


def _gone(caller: Caller, settled: int) -> Iterator[tuple[int, str, bytes]]:
    """What was settled then or later, by when it was, then by id."""
    skipped = 0
    while True:
        args = {"settled": str(settled), "skipped": skipped, "many": _AT_ONCE}
        _, ids, times, texts = caller.run(REMEMBERED, args)
        at = [int(float(each)) for each in times]
        for time, id, text in zip(at, ids, texts, strict=True):
            if text is not None:
                yield time, id.decode(), text
        if len(ids) < _AT_ONCE:
            return
        skipped = at.count(at[-1]) + (skipped if at[-1] == settled else 0)
        settled = at[-1]


def remember(caller: Caller, known: Sequence[Remembered], retention: Retention) -> None:
    """See :meth:`outbox.moving.SupportsMove.remember`; a thousand at a time."""
    fresh = [
        (each.id, each.digest.hex(), str(settled))
        for each in known
        if retention.remembers and (settled := micros(each.settled_at)) >= 0
    ]
    for first in range(0, len(fresh), _AT_ONCE):
        some = fresh[first : first + _AT_ONCE]
        lasting(caller, REMEMBER, {"known": some, "remember": str(width(retention.remember))})
