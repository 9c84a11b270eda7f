"""`outbox drain` and `outbox run`: what is delivered, what is said, how it ends."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CommandLine
from started import PATIENCE

from outbox.clock import SystemClock
from outbox.message import Message
from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import SMTPSink


def fields(line: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in re.findall(r'(\w+)=("[^"]*"|\S*)', line)}


def test_what_was_submitted_is_delivered(outbox: CommandLine, sink: SMTPSink) -> None:
    outbox.submit("ann@example.org", "bob@example.org")
    assert outbox("drain").status == 0
    (received,) = sink.messages
    assert received.sender == "shop@example.org"
    assert set(received.recipients) == {"ann@example.org", "bob@example.org"}


def test_a_log_has_a_line_for_each_recipient_and_one_at_the_end(outbox: CommandLine, sink: SMTPSink) -> None:
    sink.on("rcpt", "gone@example.org", reply="550 5.1.1 no such user")
    sink.on("rcpt", "grey@example.org", reply="450 4.7.1 come back")
    key = outbox.submit("ann@example.org", "gone@example.org", "grey@example.org")
    ran = outbox("drain")
    assert (ran.status, ran.out) == (0, "")
    *lines, last = map(fields, ran.err.splitlines())
    assert [(f["to"], f["fate"], f["state"], f["attempts"], f["level"]) for f in lines] == [
        ("ann@example.org", "accepted", "queued", "1", "info"),
        ("gone@example.org", "failed", "queued", "1", "warning"),
        ("grey@example.org", "waiting", "queued", "1", "info"),
    ]
    assert {(f["id"], f["relay"]) for f in lines} == {(key, f"{sink.host}:{sink.port}")}
    assert lines[1]["reply"] == "550 5.1.1 no such user"
    assert float(lines[2]["due_in"]) > 1
    assert (last["msg"], last["retried"]) == ("drained", "1")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", f["time"]) for f in [*lines, last])


def test_a_cron_job_with_nothing_to_do_writes_nothing(outbox: CommandLine, sink: SMTPSink) -> None:
    outbox.submit("ann@example.org", delay="1h")
    ran = outbox("drain")
    assert (ran.status, ran.out, ran.err) == (0, "", "")


def test_q_says_only_what_is_wrong(outbox: CommandLine, sink: SMTPSink) -> None:
    outbox.submit("ann@example.org")
    assert outbox("drain", "-q").err == ""
    sink.on("rcpt", "gone@example.org", reply="550 5.1.1 no such user")
    outbox.submit("gone@example.org")
    assert outbox("drain", "-q").err.count("\n") == 1


def test_json_is_the_tally(outbox: CommandLine, sink: SMTPSink) -> None:
    outbox.submit("ann@example.org")
    data = outbox("drain", "--json", "-q").data
    assert (data["delivered"], data["dead"], data["faults"]) == (1, 0, {})


def test_a_terminal_shows_counts_and_what_is_wrong(outbox: CommandLine, sink: SMTPSink) -> None:
    sink.on("rcpt", "gone@example.org", reply="550 5.1.1 no such user")
    outbox.submit("ann@example.org")
    outbox.submit("gone@example.org")
    ran = outbox("drain", terminal=True)
    lines = [line.rpartition("\r")[2] for line in ran.err.splitlines()]
    assert any(line.startswith("failed     gone@example.org  550 5.1.1") for line in lines)
    assert lines[-1] == "1 delivered, 1 dead."
    assert "time=" not in ran.err


def test_a_terminal_is_told_that_nothing_was_due_and_what_is_next(
    outbox: CommandLine, sink: SMTPSink
) -> None:
    outbox.submit("ann@example.org", delay="1h")
    assert re.match(r"Nothing was due; the next is due in (59 min|1 h)", outbox("drain", terminal=True).err)


def test_limit_is_the_number_of_messages(outbox: CommandLine, sink: SMTPSink) -> None:
    for _ in range(3):
        outbox.submit("ann@example.org")
    outbox("drain", "--limit", "2")
    assert len(sink.messages) == 2


def test_only_the_queues_that_are_named_are_served(outbox: CommandLine, sink: SMTPSink) -> None:
    outbox.submit("ann@example.org")
    outbox.submit("bob@example.org", queue="mail.bulk")
    outbox("drain", "--queue", "mail.bulk")
    assert [m.recipients[0] for m in sink.messages] == ["bob@example.org"]


def long_due(outbox: CommandLine, queue: str) -> None:
    """A mail that nobody has served for an hour."""
    clock = ManualClock(SystemClock().now() - dt.timedelta(hours=1))
    store = SQLiteStore(outbox.path, clock=clock)
    store.put([Message(recipients=["ann@example.org"], content=b"x", queue=queue)])
    store.close()


@pytest.mark.parametrize("command", [["drain"], ["drain", "-q"]])
def test_mail_that_waits_in_a_queue_nobody_serves_is_told(
    outbox: CommandLine, sink: SMTPSink, command: list[str]
) -> None:
    long_due(outbox, "mail")
    ran = outbox(*command, "--queue", "mial")
    assert ran.status == 0
    assert "1 due message" in ran.complaint
    assert "queue mail" in ran.complaint
    assert "served: mial" in ran.complaint
    assert not sink.messages


def test_a_neighbour_that_serves_another_queue_is_given_its_time(outbox: CommandLine, sink: SMTPSink) -> None:
    outbox.submit("ann@example.org")
    assert outbox("drain", "--queue", "bulk").err == "", "two lines in a crontab do not tell on each other"
    assert "queue mail" in outbox("drain", "--queue", "bulk", terminal=True).err, "a person is told at once"


def test_run_tells_of_mail_in_a_queue_that_nobody_serves(outbox: CommandLine, sink: SMTPSink) -> None:
    long_due(outbox, "mial")
    process = outbox.start("run")
    assert process.stderr is not None
    begin = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=PATIENCE)
    assert b"queue mial" in begin + rest


def test_a_second_drain_delivers_nothing_again(outbox: CommandLine, sink: SMTPSink) -> None:
    outbox.submit("ann@example.org", id="order-1042")
    outbox("drain")
    assert outbox("drain").err == ""
    assert (
        "known already"
        in outbox(
            "submit", "--id", "order-1042", "ann@example.org", stdin=b"From: shop@example.org\n\nx\n"
        ).err
    )
    assert outbox("drain").status == 0
    assert len(sink.messages) == 1


def test_the_configuration_file_says_how(outbox: CommandLine, sink: SMTPSink, tmp_path: Path) -> None:
    config = tmp_path / "outbox.toml"
    config.write_text(
        f'store = "sqlite:///outbox.db"\ntransport = "{sink.url}"\nqueues = ["bulk"]\nretry = "7m"\n', "utf-8"
    )
    sink.on("rcpt", reply="450 4.7.1 come back")
    outbox.environ(OUTBOX_STORE="", OUTBOX_TRANSPORT="", OUTBOX_CONFIG=str(config))
    outbox.submit("ann@example.org")
    (line, _) = outbox("drain").err.splitlines()
    assert fields(line)["queue"] == "bulk"
    assert 5 * 60 < float(fields(line)["due_in"]) < 9 * 60


def test_a_relay_that_is_down_costs_nothing_and_says_so(outbox: CommandLine) -> None:
    with SMTPSink() as sink:
        url = sink.url
    key = outbox.submit("ann@example.org")
    ran = outbox("drain", "--transport", url)
    assert ran.status == 75
    assert "refused" in ran.err
    row = outbox("show", "--json", key).data
    assert (row["state"], row["attempts"]) == ("queued", 0)


@pytest.mark.parametrize(
    ("argv", "status", "says"),
    [
        ([], 78, "no transport is named"),
        (["--transport", "smtp://localhost", "--store", ""], 78, "no store is named"),
        (["--transport", "smtp:/localhost"], 78, "names no server"),
        (["--transport", "smtp://user@localhost"], 78, "no password"),
        (["--limit", "0"], 64, "--limit"),
        (["--workers", "0"], 64, "--workers"),
        (["--workers", "many"], 64, "--workers"),
        (["--lease", "soon"], 64, "'soon' is not a duration"),
        (["--config", "/no/such.toml"], 78, "/no/such.toml"),
        (["--lease", "0"], 64, "--lease"),
        (["--lease", "25h"], 64, "--lease"),
        (["--grace", "999999999d"], 64, "--grace"),
        (["--workers", "1001"], 64, "--workers"),
        (["--limit", "9" * 20], 64, "--limit"),
        (["--queue", "Mail"], 64, "queue 'Mail'"),
        (["--queue", "ok", "--queue", ""], 64, "queue ''"),
    ],
)
def test_what_cannot_begin_is_one_line_and_a_status(
    outbox: CommandLine, argv: list[str], status: int, says: str
) -> None:
    outbox.submit("ann@example.org")
    outbox.environ(**({"OUTBOX_STORE": ""} if "--store" in argv else {}))
    ran = outbox("drain", *argv)
    assert ran.status == status
    assert says in ran.complaint


def test_a_password_on_the_command_line_is_warned_of_and_not_shown(outbox: CommandLine) -> None:
    ran = outbox("drain", "--transport", "smtp://app:c4narypassword@localhost:1?security=none")
    assert ran.status == 78
    assert "warning: the password in --transport" in ran.err
    assert "c4narypassword" not in ran.err + ran.out


def test_a_mistyped_option_is_not_called_a_password(outbox: CommandLine) -> None:
    outbox.environ(OUTBOX_STORE="")
    ran = outbox("status", "--store", "sqlite:///outbox.db?pol=1s")
    assert ran.status == 78
    assert "did you mean 'poll'?" in ran.err
    assert "the password" not in ran.err
    assert "what may be a password in --store" in ran.err


# -- signals, in processes of their own

# Half a second is over before the echo on a busy machine; and only what was asked to stop begins nothing more.
LONG_ECHO = """
import sys
from outbox.cli import main, signals
from outbox.crew import Crew
ask = Crew.ask
def asked(*to):
    ask(*to)
    print("asked", file=sys.stderr, flush=True)
Crew.ask = asked
signals._ECHO = 3600.0
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_lets_a_drain_end_what_is_under_way(outbox: CommandLine, sink: SMTPSink) -> None:
    for _ in range(5):
        outbox.submit("ann@example.org")
    with sink.hold("dot") as gate:
        process = subprocess.Popen(
            [sys.executable, "-c", LONG_ECHO, "drain", "--workers", "1"], stderr=subprocess.PIPE
        )
        gate.wait_for(1)
        assert process.stderr is not None
        process.send_signal(signal.SIGTERM)
        assert b"stopping" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)  # an echo, as `timeout` makes it
        while b"asked" not in process.stderr.readline():
            pass
        gate.open()
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, err
    rows = outbox("list", "--json").rows
    assert len(sink.messages) == 1
    assert [(row["state"], row["attempts"]) for row in rows] == [("queued", 0)] * 4
    assert b"Traceback" not in err


def test_run_delivers_until_sigterm_and_ends_with_0(outbox: CommandLine, sink: SMTPSink) -> None:
    outbox.submit("ann@example.org")
    process = outbox.start("run")
    sink.wait_for(1)
    outbox.submit("bob@example.org")
    sink.wait_for(2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    lines = [fields(line) for line in err.decode().splitlines() if line.startswith("time=")]
    assert [line.get("msg", line.get("to")) for line in lines] == [
        "running",
        "ann@example.org",
        "bob@example.org",
        "stopped",
    ]


def test_run_says_what_it_had_to_leave_under_way(outbox: CommandLine, sink: SMTPSink) -> None:
    # The first shows that the relay is well, slowly, so that neither worker claims two at once; the others hang.
    sink.on("dot", times=1, reply="250 taken", after=dt.timedelta(milliseconds=50))
    sink.on("dot", reply=None)
    for _ in range(3):
        outbox.submit("ann@example.org")
    process = outbox.start("run", "-q", "--workers", "2", "--grace", "0.1s", "--lease", "1h")
    sink.wait_for(3)
    outbox.wait_until_left(2)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, err
    last = fields(err.decode().splitlines()[-1])
    assert (last["msg"], last["hanging"], last["claimed"]) == ("stopped", "2", "2")
    assert 3500 < float(last["lease_ends_in"]) <= 3600
    assert {row["state"] for row in outbox("list", "--json").rows} == {"claimed"}


def test_run_does_not_stay_where_no_worker_is_left(
    outbox: CommandLine, sink: SMTPSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise SystemExit("out of the blue")

    monkeypatch.setattr("outbox.crew.Crew._live_once", broken)
    ran = outbox("run", "-q")
    assert ran.status == 70
    assert "SystemExit" in ran.err


def test_a_second_signal_leaves_at_once(outbox: CommandLine, sink: SMTPSink) -> None:
    sink.on("dot", reply=None)  # takes the mail and never answers
    outbox.submit("ann@example.org")
    process = outbox.start("run", "--grace", "1h")
    sink.wait_for(1)
    assert process.stderr is not None
    process.send_signal(signal.SIGTERM)
    while b"stopping" not in process.stderr.readline():
        pass
    while process.poll() is None:  # what comes at once counts as an echo of the first
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"left at once" in err


# -- three recipients, three fates; two drains at once


def test_who_was_deferred_is_tried_again_alone_and_who_was_refused_after_a_requeue_alone(
    outbox: CommandLine, sink: SMTPSink, tmp_path: Path
) -> None:
    (tmp_path / "outbox.toml").write_text('retry = "0s*3"\n', "utf-8")
    outbox.environ(OUTBOX_CONFIG=str(tmp_path / "outbox.toml"))
    sink.on("rcpt", "grey@example.org", reply="450 4.7.1 come back", times=1)
    sink.on("rcpt", "gone@example.org", reply="550 5.1.1 no such user", times=1)
    key = outbox.submit("ann@example.org", "grey@example.org", "gone@example.org")
    assert outbox("drain").status == 0
    data = outbox("show", "--json", key).data
    assert data["state"] == "dead"
    assert data["fates"] == {
        "ann@example.org": "accepted",
        "grey@example.org": "accepted",
        "gone@example.org": "failed",
    }
    first, second = (attempt["results"] for attempt in data["history"])
    assert {recipient: said["result"] for recipient, said in first.items()} == {
        "ann@example.org": "accepted",
        "grey@example.org": "deferred",
        "gone@example.org": "refused",
    }
    assert list(second) == ["grey@example.org"]
    outbox("requeue", key)
    assert outbox("drain").status == 0
    assert [list(message.recipients) for message in sink.messages] == [
        ["ann@example.org"],
        ["grey@example.org"],
        ["gone@example.org"],
    ]
    assert len({message.content for message in sink.messages}) == 1, "the same bytes each time"


def test_two_drains_at_once_deliver_each_message_once(outbox: CommandLine, sink: SMTPSink) -> None:
    store = SQLiteStore(outbox.path)
    content = b"From: shop@example.org\r\nMessage-ID: <%d@example.org>\r\n\r\nx\r\n"
    store.put(
        [
            Message(sender="shop@example.org", recipients=["ann@example.org"], content=content % number)
            for number in range(300)
        ]
    )
    store.close()
    processes = [outbox.start("drain") for _ in range(2)]
    for process in processes:
        _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    assert len(sink.messages) == 300
    assert len({message.content for message in sink.messages}) == 300
