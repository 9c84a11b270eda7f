"""How `outbox run` ends: in good order, at once, with its processes, and with its supervisor."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from command_line import CommandLine
from started import PATIENCE, Listening, Started, numbers_in, put_mail

from outbox import Outbox
from outbox.clock import SystemClock
from outbox.lifecycle import State
from outbox.locate import transport_from_url
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import SMTPSink

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

ALONE_AND_SEVERAL = pytest.mark.parametrize("processes", ["1", "3"])


def states(path: Path) -> Counter[State]:
    with contextlib.closing(SQLiteStore(path)) as store:
        return Counter({count.state: count.number for count in store.count()})


def received(sink: SMTPSink) -> list[int]:
    return numbers_in([message.content for message in sink.messages])


@ALONE_AND_SEVERAL
def test_sigterm_under_load_ends_within_the_grace_time_leaves_nothing_leased_and_sends_nothing_twice(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening, processes: str
) -> None:
    sink.on("dot", reply="250 taken", after=dt.timedelta(milliseconds=50))
    with Started("-q", "--processes", processes) as run:
        systemd.wait_for("READY=1")
        put_mail(outbox.path, 500)
        sink.wait_for(40)
        run.signal()
        assert run.ended() == 0, run.err
    sink.behave()
    assert states(outbox.path).keys() == {State.QUEUED}, "nothing is leased, and it was under load"
    assert states(outbox.path)[State.QUEUED] == 500 - len(sink.messages)
    assert outbox("drain", "-q").status == 0
    assert received(sink) == list(range(500))


@ALONE_AND_SEVERAL
def test_a_second_signal_ends_every_process_at_once_and_loses_nothing(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening, processes: str
) -> None:
    with Started("-q", "--processes", processes, "--grace", "1h") as run:
        systemd.wait_for("READY=1")
        sink.on("dot", reply="250 taken", times=20)
        gate = sink.hold("dot")
        put_mail(outbox.path, 100)
        gate.wait_for(1)
        assert run.end_at_once() == 128 + signal.SIGTERM, run.err
        under_way = gate.came
        sink.behave()
    later = ManualClock(SystemClock().now() + dt.timedelta(hours=1))
    with Outbox(SQLiteStore(outbox.path, clock=later), transport_from_url(sink.url)) as again:
        again.drain()
    assert set(received(sink)) == set(range(100))
    assert len(sink.messages) <= 100 + under_way, "only what was under way may go out again"
    assert states(outbox.path).total() == 0


def test_ctrl_c_ends_it_in_good_order(outbox: CommandLine, sink: SMTPSink, systemd: Listening) -> None:
    with Started("--processes", "2") as run:
        systemd.wait_for("READY=1")
        run.signal(signal.SIGINT)
        assert run.ended() == 0, run.err


@ALONE_AND_SEVERAL
def test_what_does_not_end_in_the_grace_time_is_left_to_its_lease_with_a_status_that_says_so(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening, processes: str
) -> None:
    with Started("-q", "--processes", processes, "--grace", "0.1s") as run, sink.hold("dot") as gate:
        systemd.wait_for("READY=1")
        put_mail(outbox.path, 1)
        gate.wait_for(1)
        run.signal()
        assert run.ended() == 75, run.err
    assert "hanging=1" in run.err
    assert states(outbox.path) == {State.CLAIMED: 1}


def test_processes_whose_supervisor_was_killed_finish_and_end(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    with Started("-q", "--processes", "3") as run, sink.hold("dot") as gate:
        systemd.wait_for("READY=1")
        assert len(run.children()) == 3
        put_mail(outbox.path, 1)
        gate.wait_for(1)
        run.signal(signal.SIGKILL)
        assert run.process.wait(PATIENCE) == -signal.SIGKILL
        gate.open()
        run.wait_for_the_last()
    assert states(outbox.path).total() == 0, "what was under way was finished and settled"
    assert len(sink.messages) == 1


def test_a_process_that_is_told_to_stop_again_and_again_still_ends_in_good_order(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    # As a supervisor and systemd do, when both stop it.
    with Started("-q", "--processes", "2") as run, sink.hold("dot") as gate:
        systemd.wait_for("READY=1")
        put_mail(outbox.path, 1)
        gate.wait_for(1)
        children = run.children()
        run.signal()
        run.wait_for("stopping")
        for _ in range(7):  # for longer than an echo lasts
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(0.1)
        gate.open()
        assert run.ended() == 0, run.err
    assert states(outbox.path).total() == 0


@pytest.mark.parametrize(
    ("processes", "where"), [("1", "True"), ("2", "True"), ("2", "'--supervised' in sys.argv")]
)
def test_a_run_that_is_stopped_while_a_store_opens_ends_with_0(
    outbox: CommandLine, sink: SMTPSink, processes: str, where: str
) -> None:
    (outbox.home / "slow_store.py").write_text(
        "import sys, time\n"
        "from outbox.stores.sqlite import SQLiteStore\n"
        "def slow(path):\n"
        f"    if {where}:\n"
        "        print('opening', file=sys.stderr, flush=True)\n"
        # Not in one long call of the system: a signal that comes just before it is not seen until it ends.
        "        for _ in range(6000): time.sleep(0.01)\n"
        "    return SQLiteStore(path)\n",
        "utf-8",
    )
    outbox.environ(PYTHONPATH=str(outbox.home))
    with Started("--store", f"python:slow_store:slow?path={outbox.path}", "--processes", processes) as run:
        run.wait_for("opening")
        run.signal()
        assert run.ended() == 0, run.err


@ALONE_AND_SEVERAL
def test_a_second_signal_ends_it_although_nobody_reads_its_words(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening, processes: str
) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    os.set_blocking(writing, True)
    # -qq: only what it says to a signal; what it logs is waited for by who writes it.
    run = subprocess.Popen(
        [sys.executable, "-m", "outbox", "run", "-qq", "--processes", processes], stderr=writing
    )
    try:
        systemd.wait_for("READY=1")
        with sink.hold("dot") as gate:
            put_mail(outbox.path, 1)
            gate.wait_for(1)
            run.terminate()
            systemd.wait_for("STOPPING=1")
            while run.poll() is None:  # what comes in the first half second is an echo
                run.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(0.1)
            assert run.returncode == 128 + signal.SIGTERM
    finally:
        run.kill()
        run.wait()
        os.close(reading)
        os.close(writing)


@ALONE_AND_SEVERAL
def test_once_the_end_was_asked_for_no_echo_ends_the_last_steps(
    outbox: CommandLine, systemd: Listening, processes: str
) -> None:
    (outbox.home / "strange.py").write_text(
        "import atexit, os, signal, sys\n"
        "from outbox.testing import RecordingTransport\n"
        "def tell():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still there', file=sys.stderr, flush=True)\n"
        "def make():\n"
        "    if '--supervised' not in sys.argv:\n"
        "        atexit.register(tell)\n"
        "    return RecordingTransport()\n",
        "utf-8",
    )
    outbox.environ(PYTHONPATH=str(outbox.home), OUTBOX_TRANSPORT="python:strange:make")
    with Started("--processes", processes) as run:
        systemd.wait_for("READY=1")
        run.signal()
        assert run.ended() == 0, run.err
    assert run.lines[-1] == "still there"


@pytest.mark.parametrize("options", [[], ["--log-file", "log"]])
def test_a_terminal_that_is_closed_ends_it_wherever_its_lines_go(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening, options: list[str]
) -> None:
    ours, its = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "outbox", "run", *options],
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        cwd=outbox.home,
    ) as run:
        os.close(its)
        try:
            systemd.wait_for("READY=1")
            run.send_signal(signal.SIGHUP)
            assert systemd.wait_for("STATUS=Finishing what is under way")
            assert run.wait(PATIENCE) == 0
        finally:
            run.kill()
            os.close(ours)


def test_sighup_to_all_at_once_is_one_reload(outbox: CommandLine, sink: SMTPSink, systemd: Listening) -> None:
    # As `pkill -HUP outbox` does it, and more than once.
    with Started("--processes", "2") as run:
        systemd.wait_for("READY=1")
        run.signal(signal.SIGHUP)
        for _ in range(3000):
            for pid in run.children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGHUP)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(0.01)  # the newcomers are hit at every step
            if "msg=reloaded" in run.err:
                break
        run.wait_for("msg=reloaded")
        run.signal()
        assert run.ended() == 0, run.err
    assert run.err.count("msg=reloaded") == 1
    assert "another begins" not in run.err


PROGRAM = """
import signal, sys, threading
from outbox import Outbox
from outbox.locate import store_from_url, transport_from_url

def mine(number, frame):
    print("mine", number, flush=True)

numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
for number in numbers:
    signal.signal(number, mine)
with Outbox(store_from_url(sys.argv[1]), transport_from_url(sys.argv[2])) as outbox:
    runner = outbox.runner()
    thread = threading.Thread(target=runner.run_forever)
    thread.start()
    told = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), told.set())).start()
    print("begun", flush=True)
    # Not in one long call of the system: a signal that comes just before it is not seen until it ends.
    while not told.wait(0.01):
        pass
    runner.stop()
    thread.join()
    print("same", all(signal.getsignal(number) is mine for number in numbers), flush=True)
"""


def test_run_forever_in_a_thread_leaves_the_signal_handlers_of_a_program_alone(
    outbox: CommandLine, sink: SMTPSink
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, outbox.store, sink.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            program.send_signal(number)
            assert program.stdout.readline() == f"mine {int(number)}\n"
        put_mail(outbox.path, 1)
        sink.wait_for(1)
        program.stdin.write("stop\n")
        program.stdin.flush()
        assert program.stdout.readline() == "same True\n"
        program.stdin.close()
        assert program.wait(PATIENCE) == 0
