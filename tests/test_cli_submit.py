"""`outbox submit`, alone and in sendmail's place."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from command_line import MAIL, CommandLine

from outbox.stores.sqlite import SQLiteStore


def stored(outbox: CommandLine) -> list[Any]:
    return outbox("list", "--json").rows


def content(outbox: CommandLine, key: str) -> bytes:
    store = SQLiteStore(outbox.path)
    try:
        record = store.get(key)
    finally:
        store.close()
    assert record is not None
    return record.message.content


def test_the_id_is_printed_and_the_mail_is_there(outbox: CommandLine) -> None:
    key = outbox.submit("ann@example.org")
    (row,) = stored(outbox)
    assert (row["id"], row["recipients"], row["sender"]) == (key, ["ann@example.org"], "shop@example.org")
    assert row["state"] == "queued"


def test_a_file_is_read_and_its_lines_become_crlf(outbox: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "mail.eml").write_bytes(MAIL)
    key = outbox("submit", "--file", str(tmp_path / "mail.eml"), "ann@example.org").out.strip()
    assert b"\r\nSubject: Invoice 1042\r\n" in content(outbox, key)
    assert b"\n" not in content(outbox, key).replace(b"\r\n", b"")


def test_t_takes_the_recipients_from_the_headers_and_hides_bcc(outbox: CommandLine) -> None:
    key = outbox("submit", "-t", stdin=MAIL).out.strip()
    (row,) = stored(outbox)
    assert row["recipients"] == ["ann@example.org", "bob@example.org", "eve@example.org"]
    assert b"eve@example.org" not in content(outbox, key)


def test_t_adds_the_recipients_of_the_command_line_once(outbox: CommandLine) -> None:
    outbox("submit", "-t", "bob@example.org", "kim@example.org", stdin=MAIL)
    (row,) = stored(outbox)
    assert row["recipients"] == ["ann@example.org", "bob@example.org", "eve@example.org", "kim@example.org"]


@pytest.mark.parametrize(
    "argv",
    [
        ["-f", "a@x.org", "b@y.org", "c@z.org"],
        ["-fa@x.org", "-i", "b@y.org", "c@z.org"],
        ["b@y.org", "-f", "a@x.org", "c@z.org", "-oi"],
        ["-oi", "-oem", "-f", "a@x.org", "--", "b@y.org", "c@z.org"],
        ["-FCron Daemon", "-i", "-odi", "-oem", "-r", "a@x.org", "b@y.org", "c@z.org"],
        ["-i", "-FCronDaemon", "-B8BITMIME", "-oem", "-bm", "-fa@x.org", "b@y.org", "c@z.org"],
        [
            *("-N", "never", "-R", "hdrs", "-V", "env", "-G", "-U", "-n", "-m"),
            *("-f", "a@x.org", "b@y.org", "c@z.org"),
        ],
        ["-G", "-F", "x", "-n", "-e", "m", "-U", "-B", "8BITMIME", "-fa@x.org", "b@y.org", "c@z.org"],
        ["-m", "-N", "never", "-h", "17", "-h3", "-f", "a@x.org", "b@y.org", "c@z.org"],
        ["b@y.org", "c@z.org", "b@y.org", "-f", "a@x.org"],
    ],
)
def test_sendmails_ways_to_say_it_are_understood(outbox: CommandLine, argv: list[str]) -> None:
    ran = outbox("submit", *argv, stdin=MAIL)
    assert (ran.status, ran.err) == (
        0,
        f"outbox: warning: there was no database {outbox.path}: a new one is made\n",
    )
    (row,) = stored(outbox)
    assert (row["sender"], row["recipients"]) == ("a@x.org", ["b@y.org", "c@z.org"])


def test_sendmails_hop_count_is_no_cry_for_help(outbox: CommandLine) -> None:
    ran = outbox("submit", "-t", "-h", "17", stdin=MAIL)
    assert (ran.status, len(stored(outbox))) == (0, 1)
    assert "usage:" in outbox("submit", "--help").out
    assert "--help" in outbox("submit", "--help").out
    assert "usage:" in outbox("drain", "-h").out


def test_t_takes_a_recipient_for_the_same_in_whichever_case_the_domain_is_written(
    outbox: CommandLine,
) -> None:
    mail = b"From: a@b.example\nTo: ann@Example.org\n\nhi\n"
    outbox("submit", "-t", "ann@example.org", "Ann@example.org", stdin=mail)
    (row,) = stored(outbox)
    assert row["recipients"] == ["ann@Example.org", "Ann@example.org"]


@pytest.mark.parametrize("to", [b"", b"To: undisclosed-recipients:;\n"])
def test_t_with_a_recipient_takes_a_mail_that_names_none(outbox: CommandLine, to: bytes) -> None:
    ran = outbox("submit", "-t", "ann@example.org", stdin=b"From: a@b.example\n" + to + b"\nhi\n")
    assert ran.status == 0
    (row,) = stored(outbox)
    assert row["recipients"] == ["ann@example.org"]


@pytest.mark.parametrize("null", ["", "<>"])
def test_the_null_sender_can_be_said(outbox: CommandLine, null: str) -> None:
    outbox("submit", "-f", null, "ann@example.org", stdin=MAIL)
    assert stored(outbox)[0]["sender"] == ""


def test_a_single_dot_ends_the_mail_unless_i_is_given(outbox: CommandLine, tmp_path: Path) -> None:
    mail = MAIL + b".\nthe rest\n"
    cut, whole = (outbox("submit", *i, "ann@example.org", stdin=mail).out.strip() for i in ([], ["-i"]))
    assert content(outbox, cut).endswith(b"Thank you.\r\n")
    assert content(outbox, whole).endswith(b"Thank you.\r\n.\r\nthe rest\r\n")
    also = outbox("submit", "-oi", "ann@example.org", stdin=mail).out.strip()
    assert content(outbox, also).endswith(b"the rest\r\n")
    (tmp_path / "mail.eml").write_bytes(mail)
    file = outbox("submit", "--file", str(tmp_path / "mail.eml"), "ann@example.org").out.strip()
    assert content(outbox, file).endswith(b"Thank you.\r\n.\r\nthe rest\r\n")


def test_a_bare_name_gets_the_domain_that_is_said(outbox: CommandLine) -> None:
    outbox("submit", "--domain", "example.org", "-f", "cron", "root", stdin=MAIL)
    (row,) = stored(outbox)
    assert (row["sender"], row["recipients"]) == ("cron@example.org", ["root@example.org"])


def test_cron_can_send_its_mail(outbox: CommandLine) -> None:
    mail = b"From: root (Cron Daemon)\nTo: root\nSubject: Cron <root@host> backup\n\nfailed\n"
    ran = outbox(
        "submit", "--domain", "example.org", "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", stdin=mail
    )
    assert ran.status == 0
    (row,) = stored(outbox)
    assert (row["sender"], row["recipients"]) == ("root@example.org", ["root@example.org"])


def test_a_bare_name_without_a_domain_is_refused_with_what_to_do(outbox: CommandLine) -> None:
    ran = outbox("submit", "root", stdin=MAIL)
    assert ran.status == 65
    assert "'root' has no domain" in ran.complaint
    assert "--domain" in ran.complaint
    assert not outbox.path.exists()


def test_a_file_among_the_recipients_is_recognised(
    outbox: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mail.eml").write_bytes(MAIL)
    ran = outbox("submit", "mail.eml")
    assert (ran.status, "--file mail.eml" in ran.complaint) == (64, True)


def test_the_same_id_again_stores_nothing_new(outbox: CommandLine) -> None:
    first = outbox("submit", "--id", "order-1042", "ann@example.org", stdin=MAIL)
    again = outbox("submit", "--id", "order-1042", "ann@example.org", stdin=MAIL)
    assert (first.out, again.out) == ("order-1042\n", "order-1042\n")
    assert (again.status, "known already" in again.err) == (0, True)
    assert len(stored(outbox)) == 1
    assert outbox("submit", "--json", "--id", "order-1042", "ann@example.org", stdin=MAIL).data == {
        "id": "order-1042",
        "status": "known",
    }


def test_the_same_id_for_somebody_else_is_refused(outbox: CommandLine) -> None:
    outbox.submit("ann@example.org", id="order-1042")
    ran = outbox("submit", "--id", "order-1042", "bob@example.org", stdin=MAIL)
    assert (ran.status, "order-1042" in ran.complaint) == (65, True)


def test_what_is_said_about_the_message_is_stored_with_it(outbox: CommandLine) -> None:
    key = outbox("submit", "--queue", "mail.bulk", "--priority", "-5", "--attribute", "order=1042",
                "--attribute", "note=a=b", "--delay", "1h", "--expires", "2d", "--at-most-once",
                "ann@example.org", stdin=MAIL).out.strip()  # fmt: skip
    data = outbox("show", "--json", key).data
    assert (data["queue"], data["priority"], data["at_most_once"]) == ("mail.bulk", -5, True)
    assert data["attributes"] == {"order": "1042", "note": "a=b"}
    expires, not_before = (dt.datetime.fromisoformat(data[name]) for name in ("expires_at", "not_before"))
    assert expires - not_before == dt.timedelta(hours=47)


def test_an_option_may_stand_before_the_command_or_behind_it(outbox: CommandLine, tmp_path: Path) -> None:
    for number, argv in enumerate((["--store", "{}", "submit"], ["submit", "--store", "{}"])):
        store = f"sqlite:///{tmp_path / f'other{number}.db'}"
        assert outbox(*(word.format(store) for word in argv), "ann@example.org", stdin=MAIL).status == 0
        assert (tmp_path / f"other{number}.db").exists()
    assert not outbox.path.exists()


@pytest.mark.parametrize(
    ("argv", "stdin", "status", "says"),
    [
        ([], MAIL, 64, "to whom?"),
        (["ann@example.org"], b"", 66, "standard input is empty"),
        (["ann@example.org"], b".\n", 66, "standard input is empty"),
        (["--file", "/no/such/mail.eml", "ann@example.org"], b"", 66, "/no/such/mail.eml: No such file"),
        (["--file", "/", "ann@example.org"], b"", 66, "cannot read /"),
        (["ann@example.org\nbcc: eve@example.org"], MAIL, 65, r"ann@example.org\nbcc"),
        (["ann@exa mple.org"], MAIL, 65, "ann@exa mple.org"),
        (["-f", "a@b@c", "ann@example.org"], MAIL, 65, "a@b@c"),
        (["-t"], b"Subject: nobody\n\nx\n", 65, ""),
        (["--priority", "high", "ann@example.org"], MAIL, 64, "--priority"),
        (["--priority", "101", "ann@example.org"], MAIL, 65, "priority 101"),
        (["--id", "Order 1042", "ann@example.org"], MAIL, 65, "id 'Order 1042'"),
        (["--id", "", "ann@example.org"], MAIL, 65, "id ''"),
        (["--queue", "MAIL", "ann@example.org"], MAIL, 65, "queue 'MAIL'"),
        (["--queue", "", "ann@example.org"], MAIL, 65, "queue ''"),
        (["--domain", "bad domain", "ann@example.org"], MAIL, 64, "bad domain"),
        (["--domain", "", "ann@example.org"], MAIL, 64, "'' is no domain"),
        (["--domain", "ex\x1b", "ann"], MAIL, 64, r"'ex\x1b' is no domain: it holds '\x1b' (RFC 5321"),
        (["--delay", "99999999d", "ann@example.org"], MAIL, 64, "--delay"),
        (["--expires", "99999999d", "ann@example.org"], MAIL, 64, "--expires"),
        (["--expires", "0s", "ann@example.org"], MAIL, 64, "--expires"),
        (["--expires", "1m", "--delay", "2m", "ann@example.org"], MAIL, 64, "--expires"),
        (["--expires", "1m", "--delay", "1m", "ann@example.org"], MAIL, 64, "--expires"),
        (["--store", "sqlite:///x%00y.db", "ann@example.org"], MAIL, 78, "control character"),
        (["--attribute", "order", "ann@example.org"], MAIL, 64, "NAME=VALUE"),
        (["--delay", "soon", "ann@example.org"], MAIL, 64, "'soon' is not a duration"),
        (["--no-such-option", "ann@example.org"], MAIL, 64, "unknown option --no-such-option"),
        (["-bd"], MAIL, 64, "-b"),
        (["--store", "memory:", "ann@example.org"], MAIL, 78, "forgotten when this command ends"),
        (["--store", "acme://db/x", "ann@example.org"], MAIL, 78, "unknown scheme"),
    ],
)
def test_what_cannot_be_submitted_is_one_line_and_a_status(
    outbox: CommandLine, argv: list[str], stdin: bytes, status: int, says: str
) -> None:
    ran = outbox("submit", *argv, stdin=stdin)
    assert (ran.status, ran.out) == (status, "")
    assert says in ran.complaint
    assert not outbox.path.exists()


@pytest.mark.parametrize(
    "mail",
    [
        b"\xff\xfe\x00",
        b"no header at all",
        b"From shop@example.org Thu Jan  1 00:00:00 1970\nSubject: mbox\n\nx\n",
        b"Subject: =?utf-8?q?a=0Ab?=\nFrom: a@x.org\n\nx\n",
        b"From: a@x.org\nSubject: bare\rreturn\n\nx\n",
        b"From: a@x.org\n\n" + b"x" * 2000,
        b"From: a@x.org\n\nnul \0 here\n",
        b"\n\n\n\x80",
    ],
)
def test_no_mail_however_malformed_ends_in_a_traceback(outbox: CommandLine, mail: bytes) -> None:
    ran = outbox("submit", "-q", "ann@example.org", "-f", "a@x.org", stdin=mail)
    if ran.status:
        assert (ran.status, ran.out) == (65, "")
        assert ran.complaint
    else:
        assert len(stored(outbox)) == 1
