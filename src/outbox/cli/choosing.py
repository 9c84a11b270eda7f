"""Which messages a command is about: the options of a filter, the same for all commands that take one."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Sequence
from typing import Final

from outbox.clock import SystemClock
from outbox.filters import Filter
from outbox.lifecycle import State
from outbox.locate import spelled
from outbox.values import quoted

from .arguments import domain, duration, queue

__all__ = ["HOW_FILTERS_ADD_UP", "add_filters", "again", "chosen", "is_chosen"]

HOW_FILTERS_ADD_UP: Final = """\
Options of a filter add up: --queue mail --older-than 2h is what is both. The
same one said twice is either: --state dead --state held (or dead,held).
"""
_NAMES: Final = ("state", "queue", "older_than", "recipient", "domains", "sender", "said", "attribute")


def add_filters(parser: argparse.ArgumentParser, states: str) -> None:
    """*states* says which are meant where no --state is said."""
    group = parser.add_argument_group("which messages")
    add = group.add_argument
    add(
        "--state",
        metavar="STATE",
        type=_states,
        action="extend",
        default=[],
        help=f"{', '.join(State)} (default: {states})",
    )
    add("--queue", metavar="NAME", type=queue, action="append", default=[], help="of this queue")
    add("--older-than", metavar="TIME", type=duration, help="submitted at least so long ago: 30m, 2h, 7d")
    add("--recipient", metavar="ADDRESS", action="append", default=[], help="to this recipient, among others")
    add(
        "--domain",
        dest="domains",
        metavar="DOMAIN",
        type=_domain,
        action="append",
        default=[],
        help="to somebody there",
    )
    add(
        "--sender",
        metavar="ADDRESS",
        type=_sender,
        action="append",
        default=[],
        help="from this sender; '' is the null sender",
    )
    add(
        "--reason",
        dest="said",
        metavar="WORDS",
        type=_words,
        action="append",
        default=[],
        help="whose reason has all these words, whole ones (535, not 15350): --reason 'mailbox full'",
    )
    add(
        "--attribute",
        metavar="NAME=VALUE",
        type=attribute,
        action="append",
        default=[],
        help="with this attribute; of two names both, of two values of one either",
    )


def is_chosen(options: argparse.Namespace) -> bool:
    """Whether any option of a filter was said."""
    return any(getattr(options, name) not in (None, []) for name in _NAMES)


def chosen(
    options: argparse.Namespace, *, states: Sequence[State] = (), by_hand: bool | None = None
) -> Filter:
    """What the options choose; *states* are those of a command that is told none."""
    attributes: dict[str, list[str]] = {}
    for name, value in options.attribute:
        attributes.setdefault(name, []).append(value)
    age: dt.timedelta | None = options.older_than
    return Filter(
        states=options.state or states,
        queues=options.queue,
        submitted_before=None if age is None else _ago(age),
        recipients=options.recipient,
        domains=options.domains,
        senders=options.sender,
        reasons=options.said,
        attributes=attributes,
        by_hand=by_hand,
    )


def again(options: argparse.Namespace) -> list[str]:
    """The options that were said, to be said again."""
    named = [
        *(("--state", state) for state in options.state),
        *(("--queue", name) for name in options.queue),
        *(("--older-than", spelled(age)) for age in [options.older_than] if age is not None),
        *(("--recipient", address) for address in options.recipient),
        *(("--domain", name) for name in options.domains),
        *(("--sender", address) for address in options.sender),
        *(("--reason", words) for words in options.said),
        *(("--attribute", f"{name}={value}") for name, value in options.attribute),
    ]
    # A value that begins with a dash is one only where it is joined to its option.
    return [
        word
        for name, value in named
        for word in ((f"{name}={value}",) if str(value)[:1] == "-" else (name, str(value)))
    ]


def _ago(age: dt.timedelta) -> dt.datetime:
    try:
        return SystemClock().now() - age
    except OverflowError:
        return dt.datetime.min.replace(tzinfo=dt.UTC)


def attribute(text: str) -> tuple[str, str]:
    """``name=value``."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{quoted(text, 80)} is not NAME=VALUE, such as tenant=blue")
    return name, value


def _states(text: str) -> list[State]:
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in set(State):
            raise argparse.ArgumentTypeError(
                f"{quoted(name, 40)} is not a state: there are {', '.join(State)}"
            )
    return [State(name) for name in names]


def _domain(text: str) -> str:
    return domain(text.removeprefix("@"))


def _sender(text: str) -> str:
    return "" if text == "<>" else text


def _words(text: str) -> str:
    if not text.split():
        raise argparse.ArgumentTypeError("say at least one word")
    return text
