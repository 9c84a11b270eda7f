"""Messages on their way in, all or none."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import attrs

from outbox.codec import encode_envelope
from outbox.errors import InvalidMessage, UnsupportedError
from outbox.lifecycle import Claim, Fate, PutResult
from outbox.message import Message
from outbox.stores import intake, standing as standings
from outbox.stores.content import Codings
from outbox.stores.instants import FOREVER, micros, width
from outbox.stores.limits import Limits, Load
from outbox.stores.retention import Retention

from .caller import Caller, fresh_nonce
from .rows import Row, letters
from .scripts import PUT
from .tidings import Number, number

__all__ = ["MOST_AT_ONCE", "MOST_MESSAGES", "Putting", "Stored", "kept_envelope", "kept_span"]

_MOST_CONTENT: Final = (512 << 20) - (1 << 16)
"""Redis keeps 512 MiB in one value."""
MOST_MESSAGES: Final = 5_000
"""All or none is one script, and for as long as a script runs the server does nothing else."""
_MOST_PLAIN: Final = 500
"""So many values a script can hand to one command, and more."""
_WAITING: Final = letters([Fate.WAITING])
MOST_AT_ONCE: Final = 256 << 20
"""A request of 1 GiB the server would not read to its end."""


@attrs.frozen(kw_only=True)
class _Lease:
    """Under which what is new is stored."""

    width: dt.timedelta
    attempted: bool


@attrs.frozen
class Stored:
    """What a put answers."""

    results: Sequence[PutResult]
    claims: Sequence[Claim]
    news: Number


@attrs.frozen
class Putting:
    """What a store puts with."""

    caller: Caller
    codings: Codings
    retention: Retention
    limits: Limits

    def put(
        self, messages: Sequence[Message], *, lease: dt.timedelta | None = None, attempted: bool = False
    ) -> Stored:
        """See :meth:`outbox.protocols.Intake.put`; with a *lease*, see :meth:`~outbox.protocols.SupportsHandOver.put_claimed`."""
        if lease is None and self._may_be_plain(messages):
            news = self._put_new(messages)
            if news is not None:
                return Stored([PutResult(message.id, "stored") for message in messages], [], number(news))
        drafts = [intake.Draft(message, message.envelope_digest) for message in messages]
        unique, _ = intake.sift(drafts, {})
        if not unique:
            return Stored([], [], (0, 0))
        _require_few(unique)
        content = [part for draft in unique for part in self.kept(draft.message)]
        held = None if lease is None else _Lease(width=lease, attempted=attempted)
        answer = self.caller.run(
            PUT, self._args(unique, held), queues=[d.message.queue for d in unique], content=content, put=True
        )
        return self._stored(drafts, answer)

    def _may_be_plain(self, messages: Sequence[Message]) -> bool:
        """Whether they are what most puts are, as far as it can be told here."""
        if not 0 < len(messages) <= _MOST_PLAIN or self.limits.any:
            return False
        queue = messages[0].queue
        return len({message.id for message in messages}) == len(messages) and all(
            message.queue == queue and message.not_before is None for message in messages
        )

    def _put_new(self, messages: Sequence[Message]) -> bytes | None:
        """The news; None where there was more to be decided, and nothing was written."""
        size = 0
        args: list[str | bytes] = [f"queue:{messages[0].queue}", ""]
        for message in messages:
            envelope, content = self.kept(message)
            size += len(message.content)
            args += (message.id, _beginning(message), f"{100 - message.priority:03d}:", envelope, content)
        if len(messages) > 1 and size > MOST_AT_ONCE:
            return None
        args[1] = str(size)
        news: bytes | None = self.caller.run_new(messages[0].queue, args)
        return news

    def kept(self, message: Message) -> tuple[bytes, bytes]:
        """The envelope and the content as they are kept; raises InvalidMessage where that is too much."""
        content = self.codings.encode(message.content, message.id)
        if len(content) > _MOST_CONTENT:
            raise InvalidMessage(
                f"the content of {message.id} has {len(content)} bytes, and Redis keeps {_MOST_CONTENT} at most"
            )
        return kept_envelope(message, self.codings.name), content

    def _args(self, drafts: Sequence[intake.Draft], lease: _Lease | None) -> dict[str, Any]:
        return {
            "drafts": [_draft(draft) for draft in drafts],
            "remember": str(width(self.retention.remember)),
            **self.room(),
            "lease": False if lease is None else kept_span(lease.width),
            "attempted": lease is not None and lease.attempted,
            "nonce": "" if lease is None else fresh_nonce(),
        }

    def room(self) -> dict[str, str]:
        """The limits, as the scripts take them."""
        return {
            "max_messages": _or_nothing(self.limits.max_messages),
            "max_bytes": _or_nothing(self.limits.max_bytes),
        }

    def _stored(self, drafts: Sequence[intake.Draft], answer: Sequence[Any]) -> Stored:
        word, *rest = answer
        if word == b"conflict":
            intake.sift(drafts, _known(rest))
        if word == b"full":
            held, held_bytes, new, new_bytes = map(int, rest)
            self.limits.require_room(Load(held, held_bytes), Load(new, new_bytes))
        now, news, known, claimed = rest
        _, results = intake.sift(drafts, _known(known))
        # Of one id that comes twice the first content stands.
        messages = {draft.id: draft.message for draft in reversed(drafts)}
        claims = [
            _claim(messages[id.decode()], text, int(now))
            for id, text in zip(claimed[::2], claimed[1::2], strict=True)
        ]
        return Stored(results, claims, number(news))


def _require_few(drafts: Sequence[intake.Draft]) -> None:
    size = sum(len(draft.message.content) for draft in drafts)
    if len(drafts) > MOST_MESSAGES or (len(drafts) > 1 and size > MOST_AT_ONCE):
        raise UnsupportedError(
            f"{len(drafts):,} messages with {size / (1 << 20):,.0f} MiB of content are too much for one put: Redis does "
            f"nothing else meanwhile, and takes {MOST_MESSAGES:,} with {MOST_AT_ONCE >> 20} MiB at most; "
            "put them in several parts"
        )


def _known(pairs: Sequence[bytes]) -> dict[str, bytes]:
    return {
        id.decode(): bytes.fromhex(digest.decode())
        for id, digest in zip(pairs[::2], pairs[1::2], strict=True)
    }


def _claim(message: Message, text: bytes, now: int) -> Claim:
    row = Row.read(message.id, text)
    return standings.claim(message, row.standing, row.token, now)


def _beginning(message: Message) -> str:
    """Of the row of a message that is put, as far as the time that the server writes."""
    digest = message.envelope_digest.hex()
    fates = _WAITING * len(message.recipients)
    return f"{message.queue}\t{message.priority}\t{len(message.content)}\t{digest}\t0\t\tqueued\t{fates}\t"


def _draft(draft: intake.Draft) -> Sequence[Any]:
    message = draft.message
    return (
        message.id,
        message.queue,
        message.priority,
        len(message.content),
        draft.envelope_digest.hex(),
        letters([Fate.WAITING] * len(message.recipients)),
        "" if message.not_before is None else str(micros(message.not_before)),
    )


def kept_envelope(message: Message, coding: str) -> bytes:
    """The envelope as it is kept: behind the line that names the coding of the content."""
    return coding.encode() + b"\n" + encode_envelope(message)


def kept_span(duration: dt.timedelta) -> str:
    """A duration as the scripts take it; longer than all time is as long as that."""
    return str(min(width(duration), FOREVER))


def _or_nothing(limit: int | None) -> str:
    return "" if limit is None else str(limit)
