"""SIGHUP: `outbox run` takes new settings while it delivers, and refuses those that cannot be used."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from command_line import CommandLine
from started import Listening, Started, put_mail

from outbox.testing.smtp_sink import SMTPSink

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")

ALONE_AND_SEVERAL = pytest.mark.parametrize("processes", ["1", "2"])


@pytest.fixture
def sink() -> Iterator[SMTPSink]:
    with SMTPSink() as sink:
        yield sink


@pytest.fixture
def other() -> Iterator[SMTPSink]:
    with SMTPSink() as sink:
        yield sink


def settings(outbox: CommandLine, text: str) -> None:
    (outbox.home / "empty.toml").write_text(text, "utf-8")


@ALONE_AND_SEVERAL
def test_sighup_takes_new_settings_and_what_is_under_way_ends_as_it_began(
    outbox: CommandLine, sink: SMTPSink, other: SMTPSink, systemd: Listening, processes: str
) -> None:
    settings(outbox, f'transport = "{sink.url}"\n')
    with Started("--processes", processes) as run, sink.hold("dot") as gate:
        systemd.wait_for("READY=1")
        put_mail(outbox.path, 1)
        gate.wait_for(1)
        before = run.children()
        settings(outbox, f'transport = "{other.url}"\n')
        run.signal(signal.SIGHUP)
        systemd.wait_for("RELOADING=1")
        if processes == "1":
            systemd.wait_for("READY=1")
            assert run.wait_for("msg=reloaded").endswith(other.url)
            gate.open()
        else:
            gate.open()
            systemd.wait_for("READY=1")
        put_mail(outbox.path, 4)
        other.wait_for(4)
        assert not set(run.children()) & set(before)
        assert len(run.children()) == len(before)
        run.signal()
        assert run.ended() == 0, run.err
    assert len(sink.messages) == 1
    assert outbox("list", "--json").rows == []


@ALONE_AND_SEVERAL
def test_a_sighup_while_the_settings_are_read_has_them_read_once_more(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening, processes: str
) -> None:
    pipe = outbox.home / "pipe.toml"
    os.mkfifo(pipe)
    with Started("--config", str(pipe), "--processes", processes) as run:
        with pipe.open("w") as first:  # open when somebody reads
            run.signal(signal.SIGHUP)
            pipe.unlink()
            pipe.write_text(f'transport = "{sink.url}"', "utf-8")
            first.write(f'transport = "{sink.url}"')
        systemd.wait_for("RELOADING=1")
        run.signal()
        assert run.ended() == 0, run.err


@ALONE_AND_SEVERAL
@pytest.mark.parametrize(
    "wrong_and_said",
    [
        ("nonsense = 1\n", "empty.toml:1: unknown key 'nonsense'"),
        ('transport = "smtp://app@localhost"\n', "no password"),
        (
            'transport = "smtp://localhost"\nstore = "sqlite:////no/such/folder/outbox.db"\n',
            "/no/such/folder",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_refused_and_the_old_ones_go_on(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening, processes: str, wrong_and_said: tuple[str, str]
) -> None:
    wrong, says = wrong_and_said
    outbox.environ(OUTBOX_STORE="")
    right = f'transport = "{sink.url}"\nstore = "{outbox.store}"\n'
    settings(outbox, right)
    with Started("--processes", processes) as run:
        systemd.wait_for("READY=1")
        before = run.children()
        settings(outbox, wrong if "store" in wrong else wrong + f'store = "{outbox.store}"\n')
        run.signal(signal.SIGHUP)
        assert says in run.wait_for("reload refused")
        systemd.wait_for("READY=1")
        put_mail(outbox.path, 1)
        sink.wait_for(1)
        assert run.children() == before
        run.signal()
        assert run.ended() == 0, run.err


def test_what_a_reload_had_to_leave_behind_is_told_then_and_does_not_make_the_stop_a_bad_one(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    settings(outbox, f'transport = "{sink.url}"\n')
    with Started("--processes", "2", "--grace", "1s") as run, sink.hold("dot") as gate:
        systemd.wait_for("READY=1")
        put_mail(outbox.path, 1)
        gate.wait_for(1)
        run.signal(signal.SIGHUP)
        run.wait_for("hanging=1")
        run.wait_for("msg=reloaded")
        run.signal()
        assert run.ended() == 0, run.err


def test_settings_are_not_taken_again_while_what_began_with_those_before_is_under_way(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    outbox.environ(WATCHDOG_USEC="200000")
    settings(outbox, f'transport = "{sink.url}"\n')
    with Started() as run, sink.hold("dot", times=1) as gate:
        systemd.wait_for("READY=1")
        put_mail(outbox.path, 1)
        gate.wait_for(1)
        run.signal(signal.SIGHUP)
        systemd.wait_for("RELOADING=1")
        systemd.wait_for("READY=1")
        run.signal(signal.SIGHUP)
        assert {systemd.hear() for _ in range(4)} == {("WATCHDOG=1",)}
        gate.open()
        systemd.wait_for("RELOADING=1")
        systemd.wait_for("READY=1")
        run.signal()
        assert run.ended() == 0, run.err


def test_settings_with_which_no_process_can_begin_are_refused_and_the_old_ones_go_on(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    (outbox.home / "strange.py").write_text(
        "import os, sys\n"
        "from outbox.testing import RecordingTransport\n"
        "def make():\n"
        "    if '--supervised' in sys.argv:\n"
        "        os._exit(9)\n"
        "    return RecordingTransport()\n",
        "utf-8",
    )
    outbox.environ(PYTHONPATH=str(outbox.home))
    settings(outbox, f'transport = "{sink.url}"\n')
    with Started("--processes", "2") as run:
        systemd.wait_for("READY=1")
        before = run.children()
        settings(outbox, 'transport = "python:strange:make"\n')
        run.signal(signal.SIGHUP)
        assert "a process that began with them ended with status 9" in run.wait_for("reload refused")
        assert run.children() == before
        put_mail(outbox.path, 1)
        sink.wait_for(1)
        os.kill(before[0], signal.SIGKILL)
        run.wait_for("another begins")
        run.signal()
        assert run.ended() == 0, run.err


def test_a_log_file_is_opened_anew_at_sighup(outbox: CommandLine, sink: SMTPSink, systemd: Listening) -> None:
    log, moved = outbox.home / "run.log", outbox.home / "run.log.1"
    settings(outbox, f'transport = "{sink.url}"\n')
    with Started("--processes", "2", "--log-file", str(log)) as run:
        systemd.wait_for("READY=1")
        log.rename(moved)
        run.signal(signal.SIGHUP)
        systemd.wait_for("RELOADING=1")
        systemd.wait_for("READY=1")
        put_mail(outbox.path, 1)
        sink.wait_for(1)
        run.signal()
        assert run.ended() == 0
    assert run.lines == []
    assert "msg=running" in moved.read_text("utf-8")
    assert "to=ann@example.org" in log.read_text("utf-8")
    assert "msg=stopped" in log.read_text("utf-8")


def test_a_log_file_is_opened_anew_in_every_process_also_where_the_settings_are_refused(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    log, moved = outbox.home / "run.log", outbox.home / "run.log.1"
    settings(outbox, f'transport = "{sink.url}"\n')
    with Started("--processes", "2", "--log-file", str(log)) as run:
        systemd.wait_for("READY=1")
        before = run.children()
        log.rename(moved)
        settings(outbox, "nonsense = [\n")
        run.signal(signal.SIGHUP)
        systemd.wait_for("RELOADING=1")
        systemd.wait_for("READY=1")
        assert "reload refused" in log.read_text("utf-8")
        # Each has its word by now; it may still have to come to it.
        for number in range(1, 100):
            put_mail(outbox.path, 1)
            sink.wait_for(number)
            if "to=ann@example.org" in log.read_text("utf-8"):
                break
        assert run.children() == before
        run.signal()
        assert run.ended() == 0
    assert "to=ann@example.org" in log.read_text("utf-8")


@ALONE_AND_SEVERAL
def test_a_logging_configuration_that_is_refused_changes_nothing_in_the_log(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening, processes: str
) -> None:
    path = outbox.home / "log.toml"
    right = '[handlers.err]\nclass = "logging.StreamHandler"\n[root]\nhandlers = ["err"]\nlevel = "INFO"\n'
    path.write_text(right, "utf-8")
    settings(outbox, f'transport = "{sink.url}"\n')
    with Started("--processes", processes, "--log-config", str(path)) as run:
        systemd.wait_for("READY=1")
        path.write_text(right.replace('["err"]', '["nobody"]'), "utf-8")
        run.signal(signal.SIGHUP)
        assert "log.toml: root: " in run.wait_for("reload refused")
        systemd.wait_for("READY=1")
        put_mail(outbox.path, 1)
        run.wait_for("to=ann@example.org")
        run.signal()
        run.wait_for("msg=stopped")
        assert run.ended() == 0, run.err


@ALONE_AND_SEVERAL
def test_the_log_stays_where_it_was_when_the_other_settings_are_refused(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening, processes: str
) -> None:
    path, elsewhere = outbox.home / "log.toml", outbox.home / "elsewhere"
    right = '[handlers.x]\nclass = "logging.StreamHandler"\n[root]\nhandlers = ["x"]\nlevel = "INFO"\n'
    path.write_text(right, "utf-8")
    settings(outbox, f'transport = "{sink.url}"\n')
    with Started("--processes", processes, "--log-config", str(path)) as run:
        systemd.wait_for("READY=1")
        path.write_text(
            right.replace("Stream", "File").replace("[root]", f'filename = "{elsewhere}"\n[root]'), "utf-8"
        )
        settings(outbox, "transport = 'smtp:/nowhere'\n")
        run.signal(signal.SIGHUP)
        run.wait_for("reload refused")
        run.signal()
        run.wait_for("msg=stopped")
        assert run.ended() == 0, run.err
    assert not elsewhere.exists()
