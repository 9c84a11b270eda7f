"""What is in a message of SQS: where a message of ours stands, what was learned of it, and the message itself."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, Final

import attrs

from outbox.codec import decode_results, encode_results
from outbox.errors import CorruptRecord, FormatError
from outbox.lifecycle import Attempt, Event, Fate, State
from outbox.stores.instants import EARLIEST, FOREVER, micros, moment
from outbox.stores.standing import Standing

__all__ = ["Slip"]

_FORMAT: Final = 1
_LETTERS: Final = {fate: fate.value[0] for fate in Fate}
_FATES: Final = {letter: fate for fate, letter in _LETTERS.items()}
_JSON: Final = json.JSONEncoder(separators=(",", ":")).encode


@attrs.frozen(kw_only=True)
class Slip:
    """A message as SQS keeps it.

    Attributes:
        size: Of its content, in bytes.
        standing: As it was when this was written; claims since then SQS counts.
        sealed: What :func:`outbox.codec.encode` made of the message, as
            base64; ``""`` where it was set aside.
        key: Where it was set aside; ``""`` where it was not.
        kept: Since when, by which it may be swept one day; 0 is not known.
        later: Whether it may come before it is due, for SQS delays nothing
            for longer than a quarter of an hour.
    """

    id: str
    size: int
    standing: Standing
    history: tuple[Attempt, ...] = ()
    sealed: str = attrs.field(default="", repr=False)
    key: str = ""
    kept: int = 0
    later: bool = False

    def text(self, most: int) -> str:
        """As it is sent, of *most* characters: where it is longer, the oldest attempts go first, then words of the reason."""
        text = _written(self)
        history = self.history
        while len(text) > most and history:
            history = history[1:]
            text = _written(attrs.evolve(self, history=history))
        if len(text) <= most:
            return text
        return _written(attrs.evolve(self, history=(), standing=_shortened(self.standing, len(text) - most)))

    @classmethod
    def read(cls, text: str) -> Slip:
        """The inverse of :meth:`text`.

        Raises:
            FormatError: a newer release wrote it.
            CorruptRecord: nobody wrote it, or not so.
        """
        try:
            fields = json.loads(text)
            _require_known(_count(fields["outbox"]))
            return cls(
                id=_text(fields["id"]),
                size=_count(fields["size"]),
                standing=_standing(fields),
                history=tuple(map(_attempt, fields["history"])),
                sealed=_text(fields.get("message", "")),
                key=_text(fields.get("blob", "")),
                kept=_instant(fields.get("kept", 0)),
                later=bool(fields.get("later", False)),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise CorruptRecord(f"it is no message of outbox: {error!r:.200}") from error

    def opened(self) -> bytes:
        """What is sealed; raises CorruptRecord."""
        try:
            return base64.b64decode(self.sealed, validate=True)
        except binascii.Error as error:
            raise CorruptRecord(f"{self.id}: its message cannot be read: {error}") from error


def _require_known(version: int) -> None:
    if version > _FORMAT:
        raise FormatError(f"it has format {version}, this release reads {_FORMAT}: upgrade outbox")
    if version != _FORMAT:
        raise ValueError(f"there is no format {version}")


def _written(slip: Slip) -> str:
    standing = slip.standing
    fields: dict[str, Any] = {
        "outbox": _FORMAT,
        "id": slip.id,
        "size": slip.size,
        "state": standing.state.value,
        "fates": "".join(_LETTERS[fate] for fate in standing.fates),
        "due": standing.due,
        "since": standing.since,
        "submitted": standing.submitted,
        "settled": standing.settled,
        "attempts": standing.attempts,
        "lost": standing.lost,
        "reason": standing.reason,
        "history": [_attempt_fields(attempt) for attempt in slip.history],
    }
    if slip.later:
        fields["later"] = True
    return _JSON(fields | ({"blob": slip.key, "kept": slip.kept} if slip.key else {"message": slip.sealed}))


def _shortened(standing: Standing, over: int) -> Standing:
    """The same with a reason that is shorter by so many characters as it is written, if it is so long."""
    room = max(0, len(_JSON(standing.reason)) - over - len(_JSON("…")))
    reason = standing.reason
    while reason and len(_JSON(reason)) > room:
        reason = reason[: len(reason) * 3 // 4]
    return attrs.evolve(standing, reason=reason + "…")


def _standing(fields: dict[str, Any]) -> Standing:
    settled = fields["settled"]
    return Standing(
        state=State(fields["state"]),
        fates=tuple(_FATES[letter] for letter in fields["fates"]),
        due=_instant(fields["due"]),
        since=_instant(fields["since"]),
        submitted=_instant(fields["submitted"]),
        settled=None if settled is None else _instant(settled),
        attempts=_count(fields["attempts"]),
        lost=_count(fields["lost"]),
        reason=_text(fields["reason"]),
    )


def _attempt_fields(attempt: Attempt) -> Sequence[Any]:
    return [
        attempt.number,
        micros(attempt.at),
        attempt.event.value,
        attempt.relay,
        attempt.reason,
        json.loads(encode_results(attempt.results)),
        attempt.dialogue,
    ]


def _attempt(fields: Sequence[Any]) -> Attempt:
    number, at, event, relay, reason, results, dialogue = fields
    return Attempt(
        number=_count(number),
        at=moment(_instant(at)),
        event=Event(event),
        relay=_text(relay),
        reason=_text(reason),
        results=decode_results(_JSON(results)),
        dialogue=_text(dialogue),
    )


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise ValueError(f"{value!r:.80} is no text")


def _count(value: Any) -> int:
    if type(value) is int and value >= 0:
        return value
    raise ValueError(f"{value!r:.80} counts nothing")


def _instant(value: Any) -> int:
    if type(value) is int and EARLIEST <= value <= FOREVER:
        return value
    raise ValueError(f"{value!r:.80} is no instant")
