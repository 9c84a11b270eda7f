"""What `outbox run` tells systemd."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine
from started import Listening, Started, put_mail

from outbox.cli.sdnotify import Systemd
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import SMTPSink

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def listening(address: str) -> Iterator[Listening]:
    with contextlib.closing(Listening(address)) as listening:
        yield listening


def test_it_is_told_what_sd_notify_says(listening: Listening, address: str) -> None:
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"}
    systemd = Systemd(environ, clock=ManualClock())
    assert (systemd.watchdog, systemd.beat) == (3.0, 1.5)
    systemd.ready("Delivering mail")
    systemd.reloading()
    systemd.alive()
    systemd.stopping()
    assert [listening.hear() for _ in range(4)] == [
        ("READY=1", "STATUS=Delivering mail"),
        ("RELOADING=1", "MONOTONIC_USEC=0"),
        ("WATCHDOG=1",),
        ("STOPPING=1", "STATUS=Finishing what is under way"),
    ]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="abstract names are of Linux")
def test_an_abstract_name_is_understood() -> None:
    name = f"@outbox-test-{os.getpid()}"
    with contextlib.closing(Listening(name)) as listening:
        Systemd({"NOTIFY_SOCKET": name}).ready("x")
        assert listening.hear() == ("READY=1", "STATUS=x")


def test_no_process_of_ours_can_speak_in_our_name(address: str) -> None:
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    Systemd(environ)
    assert environ == {"HOME": "/"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "/no/such/socket"},
        {"NOTIFY_SOCKET": "/" + "x" * 500},
        {"NOTIFY_SOCKET": "@"},
        {"WATCHDOG_USEC": "1000000"},
    ],
)
def test_where_nobody_listens_nothing_happens(environ: dict[str, str]) -> None:
    systemd = Systemd(environ)
    systemd.ready("x")
    systemd.alive()
    systemd.reloading()
    systemd.stopping()


@pytest.mark.parametrize(
    ("settings", "beat"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 1.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_told_twice_as_often_as_it_asks_and_only_by_whom_it_means(
    address: str, settings: dict[str, str], beat: float | None
) -> None:
    assert Systemd({"NOTIFY_SOCKET": address, **settings}).beat == beat


def test_what_cannot_be_told_at_once_is_told_later(listening: Listening, address: str) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": address})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while other.sendto(b"of another", address):
                pass
    assert systemd.beat is None
    systemd.reloading()
    systemd.ready("x")
    assert systemd.beat == 1.0
    assert listening.hear() == ("of another",)
    while listening.waiting():
        listening.hear()
    systemd.alive()
    assert listening.hear() == ("READY=1", "STATUS=x")
    assert systemd.beat is None
    systemd.alive()
    assert not listening.waiting()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_run_says_that_it_is_ready_reloads_lives_and_stops(
    listening: Listening, address: str, outbox: CommandLine, processes: str
) -> None:
    with SMTPSink() as sink:
        outbox.environ(OUTBOX_TRANSPORT=sink.url, NOTIFY_SOCKET=address, WATCHDOG_USEC="500000")
        with Started("--processes", processes) as run, sink.hold("dot") as gate:
            ready = listening.wait_for("READY=1")
            assert ready[1].startswith(f"STATUS=Delivering mail through {sink.url}")
            put_mail(outbox.path, 1)
            gate.wait_for(1)
            listening.wait_for("WATCHDOG=1")
            listening.wait_for("WATCHDOG=1")  # a relay that hangs is no death of ours
            gate.open()
            run.signal(signal.SIGHUP)
            reloading = listening.wait_for("RELOADING=1")
            assert int(reloading[1].removeprefix("MONOTONIC_USEC=")) > 0
            listening.wait_for("READY=1")
            run.signal()
            listening.wait_for("STOPPING=1")
            assert run.ended() == 0, run.err
