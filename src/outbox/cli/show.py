"""All that is known of one message: who got it, what was tried, what was said.

The id may be cut short, to eight characters at least, where only one message
begins so.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from outbox.clock import SystemClock
from outbox.errors import ConfigurationError, CorruptRecord
from outbox.lifecycle import Attempt, Event, Fate, Record, State, Summary
from outbox.message import Message
from outbox.moving import ON_ITS_WAY
from outbox.protocols import SupportsBrowse, Suspension
from outbox.values import printable

from . import withheld
from .arguments import message_id
from .capable import browsable
from .columns import Tone, Toned, laid_out, width_of, wrapped
from .copies import copies
from .exits import CommandError, Exit
from .moments import local
from .opening import opened_store
from .output import Console, ago
from .records import RESULTS, full_id, record_data, reply_of, summary_of
from .rows import toned_state
from .settings import config_of
from .staged import is_staged

__all__ = ["arguments", "run"]

_TONES: Final[Mapping[Fate, Tone]] = {Fate.FAILED: "bad", Fate.UNCERTAIN: "stopped", Fate.DOUBTFUL: "stopped"}
_INDENT: Final = " " * 12
_COMMANDED: Final = frozenset(("next", "size"))
_COMMAND: Final = re.compile(r" (?=\(?outbox )")
_GAP: Final = 2
_ANEW: Final = "requeued: the count begins anew"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", type=message_id, help="the message")
    parser.add_argument(
        "--content", action="store_true", help="write the message itself, byte for byte, and nothing else"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    with opened_store(config_of(options, console)) as store:
        looked_at = browsable(store)
        suspensions = withheld.in_force(store)
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
        lines = _lines(record.summary, record, SystemClock().now(), suspensions, console.width)
        for line in lines:
            console.line(*line)
    return Exit.OK


def _show_standing(store: SupportsBrowse, text: str, console: Console) -> None:
    summary = summary_of(store, full_id(store, text))
    for line in _lines(summary, None, SystemClock().now(), (), console.width) if summary else ():
        console.line(*line)


def _record(store: SupportsBrowse, text: str) -> Record:
    record = store.get(full_id(store, text))
    if record is None:
        raise CommandError(
            Exit.NOT_ALL,
            f"there is no message {printable(text, 80)}: it never was here, or it was delivered and is not "
            "kept any more (see outbox list)",
        )
    return record


def _lines(
    summary: Summary,
    record: Record | None,
    now: dt.datetime,
    suspensions: Sequence[Suspension],
    width: int | None,
) -> Iterator[Sequence[str]]:
    """All that is known of it, in lines of parts; without the record, all that the summary tells."""
    kept = withheld.keeps(suspensions, summary)
    for name, value in _facts(summary, record.message if record else None, now):
        if value:
            yield from _fact(name, value, width)
        if name == "next" and kept is not None:
            yield from _fact("but", Toned(withheld.phrase(kept, now), "stopped"), width)
    for text in copies(record) if record else ():
        who, _, ways = text.rpartition(": ")
        yield from _fact("twice?", f"{who}:", width)
        yield from _fact("", ways, width)
    yield ()
    fates = _fates(summary, record.history if record else ())
    yield from _table(("RECIPIENT", "FATE", "LAST ANSWER"), fates, width)
    if record and (summary.attempts or record.history):
        yield ()
        yield from _history(record, now, width)


def _fact(name: str, value: str, width: int | None) -> Iterator[Sequence[str]]:
    # Behind a blank of its own width the name is not broken from what it names.
    whole = _INDENT + value
    parts = [whole]
    if width is not None and width_of(whole) > width and name in _COMMANDED:
        # A command that is broken in two cannot be copied.
        parts = _COMMAND.split(whole, maxsplit=1)
    lines = wrapped(parts[0], width, _INDENT)
    for part in parts[1:]:
        lines += _commanded(part, width)
    lines[0] = f"{name:<11} {lines[0][len(_INDENT) :]}"
    # What a stranger said is not weighed by us: only the word before it is; an hour's colon ends no word.
    end = len(lines[0][12:].partition(": ")[0].removesuffix(":")) + 12
    yield lines[0][:12], Toned.like(lines[0][12:end], value), lines[0][end:]
    yield from ((line,) for line in lines[1:])


def _commanded(part: str, width: int | None) -> list[str]:
    """A command on a line of its own, and what is said behind it below, where there is no room beside it."""
    line = _INDENT + part
    command, remark, behind = line.partition(" (then ")
    if width is None or width_of(line) <= width or not remark:
        return [line]
    return [command, *wrapped(f"{_INDENT}(then {behind}", width, _INDENT)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[Sequence[str]]:
    """With the last column below its row where there is no room beside it: nothing of what was said is cut."""
    whole = laid_out(head, rows)
    if width is None or all(sum(map(width_of, line)) <= width for line in whole):
        yield from whole
        return
    room = width - sum(
        _GAP + max(map(width_of, column))
        for column in zip(head[1:-1], *(row[1:-1] for row in rows), strict=True)
    )
    alone = [width_of(row[0]) > room for row in rows]
    beside = [("" if long else row[0], *row[1:-1]) for row, long in zip(rows, alone, strict=True)]
    lines = laid_out(head[:-1], beside, width=width)
    yield lines[0]
    for line, row, long in zip(lines[1:], rows, alone, strict=True):
        if long:
            yield from ((above,) for above in wrapped(row[0], width, "    "))
        yield line
        if row[-1]:
            yield from ((below,) for below in wrapped(f"    {row[-1]}", width, "    "))


def _facts(summary: Summary, message: Message | None, now: dt.datetime) -> Iterator[tuple[str, str]]:
    yield "id", summary.id
    held = " by a person (outbox hold)" if summary.by_hand else ""
    state = summary.state + held + (f": {summary.reason}" if summary.reason else "")
    yield "state", Toned.like(state, toned_state(summary.state))
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
    return f"{local(moment, seconds=True)} ({ago(moment, now)})" if moment else ""


def _next(summary: Summary, now: dt.datetime) -> str:
    if is_staged(summary):
        return "staged: it goes when the program that staged it publishes it"
    if summary.due_at is not None:
        return f"due {_when(summary.due_at, now)}"
    if summary.leased_until is not None and summary.reason == ON_ITS_WAY:
        return ON_ITS_WAY
    if summary.leased_until is not None:
        return f"with a worker; its lease ends {_when(summary.leased_until, now)}"
    if summary.resumes_at is not None:
        due = "at once" if summary.resumes_at <= now else _when(summary.resumes_at, now)
        return f"nothing, until a person says so: outbox release {summary.id} (then due {due})"
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
        rows.append((printable(recipient), Toned(fate, _TONES.get(fate, "")), reply))
    return rows


def _history(record: Record, now: dt.datetime, width: int | None) -> Iterator[Sequence[str]]:
    """Every attempt, those that nothing was heard of included."""
    expected = 1
    for attempt in record.history:
        if attempt.number < expected:
            yield (_ANEW,)
            expected = 1
        yield from ((_unheard(number),) for number in range(expected, attempt.number))
        yield from _attempt(attempt, now, width)
        expected = attempt.number + 1
    last = record.summary.attempts
    if last < expected - 1:
        yield (_ANEW,)
        expected = 1
    for number in range(expected, last + 1):
        under_way = number == last and record.summary.state is State.CLAIMED
        yield (f"try {number}: under way" if under_way else _unheard(number),)


def _unheard(number: int) -> str:
    return f"try {number}: never reported back (the worker ended, or lost its lease)"


def _attempt(attempt: Attempt, now: dt.datetime, width: int | None) -> Iterator[Sequence[str]]:
    relay = f" through {printable(attempt.relay)}" if attempt.relay else ""
    said = "to be tried again" if attempt.event is Event.RETRY else str(attempt.event)
    reason = f", {printable(attempt.reason)}" if attempt.reason and not attempt.results else ""
    title = f"try {attempt.number}, {_when(attempt.at, now)}{relay}: {said}{reason}"
    yield from ((line,) for line in wrapped(title, width, "  "))
    rows = [
        ("  " + printable(r), RESULTS[type(result)], reply_of(result))
        for r, result in attempt.results.items()
    ]
    yield from list(_table(("", "", ""), rows, width))[1:]
    if attempt.dialogue:
        yield ("  what was said (C: by us, S: by the server, after so many milliseconds):",)
        for line in attempt.dialogue.split("\n"):
            # A stranger's store may hand out what no transport would.
            yield from ((part,) for part in wrapped(f"  {printable(line)}", width, "      "))
