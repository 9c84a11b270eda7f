"""What pause, resume, suspend and unsuspend have in common."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

from outbox.clock import SystemClock
from outbox.errors import OutboxError
from outbox.protocols import Store, SupportsBrowse, SupportsRelays, Suspension, Transport
from outbox.values import printable

from . import choosing, withheld
from .arguments import domain, queue, words
from .capable import suspendable
from .exits import CommandError, Exit
from .moments import end_of
from .opening import opened_store, transport_of
from .output import Console
from .settings import config_of

__all__ = ["Named", "add_kinds", "add_reason", "keyed", "kinds", "stopped", "taken_back"]

Named: TypeAlias = tuple[Any, str]
"""A kind, and a value of it."""

_KINDS: Final = {"queue": "queue", "relay": "relay", "domain": "domains", "attribute": "attribute"}
"""Each, and where its option is kept."""


def add_kinds(parser: argparse.ArgumentParser) -> None:
    """Of what: one option a kind, each as often as need be."""
    add = parser.add_argument
    add(
        "--queue",
        metavar="NAME",
        type=queue,
        action="append",
        default=[],
        help="all of a queue; as outbox pause",
    )
    add(
        "--relay",
        metavar="NAME",
        type=_relay,
        action="append",
        default=[],
        help="what goes to a relay, as outbox show names it: smtp.example.org:587; a route by its name; '*' is every relay",
    )
    add(
        "--domain",
        dest="domains",
        metavar="DOMAIN",
        type=_domain,
        action="append",
        default=[],
        help="recipients at exactly this domain; a message's others are delivered to",
    )
    add(
        "--attribute",
        metavar="NAME=VALUE",
        type=_attribute,
        action="append",
        default=[],
        help="messages that were submitted with this attribute",
    )


def add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--because",
        "--reason",
        dest="because",
        metavar="TEXT",
        type=words,
        default="",
        help="why, for the next one who looks",
    )


def kinds(options: argparse.Namespace) -> list[Named]:
    """What the options name, in the order of the kinds."""
    found = [
        (kind, value) for kind, kept in _KINDS.items() for value in dict.fromkeys(getattr(options, kept))
    ]
    if not found:
        raise CommandError(Exit.USAGE, "of what? say --queue, --relay, --domain or --attribute")
    return found


def keyed(
    named: Sequence[Named], options: argparse.Namespace, console: Console, *, quietly: bool = False
) -> list[Named]:
    """The same, with relays as the configured transport names them; what it does not know stays, and is noted."""
    if not any(kind == "relay" and value != withheld.EVERY for kind, value in named):
        return list(named)
    found: list[Named] = []
    with _transport(options, console) as transport:
        for kind, value in named:
            key = _key(transport, value) if kind == "relay" and value != withheld.EVERY else value
            if key is None and not quietly:
                console.note(
                    f"note: the transport of this configuration {_known(transport)}; "
                    f"a relay {printable(value, 80)} may be some other process's"
                )
            found.append((kind, value if key is None else key))
    return found


@contextlib.contextmanager
def _transport(options: argparse.Namespace, console: Console) -> Iterator[Transport | None]:
    """The configured one, which is not connected; None where there is none."""
    with contextlib.ExitStack() as stack:
        config, transport = config_of(options, console), None
        if config.transport:
            with contextlib.suppress(OutboxError, OSError):
                transport = stack.enter_context(contextlib.closing(transport_of(config)))
        yield transport


def _key(transport: Transport | None, name: str) -> str | None:
    """What the transport calls the relay that a person calls so; None where it knows of none."""
    named: Any = getattr(transport, "relay_named", None)
    if named is not None:
        key: str | None = named(name)
        return key
    own = getattr(transport, "name", "")
    return name if not own or isinstance(transport, SupportsRelays) or own == name else None


def _known(transport: Transport | None) -> str:
    own = getattr(transport, "name", "")
    return f"is called {printable(str(own))}, and goes on" if own else "knows of no such relay"


def stopped(named: Sequence[Named], options: argparse.Namespace, console: Console) -> int:
    """Keep these suspensions, and say how each reads."""
    until = end_of(options)
    suspensions = [
        Suspension(kind=kind, value=value, until=until, reason=options.because) for kind, value in named
    ]
    with opened_store(config_of(options, console)) as store:
        keeper = suspendable(store)
        for suspension in suspensions:
            keeper.suspend(suspension)
            if console.as_json:
                console.data(withheld.data(suspension))
            else:
                console.line(withheld.phrase(suspension, SystemClock().now()))
                _note_empty(store, suspension, console)
    return Exit.OK


def taken_back(
    named: Sequence[Named], word: str, options: argparse.Namespace, console: Console
) -> list[Named]:
    """Take these back, and say of each whether there was one; return those that there were."""
    gone: list[Named] = []
    with opened_store(config_of(options, console)) as store:
        keeper = suspendable(store)
        for kind, value in named:
            was = keeper.unsuspend(kind, value)
            if was:
                gone.append((kind, value))
            what = withheld.named(Suspension(kind=kind, value=value))
            if console.as_json:
                console.data({"kind": kind, "value": value, "was": was})
            elif was:
                console.line(f"{what}: {word}")
            else:
                console.complain(
                    f"{what}: there was nothing to take back{_there(keeper.suspensions(), kind)}"
                )
    return gone


def _there(suspensions: Sequence[Suspension], kind: str) -> str:
    values = [printable(each.value, 80) for each in suspensions if each.kind == kind]
    return f" (of this kind there are: {', '.join(values)})" if values else ""


def _note_empty(store: Store, suspension: Suspension, console: Console) -> None:
    """A name that is mistyped stops nothing, and says nothing either: so it is said here."""
    if suspension.kind != "queue" or not isinstance(store, SupportsBrowse):
        return
    if not store.browse(queues=[suspension.value], limit=1):
        console.note(f"note: there is no message of queue {suspension.value} now; what is put in it waits")


def _relay(text: str) -> str:
    """The name of a relay: any text."""
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError("a relay is named as outbox show names it: smtp.example.org:587")
    return text


def _domain(text: str) -> str:
    return domain(text.removeprefix("@")).lower()


def _attribute(text: str) -> str:
    return "=".join(choosing.attribute(text))
