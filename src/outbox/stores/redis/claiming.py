"""Leases on their way out: what is read whole is a claim, and what is not is held."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from outbox.codec import join
from outbox.errors import ConfigurationError, CorruptRecord, FormatError, StoreUnavailable
from outbox.lifecycle import Claim, Held, State
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.content import Codings, intact
from outbox.stores.selection import PROMOTED

from .caller import Caller, fresh_nonce
from .putting import kept_span
from .rows import Row, attempt_text, letters
from .scripts import SETTLE

__all__ = ["UNREADABLE_NOW", "Found", "Order", "read", "released", "sorted_out"]

_MOST: Final = 1000
"""One claim gives no more: for as long as a script runs, the server does nothing else."""


@attrs.frozen(kw_only=True)
class Order:
    """What a claim asks for; *queues* are in the order of their turns."""

    queues: Sequence[str]
    limit: int
    lease: dt.timedelta
    max_bytes: int

    def args(self) -> dict[str, Any]:
        return {
            "served": self.queues,
            "limit": max(0, min(self.limit, _MOST)),
            "lease": kept_span(self.lease),
            "max_bytes": max(0, min(self.max_bytes, 1 << 50)),
            "promoted": PROMOTED,
            "nonce": fresh_nonce(),
        }


@attrs.frozen
class Found:
    """What the server gave under a lease: which queue was first, each message with its row, and rows that cannot be read."""

    first: str
    now: int
    taken: Sequence[tuple[str, Row, bytes, bytes]]
    damaged: Mapping[str, bytes] = attrs.field(factory=dict)

    @classmethod
    def of(cls, now: bytes, answer: Sequence[Any]) -> Found:
        first, *rest = answer
        taken: list[tuple[str, Row, bytes, bytes]] = []
        damaged: dict[str, bytes] = {}
        for raw, text, envelope, content in zip(rest[::4], rest[1::4], rest[2::4], rest[3::4], strict=True):
            id = raw.decode()
            try:
                taken.append((id, Row.read(id, text), envelope or b"", content or b""))
            except CorruptRecord:
                damaged[id] = text
        return cls(first.decode(), int(now), taken, damaged)


def sorted_out(found: Found, codings: Codings) -> tuple[list[Claim], list[list[Any]]]:
    """The claims, and settlements that hold what cannot be read."""
    claims: list[Claim] = []
    held: list[list[Any]] = []
    for id, row, envelope, content in found.taken:
        try:
            message = read(id, row, envelope, content, codings)
        except (CorruptRecord, FormatError) as error:
            held.append(_holding(id, row, str(error), found.now))
        else:
            claims.append(standings.claim(message, row.standing, row.token, found.now))
    return claims, held


def read(id: str, row: Row, envelope: bytes, content: bytes, codings: Codings) -> Message:
    """The message as it was put, or not at all; raises as :func:`outbox.stores.content.intact` does."""
    coding, _, head = envelope.partition(b"\n")
    if not head:
        raise CorruptRecord(f"{id}: its content and envelope are missing")
    message = intact(id, lambda: join(head, codings.decode(content, coding.decode(), id)))
    if message.id != id or len(message.recipients) != len(row.standing.fates):
        raise CorruptRecord(f"{id}: the envelope is not the one that was stored")
    return message


def _holding(id: str, row: Row, reason: str, now: int) -> list[Any]:
    verdict = Held(fates={}, reason=reason)
    attempt, _ = attempt_text(standings.attempt(row.standing.attempts, verdict, now))
    fates = letters(row.standing.fates)
    return [id, row.token, State.HELD.value, fates, "", False, verdict.reason, attempt, "", ""]


def released(caller: Caller, found: Found) -> None:
    """Give all of it back, as though it had not been claimed."""
    given_back = [
        [
            id,
            row.token,
            State.QUEUED.value,
            letters(row.standing.fates),
            "0",
            True,
            row.standing.reason,
            "",
            "",
            "",
        ]
        for id, row, _, _ in found.taken
    ]
    queues = [row.queue for _, row, _, _ in found.taken]
    caller.run(SETTLE, {"settlements": given_back, "keep": True, "remembers": True}, queues=queues)


UNREADABLE_NOW: Final = (ConfigurationError, StoreUnavailable)
"""This process was not told how to read it, or cannot now: the message is as well as ever."""
