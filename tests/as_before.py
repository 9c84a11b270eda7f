"""A run of the tests leaves the machine as it was, or fails: accounts, the modes of folders above us, processes.

A database's own starter may add an account where it is run as root, and open
the folders above its data to it; a server that a test began may outlive it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import pytest

__all__ = ["AsBefore", "changes", "seen"]

ACCOUNTS: Final = ("/etc/passwd", "/etc/group", "/etc/shadow")
RUN: Final = "OUTBOX_TESTS_OF_THE_RUN"
"""In the environment of all that a run begins."""
PATIENCE: Final = 60.0
"""So many seconds has a server's keeper to see that nobody is left who uses it."""
_LOOKS: Final = 0.1
_TRACKER: Final = b"multiprocessing.resource_tracker"
"""Python's own, which ends with the process that it belongs to: with this one, where there are no others."""


def seen(accounts: Iterable[str | Path], folders: Iterable[Path]) -> dict[str, str]:
    """What the *accounts* say, and whose the *folders* and all above them are, by name."""
    found = {}
    for each in accounts:
        try:
            found[str(each)] = hashlib.sha256(Path(each).read_bytes()).hexdigest()
        except OSError as error:
            found[str(each)] = type(error).__name__
    for folder in folders:
        for each in (folder.resolve(), *folder.resolve().parents):
            of = each.stat()
            found[str(each)] = f"{stat.filemode(of.st_mode)}, of user {of.st_uid} and group {of.st_gid}"
    return found


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What is not as it was, in words."""
    return [
        f"{name} was {before[name]} and is {after[name]}" for name in before if after[name] != before[name]
    ]


def processes(run: str) -> Iterator[str]:
    """The processes that *run* began and that are there; none where the system has no list of them to read."""
    told = f"{RUN}={run}".encode()
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if int(each.name) != os.getpid() and told in (each / "environ").read_bytes().split(b"\0"):
                words = (each / "cmdline").read_bytes().split(b"\0")
                if any(_TRACKER in word for word in words) and _parent(each) == os.getpid():
                    continue
                yield f"process {each.name}: {b' '.join(words).decode(errors='replace')[:200]}"
        except OSError:
            continue  # It ended, or is another user's.


def _parent(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


@attrs.define
class AsBefore:
    """A plugin of pytest, in the process that shares the tests out."""

    accounts: tuple[str, ...] = ACCOUNTS
    folders: tuple[Path, ...] = (Path(__file__).parent.parent, Path(tempfile.gettempdir()))
    patience: float = PATIENCE
    _before: dict[str, str] = attrs.field(init=False, factory=dict)
    _run: str = attrs.field(init=False, default="")
    _left: list[str] = attrs.field(init=False, factory=list)

    def pytest_configure(self, config: pytest.Config) -> None:
        if not hasattr(config, "workerinput"):
            self._before = seen(self.accounts, self.folders)
            self._run = os.environ[RUN] = uuid.uuid4().hex

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if not self._run:
            return
        os.environ.pop(RUN, None)
        self._left = changes(self._before, seen(self.accounts, self.folders))
        until = time.monotonic() + self.patience
        while (running := list(processes(self._run))) and time.monotonic() < until:
            time.sleep(_LOOKS)
        self._left += running
        if self._left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._left:
            terminalreporter.section("the tests did not leave the machine as it was", red=True)
            for each in self._left:
                terminalreporter.line(each)
