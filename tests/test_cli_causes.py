"""What names a cause to a person: whose process is stopped or gone, whose clock is wrong, who may have two copies, which domain it is."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import attrs
import pytest
from command_line import CommandLine

from outbox import Accepted, Message, Outcome, TempFailed, Uncertain
from outbox.bulletin import Bulletin, written
from outbox.lifecycle import Delivered, Fate, Retry, Settlement
from outbox.stores.filesystem import FilesystemStore
from outbox.stores.sqlite import SQLiteStore
from outbox.testing import ManualClock

ANN: Final = "ann@example.net"
MINUTE: Final = dt.timedelta(minutes=1)
HERE: Final = Path("/proc/self/ns/pid")
ON_LINUX: Final = pytest.mark.skipif(not HERE.exists(), reason="there is no /proc here")


class Usage(NamedTuple):
    """What a disk says of itself."""

    total: int
    used: int
    free: int


@pytest.fixture
def store(outbox: CommandLine) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(outbox.path, keep_delivered=dt.timedelta(days=7))) as store:
        yield store


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """One that waits for its end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def runner(pid: int, **said: Any) -> Bulletin:
    known = Bulletin(
        host=socket.gethostname(),
        pid=pid,
        queues=("mail",),
        workers=4,
        up=0.0,
        place=str(HERE.readlink()) if HERE.exists() else "",
    )
    return attrs.evolve(known, **said)


def announced(store: SQLiteStore, said: Bulletin) -> None:
    store.announce("r1", written(said), for_=MINUTE)


def put(store: SQLiteStore, *recipients: str) -> None:
    store.put([Message(id="order-47", recipients=recipients or (ANN,), content=b"x")])


def attempted(store: SQLiteStore, verdict: Any) -> None:
    (claim,) = store.claim(limit=1, lease=MINUTE, queues=["mail"])
    assert not store.settle([Settlement(claim, verdict)])


# -- whose process


@ON_LINUX
def test_a_runner_whose_process_is_stopped_is_not_alive_however_short_ago_it_spoke(
    outbox: CommandLine, store: SQLiteStore, process: subprocess.Popen[bytes]
) -> None:
    announced(store, runner(process.pid))
    assert "SILENT" not in outbox("status").out

    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert f"STOPPED by a signal: kill -CONT {process.pid} lets it go on" in outbox("status").out
    (told,) = outbox("status", "--json").data["runners"]
    assert (told["alive"], told["process"]) == (False, "stopped")


@ON_LINUX
def test_a_runner_whose_process_was_killed_is_gone_at_once(
    outbox: CommandLine, store: SQLiteStore, process: subprocess.Popen[bytes]
) -> None:
    put(store)
    announced(store, runner(process.pid))
    process.kill()
    process.wait()

    assert "GONE: it was killed or crashed" in outbox("status").out
    said = " ".join(outbox("explain", "order-47").out.split())
    assert "no runner is alive (pid" in said
    assert "GONE: it was killed or crashed" in said


@ON_LINUX
def test_a_process_that_began_after_the_runner_is_another_with_its_number(
    outbox: CommandLine, store: SQLiteStore, process: subprocess.Popen[bytes]
) -> None:
    announced(store, runner(process.pid, up=86_400.0))
    assert "GONE" in outbox("status").out


@ON_LINUX
@pytest.mark.parametrize("elsewhere", [{"host": "app-2"}, {"place": "pid:[1]"}, {"place": ""}])
def test_of_a_process_elsewhere_nothing_is_told_by_its_number(
    outbox: CommandLine, store: SQLiteStore, process: subprocess.Popen[bytes], elsewhere: dict[str, str]
) -> None:
    announced(store, runner(process.pid, **elsewhere))
    process.kill()
    process.wait()
    (told,) = outbox("status", "--json").data["runners"]
    assert (told["alive"], told["process"]) == (True, "unknown")


@ON_LINUX
def test_a_runner_that_is_silent_while_its_process_is_there_is_said_to_hang(
    outbox: CommandLine, store: SQLiteStore, process: subprocess.Popen[bytes]
) -> None:
    store.announce("r1", written(runner(process.pid)), for_=dt.timedelta(microseconds=1))
    assert f"its process is there and hangs: kill -9 {process.pid} ends it" in outbox("status").out


# -- whose clock


@pytest.mark.parametrize(
    ("moved", "says"),
    [
        (-10_800.0, "set back by 3 h since pid"),
        (7_200.0, "set forward by 2 h, or it slept, since pid"),
        (-30.0, ""),
    ],
)
def test_a_clock_that_a_runner_saw_being_set_is_said_where_it_is_more_than_a_correction(
    outbox: CommandLine, store: SQLiteStore, moved: float, says: str
) -> None:
    announced(store, runner(os.getpid(), clock_moved=moved, place=""))
    out = outbox("status").out
    assert ("CLOCK" in out) == bool(says)
    assert says in out


def tried_in_the_future(path: Path, kind: type[SQLiteStore | FilesystemStore]) -> None:
    ahead = ManualClock(dt.datetime.now(dt.UTC) + dt.timedelta(hours=3, minutes=30))
    with closing(kind(path, clock=ahead)) as store:
        store.put([Message(id="order-47", recipients=(ANN,), content=b"x")])
        (claim,) = store.claim(limit=1, lease=MINUTE, queues=["mail"])
        store.settle([Settlement(claim, Retry(delay=MINUTE, fates=claim.fates, reason="450 come back"))])


@pytest.mark.parametrize("kind", [SQLiteStore, FilesystemStore])
def test_check_finds_what_waits_for_an_hour_that_a_wrong_clock_has_set(
    outbox: CommandLine, tmp_path: Path, kind: type[SQLiteStore | FilesystemStore]
) -> None:
    tried_in_the_future(tmp_path / "there", kind)
    outbox.environ(OUTBOX_STORE=f"{'sqlite' if kind is SQLiteStore else 'file'}:///{tmp_path / 'there'}")

    ran = outbox("check")
    assert ran.status != 0
    assert (
        "the clock is wrong, or was: 1 message that waits was submitted or tried in the future, up to 3 h"
        in ran.out
    )
    assert outbox("requeue", "--state", "queued").status == 0
    assert "the clock agrees with the store" in outbox("check").out


def test_a_message_that_was_tried_in_the_future_names_the_clock_although_it_was_submitted_before(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    ahead = ManualClock(dt.datetime.now(dt.UTC) + dt.timedelta(hours=3))
    with closing(SQLiteStore(outbox.path, clock=ahead)) as later:
        deferred = reported(TempFailed("450 come back"))
        fates = {ANN: Fate.WAITING}
        attempted(later, Retry(delay=MINUTE, fates=fates, reason="450 come back", outcome=deferred))

    ran = outbox("explain", "order-47", "--json").data
    assert ran["reasons"][0]["rule"] == "clock"
    assert "it was tried in the future, 3 h from now" in ran["reasons"][0]["text"]
    assert "the clock is wrong, or was" in outbox("check").out


# -- who has it twice


def reported(result: Accepted | TempFailed | Uncertain, *recipients: str) -> Outcome:
    return Outcome.same(recipients or (ANN,), result)


def test_who_was_sent_to_twice_is_told_with_both_attempts_by_show_and_explain(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store, ANN, "bob@example.org")
    unsure = Outcome(results={ANN: Uncertain("no answer in time"), "bob@example.org": Accepted("250 ok")})
    attempted(
        store,
        Retry(
            delay=dt.timedelta(0),
            fates={ANN: Fate.DOUBTFUL, "bob@example.org": Fate.ACCEPTED},
            reason="no answer in time",
            outcome=unsure,
        ),
    )
    both = {ANN: Fate.ACCEPTED, "bob@example.org": Fate.ACCEPTED}
    attempted(store, Delivered(fates=both, outcome=reported(Accepted("250 taken"))))

    told = f"{ANN} may have it twice: attempt 1 was sent and got no answer, attempt 2 was accepted"
    assert told in " ".join(outbox("show", "order-47").out.split())
    assert told in " ".join(outbox("explain", "order-47").out.split())
    assert "bob@example.org may have" not in outbox("show", "order-47").out


def test_an_attempt_that_never_reported_back_may_have_been_one(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    store.claim(limit=1, lease=dt.timedelta(microseconds=1), queues=["mail"])
    attempted(store, Delivered(fates={ANN: Fate.ACCEPTED}, outcome=reported(Accepted("250 taken"))))
    assert "attempt 1 never reported back, attempt 2 was accepted" in outbox("show", "order-47").out


def test_who_was_deferred_first_and_accepted_then_has_one_copy(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    put(store)
    deferred = reported(TempFailed("450 4.2.0 come back"))
    attempted(
        store,
        Retry(
            delay=dt.timedelta(0), fates={ANN: Fate.WAITING}, reason="450 4.2.0 come back", outcome=deferred
        ),
    )
    attempted(store, Delivered(fates={ANN: Fate.ACCEPTED}, outcome=reported(Accepted("250 taken as 9"))))
    assert "twice" not in outbox("show", "order-47").out + outbox("explain", "order-47").out
    assert "250 taken as 9" in outbox("explain", "order-47").out


# -- whose domain


def waiting(store: SQLiteStore, *who_and_why: tuple[str, str]) -> None:
    for number, (recipient, reason) in enumerate(who_and_why):
        store.put([Message(id=f"m{number}", recipients=(recipient,), content=b"x")])
        attempted(
            store, Retry(delay=MINUTE, fates={recipient: Fate.WAITING}, reason=f"{recipient}: {reason}")
        )


def test_what_was_said_of_many_is_one_line_with_the_domain_that_all_of_them_are_at(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    waiting(store, (ANN, "450 slow"), ("bob@EXAMPLE.net", "450 slow"), ("eve@example.org", "451 no"))
    out = outbox("status").out
    assert "2 wait for recipients at example.net: 450 slow" in out
    assert "1 waits for recipients at example.org: 451 no" in out


def test_what_several_domains_say_is_said_of_none(outbox: CommandLine, store: SQLiteStore) -> None:
    waiting(store, (ANN, "450 slow"), ("eve@example.org", "450 slow"))
    assert "  2 wait: 450 slow" in outbox("status").out
    assert outbox("status", "--json").data["waits"] == [{"reason": "450 slow", "number": 2, "domain": ""}]


# -- whose disk


@pytest.mark.parametrize(
    ("free", "found"),
    [
        (1 << 40, ("ok", "has room")),
        (50 << 20, ("warning", "is nearly full: 50 MiB of 10,240 left")),
        (1000, ("error", "nothing can be submitted")),
    ],
)
@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_check_says_how_much_room_is_left_before_nothing_can_be_submitted(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch, free: int, found: tuple[str, str], scheme: str
) -> None:
    outbox.environ(OUTBOX_STORE=f"{scheme}:///{outbox.home / 'there'}?min_free=1MiB")
    outbox.submit(ANN)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 << 30, (10 << 30) - free, free))
    level, says = found
    assert [
        line for line in outbox("check").out.splitlines() if line.startswith(f"{level} ") and says in line
    ]
