"""What is past its retention is removed, the oldest first: ids, then records state by state."""

from __future__ import annotations

from collections.abc import Sequence

from outbox.errors import CorruptRecord
from outbox.lifecycle import State
from outbox.stores.instants import width
from outbox.stores.retention import FAILED, Retention

from .caller import Caller
from .rows import Row
from .scripts import AGED, FORGET
from .steering import Edit, apply, hold

__all__ = ["prune"]

_AT_ONCE = 500


def prune(caller: Caller, retention: Retention, limit: int) -> int:
    """See :meth:`outbox.protocols.SupportsMaintain.prune`."""
    now, removed = _forget(caller, retention, limit)
    for state in (State.DELIVERED, *FAILED):
        since = retention.kept_since(now, state)
        if since is not None and removed < limit:
            removed += _discard(caller, retention, state, since, limit - removed)
    return removed


def _forget(caller: Caller, retention: Retention, limit: int) -> tuple[int, int]:
    args = {"remember": str(width(retention.remember)), "at_most": str(retention.remember_at_most)}
    removed = 0
    while True:
        now, gone = caller.run(FORGET, {**args, "limit": min(_AT_ONCE, limit - removed)})
        removed += gone
        if gone < _AT_ONCE:
            return int(now), removed


def _discard(caller: Caller, retention: Retention, state: State, since: int, limit: int) -> int:
    removed = 0
    while removed < limit:
        number = min(_AT_ONCE, limit - removed)
        now, ids, texts, seen = caller.run(AGED, {"state": state.value, "since": str(since), "limit": number})
        edits, damaged = _edits(retention, ids, texts, int(now))
        changed, _ = apply(caller, edits)
        hold(caller, damaged)
        removed += len(edits) - len(changed)
        if seen < number or changed:
            break
    return removed


def _edits(
    retention: Retention, ids: Sequence[bytes], texts: Sequence[bytes], now: int
) -> tuple[list[Edit], dict[str, bytes]]:
    """What is removed, and the rows that cannot be read."""
    edits: list[Edit] = []
    damaged: dict[str, bytes] = {}
    for raw, text in zip(ids, texts, strict=True):
        id = raw.decode()
        try:
            row = Row.read(id, text)
        except CorruptRecord:
            damaged[id] = text
        else:
            edits.append(Edit(id, row, text, "", retention.buries(id, row.standing, now)))
    return edits, damaged
