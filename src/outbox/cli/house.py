"""What the settings lead to, looked at one by one: files and who may read them, aliases, lists, functions, reports."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from outbox.errors import OutboxError
from outbox.locate import BounceSettings, Config, Said, holds_secret, loaded, others_may_read
from outbox.protocols import Finding
from outbox.values import printable

from . import originating
from .delivering import suppress_of
from .logging_to import LogTo

__all__ = ["conduct_of", "file_of", "files_of"]

_ANYBODY_WRITES: Final = 0o002


def file_of(said: Said) -> Iterator[Finding]:
    """The configuration file: each thing that is wrong in it, and who else may read or write it."""
    yield Finding("ok", f"configuration file: {said.file.path if said.file else 'none'}")
    for error in said.wrong:
        yield Finding(
            "error",
            printable(str(error), 1000),
            "outbox config   shows the rest; nothing begins before it is mended",
        )
    if said.file is None:
        return
    urls = [str(said.file.values.get(name, "")) for name in ("store", "transport")]
    if any(map(holds_secret, urls)) and others_may_read(said.file.path):
        yield Finding(
            "warning",
            f"{said.file.path} holds a password and others may read it",
            f"chmod o-rwx {said.file.path}, or put it into password_file",
        )
    yield from _written_by_anybody(said.file.path)


def files_of(config: Config) -> Iterator[Finding]:
    """The files of secrets, of the log and of numbers."""
    for name in ("password_file", "token_file"):
        path: Path | None = getattr(config, name)
        if path is None:
            continue
        what = name.removesuffix("_file")
        yield from _tried(f"the {what} file {path} can be read", functools.partial(_secret, config, name))
        if others_may_read(path):
            yield Finding("warning", f"others may read the {what} file {path}", f"chmod 600 {path}")
    if config.log_config is not None:
        read = LogTo(config=config.log_config).read
        yield from _tried(f"the logging configuration {config.log_config} can be read", read)
    for name in ("log_file", "pid_file"):
        path = getattr(config, name)
        if path is not None:
            yield _to_be_written(name, path)
    if config.metrics is not None:
        yield from _tried("metrics can be counted", _counting)


def conduct_of(config: Config) -> Iterator[Finding]:
    """Who is told of failures, who is never written to, who is meant by a name, and whom of a program is asked."""
    with contextlib.suppress(OutboxError):
        aliases = originating.aliases_of(config)
        if aliases.path is not None:
            yield from _tried(f"{aliases.path}: {len(aliases.entries)} aliases", aliases.check)
    if config.aliases is not None:
        yield from _wrong(lambda: originating.aliases_of(config))
    if config.suppress is not None:
        said = config.suppress
        where = said.file or said.database or said.python
        yield from _tried(f"who is not to be written to is asked of {where}", lambda: suppress_of(config))
    if config.bounce is not None:
        yield from _bounces(config, config.bounce)
    for key, name in [("hook", config.hook), *(("listeners", each) for each in config.listeners)]:
        if name is not None:
            yield from _tried(f"{key}: {name} is there", functools.partial(loaded, key, name))
    if config.soft_bounce:
        yield Finding("ok", "soft_bounce is on: no refusal kills a message")


def _bounces(config: Config, said: BounceSettings) -> Iterator[Finding]:
    try:
        author = said.author or f"MAILER-DAEMON@{originating.origin(config, 'bounce.author')}"
    except OutboxError as error:
        yield Finding("error", str(error))
        return
    late = f", and of what is late after {config.warn_after}" if said.delayed and config.warn_after else ""
    yield Finding("ok", f"senders are told of what failed{late}, from {author}")
    if said.delayed and config.warn_after is None:
        yield Finding(
            "warning",
            "bounce.delayed is on, and nothing is ever late: warn_after is not set",
            'warn_after = "4h"',
        )
    if said.queue is not None and said.queue not in config.queues:
        yield Finding(
            "warning",
            f"bounces go to queue {said.queue}, which is not served here (served: {', '.join(config.queues)})",
            "mend bounce.queue, or add it to queues",
        )


def _tried(well: str, look: Callable[[], object]) -> Iterator[Finding]:
    wrong = list(_wrong(look))
    yield from wrong or [Finding("ok", well)]


def _wrong(look: Callable[[], object]) -> Iterator[Finding]:
    try:
        look()
    except OutboxError as error:
        yield Finding("error", printable(str(error), 1000))


def _secret(config: Config, name: str) -> object:
    if name == "password_file":
        return attrs.evolve(config, password=None).smtp_password()
    return attrs.evolve(config, password=None, password_file=None).smtp_token()


def _counting() -> object:
    from .metrics import library  # noqa: PLC0415 - an extra, for who asks for it

    return library()


def _to_be_written(name: str, path: Path) -> Finding:
    there = path if path.exists() else path.parent
    if os.access(there, os.W_OK):
        return Finding("ok", f"{name} {path} can be written")
    return Finding(
        "warning",
        f"{name} {path} cannot be written by who runs this check",
        "a permission, or its folder is not there",
    )


def _written_by_anybody(path: Path) -> Iterator[Finding]:
    with contextlib.suppress(OSError):
        if os.name == "posix" and path.stat().st_mode & _ANYBODY_WRITES:
            yield Finding(
                "error", f"everybody may write {path}: whoever does says where mail goes", f"chmod o-w {path}"
            )
