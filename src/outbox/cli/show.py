"""All that is known of one message: who got it, what was tried, what was said.

The id may be cut short, to eight characters at least, where only one message
begins so.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from outbox.clock import SystemClock
from outbox.errors import ConfigurationError, CorruptRecord
from outbox.lifecycle import Attempt, Event, Fate, Record, State, Summary
from outbox.message import Message
from outbox.protocols import SupportsBrowse
from outbox.values import printable

from .exits import CommandError, Exit
from .output import Console, ago, columns, instant
from .records import RESULTS, full_id, record_data, reply_of, summary_of
from .settings import browsable, config_of, message_id, opened_store

__all__ = ["arguments", "run"]

_ANEW: Final = "requeued: the count begins anew"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", type=message_id, help="the message")
    parser.add_argument(
        "--content", action="store_true", help="write the message itself, byte for byte, and nothing else"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    with opened_store(config_of(options, console)) as store:
        looked_at = browsable(store)
        try:
            record = _record(looked_at, options.id)
        except (ConfigurationError, CorruptRecord):
            # What is sealed without its key, or damaged, hides nothing else of the message.
            if not (options.content or console.as_json):
                _show_standing(looked_at, options.id, console)
            raise
    if options.content:
        sys.stdout.flush()
        sys.stdout.buffer.write(record.message.content)
        sys.stdout.buffer.flush()
    elif console.as_json:
        console.data(record_data(record))
    else:
        for line in _lines(record.summary, record, SystemClock().now()):
            console.line(line)
    return Exit.OK


def _show_standing(store: SupportsBrowse, text: str, console: Console) -> None:
    summary = summary_of(store, full_id(store, text))
    for line in _lines(summary, None, SystemClock().now()) if summary else ():
        console.line(line)


def _record(store: SupportsBrowse, text: str) -> Record:
    record = store.get(full_id(store, text))
    if record is None:
        raise CommandError(
            Exit.NOT_ALL,
            f"there is no message {printable(text, 80)}: it never was here, or it was delivered and is not "
            "kept any more (see outbox list)",
        )
    return record


def _lines(summary: Summary, record: Record | None, now: dt.datetime) -> Iterator[str]:
    """All that is known of it; without the record, all that the summary tells."""
    for name, value in _facts(summary, record.message if record else None, now):
        if value:
            yield f"{name:<11} {value}"
    yield ""
    yield from columns(
        ("RECIPIENT", "FATE", "LAST ANSWER"), _fates(summary, record.history if record else ())
    )
    if record and (summary.attempts or record.history):
        yield ""
        yield from _history(record, now)


def _facts(summary: Summary, message: Message | None, now: dt.datetime) -> Iterator[tuple[str, str]]:
    yield "id", summary.id
    yield "state", summary.state + (f": {summary.reason}" if summary.reason else "")
    yield "next", _next(summary, now)
    yield "queue", f"{summary.queue}, priority {summary.priority}"
    yield "submitted", _when(summary.submitted_at, now)
    yield "settled", _when(summary.settled_at, now)
    if message:
        yield "not before", _when(message.not_before, now)
        yield "expires", _when(message.expires_at, now)
    yield "sender", printable(summary.sender) or "<> (the null sender: nobody is told of a failure)"
    yield "size", f"{summary.size:,} bytes (outbox show --content {summary.id})"
    if message:
        yield "at most", "once" if message.at_most_once else ""
        for name, value in message.attributes.items():
            yield "attribute", f"{printable(name)}={printable(value)}"


def _when(moment: dt.datetime | None, now: dt.datetime) -> str:
    return f"{instant(moment)} ({ago(moment, now)})" if moment else ""


def _next(summary: Summary, now: dt.datetime) -> str:
    if summary.due_at is not None:
        return f"due {_when(summary.due_at, now)}"
    if summary.leased_until is not None:
        return f"with a worker; its lease ends {_when(summary.leased_until, now)}"
    if summary.state in (State.DEAD, State.HELD, State.CANCELLED):
        doubt = {Fate.UNCERTAIN, Fate.DOUBTFUL} & set(summary.fates.values())
        uncertain = " --uncertain" if doubt else ""
        return f"nothing, until a person says so: outbox requeue{uncertain} {summary.id}"
    return ""


def _fates(summary: Summary, history: Sequence[Attempt]) -> Sequence[Sequence[str]]:
    rows = []
    for recipient, fate in summary.fates.items():
        results = (a.results[recipient] for a in reversed(history) if recipient in a.results)
        reply = next(filter(None, map(reply_of, results)), "")
        rows.append((printable(recipient), str(fate), reply))
    return rows


def _history(record: Record, now: dt.datetime) -> Iterator[str]:
    """Every attempt, those that nothing was heard of included."""
    expected = 1
    for attempt in record.history:
        if attempt.number < expected:
            yield _ANEW
            expected = 1
        yield from map(_unheard, range(expected, attempt.number))
        yield from _attempt(attempt, now)
        expected = attempt.number + 1
    last = record.summary.attempts
    if last < expected - 1:
        yield _ANEW
        expected = 1
    for number in range(expected, last + 1):
        under_way = number == last and record.summary.state is State.CLAIMED
        yield f"try {number}: under way" if under_way else _unheard(number)


def _unheard(number: int) -> str:
    return f"try {number}: never reported back (the worker ended, or lost its lease)"


def _attempt(attempt: Attempt, now: dt.datetime) -> Iterator[str]:
    relay = f" through {printable(attempt.relay)}" if attempt.relay else ""
    said = "to be tried again" if attempt.event is Event.RETRY else str(attempt.event)
    reason = f", {printable(attempt.reason)}" if attempt.reason and not attempt.results else ""
    yield f"try {attempt.number}, {_when(attempt.at, now)}{relay}: {said}{reason}"
    rows = [
        ("  " + printable(r), RESULTS[type(result)], reply_of(result))
        for r, result in attempt.results.items()
    ]
    yield from columns(("", "", ""), rows)[1:]
    if attempt.dialogue:
        yield "  what was said (C: by us, S: by the server, after so many milliseconds):"
        # A stranger's store may hand out what no transport would.
        yield from (f"  {printable(line)}" for line in attempt.dialogue.split("\n"))
