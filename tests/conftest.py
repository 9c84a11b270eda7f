"""What many files of tests begin with."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crashing
import examples  # noqa: F401 - it loads the profile of hypothesis
import postgres_places
import psycopg
import pytest
import tracing
from as_before import AsBefore
from command_line import CommandLine
from long_first import LongFirst
from postgres_cutter import Cutter, cutting
from postgres_places import Places
from postgres_server import Shared
from scan import SCAN
from started import PATIENCE, Listening

from outbox.stores.filesystem import FilesystemStore
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import Gate, SMTPSink

# Whoever waits for a process that begins waits for longer than usual where the machine is busy.
for wait in (SMTPSink.wait_for, Gate.wait_for):
    wait.__kwdefaults__ = {"timeout": dt.timedelta(seconds=PATIENCE)}


def pytest_configure(config: pytest.Config) -> None:
    # Whoever is begun in the background of a script inherits that it is ignored, and so do those whom he begins.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # As nohup has it. What is begun here has the usual again; we go on.
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) is signal.SIG_IGN:
        signal.signal(hang_up, lambda *_: None)
    config.pluginmanager.register(AsBefore())
    config.pluginmanager.register(SCAN)
    config.pluginmanager.register(LongFirst())


def pytest_sessionfinish() -> None:
    # Before it is looked who is left; who has not used it need not know of it.
    if "sqs_server" in sys.modules:
        sys.modules["sqs_server"].end()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """The PostgreSQL server of this run, and what there is room for on it."""
    root = tmp_path_factory.getbasetemp()
    shared = Shared((root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "postgres")
    os.environ[postgres_places.TOLD] = shared.dsn
    yield postgres_places.places()
    postgres_places.places().drop()
    shared.leave()


@pytest.fixture
def place(tmp_path: Path, postgres: Places) -> Iterator[Path]:
    """Where the stores of this test are on that server; others have their room in the end."""
    yield tmp_path
    postgres.leave(tmp_path)


@pytest.fixture
def cutter(postgres: Places) -> Iterator[Cutter]:
    """Who stands between a store and the server of this run."""
    host = str(psycopg.conninfo.conninfo_to_dict(postgres.dsn).get("host", ""))
    if not host.startswith("/"):
        pytest.skip("the server is the user's own, and not behind a Unix socket that can be stood before")
    with cutting(host) as cutter:
        yield cutter


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def open_spool(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., FilesystemStore]]:
    """Opens the spool of this test, or another; all are closed in the end."""
    opened: list[FilesystemStore] = []

    def open(where: Path = tmp_path / "spool", **settings: Any) -> FilesystemStore:
        opened.append(FilesystemStore(where, clock=clock, **settings))
        return opened[-1]

    yield open
    for store in opened:
        store.close()


@pytest.fixture(scope="session")
def untraceable() -> str:
    return tracing.missing()


@pytest.fixture
def traced_folder(tmp_path: Path, untraceable: str) -> Iterator[Path]:
    """Where the system calls of a process are seen; without a way to see them the test is skipped."""
    if untraceable:
        pytest.skip(untraceable)
    with crashing.workplace(tmp_path) as place:
        yield place


@pytest.fixture
def outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    """The command, in a directory of its own."""
    return CommandLine(tmp_path, monkeypatch, capsys)


@pytest.fixture
def sink(outbox: CommandLine) -> Iterator[SMTPSink]:
    """A server, to which the command is led."""
    with SMTPSink() as sink:
        outbox.environ(OUTBOX_TRANSPORT=sink.url)
        yield sink


@pytest.fixture
def systemd(outbox: CommandLine, tmp_path: Path) -> Iterator[Listening]:
    """Who hears what the command tells systemd."""
    outbox.environ(NOTIFY_SOCKET=str(tmp_path / "notify"))
    with contextlib.closing(Listening(str(tmp_path / "notify"))) as listening:
        yield listening
