"""`outbox run --processes`: what dies is replaced, what cannot live ends it all, what hangs is found by its silence."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from command_line import CommandLine
from started import PATIENCE, Listening, Started, put_mail

from outbox.cli.lifeline import Orders
from outbox.cli.settings import Settings
from outbox.cli.supervisor import _Place
from outbox.locate import Config
from outbox.relay import RelayLimits
from outbox.testing.smtp_sink import SMTPSink

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks processes up in /proc")


def plug_in(outbox: CommandLine, text: str) -> None:
    """A transport of a stranger: `python:strange:make`."""
    (outbox.home / "strange.py").write_text(text, "utf-8")
    outbox.environ(OUTBOX_TRANSPORT="python:strange:make", PYTHONPATH=str(outbox.home))


def test_a_process_that_was_killed_is_replaced_and_its_message_is_not_lost(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    with Started("--processes", "2", "--lease", "1s") as run:
        systemd.wait_for("READY=1")
        before = run.children()
        with sink.hold("dot") as gate:
            put_mail(outbox.path, 1)
            gate.wait_for(1)
            for child in before:
                os.kill(child, signal.SIGKILL)
            run.wait_for("was killed by SIGKILL; another begins in 0.1 s", 2)
        put_mail(outbox.path, 1)
        sink.wait_for(3)  # the one under way went out again when its lease had ended
        assert not set(run.children()) & set(before)
        assert len(run.children()) == 2
        run.signal()
        assert run.ended() == 0, run.err


def test_the_wait_before_a_replacement_doubles_to_half_a_minute_and_begins_anew_when_one_has_lived() -> None:
    place = _Place(1)
    waits = [place.put_off(1.0, 0.0) for _ in range(11)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert place.put_off(60.0, 100.0) == 0.1
    assert place.due_at == 100.1


def test_processes_of_which_none_can_begin_end_it_with_words_that_name_the_cause(
    outbox: CommandLine,
) -> None:
    plug_in(
        outbox,
        "import os, sys\n"
        "from outbox.testing import RecordingTransport\n"
        "def make():\n"
        "    if '--supervised' in sys.argv:\n"
        "        print('no licence', file=sys.stderr, flush=True)\n"
        "        os._exit(78)\n"
        "    return RecordingTransport()\n",
    )
    with Started("--processes", "2") as run:
        assert run.ended() == 78
    assert run.err.count("no licence") in {5, 6}, "bounded"
    assert "gave up: 5 processes in a row died before they could deliver" in run.lines[-1]
    assert "the last ended with status 78" in run.lines[-1]


def test_what_cannot_begin_at_all_is_said_once_and_starts_no_process(outbox: CommandLine) -> None:
    with Started("--processes", "3", "--transport", "smtp:/localhost") as run:
        assert run.ended() == 78
    assert len(run.lines) == 1
    assert "names no server" in run.err


def test_one_that_dies_again_and_again_while_another_delivers_ends_nothing(
    outbox: CommandLine, sink: SMTPSink
) -> None:
    # The first that begins stays; all others die.
    plug_in(
        outbox,
        "import os, sys\n"
        "from outbox.locate import transport_from_url\n"
        "def make():\n"
        "    if '--supervised' in sys.argv:\n"
        "        try:\n"
        "            os.mkdir('taken')\n"
        "        except FileExistsError:\n"
        "            os._exit(70)\n"
        f"    return transport_from_url({sink.url!r})\n",
    )
    with Started("--processes", "3", cwd=outbox.home) as run:
        run.wait_for("ended with status 70; another begins in 0.8 s", 2)  # five in a row, and more
        put_mail(outbox.path, 1)
        sink.wait_for(1)
        run.signal()
        assert run.ended() == 0, run.err


def test_a_process_that_is_silent_for_longer_than_the_watchdog_is_killed_and_replaced(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    outbox.environ(WATCHDOG_USEC="1000000")
    with Started("--processes", "2") as run:
        systemd.wait_for("READY=1")
        stopped = run.children()[0]
        os.kill(stopped, signal.SIGSTOP)
        assert "was silent for" in run.wait_for(f'it is killed" pid={stopped}')
        systemd.wait_for("WATCHDOG=1")
        run.wait_for("was killed by SIGKILL; another begins")
        run.signal()
        assert run.ended() == 0, run.err
    assert run.err.count(f'it is killed" pid={stopped}') == 1, run.err


def test_a_process_has_the_settings_as_they_were_checked_whatever_the_file_holds_by_then(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    config = outbox.home / "empty.toml"
    config.write_text(
        f'transport = "{sink.url}"\nqueues = ["mail", "bulk"]\nretry.queues.bulk = "1m"\n', "utf-8"
    )
    outbox.environ(OUTBOX_TRANSPORT="")
    with Started("--processes", "2") as run:
        systemd.wait_for("READY=1")
        config.write_text("nobody = 'has checked this'\n", "utf-8")
        for child in run.children():
            os.kill(child, signal.SIGKILL)
        run.wait_for("another begins in 0.1 s", 2)
        outbox.environ(OUTBOX_CONFIG="")
        put_mail(outbox.path, 1)
        sink.wait_for(1)
        run.signal()
        assert run.ended() == 0, run.err
    assert "nobody" not in run.err


def test_a_process_has_the_password_and_the_logging_configuration_as_they_were_checked(
    outbox: CommandLine, systemd: Listening
) -> None:
    password, logging = outbox.home / "password", outbox.home / "log.toml"
    password.write_text("c4narypassword", "utf-8")
    password.chmod(0o600)
    handler = '[handlers.err]\nclass = "logging.StreamHandler"\n'
    logging.write_text(handler + '[root]\nhandlers = ["err"]\nlevel = "INFO"\n', "utf-8")
    outbox.environ(OUTBOX_TRANSPORT="smtps://app@127.0.0.1:1", OUTBOX_SMTP_PASSWORD_FILE=str(password))
    with Started("--processes", "2", "--log-config", str(logging)) as run:
        systemd.wait_for("READY=1")
        password.unlink()
        logging.write_text('[root]\nhandlers = ["no such"]\n', "utf-8")
        for child in run.children():
            for told in ("environ", "cmdline"):
                assert b"c4narypassword" not in Path(f"/proc/{child}/{told}").read_bytes()
            os.kill(child, signal.SIGKILL)
        run.wait_for("was killed by SIGKILL; another begins in 0.1 s", 2)
        put_mail(outbox.path, 1)
        run.wait_for("paused=")
        run.signal()
        assert run.ended() == 0, run.err
    assert "c4narypassword" not in run.err


def test_a_process_shares_its_pipe_with_nobody_and_neither_sighup_nor_a_terminal_reaches_it(
    outbox: CommandLine, systemd: Listening
) -> None:
    plug_in(
        outbox,
        "import signal, subprocess, sys\n"
        "from outbox.testing import RecordingTransport\n"
        "def make():\n"
        "    if '--supervised' in sys.argv:\n"
        "        said = subprocess.run(['cat'], stdout=subprocess.PIPE, timeout=30).stdout\n"
        "        alone = {n for n in signal.Signals if signal.getsignal(n) == signal.SIG_IGN}\n"
        "        alone = alone >= {signal.SIGHUP, signal.SIGTTOU}\n"
        "        print('heard', said, alone, signal.pthread_sigmask(signal.SIG_BLOCK, ()), file=sys.stderr, flush=True)\n"
        "    return RecordingTransport()\n",
    )
    with Started("--processes", "2") as run:
        run.wait_for("heard b'' True set()", 2)
        systemd.wait_for("READY=1")
        run.signal()
        assert run.ended() == 0, run.err


def test_modules_of_the_current_directory_are_let_in_only_where_they_were_before(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    (outbox.home / "pickle.py").write_text("raise SystemExit('a stranger')\n", "utf-8")
    with Started("--processes", "2", interpreter=["-P"], cwd=outbox.home) as run:
        systemd.wait_for("READY=1")
        run.signal()
        assert run.ended() == 0, run.err


def test_a_directory_that_was_removed_meanwhile_is_no_reason_to_replace_nobody(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    release = outbox.home / "release-1"
    release.mkdir()
    with Started("--processes", "2", cwd=release) as run:
        systemd.wait_for("READY=1")
        release.rmdir()
        before = run.children()
        for child in before:
            os.kill(child, signal.SIGKILL)
        run.wait_for("was killed by SIGKILL; another begins in 0.1 s", 2)
        put_mail(outbox.path, 1)
        sink.wait_for(1)
        run.signal()
        assert run.ended() == 0, run.err


def test_supervised_is_for_supervisors(outbox: CommandLine) -> None:
    with Started("--supervised") as run:
        assert run.process.wait(PATIENCE) == 64
    assert "--processes" in run.err
    assert "is gone" in run.err, "else it is that"


def test_each_process_is_told_its_share_of_what_a_relay_is_asked_to_take() -> None:
    config = Config(limits={"*": RelayLimits(connections=8, per_second=10)})
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb") as pipe:
        Orders(settings=Settings(config=config), beat=None, among=4).write(pipe)
        told = Orders.read(reading).settings.config
    assert dict(told.limits) == {"*": RelayLimits(connections=2, per_second=2.5)}
