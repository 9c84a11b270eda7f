"""The twelve incidents of docs/runbook.md, each played against a running system with the commands of the page."""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from command_line import MAIL, CommandLine
from runbook import PAGE, System, incidents, played
from runbook_scenes import (
    CONTENT,
    POISON,
    Scene,
    a_relay_is_closed,
    begun,
    is_held,
    no_relay_is_closed,
    put,
    until,
)
from started import PATIENCE

from outbox import Message, Outbox, PermFailed, SQLiteStore, TempFailed
from outbox.bulletin import Bulletin
from outbox.cli.processes import Standing
from outbox.cli.runners import Runner, Runners
from outbox.stores.filesystem import FilesystemStore
from outbox.testing import ManualClock, RecordingTransport, SMTPSink

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGHUP") or not Path("/proc/self/ns/pid").exists(),
    reason="it is played with the signals and the /proc of Linux",
)

TEXT: Final = PAGE.read_text("utf-8")
INCIDENTS: Final = incidents(TEXT)
ALERTS: Final = (PAGE.parent / "monitoring" / "alerts.yml").read_text("utf-8")


@pytest.fixture
def outbox(outbox: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command of a person who says all in a configuration file."""
    monkeypatch.delenv("OUTBOX_STORE")
    return outbox


class Usage(NamedTuple):
    """What a disk says of itself."""

    total: int
    used: int
    free: int


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Scene]]:
    with ExitStack() as stack:
        yield begun(stack, tmp_path_factory.mktemp("runbook"))


@pytest.fixture
def sinks() -> Iterator[ExitStack]:
    with ExitStack() as sinks:
        yield sinks


@pytest.fixture
def delivering(outbox: CommandLine, tmp_path: Path, sinks: ExitStack) -> tuple[System, SMTPSink]:
    """A process that delivers to a sink, and keeps the record of what is out; `start` is the test's."""
    sink = sinks.enter_context(SMTPSink())
    store = f"sqlite:///{tmp_path / 'outbox.db'}?keep_delivered=7d"
    return sinks.enter_context(System(tmp_path, store=store, transport=sink.url)), sink


# -- the page


def test_the_page_has_twelve_incidents_each_with_three_commands_at_most() -> None:
    assert len(INCIDENTS) == 12
    assert all(1 <= len(each.ask) <= 3 for each in INCIDENTS.values())
    assert all(each.well and each.sees for each in INCIDENTS.values())


def test_every_incident_is_played_here() -> None:
    here = Path(__file__).read_text("utf-8")
    assert [title for title in INCIDENTS if here.count(f'INCIDENTS["{title}"]') != 1] == []


def test_what_is_seen_first_is_an_alert_that_there_is() -> None:
    named = set(re.findall(r"\bOutbox[A-Z]\w+", TEXT))
    assert named <= set(re.findall(r"alert: (\w+)", ALERTS))
    assert len(named) >= 8


def test_the_first_table_leads_to_every_incident() -> None:
    first = TEXT.split("\n## ")[0]
    assert set(re.findall(r"\[([^\]]+)\]\(#", first)) == set(INCIDENTS)


def test_the_first_command_is_the_same_for_as_many_as_the_page_says() -> None:
    by_status = [each for each in INCIDENTS.values() if each.ask[0].command == "outbox status"]
    numbers = {"eight": 8, "nine": 9, "ten": 10}
    (said,) = re.findall(r"It names (\w+) of the twelve by itself", TEXT)
    assert len(by_status) == numbers[said]


# -- what takes its time to come about


def test_a_relay_that_is_down_is_named_and_its_mail_goes_when_it_is_back(
    scenes: Mapping[str, Scene], outbox: CommandLine, sinks: ExitStack
) -> None:
    system, place = scenes["relay"].system, scenes["relay"].place
    until(system, a_relay_is_closed)
    back: list[SMTPSink] = []

    def bring_it_back() -> None:
        port = place.getsockname()[1]
        place.close()
        back.append(sinks.enter_context(SMTPSink(port=port)))

    played(
        INCIDENTS["The relay is down"],
        outbox,
        system,
        between=[bring_it_back],
        finally_=lambda: until(system, no_relay_is_closed),
    )
    assert len(back[0].wait_for(2)) == 2


def test_a_password_that_has_expired_is_named_and_the_new_one_lets_the_mail_go(
    scenes: Mapping[str, Scene], outbox: CommandLine
) -> None:
    system, _, guarded, _ = scenes["password"]
    assert guarded is not None
    until(system, a_relay_is_closed)
    played(
        INCIDENTS["The password has expired"],
        outbox,
        system,
        between=[lambda: (system.home.parent / "password").write_text("the new one", "utf-8")],
        finally_=lambda: until(system, no_relay_is_closed),
    )
    assert {to for each in guarded.messages for to in each.recipients} >= {
        "ann@example.net",
        "bob@example.org",
    }


def test_a_certificate_that_has_expired_is_named_and_a_renewed_one_lets_the_mail_go(
    scenes: Mapping[str, Scene], outbox: CommandLine, sinks: ExitStack
) -> None:
    system, authority, expired, _ = scenes["certificate"]
    assert expired is not None
    until(system, a_relay_is_closed)
    renewed: list[SMTPSink] = []

    def renew() -> None:
        expired.close()
        renewed.append(sinks.enter_context(SMTPSink(port=expired.port, tls=authority.server())))

    played(
        INCIDENTS["The certificate has expired"],
        outbox,
        system,
        between=[renew],
        finally_=lambda: until(system, no_relay_is_closed),
    )
    assert len(renewed[0].wait_for(2)) == 2


@pytest.mark.shows("a body", "a control", because="the page asks for --content")
def test_a_message_that_kills_whoever_takes_it_is_named_and_can_be_taken_out(
    scenes: Mapping[str, Scene], outbox: CommandLine
) -> None:
    system = scenes["poison"].system
    until(system, is_held)
    played(INCIDENTS["One message kills the workers"], outbox, system)
    met = (system.home.parent / "met").read_text("utf-8").split()
    assert met.count(POISON) == 4
    assert len(set(met)) == 3, "the others went out"


# -- what is there at once


def test_a_domain_that_throttles_is_named_and_its_mail_goes_when_it_takes_it_again(
    outbox: CommandLine, delivering: tuple[System, SMTPSink]
) -> None:
    system, sink = delivering
    for who in ("ann", "bob"):
        sink.on("rcpt", f"{who}@example.net", reply="450 4.7.1 too many mails from you, slow down")
    put(system, "ann@example.net", "bob@example.net", "eve@example.org")
    run = system.start()
    for number in (1, 2):
        run.wait_for("fate=waiting", number)
    sink.wait_for(1)
    played(
        INCIDENTS["A domain throttles"],
        outbox,
        system,
        between=[lambda: None, sink.behave],
    )
    assert len(sink.messages) == 3


def test_a_disk_that_is_nearly_full_is_named_and_what_is_purged_makes_room(
    outbox: CommandLine, tmp_path: Path, sinks: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is a model of 4 MiB that has nothing but the spool on it."""
    spool = tmp_path / "spool"

    def usage(_: object) -> Any:
        used = sum(
            path.stat().st_size for path in spool.rglob("*") if path.is_file() and "ids" not in path.parts
        )
        return Usage(4 << 20, used, (4 << 20) - used)

    sink = sinks.enter_context(SMTPSink())
    before = ManualClock(dt.datetime.now(dt.UTC) - dt.timedelta(days=40))
    with closing(FilesystemStore(spool, clock=before)) as store:
        refusing = Outbox(
            store, RecordingTransport({"gone@example.org": PermFailed("550 5.1.1 no")}), clock=before
        )
        refusing.submit_many(
            [Message(recipients=("gone@example.org",), content=b"x" * 700_000) for _ in range(5)]
        )
        refusing.drain()
    monkeypatch.setattr(shutil, "disk_usage", usage)
    system = sinks.enter_context(System(tmp_path, store=f"file://{spool}?min_free=1MiB", transport=sink.url))
    outbox.environ(OUTBOX_CONFIG=str(system.file))
    refused = outbox("submit", "ann@example.net", stdin=MAIL)
    assert refused.status == 75
    assert "min_free" in refused.err

    played(INCIDENTS["The disk is nearly full"], outbox, system)

    system.start()
    assert outbox("submit", "ann@example.net", stdin=MAIL).status == 0
    sink.wait_for(1)


def test_a_queue_that_nobody_serves_is_named_let_out_and_served_from_then_on(
    outbox: CommandLine, delivering: tuple[System, SMTPSink]
) -> None:
    system, sink = delivering
    put(system, "ann@example.net", queue="mail.bulk")
    put(system, "bob@example.org")
    system.start()
    sink.wait_for(1)

    def another() -> None:
        assert len(sink.messages) == 2, "the drain has sent what waited"
        put(system, "eve@example.org", queue="mail.bulk")

    played(
        INCIDENTS["Nobody serves a queue"],
        outbox,
        system,
        between=[lambda: None, another],
        finally_=lambda: sink.wait_for(3),
    )


def test_a_clock_that_was_wrong_is_named_and_what_waits_for_its_hour_can_be_let_go(
    outbox: CommandLine, delivering: tuple[System, SMTPSink]
) -> None:
    system, sink = delivering
    ahead = ManualClock(dt.datetime.now(dt.UTC) + dt.timedelta(hours=3, minutes=30))
    with closing(SQLiteStore(system.home / "outbox.db", clock=ahead)) as store:
        deferring = RecordingTransport({"ann@example.net": TempFailed("450 4.2.0 come back")})
        before = Outbox(store, deferring, clock=ahead)
        before.submit(Message(recipients=("ann@example.net",), content=CONTENT))
        before.drain()
    put(system, "bob@example.org")
    system.start()
    sink.wait_for(1)
    played(INCIDENTS["The clock is wrong"], outbox, system, finally_=lambda: sink.wait_for(2))


def test_a_queue_that_was_paused_and_forgotten_is_named_with_the_words_of_whoever_did_it(
    outbox: CommandLine, delivering: tuple[System, SMTPSink]
) -> None:
    system, sink = delivering
    outbox.environ(OUTBOX_CONFIG=str(system.file))
    put(system, "ann@example.net")
    assert outbox("pause", "mail", "--because", "the relay is moved on Friday").status == 0
    system.start().wait_for("msg=running")
    played(INCIDENTS["A queue was paused and forgotten"], outbox, system, finally_=lambda: sink.wait_for(1))


def test_a_process_that_is_stopped_is_named_and_goes_on_where_it_was(
    outbox: CommandLine, delivering: tuple[System, SMTPSink]
) -> None:
    system, sink = delivering
    put(system, "ann@example.net")
    with sink.hold("dot") as gate:
        run = system.start()
        gate.wait_for(1)
        until(system, lambda store: bool(Runners.of(store).alive))
        run.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, run.process.pid, os.WSTOPPED | os.WNOWAIT)
        gate.open()
        played(INCIDENTS["A process is stuck"], outbox, system)
    assert len(sink.messages) == 1


def test_a_process_that_was_killed_is_named_at_once_and_the_next_one_takes_up_what_it_had(
    outbox: CommandLine, delivering: tuple[System, SMTPSink]
) -> None:
    system, sink = delivering
    system.add('lease = "1s"')
    outbox.environ(OUTBOX_CONFIG=str(system.file))
    put(system, "ann@example.net")
    with sink.hold("rcpt", times=1) as gate:
        run = system.start()
        gate.wait_for(1)
        until(system, lambda store: bool(Runners.of(store).alive))
        run.signal(signal.SIGKILL)
        run.process.wait(PATIENCE)
        assert "GONE: it was killed or crashed" in outbox("status").out
    system.start()
    sink.wait_for(1)
    assert outbox("wait", "--timeout", "1m").status == 0


def test_the_page_explains_all_that_is_known_of_a_process_that_is_silent() -> None:
    table = TEXT.split("| it says | what it is | do |\n")[1].split("\n\n")[0]
    explained = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    said = Bulletin(host="app-1", pid=4711, queues=("mail",), workers=4, up=1.0)
    known = [
        Runner(name="r", said=said, age=dt.timedelta(0), alive=False, standing=each).silence
        for each in Standing
    ]
    assert [text for text in known if sum(text.startswith(each) for each in explained) != 1] == []
    assert len(explained) == len(known)


def test_who_may_have_got_it_twice_is_named_with_the_attempts_and_can_be_asked_about_from_then_on(
    outbox: CommandLine, delivering: tuple[System, SMTPSink]
) -> None:
    system, sink = delivering
    system.add('retry.wait_initial = "0.05s"')
    sink.on("dot", close=True, times=1)
    put(system, "ann@example.net")
    run = system.start()
    sink.wait_for(2)
    run.wait_for("fate=accepted")
    assert "fate=doubtful" in run.wait_for("to=ann@example.net")

    def once_more() -> None:
        sink.on("dot", close=True, times=1)
        put(system, "bob@example.net")
        until(system, is_held)

    played(INCIDENTS["Somebody got it twice"], outbox, system, finally_=once_more)
    assert len(sink.messages) == 3, "bob's went once"


def test_a_mail_that_somebody_misses_is_found_with_what_became_of_it(
    outbox: CommandLine, delivering: tuple[System, SMTPSink]
) -> None:
    system, sink = delivering
    sink.on("rcpt", "ann@example.net", reply="550 5.1.1 no such mailbox")
    sink.on("dot", reply="250 2.0.0 taken as 4711")
    put(system, "ann@example.net")
    run = system.start()
    run.wait_for("fate=failed")

    def made() -> None:
        sink.behave()
        sink.on("dot", reply="250 2.0.0 taken as 4711")

    played(INCIDENTS["Where is my mail?"], outbox, system, between=[made])
    assert "status=sent" not in run.wait_for("to=ann@example.net")
    run.wait_for("to=ann@example.net", 2)
