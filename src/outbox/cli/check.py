"""Is the house in order?

Looks at the configuration, the store, and what is installed; changes nothing
and sends nothing.  One line a finding; the exit status is 0 without an error
and 1 with one, for a monitor.
"""

from __future__ import annotations

import argparse
import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from outbox.errors import OutboxError
from outbox.locate import Config, masked, transport_from_url
from outbox.protocols import Finding, SupportsMaintain

from .exits import Exit
from .output import Console
from .settings import config_of, opened_store

__all__ = ["arguments", "run"]

_OURS: Final = "durable-outbox"
_STRANGER: Final = "outbox"


def arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # it takes what every command takes


def run(options: argparse.Namespace, console: Console) -> int:
    config = config_of(options, console)
    findings = [*_installed(), *_configured(config), *_store(config), *_transport(config)]
    if console.as_json:
        console.data([attrs.asdict(finding) for finding in findings])
    else:
        _print(findings, console)
    return Exit.NOT_ALL if any(finding.level == "error" for finding in findings) else Exit.OK


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


def _store(config: Config) -> Iterator[Finding]:
    try:
        with opened_store(config) as store:
            yield Finding("ok", f"store {masked(config.store or '')}")
            if isinstance(store, SupportsMaintain):
                yield from store.check()
    except OutboxError as error:
        yield Finding("error", str(error))


def _transport(config: Config) -> Iterator[Finding]:
    if not config.transport:
        yield Finding("ok", "no transport is named: this configuration only submits")
        return
    try:
        transport_from_url(config.transport, password=config.smtp_password()).close()
        yield Finding("ok", f"transport {masked(config.transport)} (not tried; outbox drain does)")
    except OutboxError as error:
        yield Finding("error", str(error))
