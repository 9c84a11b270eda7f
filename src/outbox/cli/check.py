"""Is the house in order?  For a person, and for a monitor.

Looks at what is due, the store, the settings and what they name, the clock,
and what is installed; changes nothing and sends nothing.  The first line and
the exit status say it all: how long the oldest that is due has been so comes
first, for a number alone hides that nothing moves.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from typing import Final

import attrs

from outbox.clock import SystemClock
from outbox.errors import OutboxError
from outbox.locate import Config, Said, masked
from outbox.moving import SupportsMove
from outbox.protocols import (
    Finding,
    Guarantee,
    QueueCount,
    Store,
    SupportsBrowse,
    SupportsGlance,
    SupportsMaintain,
    SupportsTransaction,
    Transport,
)
from outbox.values import printable, quoted

from . import house, installed, runners, verdict, withheld
from .arguments import add_key
from .columns import Tone, Toned, at_least, wrapped
from .delivering import outbox_of
from .opening import opened_store, transport_of
from .output import Console
from .runners import Runners
from .settings import config_of, overruling
from .staged import ADVICE, Staged
from .unserved import unserved
from .verdict import Due, Level

__all__ = ["EPILOG", "arguments", "run"]

_LONG: Final = 4000
"""Characters of a finding that are shown: what a store says of damage may hold any text, but no other line."""
_TONES: Final[Mapping[Level, Tone]] = {"error": "bad", "warning": "stopped"}

EPILOG: Final = """\
examples:
  outbox check                     one line a finding, and what to do about it
  outbox check --quick -q          for a monitor: what is wrong, if anything
  outbox check --quick --due-warning 5m --due-error 30m
  outbox check --json              for a program

exit status:
  0  all is well
  1  something is to be looked at: a warning
  2  something is wrong: an error
Nagios, Icinga and those that run their plug-ins understand it, and the numbers
behind the bar of the first line.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add_key(parser, "due_warning", "warn of mail that has been due for so long (default: 10m)")
    add_key(parser, "due_error", "call that an error (default: 1h)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out what reads the whole store, such as a look for damage: takes seconds for millions",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    look = _Look(options, console)
    findings = list(look.findings())
    findings = [attrs.evolve(each, text=printable(console.discreet(each.text), _LONG)) for each in findings]
    if console.as_json:
        console.data(verdict.data(findings, look.due))
    else:
        _print(findings, look, console)
    return verdict.STATUS[verdict.worst(findings)]


def _print(findings: Sequence[Finding], look: _Look, console: Console) -> None:
    quiet = console.verbosity < 0
    if quiet and verdict.worst(findings) == "ok":
        return
    headline = verdict.headline(findings, look.due, look.config)
    # A person has no use for the numbers of a monitor.
    console.wrapped(headline if console.width is None else headline.partition(" | ")[0], "  ")
    for finding in findings:
        if finding.level == "ok" and quiet:
            continue
        first, *rest = wrapped(f"{finding.level:<8} {finding.text}", console.width, " " * 9)
        console.line(Toned(first[:9], _TONES.get(finding.level, "")), first[9:])
        for line in rest:
            console.line(line)
        if finding.advice:
            console.wrapped(f"         -> {finding.advice}", " " * 12)


class _Look:
    """One look around; *due* and *config* are what it saw, where it could."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self._options = options
        self._console = console
        self.config: Config | None = None
        self.due: Due | None = None

    def findings(self) -> Iterator[Finding]:
        """What is found, what is due first."""
        with contextlib.ExitStack() as stack:
            said = Said.read(self._options.config)
            config, settings = self._configured(said)
            self.config = config
            store, opened = _opened(config, stack)
            if store is not None:
                yield from self._waiting(store, config)
            yield from opened
            if store is not None:
                yield from _kept(store, quick=self._options.quick)
            yield from settings
            yield from _settings(config)
            yield from house.files_of(config)
            yield from house.conduct_of(config)
            transport = yield from _transport(config, stack)
            if store is not None and transport is not None:
                yield from _together(store, transport, config)
            yield from installed.clock()
            if store is not None:
                yield from installed.clocks_of(store)
            yield from installed.versions()

    def _configured(self, said: Said) -> tuple[Config, list[Finding]]:
        """The settings in force, or where some are wrong those that can be used."""
        found = list(house.file_of(said))
        if not said.wrong:
            return config_of(self._options, self._console, warns=False), found
        config = said.config()
        config = attrs.evolve(config, **overruling(self._options, config))
        self._console.hide(config.secrets())
        return config, found

    def _waiting(self, store: Store, config: Config) -> Iterator[Finding]:
        """What is due, and what keeps mail from going."""
        try:
            self.due = Due.of(store, SystemClock().now())
            at_work = Runners.of(store)
            if self.due is not None:
                served = not at_work.told or bool(at_work.serving(self.due.queue))
                yield self.due.finding(config, served=served)
            yield from _stopped(store)
            yield from _relays(at_work)
            if isinstance(store, SupportsGlance | SupportsBrowse):
                counts = store.glance().counts if isinstance(store, SupportsGlance) else store.count()
                yield from _unserved(unserved(counts, {*config.queues, *at_work.served}))
                yield from _staged(Staged.of(store, counts))
        except OutboxError as error:
            yield Finding("error", str(error))


def _stopped(store: Store) -> Iterator[Finding]:
    """What a person keeps back: without an end it is forgotten."""
    now = SystemClock().now()
    for each in withheld.in_force(store):
        level: Level = "warning" if each.until is None else "ok"
        yield Finding(level, withheld.phrase(each, now), withheld.undone_by(each))


def _relays(at_work: Runners) -> Iterator[Finding]:
    for each in runners.ailing(at_work.alive):
        if each.relay.state in ("paused", "probing"):
            yield Finding(
                "error" if each.relay.misconfigured else "warning",
                f"{each.name} {each.phrase} ({each.says})",
                "outbox send-test --to ADDRESS   shows what it says, and what helps",
            )


def _unserved(counts: Sequence[QueueCount]) -> Iterator[Finding]:
    for count in counts:
        waits = "message waits" if count.number == 1 else "messages wait"
        yield Finding(
            "warning",
            f"{at_least(count.number, count.more)} {waits} in queue {count.queue}, which is not served here",
            f"outbox drain --queue {count.queue}   or queues = [...] in the configuration file",
        )


def _staged(staged: Staged | None) -> Iterator[Finding]:
    now = SystemClock().now()
    if staged is not None:
        old = staged.is_old(now)
        yield Finding("warning" if old else "ok", staged.phrase(now), ADVICE if old else "")


def _opened(config: Config, stack: contextlib.ExitStack) -> tuple[Store | None, list[Finding]]:
    try:
        store = stack.enter_context(opened_store(config))
    except OutboxError as error:
        return None, [Finding("error", str(error))]
    return store, [Finding("ok", f"store {masked(config.store or '')}")]


def _kept(store: Store, *, quick: bool) -> Iterator[Finding]:
    """How the store is."""
    try:
        yield from _guaranteed(store)
        if isinstance(store, SupportsMaintain) and not quick:
            yield from store.check()
    except OutboxError as error:
        yield Finding("error", str(error))


def _guaranteed(store: Store) -> Iterator[Finding]:
    lacks: Collection[Guarantee] = getattr(store, "lacks", ())
    for guarantee in Guarantee:
        if guarantee in lacks:
            yield Finding("ok", f"the store does not promise {guarantee}: {_LACKING[guarantee]}")
    for capability, missing in _MISSING.items():
        if not isinstance(store, capability):
            yield Finding("ok", f"the store {missing}")


_MISSING: Final[Mapping[type, str]] = {
    SupportsTransaction: "cannot keep a message within a transaction of yours: outbox.staging does it in two steps",
    SupportsMove: "is none that outbox move leads from or to",
}
"""Of what not every store can do, what a clause of the suite asks for and a person would miss."""
_LACKING: Final[Mapping[Guarantee, str]] = {
    Guarantee.ORDER: "another message may go before one of higher priority or earlier due time",
    Guarantee.DEDUPLICATION: "a message put twice under one id may be sent twice",
    Guarantee.REFUNDS: "a claim given back unused may count as an attempt",
    Guarantee.DELAYS: "a delay may be cut short or rounded",
    Guarantee.LEASES: "a lease may be shorter or longer than was asked for",
    Guarantee.FENCING: "a worker whose lease was lost may still settle its message",
    Guarantee.ATOMICITY: "of several messages put at once some may be stored and others not",
    Guarantee.AT_MOST_ONCE: "a message may be given to two workers at once, and one at most once is refused",
    Guarantee.RETENTION: "what waits for too long is deleted, also what waits for a person",
}


def _settings(config: Config) -> Iterator[Finding]:
    yield Finding("ok", f"queues served: {', '.join(config.queues)}")
    for name in config.retry_by_queue:
        if name not in config.queues:
            yield Finding(
                "warning",
                f"retry.queues names {name!r}, which is not served here (served: {', '.join(config.queues)})",
                "mend the name, or add it to queues",
            )


def _transport(config: Config, stack: contextlib.ExitStack) -> Generator[Finding, None, Transport | None]:
    if not config.transport:
        yield Finding("ok", "no transport is named: this configuration only submits")
        return None
    try:
        transport = transport_of(config)
    except OutboxError as error:
        yield Finding("error", str(error))
        return None
    yield Finding("ok", f"transport {masked(config.transport)} (not tried; outbox send-test does)")
    return stack.enter_context(contextlib.closing(transport))


def _together(store: Store, transport: Transport, config: Config) -> Iterator[Finding]:
    # Without what has been looked at by itself; who tells senders would begin to.
    plain = attrs.evolve(config, bounce=None, suppress=None, hook=None, listeners=())
    try:
        outbox_of(store, transport, plain)
    except OutboxError as error:
        yield Finding("error", str(error))
        return
    yield from _limited(transport, config)


def _limited(transport: Transport, config: Config) -> Iterator[Finding]:
    named = getattr(transport, "relay_named", None)
    if not callable(named):
        return
    for name in config.limits:
        if name != "*" and named(name) is None:
            yield Finding(
                "warning",
                f"limits.relays names {quoted(name)}, which is no relay of this transport: it holds for nothing",
                "mend the name: it is that of a route",
            )
