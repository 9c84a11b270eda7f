"""Messages that leave for another store.

What is under way is a field of the store's meta data, with the rows as they
were; the rows themselves are claimed until the end of time meanwhile.  What
is decided here is written only where note and rows are still what was read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

import attrs

from outbox.errors import CorruptRecord, FormatError, StoreUnavailable
from outbox.lifecycle import Record, State
from outbox.moving import Abandoned, Batch
from outbox.protocols import Finding
from outbox.stores import carrying, standing as standings
from outbox.stores.content import Codings
from outbox.stores.retention import Retention

from .caller import Caller, fresh_nonce
from .claiming import read
from .counting import queues as queues_of
from .durability import lasting, make_lasting, require_lasting
from .rows import Row, history
from .scripts import CONCLUDE, DETAINED, IDENTITY, LEAVERS, LOOK, TAKE
from .steering import LEFT, is_gone
from .tidings import NOTHING, Number, number

__all__ = [
    "abandon",
    "check",
    "conclude",
    "identity",
    "take",
]

_TRIES: Final = 10
_MOST: Final = 1000
"""One batch has no more: for as long as a script runs, the server does nothing else."""
_PAGE: Final = 1000
_LEAVING: Final = "leaving"
_SETTLED: Final = [state.value for state in State if state not in (State.QUEUED, State.CLAIMED)]


def identity(caller: Caller) -> str:
    """See :meth:`outbox.moving.SupportsMove.identity`."""
    require_lasting(caller, first=True)
    _, found = lasting(caller, IDENTITY, {"fresh": 2 * fresh_nonce()})
    return str(found.decode("ascii", "backslashreplace"))


def _known_identity(caller: Caller) -> str:
    found = caller.ask("HGET", caller.key("meta"), "store") or b""
    return str(found.decode("ascii", "backslashreplace"))


@attrs.frozen
class _Leaving:
    """What is under way; after it was concluded only its name is left, which the next one's is greater than.

    Attributes:
        read: The note of it, as it was read.
        stood: The row of each message as it was, but for its token.
    """

    read: bytes = b""
    name: str = ""
    to: str = ""
    stood: Mapping[str, Row] = attrs.field(factory=dict)

    @classmethod
    def of(cls, caller: Caller) -> _Leaving:
        """Raise CorruptRecord where it cannot be read."""
        text = _note(caller)
        if not text:
            return cls()
        try:
            name, to, stood = json.loads(text)
            return cls(
                text, str(name), str(to), {id: Row.read(id, row.encode()) for id, row in stood.items()}
            )
        except (ValueError, TypeError, AttributeError, CorruptRecord) as error:
            raise carrying.damaged(error) from error

    @property
    def ended(self) -> str:
        return json.dumps([self.name, self.to, {}])

    def frozen(self, id: str) -> bytes:
        """The row of this message while it is under way."""
        return _frozen(self.stood[id]).text.encode()


def _note(caller: Caller) -> bytes:
    return caller.ask("HGET", caller.key("meta"), _LEAVING) or b""


def _frozen(row: Row) -> Row:
    return attrs.evolve(row, standing=carrying.leaving(row.standing))


def take(
    caller: Caller,
    codings: Codings,
    *,
    to: str,
    limit: int,
    max_bytes: int,
    leave: Collection[str],
    after: str,
) -> Batch | None:
    """See :meth:`outbox.moving.SupportsMove.take`."""
    require_lasting(caller)
    source = _known_identity(caller) or identity(caller)
    for _ in range(_TRIES):
        leaving = _Leaving.of(caller)
        if leaving.stood:
            carrying.require_partner(leaving.to, to)
            make_lasting(caller)
            return _again(caller, leaving, source, codings)
        chosen = _chosen(caller, min(limit, _MOST), max_bytes, frozenset(leave)) if limit > 0 else []
        if not chosen:
            return None
        found = _found(caller, chosen, codings)
        if not found.records:
            if not found.unreadable:
                continue
            return Batch(name="", source=source, unreadable=found.unreadable)
        name = carrying.next_name(leaving.name, found.now, after)
        records = _set_aside(caller, leaving, found, name=name, to=to)
        if records:
            return Batch(name=name, source=source, records=records, unreadable=found.unreadable)
    raise StoreUnavailable("its messages move faster than they can be taken: try again")


def _chosen(caller: Caller, limit: int, room: int, leave: frozenset[str]) -> list[str]:
    """What may leave, as it is now, the best first."""
    chosen: dict[str, None] = {}
    for id, text, now in _leavers(caller):
        if id in chosen or id in leave or is_gone(text):
            continue
        try:
            row: Row | None = Row.read(id, text)
        except CorruptRecord:
            row = None
        if row is not None and row.standing.leased(now):
            continue
        room -= 0 if row is None else row.size
        if chosen and room < 0:
            break
        chosen[id] = None
        if len(chosen) == limit:
            break
    return list(chosen)


def _leavers(caller: Caller) -> Iterator[tuple[str, bytes, int]]:
    """Each message with its row, and the time: in pages, so what moves meanwhile may be missed."""
    queues = queues_of(caller)
    onwards: Sequence[int] = (1, 0)
    while onwards:
        lane, at = onwards
        now, ids, texts, onwards = caller.run(
            LEAVERS, {"states": _SETTLED, "lane": lane, "at": at, "many": _PAGE}, queues=queues
        )
        for id, text in zip(ids, texts, strict=True):
            if text is not None:
                yield id.decode(), text, int(now)


@attrs.frozen
class _Found:
    """What was read of messages: the rows with them as they were read, and of which nothing can be made."""

    now: int
    rows: dict[str, tuple[bytes, Row]] = attrs.field(factory=dict)
    records: list[Record] = attrs.field(factory=list)
    unreadable: list[str] = attrs.field(factory=list)


def _found(caller: Caller, ids: Sequence[str], codings: Codings, leaving: _Leaving | None = None) -> _Found:
    """These, as they stand; with *leaving* as they stood, where they are on their way."""
    now, texts, envelopes, contents, past = caller.run(LOOK, {"ids": ids, "whole": True})
    found = _Found(int(now))
    for id, text, envelope, content, *told in zip(
        ids, texts, envelopes, contents, past[::2], past[1::2], strict=True
    ):
        if is_gone(text):
            continue
        try:
            row = Row.read(id, text)
            if leaving is not None:
                if text != leaving.frozen(id):
                    continue
                row = leaving.stood[id]
            elif row.standing.leased(found.now):
                continue
            found.records.append(_record(id, row, (envelope or b"", content or b""), told, codings))
            found.rows[id] = text, row
        except (CorruptRecord, FormatError):
            found.unreadable.append(id)
    return found


def _record(
    id: str, row: Row, content: tuple[bytes, bytes], told: Sequence[bytes], codings: Codings
) -> Record:
    message = read(id, row, *content, codings)
    summary = standings.summary(
        row.standing,
        id=id,
        queue=row.queue,
        priority=row.priority,
        sender=message.sender,
        recipients=message.recipients,
        size=row.size,
        attributes=message.attributes,
    )
    return Record(summary=summary, message=message, history=history(id, *told))


def _again(caller: Caller, leaving: _Leaving, source: str, codings: Codings) -> Batch:
    found = _found(caller, list(leaving.stood), codings, leaving)
    return Batch(name=leaving.name, source=source, records=found.records, unreadable=found.unreadable)


def _set_aside(caller: Caller, leaving: _Leaving, found: _Found, *, name: str, to: str) -> list[Record]:
    """See that nobody gets them; those that were still as they were read, and none where another was quicker."""
    nonce = fresh_nonce()
    changes: list[tuple[str, str, bool]] = []
    notes: list[str] = []
    for id, (_, row) in found.rows.items():
        stood = attrs.evolve(row, token=row.next_token(nonce))
        changes.append((id, _frozen(stood).text, False))
        notes.append(f"{json.dumps(id)}:{json.dumps(stood.text)}")
    _, done, passed = lasting(
        caller,
        TAKE,
        {"changes": changes, "notes": notes, "note": [json.dumps([name, to])[:-1] + ",{", "}]"]},
        queues=[row.queue for _, row in found.rows.values()],
        content=[leaving.read, *(text for text, _ in found.rows.values())],
    )
    return [] if not done else [record for place, record in enumerate(found.records) if place not in passed]


def conclude(caller: Caller, retention: Retention, name: str, back: Collection[str]) -> Number:
    """See :meth:`outbox.moving.SupportsMove.conclude`."""
    while True:
        leaving = _Leaving.of(caller)
        if name != leaving.name or not leaving.stood:
            make_lasting(caller)
            return NOTHING
        answer = _concluded(caller, leaving, retention, frozenset(back))
        if answer is not None:
            return answer


def _concluded(
    caller: Caller, leaving: _Leaving, retention: Retention, back: frozenset[str]
) -> Number | None:
    """The news; None where another was quicker."""
    changes = {
        id: (id, row.text if id in back else "", retention.remembers, LEFT)
        for id, row in leaving.stood.items()
    }
    _, done, _, news = lasting(
        caller,
        CONCLUDE,
        {"changes": list(changes.values()), "note": leaving.ended},
        queues=[row.queue for row in leaving.stood.values()],
        content=[leaving.read, *map(leaving.frozen, changes)],
    )
    return number(news) if done else None


def abandon(caller: Caller, retention: Retention) -> tuple[Abandoned, Number]:
    """See :meth:`outbox.moving.SupportsMove.abandon`."""
    require_lasting(caller)
    try:
        leaving = _Leaving.of(caller)
    except CorruptRecord:
        return _held(caller)
    news = conclude(caller, retention, leaving.name, list(leaving.stood))
    return Abandoned(given_back=len(leaving.stood)), news


def _held(caller: Caller) -> tuple[Abandoned, Number]:
    note, frozen = _note(caller), list(_detained(caller))
    changes = [
        (id, attrs.evolve(row, standing=carrying.untold(row.standing, now)).text, False)
        for id, _, row, now in frozen
    ]
    _, done, passed, _ = lasting(
        caller,
        CONCLUDE,
        {"changes": changes, "note": _Leaving().ended},
        queues=[row.queue for _, _, row, _ in frozen],
        content=[note, *(text for _, text, _, _ in frozen)],
    )
    return Abandoned(held=len(changes) - len(passed) if done else 0), NOTHING


def _detained(caller: Caller) -> Iterator[tuple[str, bytes, Row, int]]:
    """What is on its way, whatever is noted."""
    for queue in queues_of(caller):
        at = 0
        while True:
            now, ids, texts = caller.run(DETAINED, {"at": at, "many": _PAGE}, queues=[queue])
            for raw, text in zip(ids, texts, strict=True):
                row = _readable(raw.decode(), text)
                if row is not None and row.standing == carrying.leaving(row.standing):
                    yield raw.decode(), text, row, int(now)
            if len(ids) < _PAGE:
                break
            at += _PAGE


def _readable(id: str, text: bytes | None) -> Row | None:
    try:
        return None if text is None or is_gone(text) else Row.read(id, text)
    except CorruptRecord:
        return None


def check(caller: Caller, now: int) -> Iterator[Finding]:
    """What ``check`` says of what is under way."""
    return carrying.findings(lambda: _Leaving.of(caller), now)
