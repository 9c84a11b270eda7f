"""What a person is shown: pages along the ids, each a short script, so that nobody waits for a list."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any, Final

from outbox.ages import Group, domains
from outbox.codec import attributes_of
from outbox.errors import CorruptRecord
from outbox.filters import Filter
from outbox.lifecycle import Record, State, Summary
from outbox.stores import standing as standings
from outbox.stores.content import Codings
from outbox.stores.instants import micros

from .caller import Caller
from .claiming import read
from .envelopes import envelope_of, sender_and_recipients
from .rows import Row, history
from .scripts import LOOK, OF_STATES, PAGE
from .steering import is_gone

__all__ = ["ages", "browse", "find", "get"]

_PAGE: Final = 1000
_AT_FIRST: Final = 100
_FEW: Final = 5000
"""So many are sorted rather than looked for among the ids of all."""
_SETTLED: Final = frozenset(State) - {State.QUEUED, State.CLAIMED}


def get(caller: Caller, id: str, codings: Codings) -> Record | None:
    """See :meth:`outbox.protocols.SupportsBrowse.get`."""
    _, (text,), (envelope,), (content,), (past, said) = caller.run(LOOK, {"ids": [id], "whole": True})
    if is_gone(text):
        return None
    row = Row.read(id, text)
    message = read(id, row, envelope or b"", content or b"", codings)
    return Record(summary=_summary(id, text, envelope), message=message, history=history(id, past, said))


def browse(
    caller: Caller, *, states: Sequence[State], queues: Sequence[str], after: str, limit: int
) -> list[Summary]:
    """See :meth:`outbox.protocols.SupportsBrowse.browse`."""
    found: list[Summary] = []
    if limit < 1:
        return found
    for summary in _summaries(caller, states, after, limit):
        if (not states or summary.state in states) and (not queues or summary.queue in queues):
            found.append(summary)
            if len(found) == limit:
                break
    return found


def find(caller: Caller, sought: Filter, after: str) -> Iterator[Summary]:
    """See :meth:`outbox.filters.SupportsFind.find`."""
    return filter(sought.fits, _summaries(caller, sought.states, after, _AT_FIRST))


def _summaries(caller: Caller, states: Sequence[State], after: str, first: int) -> Iterator[Summary]:
    """All behind *after* that may be in one of *states*, in the order of their ids."""
    if states and set(states) <= _SETTLED:
        _, ids = caller.run(OF_STATES, {"states": [state.value for state in set(states)], "many": _FEW})
        if ids is not None:
            yield from _these(caller, sorted(name for id in ids if (name := id.decode()) > after))
            return
    for ids, texts, envelopes in _pages(caller, after, first):
        for id, text, envelope in zip(ids, texts, envelopes, strict=True):
            if not is_gone(text):
                yield _summary(id.decode(), text, envelope)


def _these(caller: Caller, ids: Sequence[str]) -> Iterator[Summary]:
    for first in range(0, len(ids), _PAGE):
        page = ids[first : first + _PAGE]
        _, texts = caller.run(LOOK, {"ids": page})
        envelopes = caller.ask("HMGET", caller.key("envelope"), *page)
        for id, text, envelope in zip(page, texts, envelopes, strict=True):
            if not is_gone(text):
                yield _summary(id, text, envelope)


def _pages(caller: Caller, after: str, first: int) -> Iterator[tuple[Any, Any, Any]]:
    many = min(max(first, 1), _PAGE)
    while True:
        _, ids, texts, envelopes = caller.run(PAGE, {"after": after, "many": many, "envelopes": True})
        yield ids, texts, envelopes
        if len(ids) < many:
            return
        after, many = ids[-1].decode(), _PAGE


def _summary(id: str, text: bytes, envelope: bytes | None) -> Summary:
    head = envelope_of(envelope)
    sender, recipients = sender_and_recipients(head)
    try:
        row = Row.read(id, text)
    except CorruptRecord as error:
        row = Row.unreadable(text, str(error))
    return standings.summary(
        row.standing,
        id=id,
        queue=row.queue,
        priority=row.priority,
        sender=sender,
        recipients=recipients,
        size=row.size,
        attributes=attributes_of(head),
    )


def ages(caller: Caller, borders: Sequence[dt.datetime]) -> Iterator[Group]:
    """See :meth:`outbox.ages.SupportsAges.ages`; a group for each message."""
    older = [micros(border) for border in borders]
    for ids, texts, envelopes in _pages(caller, "", _PAGE):
        for id, text, envelope in zip(ids, texts, envelopes, strict=True):
            if is_gone(text):
                continue
            standing = _row(id.decode(), text).standing
            if standing.queued:
                _, recipients = sender_and_recipients(envelope_of(envelope))
                age = sum(standing.submitted <= border for border in older)
                waiting = (r for r, fate in zip(recipients, standing.fates, strict=False) if fate.open)
                yield Group(1, age, domains(waiting))


def _row(id: str, text: bytes) -> Row:
    try:
        return Row.read(id, text)
    except CorruptRecord as error:
        return Row.unreadable(text, str(error))
