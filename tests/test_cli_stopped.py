"""pause, resume, suspend, unsuspend, wait and migrate; and what status, list and show say of what is stopped."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine

from outbox import Message, RouteTransport, SMTPTransport, Suspension
from outbox.cli import moments, suspending
from outbox.lifecycle import State
from outbox.protocols import Glance, QueueCount
from outbox.stores.filesystem import FilesystemStore, walking
from outbox.stores.filesystem.folders import Folders
from outbox.stores.filesystem.names import CLAIMED
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import dead, retry, settle, take
from outbox.testing.clock import ManualClock

STORED = Path(__file__).parent / "stored"


@pytest.fixture
def store(outbox: CommandLine) -> Iterator[SQLiteStore]:
    store = SQLiteStore(outbox.path)
    yield store
    store.close()


@pytest.fixture
def noon_in_berlin(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> Iterator[ManualClock]:
    """It is 12:00 in Berlin on the day before its clocks go back."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    clock.advance(dt.datetime(2026, 10, 24, 10, 0, tzinfo=dt.UTC) - clock.now())
    monkeypatch.setattr(moments, "SystemClock", lambda: clock)
    yield clock
    monkeypatch.undo()
    time.tzset()


def message(id: str, *recipients: str, queue: str = "mail", **attributes: str) -> Message:
    return Message(
        id=id,
        recipients=recipients or ("ann@example.org",),
        content=b"hi\r\n",
        queue=queue,
        attributes=attributes,
    )


# -- until when


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("18:00", "2026-10-24T16:00Z"),
        ("12:01", "2026-10-24T10:01Z"),
        ("12:00", "2026-10-25T11:00Z"),
        ("9:30", "2026-10-25T08:30Z"),
        ("2026-12-24T18:00", "2026-12-24T17:00Z"),
        ("2026-12-24 18:00:30", "2026-12-24T17:00:30Z"),
        ("2026-12-24T18:00+05:30", "2026-12-24T12:30Z"),
        ("2026-12-24T18:00Z", "2026-12-24T18:00Z"),
        ("2026-12-24", "2026-12-23T23:00Z"),
    ],
)
@pytest.mark.usefixtures("noon_in_berlin")
def test_a_time_is_this_machine_s_own_unless_it_says_otherwise(text: str, instant: str) -> None:
    assert moments.moment(text) == dt.datetime.fromisoformat(instant)


@pytest.mark.parametrize(
    "text", ["25:00", "18:60", "tomorrow", "", "18", "9999-99-99", "0001-01-01T00:00+23:00"]
)
@pytest.mark.usefixtures("noon_in_berlin")
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="write 18:00"):
        moments.moment(text)


def test_what_has_passed_or_is_said_twice_or_is_too_long_is_refused(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    assert "has passed" in outbox("pause", "mail", "--until", "2020-01-01T00:00").complaint
    assert "has passed" in outbox("pause", "mail", "--for", "0s").complaint
    assert outbox("pause", "mail", "--for", "2h", "--until", "18:00").status == 64
    assert "leave --for out" in outbox("pause", "mail", "--for", "9999999d").complaint
    assert list(store.suspensions()) == []


# -- pause and suspend


def test_a_pause_stops_a_queue_and_is_said_by_status_list_and_show(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put([message("a"), message("b", queue="bulk")])
    ran = outbox("pause", "mail", "--for", "2h", "--because", "the relay is moved")
    assert ran.status == 0
    assert ran.out.startswith("queue mail is paused until ")
    assert ran.out.endswith(": the relay is moved\n")
    assert take(store) == []

    assert "STOPPED: queue mail is paused until " in outbox("status").out
    assert "-> outbox resume mail" in outbox("status").out
    (kept,) = outbox("status", "--json").data["suspensions"]
    assert (kept["kind"], kept["value"], kept["reason"]) == ("queue", "mail", "the relay is moved")
    lines = outbox("list").out.splitlines()
    assert [line.split()[0] for line in lines if "queue mail paused, " in line] == ["a"]
    assert " more: the relay is moved" in lines[1]
    assert "but         queue mail is paused" in outbox("show", "a").out
    assert "is paused" not in outbox("show", "b").out

    assert outbox("resume", "mail").out == "queue mail: no longer paused\n"
    assert [claim.message.id for claim in take(store)] == ["a"]
    again = outbox("resume", "mail")
    assert (again.status, again.complaint) == (1, "queue mail: there was nothing to take back")


def test_a_pause_of_a_queue_without_messages_says_so_for_it_may_be_mistyped(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put([message("a")])
    assert "there is no message of queue mial now" in outbox("pause", "mial").err
    assert outbox("pause", "mail").err == ""


def test_several_things_are_suspended_at_once_each_of_its_kind(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    options = [
        "--domain",
        "@Example.NET",
        "--relay",
        "*",
        "--attribute",
        "campaign=spring",
        "--queue",
        "bulk",
    ]
    ran = outbox("suspend", *options, "--because", "look")
    assert ran.status == 0
    assert {(s.kind, s.value, s.until, s.reason) for s in store.suspensions()} == {
        ("queue", "bulk", None, "look"),
        ("relay", "*", None, "look"),
        ("domain", "example.net", None, "look"),
        ("attribute", "campaign=spring", None, "look"),
    }
    assert "every relay is suspended, until it is taken back: look" in ran.out
    assert "recipients at example.net are suspended" in ran.out
    gone = outbox("unsuspend", *options)
    assert gone.status == 0
    assert list(store.suspensions()) == []
    assert "outbox requeue --state queued --reason 'suspended: domain example.net'" in gone.err


def test_an_unsuspend_of_the_wrong_name_says_which_there_are(outbox: CommandLine, store: SQLiteStore) -> None:
    store.suspend(Suspension(kind="domain", value="example.net"))
    ran = outbox("unsuspend", "--domain", "example.org")
    assert ran.status == 1
    assert ran.complaint.endswith("(of this kind there are: example.net)")


def test_a_relay_of_another_name_than_the_transport_s_is_noted(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    ours = ["--transport", "smtp://smtp.example.org:587"]
    assert "is called smtp.example.org:587" in outbox("suspend", "--relay", "smtp.exmaple.org", *ours).err
    for name in ("smtp.example.org:587", "*"):
        assert outbox("suspend", "--relay", name, *ours).err == ""


def test_a_route_s_relay_is_suspended_by_whatever_it_is_called(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    route = RouteTransport(SMTPTransport("a.example"), domains={"Corp.Example": SMTPTransport("b.example")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suspending, "transport_of", lambda _: route)
        assert outbox("suspend", "--relay", "corp.EXAMPLE", "--transport", "smtp://x").err == ""
        (kept,) = store.suspensions()
        assert kept.value == route.relay_named("corp.example")
        assert (
            "knows of no such relay"
            in outbox("suspend", "--relay", "crop.example", "--transport", "smtp://x").err
        )
        assert outbox("unsuspend", "--relay", "corp.EXAMPLE", "--transport", "smtp://x").status == 0
        assert [each.value for each in store.suspensions()] == ["crop.example"]


def test_of_what_is_asked(outbox: CommandLine, store: SQLiteStore) -> None:
    for command in ("suspend", "unsuspend"):
        assert outbox(command).status == 64
        assert outbox(command, "--attribute", "spring").status == 64
        assert outbox(command, "--relay", "").status == 64
    assert outbox("pause").status == 64
    assert outbox("pause", "mail", "--because", "two\nlines").status == 64
    assert list(store.suspensions()) == []


def test_a_list_names_what_keeps_a_message_by_its_domain_or_attribute(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    store.put(
        [
            message("both", "a@example.net", "b@example.org"),
            message("there", "a@Example.net"),
            message("spring", campaign="spring"),
        ]
    )
    store.suspend(Suspension(kind="domain", value="example.net"))
    store.suspend(Suspension(kind="attribute", value="campaign=spring"))
    lines = {line.split()[0]: line for line in outbox("list").out.splitlines()}
    assert "recipients at example.net suspended" in lines["there"]
    assert "messages with campaign=spring suspended" in lines["spring"]
    assert "suspended" not in lines["both"], "the other recipient gets it"


# -- wait


def test_a_wait_ends_when_nothing_is_left(outbox: CommandLine, store: SQLiteStore) -> None:
    assert outbox("wait").status == 0
    store.put([message("a"), message("b", queue="bulk")])
    assert outbox("wait", "--queue", "other").status == 0
    (claim,) = take(store)
    looked, right = threading.Event(), SQLiteStore.wait

    def waiting(self: SQLiteStore, timeout: dt.timedelta) -> bool:
        looked.set()
        return right(self, timeout)

    def finish() -> None:
        assert looked.wait(30)
        settle(store, claim, dead(claim))

    worker = threading.Thread(target=finish)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SQLiteStore, "wait", waiting)
        worker.start()
        assert outbox("wait", "--queue", "mail", "--timeout", "30s").status == 0
    worker.join()


def test_a_wait_does_not_miss_a_message_that_is_put_back_while_it_looks(
    outbox: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(FilesystemStore(tmp_path / "spool")) as spool:
        spool.put([message("a")])
        claims = take(spool)
        read = walking.slots

        def meanwhile(folders: Folders, path: tuple[str, ...]) -> list[tuple[str, ...]]:
            if path[-1] == CLAIMED and claims:  # what waits was read already
                claim = claims.pop()
                settle(spool, claim, retry(claim, dt.timedelta(hours=1)))
            return read(folders, path)

        monkeypatch.setattr(walking, "slots", meanwhile)
        ran = outbox("wait", "--timeout", "0.05s", "--store", f"file://{tmp_path}/spool")
    assert not claims
    assert (ran.status, "1 are left" in ran.err) == (75, True)


def test_a_wait_that_took_too_long_says_how_many_are_left(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("a"), message("b", queue="bulk")])
    store.suspend(Suspension(kind="queue", value="mail"))
    ran = outbox("wait", "--timeout", "0.05s")
    assert ran.status == 75
    assert "2 are left" in ran.err
    assert "note: queue mail is paused" in ran.err
    assert outbox("wait", "--queue", "mail", "--timeout", "0.05s", "--json").data == {
        "empty": False,
        "left": 1,
        "more": False,
    }


def test_a_wait_counts_no_more_than_a_glance_does(
    outbox: CommandLine, store: SQLiteStore, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    """A million is counted in seconds, and who counts does not see that the time is up."""
    store.put([message("a"), message("b")])
    clock.advance(dt.timedelta(hours=1))
    monkeypatch.setattr("outbox.cli.wait.SystemClock", lambda: clock)
    # Time passes by waiting, and by nothing else: it is not up before the first wait.
    monkeypatch.setattr(SQLiteStore, "wait", lambda _self, timeout: clock.advance(timeout))
    monkeypatch.setattr(
        SQLiteStore,
        "glance",
        lambda _self: Glance(counts=[QueueCount(queue="mail", state=State.QUEUED, number=25_000, more=True)]),
    )
    monkeypatch.setattr(SQLiteStore, "count", lambda _self: pytest.fail("it counts all"))
    ran = outbox("wait", "--timeout", "0.05s", terminal=True)
    assert ran.status == 75
    assert "\r25,000+ left" in ran.err
    assert "25,000+ are left: see outbox status" in ran.err
    assert outbox("wait", "--timeout", "0.05s", "--json").data == {
        "empty": False,
        "left": 25_000,
        "more": True,
    }


# -- migrate


def test_migrate_brings_an_old_store_to_this_format_and_the_second_time_does_nothing(
    outbox: CommandLine,
) -> None:
    shutil.copy(STORED / "version-3.db", outbox.path)
    assert outbox("status").status == 78
    ran = outbox("migrate")
    assert ran.status == 0
    assert "brought to the format of this release" in ran.out
    assert "version 3" in ran.out
    assert outbox("status").status == 0
    assert outbox("migrate").out.startswith("there was nothing to do")
    assert outbox("migrate", "--json").data == {"done": []}


def test_migrate_makes_no_store(outbox: CommandLine) -> None:
    ran = outbox("migrate")
    assert ran.status == 78
    assert not outbox.path.exists()


def test_what_was_held_by_an_earlier_release_no_person_held(outbox: CommandLine) -> None:
    shutil.copy(STORED / "version-3.db", outbox.path)
    outbox("migrate")
    assert outbox("release", "--state", "held").out == "0 released\n"
    rows = {row["id"]: row["by_hand"] for row in outbox("list", "--json").rows}
    assert rows == {"dead": False, "held": False, "retried": False, "waits": False}
    assert outbox("hold", "waits").status == 0
    assert outbox("release", "waits").status == 0


# -- on a terminal


def test_what_is_stopped_fits_a_terminal(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("a"), message("b", queue="bulk")])
    store.suspend(Suspension(kind="queue", value="mail", reason="why " * 50))
    for command in ("status", "list"):
        assert max(map(len, outbox(command, terminal=True).out.splitlines())) <= 80
