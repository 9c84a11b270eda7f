"""Messages that come from another store, each batch once: what was given last is noted by the script that stores it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from outbox.errors import AmbiguousPut, CorruptRecord, InvalidMessage
from outbox.lifecycle import Attempt, Record
from outbox.moving import Batch
from outbox.stores import carrying
from outbox.stores.carrying import Given
from outbox.stores.instants import micros
from outbox.stores.limits import Load

from .caller import fresh_nonce
from .durability import lasting, make_lasting
from .putting import MOST_AT_ONCE, MOST_MESSAGES, Putting
from .rows import Row, attempt_text
from .scripts import GIVE
from .tidings import NOTHING, Number, number

__all__ = ["give", "last_given"]

_GIVEN: Final = "given:"


def last_given(putting: Putting, source: str) -> str:
    """See :meth:`outbox.moving.SupportsMove.last_given`."""
    return _given(_note(putting, source)).name


def _note(putting: Putting, source: str) -> bytes:
    return putting.caller.ask("HGET", putting.caller.key("meta"), _GIVEN + source) or b""


def _given(note: bytes) -> Given:
    return Given.decode(note.decode()) if note else Given()


def give(putting: Putting, batch: Batch) -> tuple[Sequence[str], Number]:
    """See :meth:`outbox.moving.SupportsMove.give`; with the news."""
    made: list[_Arrival] | None = None
    while True:
        note = _note(putting, batch.source)
        last = _given(note)
        if last.repeats(batch):
            make_lasting(putting.caller)
            return last.refused, NOTHING
        if made is None:
            made = _arrivals(putting, batch)
        word, *rest = _asked(putting, batch, made, note)
        if word == b"full":
            held, held_bytes, new, new_bytes = map(int, rest)
            putting.limits.require_room(Load(held, held_bytes), Load(new, new_bytes))
        if word == b"given":
            _, news, refused = rest
            return (*(id.decode() for id in refused), *batch.unreadable), number(news)


@attrs.frozen
class _Arrival:
    """What is written of a record."""

    row: Row
    parts: Sequence[bytes]


def _arrivals(putting: Putting, batch: Batch) -> list[_Arrival]:
    nonce = fresh_nonce()
    made = [_arrival(putting, record, nonce) for record in batch.records]
    size = sum(len(part) for arrival in made for part in arrival.parts)
    if len(made) > MOST_MESSAGES or (len(made) > 1 and size > MOST_AT_ONCE):
        raise InvalidMessage(
            f"{len(made):,} messages with {size / (1 << 20):,.0f} MiB are too much at once: Redis does nothing else "
            f"meanwhile, and takes {MOST_MESSAGES:,} with {MOST_AT_ONCE >> 20} MiB at most"
        )
    return made


def _arrival(putting: Putting, record: Record, nonce: str) -> _Arrival:
    message = record.message
    row = Row(
        queue=message.queue,
        priority=message.priority,
        size=record.summary.size,
        digest=message.envelope_digest,
        # No claim of an earlier message of this id has it.
        token=f"0-{nonce}",
        standing=carrying.arrived(record),
    )
    text = row.text.encode("utf-8", "backslashreplace")
    try:
        Row.read(message.id, text)
    except CorruptRecord as error:
        raise InvalidMessage(f"Redis cannot hold {message.id} as it stands: {error}") from error
    return _Arrival(row, (text, *putting.kept(message), *_history(record.history)))


def _history(history: Sequence[Attempt]) -> tuple[bytes, bytes]:
    """As :func:`.rows.history` reads it."""
    texts = [attempt_text(attempt) for attempt in history]
    past = "\n".join(f"{micros(made.at)}\t{text}" for made, (text, _) in zip(history, texts, strict=True))
    said = [f"{place}\t{dialogue}" for place, (_, dialogue) in enumerate(texts) if dialogue]
    return past.encode(), (said[-1] if said else "").encode()


def _asked(putting: Putting, batch: Batch, made: Sequence[_Arrival], note: bytes) -> Any:
    args = {
        "source": batch.source,
        "name": batch.name,
        "ids": [record.message.id for record in batch.records],
        "unreadable": batch.unreadable,
        **putting.room(),
    }
    content = [note, *(part for arrival in made for part in arrival.parts)]
    queues = [arrival.row.queue for arrival in made]
    try:
        return lasting(putting.caller, GIVE, args, queues=queues, content=content, put=True)
    except AmbiguousPut as error:
        raise AmbiguousPut(f"{error}; give the same batch again") from error.__cause__
