"""What happens, as lines of the standard library's logging.

``outbox.delivery`` has one for each recipient at each attempt, and what
becomes of relays; ``outbox.queue`` what becomes of each message, from its
submit to its end, and of leases and the store.  Each record carries its
fields as ``extra``; its text is the same fields as ``key=value`` pairs.
Nothing of a message is logged but its envelope and its Message-ID.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from .errors import RelayMisconfigured
from .events import Delayed, LeaseLost, Notice, RelayPaused, RelayResumed, Settled, StoreFailed, Submitted
from .formats import logfmt
from .lifecycle import TRANSITIONS, Delivered, Event, Fate, Released, Retry, State, Verdict
from .message import Message
from .values import frozen_mapping, printable, words_of

__all__ = ["about", "log_notice", "reply_of"]

_DELIVERY: Final = logging.getLogger("outbox.delivery")
_QUEUE: Final = logging.getLogger("outbox.queue")

_HEAD: Final = 64 << 10
_FIELD: Final = re.compile(rb"[A-Za-z0-9_-]+:")
_MESSAGE_ID: Final = re.compile(rb"(?im)^message-id:(?:[ \t]|\r\n[ \t])*<([!-;=?-~]{1,250})>[ \t]*\r$")

_STATUS: Final[Mapping[Fate, str]] = frozen_mapping(
    {
        Fate.ACCEPTED: "sent",
        Fate.FAILED: "failed",
        Fate.UNCERTAIN: "uncertain",
        Fate.WAITING: "deferred",
        Fate.DOUBTFUL: "deferred",
    }
)


@attrs.frozen
class _Line:
    """One line to be, where it is asked for."""

    log: logging.Logger
    level: int
    fields: Mapping[str, Any]


def log_notice(notice: Notice) -> None:
    """Log one notice: what goes well at INFO, what waits or failed at WARNING, what a person must mend at ERROR."""
    for line in _lines(notice):
        fields = {name: _harmless(value) for name, value in line.fields.items()}
        line.log.log(line.level, "%s", logfmt(fields), extra=fields)


def _harmless(value: Any) -> Any:
    """For whatever formatter: as text without control characters, where it is neither a number nor a duration."""
    return value if type(value) is int or isinstance(value, dt.timedelta) else printable(words_of(value))


def _lines(notice: Notice) -> Iterator[_Line]:
    match notice:
        case Settled():
            yield from _settled(notice)
        case Delayed(claim=claim):
            fields = {"status": "late", **_envelope(claim.message), "attempts": claim.attempt}
            yield _Line(_QUEUE, logging.WARNING, fields | {"delay": claim.age, "error": notice.reason})
        case Submitted(message=message, status=status):
            if _QUEUE.isEnabledFor(logging.INFO):
                fields = {"status": "queued" if status == "stored" else status, **_envelope(message)}
                yield _Line(_QUEUE, logging.INFO, fields | {"size": len(message.content)})
        case LeaseLost(claim=claim):
            fields = {"status": "lease lost", **_envelope(claim.message), "attempts": claim.attempt}
            yield _Line(_QUEUE, logging.WARNING, fields | {"error": "another worker has it"})
        case RelayPaused(fault=fault, wait=wait):
            level = logging.ERROR if isinstance(fault, RelayMisconfigured) else logging.WARNING
            fields = {"status": "relay paused", "relay": notice.relay or fault.relay, "due_in": wait}
            yield _Line(_DELIVERY, level, fields | {"error": fault})
        case RelayResumed(relay=relay):
            yield _Line(_DELIVERY, logging.INFO, {"status": "relay resumed", "relay": relay or "(default)"})
        case StoreFailed(error=error, wait=wait, claims=claims):
            fields = {"status": "store failed", "due_in": wait, "error": error}
            unwritten = ",".join(claim.message.id for claim in claims)
            yield _Line(_QUEUE, logging.ERROR, fields | ({"unwritten": unwritten} if claims else {}))


def _settled(notice: Settled) -> Iterator[_Line]:
    verdict = notice.verdict
    level = logging.DEBUG if isinstance(verdict, Released) else logging.INFO
    if _DELIVERY.isEnabledFor(level):
        for recipient in notice.claim.recipients:
            yield _Line(_DELIVERY, level, about(notice, recipient))
    level = logging.INFO if isinstance(verdict, Delivered | Released) else logging.WARNING
    if _QUEUE.isEnabledFor(level):
        yield _Line(_QUEUE, level, _of_message(notice))


def about(notice: Settled, recipient: str) -> dict[str, Any]:
    """The fields of one recipient at one attempt: docs/monitoring.md has a table of them."""
    claim, verdict = notice.claim, notice.verdict
    fate = verdict.fates[recipient]
    status = "released" if isinstance(verdict, Released) else _STATUS[fate]
    fields: dict[str, Any] = {"status": status, "to": recipient, **_envelope(claim.message, several=False)}
    fields |= {"fate": fate, "state": TRANSITIONS[State.CLAIMED, verdict.event], "attempts": claim.attempt}
    if verdict.outcome is not None:
        fields |= {"relay": verdict.outcome.relay}
    fields |= {"delay": claim.age + notice.took}
    if verdict.outcome is not None:
        fields |= {"took": notice.took}
    if isinstance(verdict, Retry | Released) and fate.open:
        fields["due_in"] = verdict.delay
    reply = reply_of(verdict, recipient)
    if reply:
        return fields | {"reply": reply}
    return fields | _why(verdict)


def reply_of(verdict: Verdict, recipient: str) -> str:
    """What was said of this recipient at this attempt; ``""`` where nothing was."""
    result = verdict.outcome.results.get(recipient) if verdict.outcome is not None else None
    return "" if result is None else result.reply


def _of_message(notice: Settled) -> dict[str, Any]:
    claim, verdict = notice.claim, notice.verdict
    status = "deferred" if verdict.event is Event.RETRY else str(verdict.event)
    fields: dict[str, Any] = {"status": status, **_envelope(claim.message), "attempts": claim.attempt}
    fields["delay"] = claim.age + notice.took
    if isinstance(verdict, Retry | Released):
        fields["due_in"] = verdict.delay
    return fields | _why(verdict)


def _why(verdict: Verdict) -> dict[str, str]:
    # There is none where the last one was accepted, and another had failed before.
    return {} if isinstance(verdict, Delivered) or not verdict.reason else {"error": verdict.reason}


def _envelope(message: Message, *, several: bool = True) -> dict[str, Any]:
    msgid = _message_id(message.content)
    fields: dict[str, Any] = {"msgid": msgid} if msgid else {}
    fields |= {"from": message.sender or "<>", "id": message.id, "queue": message.queue}
    return fields | {"recipients": len(message.recipients)} if several else fields


def _message_id(content: bytes) -> str:
    """The Message-ID of a mail; ``""`` where it is none, or has none.  Nothing behind the header is looked at."""
    if _FIELD.match(content) is None:
        return ""
    end = content.find(b"\r\n\r\n", 0, _HEAD)
    found = _MESSAGE_ID.search(content, 0, _HEAD if end < 0 else end + 2)
    return "" if found is None else found[1].decode("ascii")
