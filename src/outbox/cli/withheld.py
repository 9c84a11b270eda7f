"""What is paused or suspended, in words; and which of it keeps a message waiting."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs

from outbox.address import domain
from outbox.lifecycle import State, Summary
from outbox.locate import spell
from outbox.protocols import Store, SupportsSuspend, Suspension
from outbox.values import printable

from . import shell
from .moments import local

__all__ = ["EVERY", "data", "in_force", "keeps", "named", "phrase", "short", "undone_by"]

EVERY: Final = "*"
"""The name of every relay."""
_WHAT: Final = {
    "queue": "queue {}",
    "relay": "relay {}",
    "domain": "recipients at {}",
    "attribute": "messages with {}",
}


def in_force(store: Store) -> Sequence[Suspension]:
    """Those of a store; none where it keeps none."""
    return store.suspensions() if isinstance(store, SupportsSuspend) else ()


def named(suspension: Suspension) -> str:
    """``queue mail``, ``recipients at example.net``."""
    if (suspension.kind, suspension.value) == ("relay", EVERY):
        return "every relay"
    return _WHAT[suspension.kind].format(printable(suspension.value) or "without a name")


def phrase(suspension: Suspension, now: dt.datetime, *, why: bool = True) -> str:
    """``queue mail is paused until 2026-11-23 18:00 +0100 (2 h 5 min): the relay is moved``; or without *why*."""
    verb = "is paused" if suspension.kind == "queue" else "is suspended"
    if suspension.kind in ("domain", "attribute"):
        verb = "are suspended"
    until = suspension.until
    end = ", until it is taken back" if until is None else f" until {local(until)} ({spell(until - now)})"
    return f"{named(suspension)} {verb}{end}{_because(suspension) if why else ''}"


def short(suspension: Suspension, now: dt.datetime) -> str:
    """``queue mail paused, 2 h 5 min more: the relay is moved``: for a line that has little room."""
    left = "" if suspension.until is None else f", {spell(suspension.until - now)} more"
    verb = "paused" if suspension.kind == "queue" else "suspended"
    return f"{named(suspension)} {verb}{left}{_because(suspension)}"


def _because(suspension: Suspension) -> str:
    return f": {printable(suspension.reason)}" if suspension.reason else ""


def keeps(suspensions: Iterable[Suspension], summary: Summary) -> Suspension | None:
    """What keeps a message waiting, as far as a list can tell: of its relays it tells nothing."""
    if summary.state is not State.QUEUED:
        return None
    open_ones = [recipient for recipient, fate in summary.fates.items() if fate.open]
    domains = {domain(recipient).lower() for recipient in open_ones if "@" in recipient}
    attributes = {f"{name}={value}" for name, value in (summary.attributes or {}).items()}
    for each in suspensions:
        whole = each.kind == "domain" and domains == {each.value.lower()}
        if whole or (each.kind, each.value) == ("queue", summary.queue):
            return each
        if (each.kind == "attribute" and each.value in attributes) or (each.kind, each.value) == (
            "relay",
            "*",
        ):
            return each
    return None


def undone_by(suspension: Suspension) -> str:
    """The command that takes it back."""
    value = shell.word(suspension.value)
    if suspension.kind == "queue":
        return f"outbox resume {value}"
    return f"outbox unsuspend --{suspension.kind} {value}"


def data(suspension: Suspension) -> dict[str, Any]:
    """For a program."""
    return attrs.asdict(suspension)
