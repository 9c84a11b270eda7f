"""Is the house in order?

Looks at the configuration, the store, and what is installed; changes nothing
and sends nothing.  One line a finding; the exit status is 0 without an error
and 1 with one, for a monitor.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from typing import Final

import attrs

from outbox.errors import OutboxError
from outbox.lifecycle import State
from outbox.locate import Config, masked
from outbox.protocols import (
    Finding,
    Guarantee,
    QueueCount,
    Store,
    SupportsBrowse,
    SupportsMaintain,
    Transport,
)

from .exits import Exit
from .output import Console
from .settings import config_of, opened_store, outbox_of, transport_of

__all__ = ["arguments", "run"]

_OURS: Final = "durable-outbox"
_STRANGER: Final = "outbox"


def arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # it takes what every command takes


def run(options: argparse.Namespace, console: Console) -> int:
    findings = [*_installed(), *_rest(options, console)]
    if console.as_json:
        console.data([attrs.asdict(finding) for finding in findings])
    else:
        _print(findings, console)
    return Exit.NOT_ALL if any(finding.level == "error" for finding in findings) else Exit.OK


def _rest(options: argparse.Namespace, console: Console) -> Iterator[Finding]:
    try:
        config = config_of(options, console)
    except OutboxError as error:
        yield Finding("error", str(error))
        return
    yield from _configured(config)
    with contextlib.ExitStack() as stack:
        store = yield from _store(config, stack)
        transport = yield from _transport(config, stack)
        if store is not None and transport is not None:
            yield from _together(store, transport, config)


def _print(findings: Sequence[Finding], console: Console) -> None:
    for finding in findings:
        if finding.level == "ok" and console.verbosity < 0:
            continue
        console.line(f"{finding.level:<8} {finding.text}")
        if finding.advice:
            console.line(f"         -> {finding.advice}")


def _installed() -> Iterator[Finding]:
    yield Finding("ok", f"{_OURS} {importlib.metadata.version(_OURS)}")
    try:
        stranger = importlib.metadata.version(_STRANGER)
    except importlib.metadata.PackageNotFoundError:
        return
    yield Finding(
        "error",
        f"another distribution, {_STRANGER} {stranger}, is installed too; its files and ours overwrite each other",
        f"pip uninstall {_STRANGER} {_OURS}, then pip install {_OURS}",
    )


def _configured(config: Config) -> Iterator[Finding]:
    yield Finding("ok", f"configuration file: {config.file or 'none'}")
    yield Finding("ok", f"queues served: {', '.join(config.queues)}")
    for name in config.retry_by_queue:
        if name not in config.queues:
            yield Finding(
                "warning",
                f"retry.queues names {name!r}, which is not served here (served: {', '.join(config.queues)})",
                "mend the name, or add it to queues",
            )


def _store(config: Config, stack: contextlib.ExitStack) -> Generator[Finding, None, Store | None]:
    """Returns the store where it can be opened, for the checks that come after."""
    try:
        store = stack.enter_context(opened_store(config))
        yield Finding("ok", f"store {masked(config.store or '')}")
        yield from _guaranteed(store)
        if isinstance(store, SupportsMaintain):
            yield from store.check()
        if isinstance(store, SupportsBrowse):
            yield from _unserved(store.count(), config)
    except OutboxError as error:
        yield Finding("error", str(error))
        return None
    return store


def _guaranteed(store: Store) -> Iterator[Finding]:
    lacks: Collection[Guarantee] = getattr(store, "lacks", ())
    for guarantee in Guarantee:
        if guarantee in lacks:
            yield Finding("ok", f"the store does not promise {guarantee}: {_LACKING[guarantee]}")


_LACKING: Final[Mapping[Guarantee, str]] = {
    Guarantee.ORDER: "another message may go before one of higher priority or earlier due time",
    Guarantee.DEDUPLICATION: "a message put twice under one id may be sent twice",
    Guarantee.REFUNDS: "a claim given back unused may count as an attempt",
    Guarantee.DELAYS: "a delay may be cut short or rounded",
    Guarantee.LEASES: "a lease may be shorter or longer than was asked for",
    Guarantee.FENCING: "a worker whose lease was lost may still settle its message",
}


def _unserved(counts: Sequence[QueueCount], config: Config) -> Iterator[Finding]:
    for count in counts:
        if count.state is State.QUEUED and count.queue not in config.queues:
            waits = "message waits" if count.number == 1 else "messages wait"
            yield Finding(
                "warning",
                f"{count.number:,} {waits} in queue {count.queue}, which is not served here",
                f"outbox drain --queue {count.queue}, or queues = [...] in the configuration file",
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
    yield Finding("ok", f"transport {masked(config.transport)} (not tried; outbox drain does)")
    return stack.enter_context(contextlib.closing(transport))


def _together(store: Store, transport: Transport, config: Config) -> Iterator[Finding]:
    try:
        outbox_of(store, transport, config)
    except OutboxError as error:
        yield Finding("error", str(error))
