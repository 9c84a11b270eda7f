"""What is known of a message: as data for a program, as an id for a person."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import attrs

from outbox.lifecycle import Attempt, Record, Summary
from outbox.outcome import Accepted, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.protocols import Store, SupportsBrowse
from outbox.values import printable

from .exits import CommandError, Exit

__all__ = ["RESULTS", "full_id", "full_id_to_change", "record_data", "reply_of", "summary_data", "summary_of"]

RESULTS: Final = {
    Accepted: "accepted",
    TempFailed: "deferred",
    PermFailed: "refused",
    Uncertain: "uncertain",
    Untried: "untried",
}
"""How the result of an attempt is called to a person."""

_WHOLE: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BEGINNING: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f-]{0,27})?")
_SHORTEST: Final = 8


def summary_of(store: SupportsBrowse, id: str) -> Summary | None:
    """What a list shows of it, which takes nothing that may be sealed or damaged."""
    return next((each for each in store.browse(after=_just_before(id), limit=1) if each.id == id), None)


def summary_data(summary: Summary) -> dict[str, Any]:
    return attrs.asdict(summary, recurse=False) | {
        "fates": dict(summary.fates),
        "attributes": None if summary.attributes is None else dict(summary.attributes),
        "by_hand": summary.by_hand,
    }


def record_data(record: Record) -> dict[str, Any]:
    message = record.message
    return summary_data(record.summary) | {
        "attributes": dict(message.attributes),
        "not_before": message.not_before,
        "expires_at": message.expires_at,
        "at_most_once": message.at_most_once,
        "history": [_attempt_data(attempt) for attempt in record.history],
    }


def _attempt_data(attempt: Attempt) -> dict[str, Any]:
    results = {
        recipient: {"result": RESULTS[type(result)], "reply": reply_of(result)}
        for recipient, result in attempt.results.items()
    }
    dialogue = attempt.dialogue.split("\n") if attempt.dialogue else []
    return attrs.asdict(attempt, recurse=False) | {"results": results, "dialogue": dialogue}


def reply_of(result: Result) -> str:
    return result.reply


def full_id(store: SupportsBrowse, text: str) -> str:
    """The id that *text* begins, where it is the only one; *text* itself where none begins so.

    Raises:
        CommandError: more than one id begins so.
    """
    if _WHOLE.fullmatch(text) or len(text) < _SHORTEST:
        return text
    page = store.browse(after=_just_before(text), limit=3)
    found = [summary.id for summary in page if summary.id.startswith(text)]
    if not found or found[0] == text:
        return text
    if len(found) > 1:
        raise _ambiguous(text, found)
    return found[0]


def full_id_to_change(store: Store, text: str) -> str:
    """As :func:`full_id`, where the id is one that was drawn.

    Of two that a caller chose, ``order-471`` and ``order-4711``, the one that
    is gone must not be taken for the other.
    """
    if not _BEGINNING.fullmatch(text) or not isinstance(store, SupportsBrowse):
        return text
    found = full_id(store, text)
    return found if _WHOLE.fullmatch(found) else text


def _just_before(text: str) -> str:
    # What sorts behind this and before `text` holds a character that no id has.
    return f"{text[:-1]}{chr(ord(text[-1]) - 1)}\x7f"


def _ambiguous(text: str, found: Sequence[str]) -> CommandError:
    return CommandError(
        Exit.USAGE,
        f"more than one id begins with {printable(text, 80)}: {', '.join(found)}; write more of it "
        "(ids made at one moment begin alike)",
    )
