"""What requeue, cancel, hold, release and purge have in common: ids, or a filter, in; what became of each out."""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import attrs

from outbox.clock import SystemClock
from outbox.filters import Filter
from outbox.lifecycle import State, Summary
from outbox.moving import ON_ITS_WAY
from outbox.protocols import Change, Expected, Store, SupportsBrowse
from outbox.values import printable

from . import choosing, steps
from .arguments import message_id
from .capable import browsable
from .exits import CommandError, Exit
from .opening import opened_store
from .output import Console, ago
from .records import full_id_to_change, summary_of
from .settings import config_of

__all__ = ["Verb", "add_choice", "changed", "teaching"]

Act: TypeAlias = Callable[..., Sequence[Change]]

_EPILOG: Final = f"""\
{choosing.HOW_FILTERS_ADD_UP}
What a filter finds is changed in steps of a few hundred, while deliveries go
on; Ctrl-C ends it after a step, and the same command does the rest. On a
terminal you are told first how many there are, and asked; nobody else is.

exit status: 0, or 1 where not all could be done (what is with a worker at this
moment is refused: say it again when its lease has ended).
"""


@attrs.frozen(kw_only=True)
class Verb:
    """A command that changes messages.

    Attributes:
        does: What it does, as it is asked about: ``purge``.
        done: What was done: ``purged``.
        to: What it can be done to.
        unless_said: Which of these a filter means that names no state.
        by_hand: Whether a filter means what a person holds; None is either.
        sends: Whether it is to have what waits delivered: who does so meanwhile does what was asked for.
    """

    does: str
    done: str
    to: tuple[State, ...]
    unless_said: tuple[State, ...]
    by_hand: bool | None = None
    sends: bool = False

    def refuses(self, summary: Summary) -> str:
        """Why it cannot be done to this one, as far as a list tells; ``""`` where nothing is against it."""
        if summary.state not in self.to:
            return f"it is {summary.state}"
        if self.by_hand and not summary.by_hand:
            return f"nobody holds it by hand ({summary.reason})"
        return ""

    def foreseen(self, summary: Summary) -> str:
        """The same, with who has it at this moment: that is refused until his lease has ended."""
        return self.refuses(summary) or (steps.LEASED if _leased(summary) else "")

    def suits(self, change: Change, sought: Filter) -> str:
        """What is said of one that a filter found and that was not changed, where that is as good as done."""
        if not self.sends:
            return ""
        if change.status == "unknown":
            return "gone meanwhile"
        if change.state is State.DELIVERED:
            return "delivered meanwhile"
        # Whoever asks for claimed ones by name wants them back from their workers.
        tried = change.status == "leased" and ON_ITS_WAY not in change.reason
        return "with a worker: tried at this moment" if tried and State.CLAIMED not in sought.states else ""


def _leased(summary: Summary) -> bool:
    return summary.leased_until is not None and summary.leased_until > SystemClock().now()


def teaching(*examples: str) -> str:
    """What --help ends with."""
    return "\n".join(("examples:", *(f"  {line}" for line in examples), "", _EPILOG))


def add_choice(parser: argparse.ArgumentParser, verb: Verb) -> None:
    """Ids, or a filter; and what is asked before."""
    parser.add_argument(
        "ids",
        metavar="ID",
        type=message_id,
        nargs="*",
        help="a message (of an id that was drawn, eight characters will do where one begins so)",
    )
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="change nothing: say what would be changed"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask before many are changed")
    choosing.add_filters(parser, ", ".join(verb.unless_said))


def changed(options: argparse.Namespace, console: Console, verb: Verb, act: Callable[[Store], Act]) -> int:
    """Let *act*, of the store, change the messages that were named or chosen, and say what became of them."""
    by_filter = choosing.is_chosen(options)
    if by_filter == bool(options.ids):
        raise CommandError(
            Exit.USAGE,
            "name messages by their ids, or say which by a filter, and not both"
            if by_filter
            else f"which messages? name them by their ids, or say a filter, such as --state "
            f"{verb.unless_said[0]} (see outbox {verb.does} --help)",
        )
    with opened_store(config_of(options, console)) as store:
        perform = act(store)
        if by_filter:
            sought = choosing.chosen(options, states=verb.unless_said, by_hand=verb.by_hand)
            return _of_filter(
                store, sought, _careful(perform, sought), verb=verb, options=options, console=console
            )
        ids = list(dict.fromkeys(full_id_to_change(store, text) for text in options.ids))
        if options.dry_run:
            return _foretold(browsable(store), ids, verb, console)
        changes = perform(ids)
    now = SystemClock().now()
    for change in changes:
        _told(change, verb, now, console)
    return Exit.OK if all(change.status == "done" for change in changes) else Exit.NOT_ALL


def _careful(perform: Act, sought: Filter) -> Act:
    """The same, which leaves alone what the filter no longer means: what it found is seconds old, and others change it too.

    A store that was written before it could be told what is expected goes by the ids alone.
    """
    if not _takes(perform, "expected"):
        return perform
    expected = Expected(states=frozenset(sought.states), by_hand=sought.by_hand)
    return functools.partial(perform, expected=expected)


def _takes(perform: Act, name: str) -> bool:
    try:
        known = inspect.signature(perform).parameters
    except (TypeError, ValueError):
        return False
    return name in known or any(each.kind is each.VAR_KEYWORD for each in known.values())


def _of_filter(
    store: Store,
    sought: Filter,
    perform: Act,
    *,
    verb: Verb,
    options: argparse.Namespace,
    console: Console,
) -> int:
    looked_at = browsable(store)
    if options.dry_run:
        return steps.foretold(looked_at, sought, verb.foreseen, verb.done, console)
    asks = console.asks and not (options.yes or console.as_json)
    found = steps.counted(looked_at, sought, verb.foreseen, console) if console.live else None
    if found is not None and not found.number:
        console.note(f"No such messages: nothing to {verb.does}.")
        return Exit.OK
    if asks and found is not None and found.would > 1 and not _agreed(_question(found, verb), console):
        return Exit.NOT_ALL
    number = None if found is None else found.number
    suits = functools.partial(verb.suits, sought=sought)
    tell = functools.partial(_told, verb=verb, now=SystemClock().now(), console=console, suits=suits)
    each = tell if console.as_json or console.verbosity > 0 else None
    return steps.stepwise(
        looked_at,
        sought,
        perform,
        done=verb.done,
        number=number,
        suits=suits,
        console=console,
        each=each,
    )


def _question(found: steps.Foreseen, verb: Verb) -> str:
    others = f" ({found.refused.total():,} more would be refused)" if found.refused else ""
    return f"{verb.does.capitalize()} {found.would:,} messages{others}?"


def _agreed(question: str, console: Console) -> bool:
    """Whether the person says yes; where not, also by Ctrl-C, that nothing was changed is said."""
    agreed = False
    try:
        agreed = console.agrees(question)
    finally:
        if not agreed:
            console.note("Nothing was changed.")
    return agreed


def _foretold(store: SupportsBrowse, ids: Sequence[str], verb: Verb, console: Console) -> int:
    """What would become of these."""
    refused = 0
    for id in ids:
        summary = summary_of(store, id)
        why = "there is no such message (see outbox list)" if summary is None else verb.refuses(summary)
        if summary is not None and summary.leased_until and _leased(summary):
            ends = ago(summary.leased_until, SystemClock().now())
            on_its_way = summary.reason == ON_ITS_WAY
            why = why or (
                f"it is {ON_ITS_WAY}" if on_its_way else f"it is with a worker, whose lease ends {ends}"
            )
        refused += bool(why)
        if console.as_json:
            console.data({"id": id, "status": "would be refused" if why else "would be done", "reason": why})
        elif why:
            console.complain(f"{printable(id, 80)} would not be {verb.done}: {why}")
        else:
            console.line(f"{id} would be {verb.done}")
    return Exit.NOT_ALL if refused else Exit.OK


def _told(
    change: Change,
    verb: Verb,
    now: dt.datetime,
    console: Console,
    suits: Callable[[Change], str] | None = None,
) -> None:
    """Say what became of one message."""
    if console.as_json:
        console.data(attrs.asdict(change))
    elif change.status == "done":
        console.line(f"{change.id} {verb.done}")
    elif suits is not None and (word := suits(change)):
        console.line(f"{printable(change.id, 80)} {word}")
    else:
        console.complain(f"{printable(change.id, 80)} not {verb.done}: {_why(change, now)}")


def _why(change: Change, now: dt.datetime) -> str:
    if change.status == "unknown":
        return "there is no such message (see outbox list)"
    if change.status == "leased" and ON_ITS_WAY in change.reason:
        return change.reason
    if change.status == "leased":
        until = f", whose lease ends {ago(change.until, now)}" if change.until else ""
        return f"it is with a worker{until}; ask again then"
    return change.reason
