"""How long a supervisor waits for a process that says nothing, and how it takes new settings while it does."""

from __future__ import annotations

import datetime as dt
import os
import signal
from typing import Final

import pytest
from command_line import CommandLine
from started import PATIENCE, Listening, Started, put_mail

from outbox.cli.bell import Bell
from outbox.cli.journal import Entry, Journal
from outbox.cli.output import Console
from outbox.cli.sdnotify import Systemd
from outbox.cli.serving import Post
from outbox.cli.settings import Settings
from outbox.cli.signals import Asked
from outbox.cli.supervisor import Supervisor
from outbox.locate import Config
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import SMTPSink

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes as POSIX has them")

MOMENT: Final = 0.001


class Hasty(Bell):
    """The first *real* waits end when something is heard; in all others time passes by itself."""

    def __init__(self, clock: ManualClock, *, real: int, stop: bool = False) -> None:
        super().__init__()
        self.clock = clock
        self.asked = Asked(raising=False)
        self._real = real
        self._stop = stop

    def wait(self, timeout: float | None) -> frozenset[int]:
        if self._real:
            self._real -= 1
            return super().wait(PATIENCE)
        if self._stop:
            self.asked.stop = signal.SIGTERM
        heard = super().wait(min(MOMENT, timeout or 0.0))
        if not heard:
            self.pass_by(max(timeout or 0.0, MOMENT))
        return heard

    def pass_by(self, seconds: float) -> None:
        self.clock.advance(dt.timedelta(seconds=seconds))


class Stopped(Hasty):
    """Whoever waits by it is stopped in his second wait, until that is over, and then asked to end."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, real=1)
        self._was_stopped = False

    def wait(self, timeout: float | None) -> frozenset[int]:
        if self._real:
            return super().wait(timeout)
        if self._was_stopped:
            self.asked.stop = signal.SIGTERM
            return Bell.wait(self, timeout)
        self._was_stopped = True
        assert Bell.wait(self, PATIENCE), "there was something to be heard"
        self.pass_by(timeout or 0.0)
        return frozenset()


class Kept(Journal):
    """A journal of words; those that hold *last* ask for the end."""

    def __init__(self, asked: Asked, last: str) -> None:
        super().__init__(Console(), forever=True)
        self.asked = asked
        self.last = last
        self.words: list[str] = []

    def write(self, entry: Entry) -> None:
        self.words.append(entry.words)
        if self.last in entry.words:
            self.asked.stop = signal.SIGTERM


def supervised(program: str, bell: Hasty, *, watchdog: float | None = None, last: str = "\0") -> list[str]:
    """What is said of one process that does this."""
    with bell:
        post = Post(
            journal=(journal := Kept(bell.asked, last)),
            superior=Systemd({}),
            asked=bell.asked,
            bell=bell,
            reread=lambda: Settings(config=Config()),
            words=lambda _config: "At work",
            discreet=str,
        )
        Supervisor(
            post,
            Settings(config=Config(grace=dt.timedelta(0))),
            processes=1,
            arguments=["-c", program],
            watchdog=watchdog,
            clock=bell.clock,
        ).supervise()
    return journal.words


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.mark.parametrize(("watchdog", "seconds"), [(None, 60), (10.0, 60), (90.0, 90)])
def test_a_process_that_hangs_before_it_begins_is_killed_and_replaced(
    clock: ManualClock, watchdog: float | None, seconds: int
) -> None:
    words = supervised(
        "import time; time.sleep(60)", Hasty(clock, real=0), watchdog=watchdog, last="another begins"
    )
    assert words[1:3] == [
        f"process 1 did not begin within {seconds} s: it is killed",
        "process 1 was killed by SIGKILL; another begins in 0.1 s",
    ]


def test_a_process_that_closes_its_pipe_and_lives_is_killed_and_replaced(clock: ManualClock) -> None:
    program = "import os, time; os.write(1, b'r'); os.close(1); time.sleep(60)"
    words = supervised(program, Hasty(clock, real=2), last="another begins")
    assert words[1:3] == [
        "process 1 closed its pipe, and lives: it is killed",
        "process 1 was killed by SIGKILL; another begins in 0.1 s",
    ]


def test_a_process_that_closed_its_pipe_and_does_not_heed_its_end_is_killed_after_its_grace_time(
    clock: ManualClock,
) -> None:
    program = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "os.write(1, b'r'); os.close(1); time.sleep(60)"
    )
    words = supervised(program, Hasty(clock, real=2, stop=True))
    assert words[-2:] == ["process 1 did not end in its grace time: it is killed", "Stopped."]


def test_a_process_that_spoke_while_its_supervisor_was_stopped_is_not_taken_for_silent(
    clock: ManualClock,
) -> None:
    program = "import os, time\nfor word in b'r' + 1000 * b'a': os.write(1, bytes([word])), time.sleep(0.01)"
    words = supervised(program, Stopped(clock), watchdog=4.0)
    assert words == ["At work.", "Stopped."]


def hanging(outbox: CommandLine, sink: SMTPSink) -> None:
    """A transport with which no process gets ready, and settings that can name it."""
    (outbox.home / "strange.py").write_text(
        "import sys, time\n"
        "from outbox.testing import RecordingTransport\n"
        "def make():\n"
        "    if '--supervised' in sys.argv:\n"
        "        print('hanging', file=sys.stderr, flush=True)\n"
        "        for _ in range(6000): time.sleep(0.01)\n"  # a signal just before one long call would wait for its end
        "    return RecordingTransport()\n",
        "utf-8",
    )
    outbox.environ(PYTHONPATH=str(outbox.home), OUTBOX_TRANSPORT="")
    deliver_by(outbox, sink.url)


def deliver_by(outbox: CommandLine, transport: str) -> None:
    (outbox.home / "empty.toml").write_text(f'transport = "{transport}"\n', "utf-8")


def test_newer_settings_take_the_place_of_those_with_which_a_process_hangs(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    hanging(outbox, sink)
    with Started("--processes", "2") as run:
        systemd.wait_for("READY=1")
        before = run.children()
        deliver_by(outbox, "python:strange:make")
        run.signal(signal.SIGHUP)
        run.wait_for("hanging")
        deliver_by(outbox, sink.url)
        run.signal(signal.SIGHUP)
        run.wait_for("msg=reloaded")
        systemd.wait_for("READY=1")
        assert len(run.children()) == 2
        assert not set(run.children()) & set(before)
        put_mail(outbox.path, 1)
        sink.wait_for(1)
        run.signal()
        assert run.ended() == 0, run.err


def test_settings_that_are_refused_do_not_call_off_those_on_their_way(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    hanging(outbox, sink)
    with Started("--processes", "2") as run:
        systemd.wait_for("READY=1")
        before = run.children()
        deliver_by(outbox, "python:strange:make")
        run.signal(signal.SIGHUP)
        run.wait_for("hanging")
        deliver_by(outbox, "nonsense:")
        run.signal(signal.SIGHUP)
        run.wait_for("reload refused")
        (newcomer,) = set(run.children()) - set(before)
        os.kill(newcomer, signal.SIGKILL)
        run.wait_for("a process that began with them was killed by SIGKILL")
        run.signal()
        assert run.ended() == 0, run.err


def test_systemd_is_told_that_settings_are_in_force_where_a_further_process_cannot_begin_with_them(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    hanging(outbox, sink)
    (outbox.home / "first.py").write_text(
        "import os, sys\n"
        "from outbox.testing import RecordingTransport\n"
        "def make():\n"
        "    if '--supervised' in sys.argv:\n"
        "        try:\n"
        f"            os.mkdir({str(outbox.home / 'taken')!r})\n"
        "        except FileExistsError:\n"
        "            os._exit(70)\n"
        "    return RecordingTransport()\n",
        "utf-8",
    )
    with Started("--processes", "2") as run:
        systemd.wait_for("READY=1")
        deliver_by(outbox, "python:first:make")
        run.signal(signal.SIGHUP)
        run.wait_for("ended with status 70; another begins")
        assert systemd.wait_for("READY=1")[1].startswith("STATUS=Delivering mail through python:first")
        deliver_by(outbox, sink.url)
        run.signal(signal.SIGHUP)
        run.wait_for("msg=reloaded")
        run.signal()
        assert run.ended() == 0, run.err
