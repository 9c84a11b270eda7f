"""Whatever becomes of standard output and standard error: mail is stored once, delivered, and the status is true."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import sys

import pytest
from command_line import MAIL, CommandLine
from started import PATIENCE

from outbox.cli.hearing import LibraryLog, heard_by
from outbox.cli.output import Console
from outbox.testing.smtp_sink import SMTPSink

pytestmark = pytest.mark.skipif(os.name != "posix", reason="redirections as a POSIX shell makes them")

UNREADABLE = ["1>&-", "1>/dev/full", "1>&- 2>&-", "1>/dev/full 2>/dev/full", "| head -c 0"]


def shell(words: str, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The command with the redirections in *words*, as a shell makes them; its own status."""
    command = shlex.join([sys.executable, "-m", "outbox", *argv])
    script = f"{{ {command}; echo $? >&9; }} {words}"
    read, write = os.pipe()
    try:
        ran = subprocess.run(
            ["bash", "-c", f"exec 9>&{write}; {script}"],
            input=stdin, capture_output=True, check=False, timeout=60, pass_fds=[write],
        )  # fmt: skip
    finally:
        os.close(write)
    with os.fdopen(read) as status:
        ran.returncode = int(status.read())
    return ran


# -- submit


@pytest.mark.parametrize("words", UNREADABLE)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_mail_that_is_stored_is_never_reported_as_failed(
    outbox: CommandLine, words: str, form: list[str]
) -> None:
    ran = shell(words, "-q", "submit", *form, "ann@example.org", stdin=MAIL)
    assert ran.returncode == 0, ran.stderr
    assert len(outbox("list", "--json").rows) == 1


def test_an_id_that_could_not_be_printed_is_told_on_the_other_stream(outbox: CommandLine) -> None:
    ran = shell("1>/dev/full", "submit", "--id", "order-1042", "ann@example.org", stdin=MAIL)
    assert b"order-1042 is stored" in ran.stderr
    assert b"Traceback" not in ran.stderr


def test_a_store_that_fails_at_closing_makes_no_stored_mail_a_failure(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise OSError("closing failed")

    monkeypatch.setattr("outbox.stores.sqlite.SQLiteStore.close", broken)
    ran = outbox("submit", "ann@example.org", stdin=MAIL)
    monkeypatch.undo()
    assert (ran.status, len(ran.out.split())) == (0, 1)


# -- the others


@pytest.mark.parametrize("command", ["status", "list", "show order-1042", "check"])
def test_a_closed_output_is_no_bug(outbox: CommandLine, command: str) -> None:
    outbox.submit("ann@example.org", id="order-1042")
    ran = shell("1>&-", *command.split())
    # A check may warn of the machine that it runs on.
    assert (ran.returncode in ((0, 1) if command == "check" else (0,)), ran.stderr) == (True, b"")


def test_an_answer_that_cannot_be_written_is_an_error_with_its_status(outbox: CommandLine) -> None:
    outbox.submit("ann@example.org")
    ran = shell("1>/dev/full", "list")
    assert ran.returncode == 74
    assert ran.stderr.startswith(b"outbox: No space left")


@pytest.mark.parametrize("words", ["2>&-", "2>/dev/full", "1>&- 2>&-", "2> >(head -c 0)"])
def test_a_drain_delivers_also_where_nobody_can_read_what_it_says(
    outbox: CommandLine, sink: SMTPSink, words: str
) -> None:
    for _ in range(3):
        outbox.submit("ann@example.org")
    ran = shell(words, "drain")
    assert ran.returncode == 0
    assert len(sink.messages) == 3


@pytest.mark.parametrize("words", ["2>&-", "2>/dev/full"])
def test_an_error_that_cannot_be_told_keeps_its_status(outbox: CommandLine, words: str) -> None:
    assert shell(words, "drain", "--transport", "gopher://host").returncode == 78
    assert shell(words, "nonsense").returncode == 64


def test_no_socket_takes_the_place_of_a_closed_stream(outbox: CommandLine, sink: SMTPSink) -> None:
    # What is written to descriptor 2 when a signal comes must not go to the mail server.
    program = (
        "import os, sys; from outbox.cli.streams import stand_any_terminal; stand_any_terminal()\n"
        "sys.exit(0 if min(os.dup(0), os.dup(0)) > 2 else 1)"
    )
    command = shlex.join([sys.executable, "-c", program])
    assert subprocess.run(["bash", "-c", f"{command} <&- >&- 2>&-"], check=False).returncode == 0


def test_run_goes_on_when_the_reader_of_its_log_has_left(outbox: CommandLine, sink: SMTPSink) -> None:
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-m", "outbox", "run"], stderr=write)
    os.close(write)
    try:
        assert os.read(read, 4)  # it has begun
        os.close(read)
        for _ in range(8):
            outbox.submit("ann@example.org")
        sink.wait_for(8)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    rows = outbox("list", "--json").rows
    assert [row["state"] for row in rows] == [], "each was delivered and noted"


def test_a_log_line_that_cannot_be_made_harms_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    with heard_by(LibraryLog(Console()), logging.getLogger("outbox")):
        logging.getLogger("outbox.runner").warning("%d left", "many")
    assert "many" in capsys.readouterr().err


# -- JSON


def test_json_is_json_in_any_encoding(outbox: CommandLine) -> None:
    outbox.submit("ann@example.org", attribute="name=J\u00f6rg \U0001f4ee", id="order-1042")
    process = outbox.start("show", "--json", "order-1042", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["attributes"]["name"] == "J\u00f6rg \U0001f4ee"


def test_a_drain_that_a_signal_ended_still_answers_in_json(outbox: CommandLine, sink: SMTPSink) -> None:
    sink.on("dot", reply="250 taken", times=1)
    sink.on("dot", reply=None)  # the second is taken and never answered
    for _ in range(3):
        outbox.submit("ann@example.org")
    process = outbox.start("--json", "drain", "-q", "--workers", "1", "--grace", "0.1s")
    sink.wait_for(2)
    outbox.wait_until_left(2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, err
    tally = json.loads(out)
    assert (tally["delivered"], tally["stopped"]) == (1, True)
