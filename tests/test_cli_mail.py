"""`outbox mail`: the habits of those who type mail and mailx."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from outbox.cli import originating
from outbox.cli.exits import Exit
from outbox.stores.sqlite import SQLiteStore
from outbox.testing import SMTPSink


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch, outbox: CommandLine, tmp_path: Path) -> None:
    monkeypatch.setattr(originating, "SYSTEM_ALIASES", tmp_path / "no-aliases")
    monkeypatch.setattr(originating, "_MAIL_NAME", tmp_path / "no-mailname")
    monkeypatch.setattr("socket.gethostname", lambda: "host.example")
    SQLiteStore(outbox.path).close()


def stored(outbox: CommandLine) -> list[Any]:
    store = SQLiteStore(outbox.path)
    try:
        return [store.get(each.id).message for each in store.browse()]  # type: ignore[union-attr]  # each is there
    finally:
        store.close()


def only(outbox: CommandLine) -> tuple[str, tuple[str, ...], EmailMessage]:
    (message,) = stored(outbox)
    mail = email.message_from_bytes(message.content, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    return message.sender, message.recipients, mail


def test_a_subject_copies_and_a_text_make_a_mail(outbox: CommandLine) -> None:
    ran = outbox(
        "mail", "-s", "Größe — 99 %", "-c", "bob@example.org,kim", "-b", "eve@example.org", "root", "ann@example.org",
        stdin="Hallo, grüner Baum.\n".encode(),
    )  # fmt: skip
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    sender, recipients, mail = only(outbox)
    assert sender.endswith("@host.example")
    assert recipients == (
        "root@host.example", "ann@example.org", "bob@example.org", "kim@host.example", "eve@example.org",
    )  # fmt: skip
    assert (mail["Subject"], mail["Bcc"]) == ("Größe — 99 %", None)
    assert [each.addr_spec for each in mail["To"].addresses] == ["root@host.example", "ann@example.org"]
    assert mail.get_content().strip() == "Hallo, grüner Baum."
    assert mail["Message-ID"]
    assert mail["Date"]


@pytest.mark.parametrize(
    "argv",
    [
        ("-r", "Ops Ä <ops@example.org>", "ann@example.org"),
        ("-rops@example.org", "ann@example.org"),
        ("-S", "from=ops@example.org", "ann@example.org"),
        ("ann@example.org", "--", "-f", "ops@example.org"),
        ("ann@example.org", "--", "-fops@example.org", "-oi"),
        ("-s", "x", "-r", "ops@example.org", "--", "ann@example.org"),
        ("-nv", "-r", "ops@example.org", "ann@example.org"),
    ],
)
def test_who_it_is_from_can_be_said_in_every_way(outbox: CommandLine, argv: tuple[str, ...]) -> None:
    assert outbox("mail", *argv, stdin=b"x\n").status == 0
    sender, recipients, mail = only(outbox)
    assert (sender, recipients) == ("ops@example.org", ("ann@example.org",))
    assert mail["From"].addresses[0].addr_spec == "ops@example.org"


def test_a_file_is_attached_and_a_field_is_added_whichever_mailx_one_is_used_to(
    outbox: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "größe.txt").write_bytes(b"1\n2\n")
    (tmp_path / "data.bin").write_bytes(bytes(range(256)))
    ran = outbox(
        "mail", "-a", "X-Tag: nightly", "-A", str(tmp_path / "größe.txt"), "-a", str(tmp_path / "data.bin"), "ann@example.org",
        stdin=b"see below\n",
    )  # fmt: skip
    assert ran.status == 0, ran.err
    _, _, mail = only(outbox)
    assert mail["X-Tag"] == "nightly"
    attached = [
        (part.get_filename(), part.get_content_type(), part.get_payload(decode=True))
        for part in mail.iter_attachments()
    ]
    assert attached == [
        ("größe.txt", "text/plain", b"1\n2\n"),
        ("data.bin", "application/octet-stream", bytes(range(256))),
    ]
    assert mail.get_all("MIME-Version") == ["1.0"]


def test_nothing_is_sent_where_there_is_no_text_and_that_was_asked_for(outbox: CommandLine) -> None:
    assert outbox("mail", "-Es", "cron", "ann@example.org", stdin=b" \n").status == 0
    assert stored(outbox) == []
    ran = outbox("mail", "-s", "cron", "ann@example.org")
    assert (ran.status, ran.err) == (0, "outbox: the mail has no text\n")
    assert len(stored(outbox)) == 1


def test_t_takes_the_header_of_the_text_and_what_is_said_counts_more(outbox: CommandLine) -> None:
    text = b"To: ann@example.org\nBcc: eve@example.org\nSubject: old\nFrom: a@x.org\nContent-Type: text/html\n\n<b>x</b>\n"
    assert outbox("mail", "-t", "-s", "new", "bob@example.org", stdin=text).status == 0
    sender, recipients, mail = only(outbox)
    assert (sender, mail.get_all("Subject"), mail.get_content().strip()) == ("a@x.org", ["new"], "<b>x</b>")
    assert set(recipients) == {"ann@example.org", "bob@example.org", "eve@example.org"}


def test_t_keeps_mime_mail_as_it_is_written(outbox: CommandLine, tmp_path: Path) -> None:
    fields = b"Content-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n"
    text = b"To: ann@example.org\n" + fields + b"\n<b>h=E9</b>\n"
    assert outbox("mail", "-t", stdin=text).status == 0
    _, _, mail = only(outbox)
    assert (mail.get_content_type(), mail["Content-Transfer-Encoding"]) == ("text/html", "quoted-printable")
    assert (mail.get_payload(), mail.get_content()) == ("<b>h=E9</b>\r\n", "<b>hé</b>\r\n")
    assert mail["MIME-Version"] == "1.0"


def test_t_attaches_beside_mime_mail(outbox: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"1\n")
    fields = b"Content-Type: text/html; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n"
    text = b"To: ann@example.org\nSubject: x\n" + fields + b"\n<b>h=E9</b>\n"
    assert outbox("mail", "-t", "-A", str(tmp_path / "x.txt"), stdin=text).status == 0
    _, _, mail = only(outbox)
    first, second = mail.iter_parts()
    assert isinstance(first, EmailMessage)
    assert (mail["Subject"], first.get_content_type(), first.get_content().strip()) == (
        "x",
        "text/html",
        "<b>hé</b>",
    )
    assert (second.get_filename(), second.get_payload(decode=True)) == ("x.txt", b"1\n")


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Type: text/html",),
        ("Content-type: text/html; charset=UTF-8", "MIME-Version: 1.0", "Content-Transfer-Encoding: 8bit"),
    ],
)
def test_the_type_of_the_text_can_be_said(
    outbox: CommandLine, tmp_path: Path, fields: tuple[str, ...], attached: bool
) -> None:
    (tmp_path / "x.bin").write_bytes(b"\0")
    argv = [word for field in fields for word in ("-a", field)]
    argv += ["-A", str(tmp_path / "x.bin")] if attached else []
    ran = outbox("mail", *argv, "ann@example.org", stdin="<b>hé</b>\n".encode())
    assert (ran.status, ran.err) == (0, "")
    _, _, mail = only(outbox)
    assert [len(mail.get_all(name, [])) for name in ("MIME-Version", "Content-Type")] == [1, 1]
    assert mail.is_multipart() == attached
    part = next(mail.iter_parts()) if attached else mail
    assert isinstance(part, EmailMessage)
    assert (part.get_content_type(), part.get_content().strip()) == ("text/html", "<b>hé</b>")


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize(
    ("text", "charset"),
    [
        (b"10%\r20%\r100%\n", "us-ascii"),
        ("grün\rgrüner\n".encode(), "utf-8"),
        (b"gr\xfcn\n", "unknown-8bit"),
        (b"gr\xfc\rn\n" + b"x" * 2000 + b"\n", "unknown-8bit"),
    ],
)
def test_text_arrives_as_it_is_and_as_text(
    outbox: CommandLine, tmp_path: Path, text: bytes, charset: str, attached: bool
) -> None:
    (tmp_path / "x.bin").write_bytes(b"\0")
    argv = ["-A", str(tmp_path / "x.bin")] if attached else []
    assert outbox("mail", *argv, "ann@example.org", stdin=text).status == 0
    _, _, mail = only(outbox)
    part = next(mail.iter_parts()) if attached else mail
    assert (part.get_content_type(), part.get_content_charset()) == ("text/plain", charset)
    octets = part.get_payload(decode=True)
    assert isinstance(octets, bytes)
    assert octets.replace(b"\r\n", b"\n").strip() == text.strip()


@pytest.mark.parametrize("flags", [(), ("-t",)])
def test_text_with_crlf_arrives_as_text_with_lf_does(outbox: CommandLine, flags: tuple[str, ...]) -> None:
    assert outbox("mail", *flags, "ann@example.org", stdin=b"\r\none\r\ntwo\nthree\r\n").status == 0
    (message,) = stored(outbox)
    body = message.content.partition(b"\r\n\r\n")[2]
    assert body.removeprefix(b"\r\n") == b"one\r\ntwo\r\nthree\r\n"
    assert b"quoted-printable" not in message.content


def test_the_name_behind_the_dashes_stands_in_from(outbox: CommandLine) -> None:
    assert outbox("mail", "ann@example.org", "--", "-F", "Ops", "-f", "a@x.org", stdin=b"x\n").status == 0
    assert str(only(outbox)[2]["From"]) == "Ops <a@x.org>"
    outbox("mail", "bob@example.org", "--", "-F", "Ops Ä", stdin=b"x\n")
    mail = next(each for each in stored(outbox) if each.recipients == ("bob@example.org",))
    sender = email.message_from_bytes(mail.content, policy=email.policy.default)["From"].addresses[0]
    assert (sender.display_name, sender.domain) == ("Ops Ä", "host.example")


@pytest.mark.parametrize("name", ['O"p\\s, <eve@example.org>', "x\nBcc: eve@example.org", "x\0", "\udcff"])
@pytest.mark.parametrize("sender", [(), ("-r", "a@x.org")])
def test_no_name_behind_the_dashes_breaks_out_of_its_field(
    outbox: CommandLine, name: str, sender: tuple[str, ...]
) -> None:
    ran = outbox("mail", *sender, "ann@example.org", "--", "-F", name, stdin=b"x\n")
    if name.isprintable():
        (address,) = only(outbox)[2]["From"].addresses
        assert address.display_name == name
    else:
        assert (ran.status, stored(outbox)) == (Exit.DATA, [])


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("-a", "To: z@example.org", "ann@example.org"), b"x\n"),
        (("-t", "ann@example.org"), b"To: =?utf-8?q?z=2Cy?= <z@example.org>,\n\nx\n"),
        (("-t", "ann@example.org", "-a", "to: z@example.org"), b"Subject: x\n\nx\n"),
    ],
)
def test_recipients_that_are_said_twice_stand_in_one_field(
    outbox: CommandLine, argv: tuple[str, ...], text: bytes
) -> None:
    assert outbox("mail", *argv, stdin=text).status == 0
    _, recipients, mail = only(outbox)
    assert (set(recipients), len(mail.get_all("To", []))) == ({"z@example.org", "ann@example.org"}, 1)


@pytest.mark.parametrize(
    ("argv", "field", "recipients"),
    [
        (("jörg@x.org",), "To: jörg@x.org", ["jörg@x.org"]),
        (("ann@exämple.org",), "To: ann@exämple.org", ["ann@xn--exmple-cua.org"]),
        (("Jörg <jörg@x.org>", "ann@x.org"), "To: Jörg <jörg@x.org>, ann@x.org", ["jörg@x.org", "ann@x.org"]),
        (('"Jörg, <eve@x.org>" <jörg@x.org>',), 'To: "Jörg, <eve@x.org>" <jörg@x.org>', ["jörg@x.org"]),
        (("ann@x.org", "-c", "jörg"), "Cc: jörg@host.example", ["ann@x.org", "jörg@host.example"]),
        (("ann@x.org", "-r", "Jörg <jörg@x.org>"), "From: Jörg <jörg@x.org>", ["ann@x.org"]),
        (("ann@x.org", "-R", "jörg@x.org"), "Reply-To: jörg@x.org", ["ann@x.org"]),
        (("ann@x.org", "-c", "Jörg <kim@x.org>"), "Cc: =?utf-8?q?J=C3=B6rg?= <kim@x.org>", ["ann@x.org", "kim@x.org"]),
        (("ann@x.org", "-c", "J\udcf6rg <kim@x.org>"), "Cc: =?unknown-8bit?q?J=F6rg?= <kim@x.org>", ["ann@x.org", "kim@x.org"]),
    ],
)  # fmt: skip
def test_addresses_beyond_ascii_stand_in_the_header_as_they_are_and_names_in_ascii(
    outbox: CommandLine, argv: tuple[str, ...], field: str, recipients: list[str]
) -> None:
    ran = outbox("mail", *argv, stdin=b"x\n")
    assert (ran.status, ran.err) == (0, "")
    (message,) = stored(outbox)
    assert list(message.recipients) == recipients
    header = message.content.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").decode()
    assert field in header.split("\r\n")
    assert message.sender == "jörg@x.org" or "-r" not in argv


def test_many_addresses_beyond_ascii_are_written_in_lines_that_can_be_sent(outbox: CommandLine) -> None:
    many = [f"jörg{number:03}@x.org" for number in range(200)]
    assert outbox("mail", *many, stdin=b"x\n").status == 0
    (message,) = stored(outbox)
    assert list(message.recipients) == many


@pytest.mark.parametrize("option", ["-c", "-R"])
@pytest.mark.parametrize(
    "address", ["jörg@@x.org", "j\udcf6rg@x.org", "jörg@x.org\x85", "jörg\u2028@x.org", "jörg@"]
)
def test_what_is_no_address_beyond_ascii_is_refused(outbox: CommandLine, option: str, address: str) -> None:
    ran = outbox("mail", option, address, "ann@example.org", stdin=b"x\n")
    assert (ran.status, stored(outbox)) == (Exit.DATA, [])
    assert " cannot be written: " in ran.complaint


def test_a_date_that_is_none_is_refused(outbox: CommandLine) -> None:
    ran = outbox("mail", "-a", "Date: gestern", "ann@example.org", stdin=b"x\n")
    assert (ran.status, stored(outbox)) == (Exit.DATA, [])
    assert "Date: 'gestern' cannot be written" in ran.complaint
    date = "Mon, 01 Jan 2024 12:00:00 +0100"
    assert outbox("mail", "-a", f"Date: {date}", "ann@example.org", stdin=b"x\n").status == 0
    assert only(outbox)[2].get_all("Date") == [date]


def test_files_are_attached_to_no_mail_with_a_lone_return(outbox: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"1\n")
    for text in (
        b"To: a@x.org\nContent-Type: text/html\rBcc: eve@example.org\n\nx\n",
        b"To: a@x.org\rBcc: eve@example.org\n\nx\n",
        b"To: a@x.org\nContent-Transfer-Encoding: base64\n\nx\rx\n",
    ):
        ran = outbox("mail", "-t", "-A", str(tmp_path / "x.txt"), stdin=text)
        assert (ran.status, stored(outbox)) == (Exit.DATA, [])
        assert "a carriage return without a line feed" in ran.complaint


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("lat\udce9.txt", "lat_.txt"),
        ("two\nlines.txt", "two_lines.txt"),
        ("esc\x1b[31m.txt", "esc_[31m.txt"),
        ("größe\u2028\x85.txt", "größe__.txt"),
    ],
)
def test_an_attached_file_is_called_by_what_can_be_said_of_its_name(
    outbox: CommandLine, tmp_path: Path, name: str, shown: str
) -> None:
    (tmp_path / name).write_bytes(b"1\n")
    ran = outbox("mail", "-A", str(tmp_path / name), "ann@example.org", stdin=b"x\n")
    assert (ran.status, ran.err) == (0, "")
    (part,) = only(outbox)[2].iter_attachments()
    assert (part.get_filename(), part.get_payload(decode=True)) == (shown, b"1\n")


@pytest.mark.parametrize("name", ["x.eml", "x.mht"])
def test_an_attached_mail_is_a_file_of_octets_that_arrive_as_they_are(
    outbox: CommandLine, tmp_path: Path, name: str
) -> None:
    octets = b"Subject: signed\n\nx\r\n" + b"y" * 2000
    (tmp_path / name).write_bytes(octets)
    assert outbox("mail", "-A", str(tmp_path / name), "ann@example.org", stdin=b"x\n").status == 0
    (part,) = only(outbox)[2].iter_attachments()
    assert (part.get_content_type(), part.get_payload(decode=True)) == ("application/octet-stream", octets)


def test_text_that_begins_like_a_header_is_text(outbox: CommandLine) -> None:
    outbox("mail", "ann@example.org", stdin=b"Bcc: eve@example.org\n\n~r /etc/passwd\n.\nend\n")
    _, recipients, mail = only(outbox)
    assert recipients == ("ann@example.org",)
    assert mail.get_content().splitlines() == ["Bcc: eve@example.org", "", "~r /etc/passwd", ".", "end"]


def test_what_is_no_text_arrives_as_it_is(outbox: CommandLine) -> None:
    octets = b"\x89PNG\r\n\xff\0" + b"x" * 3000
    outbox("mail", "ann@example.org", stdin=octets)
    _, _, mail = only(outbox)
    assert mail.get_content_type() == "application/octet-stream"
    assert mail.get_payload(decode=True) == octets


@pytest.mark.parametrize("injected", ["x\nBcc: eve@example.org", "x\r\n\r\nbody", "x\0"])
@pytest.mark.parametrize("option", ["-s", "-a", "-c", "-r"])
def test_nothing_breaks_out_of_its_field(outbox: CommandLine, option: str, injected: str) -> None:
    value = f"X-Tag: {injected}" if option == "-a" else injected
    ran = outbox("mail", option, value, "ann@example.org", stdin=b"x\n")
    assert ran.status in (Exit.DATA, Exit.USAGE)
    assert ran.complaint
    assert stored(outbox) == []


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        ((), Exit.USAGE, "to whom?"),
        (("-f",), Exit.USAGE, "needs a value"),
        (("-f", "mbox"), Exit.UNSUPPORTED, "reads no mailbox"),
        (("-H",), Exit.UNSUPPORTED, "reads no mailbox"),
        (("-A", "/nonexistent/x", "a@x.org"), Exit.NO_INPUT, "/nonexistent/x"),
        (("-a", "neither", "a@x.org"), Exit.USAGE, "neither a field"),
        (("-r", "a@x.org, b@x.org", "a@x.org"), Exit.USAGE, "name one sender"),
        (("--wait", "a@x.org"), Exit.CONFIGURATION, "no transport is named"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line(
    outbox: CommandLine, argv: tuple[str, ...], status: Exit, words: str
) -> None:
    ran = outbox("mail", *argv, stdin=b"x\n")
    assert ran.status == status
    assert words in ran.complaint
    assert stored(outbox) == []


def test_a_variable_that_means_nothing_here_is_warned_of(outbox: CommandLine) -> None:
    ran = outbox("mail", "-S", "smtp=smtp://other", "a@x.org", stdin=b"x\n")
    assert ran.status == 0
    assert ran.complaint == "warning: -S smtp has no effect here"


@pytest.mark.parametrize(
    ("reply", "status", "words"),
    [
        ("250 ok", Exit.OK, ""),
        ("550 5.1.1 no such user", Exit.UNSUPPORTED, "could not be delivered"),
        ("451 later", Exit.TEMPORARY, "is stored, and tried again"),
    ],
)
@pytest.mark.parametrize("how", [("--wait",), ("-S", "sendwait")])
def test_wait_says_by_the_status_what_came_of_it(
    outbox: CommandLine, reply: str, status: Exit, words: str, how: tuple[str, ...]
) -> None:
    with SMTPSink() as sink:
        if not reply.startswith("250"):
            sink.on("rcpt", reply=reply)
        ran = outbox(
            "--transport", f"smtp://{sink.host}:{sink.port}", "mail", *how, "-s", "x", "a@x.org", stdin=b"x\n"
        )
    assert ran.status == status
    assert words in ran.err
