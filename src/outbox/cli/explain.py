"""Why is this message not out yet?  What keeps it, and the commands that help.

It reads what the store knows (the message, what is suspended) and what
runners say of themselves (which queues they serve, how they find their
relays), and changes nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from outbox.clock import SystemClock
from outbox.errors import ConfigurationError, CorruptRecord, OutboxError
from outbox.lifecycle import Record, State, Summary
from outbox.locate import Config, spell
from outbox.message import Message
from outbox.protocols import SupportsBrowse, SupportsRelays
from outbox.retry import RetryPolicy
from outbox.values import printable

from . import withheld
from .arguments import message_id
from .capable import browsable
from .columns import Toned, wrapped
from .exits import CommandError, Exit
from .opening import opened_store, transport_of
from .output import Console
from .reasons import Reason, Seen, reasons
from .records import full_id, summary_data, summary_of
from .runners import Runners
from .settings import config_of

__all__ = ["EPILOG", "arguments", "run"]

EPILOG: Final = """\
examples:
  outbox list --recipient ann@example.net     which message is hers?
  outbox explain 01a1ffec                     why is it not out yet?
  outbox explain 01a1ffec --json              the rules by name, for a program

The id may be cut short, to eight characters at least, where only one message
begins so. Retry policies and relays are those of this configuration; what
runners say of themselves is up to half a minute old.
"""
_WIDEST: Final = 100
_ZERO: Final = dt.timedelta(0)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", type=message_id, help="the message")


def run(options: argparse.Namespace, console: Console) -> int:
    config = config_of(options, console)
    with opened_store(config) as store:
        looked_at = browsable(store)
        summary, record, flaw = _known(looked_at, options.id)
        seen = Seen(
            summary=summary,
            record=record,
            suspensions=withheld.in_force(store),
            runners=Runners.of(store),
            policy=_policy(config, summary.queue),
            relays=_relays(config, record.message, summary) if record else None,
            served=config.queues,
            now=SystemClock().now(),
        )
    found = [*flaw, *reasons(seen)]
    if console.as_json:
        console.data(_data(seen, found))
    else:
        for line in _lines(seen, found, console.width):
            console.line(line)
    return Exit.OK


def _known(store: SupportsBrowse, text: str) -> tuple[Summary, Record | None, list[Reason]]:
    """The message; where it cannot be read, what a list shows of it, and that."""
    id = full_id(store, text)
    try:
        record = store.get(id)
    except (ConfigurationError, CorruptRecord) as error:
        summary = summary_of(store, id)
        if summary is None:
            raise
        flaw = Reason(
            rule="unreadable", text=f"it cannot be read: {printable(str(error))}", help=["outbox check"]
        )
        return summary, None, [flaw]
    if record is None:
        raise CommandError(
            Exit.NOT_ALL,
            f"there is no message {printable(text, 80)}: it never was here, or it was delivered and is not "
            "kept any more (see outbox list, and the log of whoever delivered)",
        )
    return record.summary, record, []


def _policy(config: Config, queue: str) -> RetryPolicy:
    return config.policies((queue,))[queue]


def _relays(config: Config, message: Message, summary: Summary) -> Mapping[str, str] | None:
    """The relay of each open recipient, by what the configured transport names it; None where that tells none."""
    with contextlib.suppress(OutboxError, OSError), contextlib.closing(transport_of(config)) as transport:
        open_ones = [recipient for recipient, fate in summary.fates.items() if fate.open]
        if isinstance(transport, SupportsRelays):
            return {recipient: transport.relay(message, recipient) for recipient in open_ones}
        name = getattr(transport, "name", "")
        if isinstance(name, str) and name:
            return dict.fromkeys(open_ones, name)
    return None


def _lines(seen: Seen, found: Sequence[Reason], width: int | None) -> Iterator[str]:
    summary, age = seen.summary, seen.now - seen.summary.submitted_at
    width = None if width is None else min(width, _WIDEST)
    to = printable(next(iter(summary.recipients), ""), 80)
    more = f" and {len(summary.recipients) - 1} more" if summary.recipients[1:] else ""
    since = f"{spell(abs(age))} {'ago' if age >= _ZERO else 'in the future'}"
    title = f"{summary.id} to {to}{more}: {summary.state} in {summary.queue}, submitted {since}"
    yield from wrapped(Toned(title, "head"), width)
    keeping = [each for each in found if each.blocks]
    for number, each in enumerate((*keeping, *(each for each in found if not each.blocks))):
        if number == 0 or number == len(keeping):
            yield ""
        mark = "* " if each.blocks or number == 0 else "  "
        yield from wrapped(mark + each.text.strip(), width, "  ")
        for command in each.help:
            yield from wrapped(f"    -> {command}", width)


def _data(seen: Seen, found: Sequence[Reason]) -> dict[str, Any]:
    """What a program is told: the message as ``outbox list --json``, and the reasons, those that keep it first."""
    ordered = sorted(found, key=lambda each: not each.blocks)
    return {
        "id": seen.summary.id,
        "out": seen.summary.state is State.DELIVERED,
        "next": _next_at(seen, ordered),
        "reasons": [
            attrs.asdict(each) | {"text": each.text.strip(), "help": list(each.help)} for each in ordered
        ],
        "message": summary_data(seen.summary),
    }


def _next_at(seen: Seen, found: Sequence[Reason]) -> dt.datetime | None:
    """When it is next handed over, as far as can be told: all that keeps it has ended; None where it cannot be told."""
    if seen.summary.state not in (State.QUEUED, State.CLAIMED):
        return None
    ends = [each.until for each in found if each.blocks]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return None
    return max(known, default=seen.now)
