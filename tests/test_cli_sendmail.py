"""`outbox sendmail` against what really calls sendmail: cron, PHP, git, mutt, and those who speak SMTP to it."""

from __future__ import annotations

import email
import email.policy
import itertools
import os
import re
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from outbox.cli import originating
from outbox.cli.exits import Exit
from outbox.cli.letter import Letter
from outbox.cli.parser import called_as
from outbox.errors import InvalidMessage
from outbox.stores.sqlite import SQLiteStore

MAIL = b"From: Shop <shop@example.org>\nTo: ann@example.org\nBcc: eve@example.org\nSubject: Hi\n\nHello.\n"
CRON = b"""\
From: root (Cron Daemon)
To: root
Subject: Cron <root@host> run-parts /etc/cron.daily
MIME-Version: 1.0
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: 8bit
X-Cron-Env: <SHELL=/bin/sh>

/etc/cron.daily/logrotate:
error: gr\xc3\xb6\xc3\x9fer
.
the end
"""


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine whose name, mail name and aliases are those of the test."""
    monkeypatch.setattr(originating, "SYSTEM_ALIASES", tmp_path / "no-aliases")
    monkeypatch.setattr(originating, "_MAIL_NAME", tmp_path / "no-mailname")
    monkeypatch.setattr("socket.gethostname", lambda: "host.example")


@pytest.fixture
def sendmail(outbox: CommandLine) -> Any:
    def sendmail(*argv: str, stdin: bytes = MAIL) -> Any:
        SQLiteStore(outbox.path).close()
        return outbox("sendmail", *argv, stdin=stdin)

    return sendmail


def stored(outbox: CommandLine) -> list[Any]:
    store = SQLiteStore(outbox.path)
    try:
        return [store.get(each.id).message for each in store.browse()]  # type: ignore[union-attr]  # each is there
    finally:
        store.close()


def only(outbox: CommandLine) -> tuple[str, tuple[str, ...], EmailMessage]:
    (message,) = stored(outbox)
    assert b"\n" not in message.content.replace(b"\r\n", b"")
    mail = email.message_from_bytes(message.content, policy=email.policy.default)
    assert isinstance(mail, EmailMessage)
    return message.sender, message.recipients, mail


TWO = ("b@y.org", "c@z.org")


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(("-i", "-f", "a@x.org", *TWO), id="ruby's mail, nodemailer"),
        pytest.param(("-oem", "-oi", "-f", "a@x.org", "--", *TWO), id="mutt"),
        pytest.param(("-oem", "-oi", "-B8BITMIME", "-N", "delay,failure", "-R", "full", "-fa@x.org", *TWO), id="mutt with DSN"),
        pytest.param(("-f", "a@x.org", "-i", *TWO), id="git send-email"),
        pytest.param(("-i", *TWO, "-fa@x.org"), id="options behind"),
        pytest.param(("-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-f", "a@x.org", *TWO), id="cronie"),
        pytest.param(("-bm", "-om", "-or7d", "-r", "a@x.org", *TWO), id="old scripts"),
        pytest.param(("-G", "-n", "-m", "-U", "-h3", "-Ac", "-L", "tag", "-X", "log", "-Oa=b", "-em", "-d0.1", "-fa@x.org", *TWO), id="all the rest"),
        pytest.param(("-xcnmU", "-p", "smtp:h", "-C", "sendmail.cf", "-D", "d", "-f", "a@x.org", *TWO), id="joined flags"),
    ],
)  # fmt: skip
def test_the_shapes_of_real_programs_are_understood(
    outbox: CommandLine, sendmail: Any, argv: tuple[str, ...]
) -> None:
    ran = sendmail(*argv)
    assert (ran.status, ran.out, ran.err) == (0, "", "")
    sender, recipients, mail = only(outbox)
    assert (sender, recipients, mail["From"]) == ("a@x.org", TWO, "Shop <shop@example.org>")


@pytest.mark.parametrize(
    "argv", [("-t", "-i"), ("-ti",), ("-it",), ("-t", "-oi", "-oem"), ("-i", "-t", "-fweb@example.org")]
)
def test_the_shapes_that_take_recipients_from_the_header_are_understood(
    outbox: CommandLine, sendmail: Any, argv: tuple[str, ...]
) -> None:
    """PHP's sendmail_path with mail()'s fifth argument, MIME::Lite, logwatch, sudo."""
    assert sendmail(*argv).status == 0
    sender, recipients, mail = only(outbox)
    assert sender == ("web@example.org" if "-fweb@example.org" in argv else "shop@example.org")
    assert recipients == ("ann@example.org", "eve@example.org")
    assert mail["Bcc"] is None


@pytest.mark.parametrize(
    ("words", "recipients"),
    [
        (["ann@example.com,bob@example.com"], ["ann@example.com", "bob@example.com"]),
        (["ann@example.com, root", "bob@example.com"], ["ann@example.com", "root@host.example", "bob@example.com"]),
        (["Ann <ann@example.com>"], ["ann@example.com"]),
        (['"a,b"@example.com'], ['"a,b"@example.com']),
        (["<ann@example.com>"], ["ann@example.com"]),
        ([r"\root"], ["root@host.example"]),
        ([r"ann@example.com, \root"], ["ann@example.com", "root@host.example"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("header", [(), ("-t",)])
def test_each_word_may_name_several_recipients_as_mailto_of_cron_does(
    outbox: CommandLine, sendmail: Any, words: list[str], recipients: list[str], header: tuple[str, ...]
) -> None:
    ran = sendmail("-i", "-FCronDaemon", "-B8BITMIME", "-oem", *header, *words, stdin=b"From: a@x.org\n\nx\n")
    assert (ran.status, ran.err) == (0, "")
    assert list(only(outbox)[1]) == recipients


def test_a_backslash_before_a_name_means_that_name_and_no_alias_of_it(
    outbox: CommandLine, sendmail: Any, tmp_path: Path
) -> None:
    (tmp_path / "aliases").write_text("root: ann\nkim: kim2\n", "utf-8")
    assert sendmail(r"\root,kim", "--aliases", str(tmp_path / "aliases")).status == 0
    assert only(outbox)[1] == ("root@host.example", "kim2@host.example")


def test_a_word_that_names_nobody_is_refused(outbox: CommandLine, sendmail: Any) -> None:
    for word in ("", " ", ",", "<>"):
        ran = sendmail("ann@example.org", word)
        assert (ran.status, stored(outbox)) == (Exit.DATA, [])
        assert "the recipient: " in ran.complaint


def test_what_cron_says_arrives_whole_and_completed(outbox: CommandLine, sendmail: Any) -> None:
    ran = sendmail("-i", "-FCronDaemon", "-B8BITMIME", "-oem", "root", stdin=CRON)
    assert (ran.status, ran.err) == (0, "")
    sender, recipients, mail = only(outbox)
    assert (sender, recipients) == ("root@host.example", ("root@host.example",))
    assert (mail["From"].addresses[0].addr_spec, mail["To"]) == ("root@host.example", "root@host.example")
    assert mail["Message-ID"]
    assert mail["Date"]
    assert mail.get_content().splitlines()[-3:] == ["error: größer", ".", "the end"]


def test_a_shell_that_pipes_text_into_the_command_is_enough(
    outbox: CommandLine, sendmail: Any, tmp_path: Path
) -> None:
    """A real /bin/sh, a real link called sendmail, a line that is no header."""
    link = tmp_path / "sendmail"
    link.write_text(
        f"#!{sys.executable}\nimport sys\nfrom outbox.cli import main\nsys.exit(main())\n", "utf-8"
    )
    link.chmod(0o700)
    script = f"PATH='{tmp_path}':$PATH; (echo 'disk is full: 99 %'; echo .; echo hidden) | sendmail -f ops@example.org ann@example.org"
    ran = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, check=False, env=dict(os.environ), timeout=30
    )
    assert (ran.returncode, ran.stdout) == (0, b"")
    sender, recipients, mail = only(outbox)
    assert (sender, recipients, mail["From"]) == ("ops@example.org", ("ann@example.org",), "ops@example.org")
    assert mail.get_content().splitlines() == ["disk is full: 99 %"]


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (b"To: ann@example.org\nSubject: PHP\r\nX-Mailer: PHP/8\r\n\r\nbody\nline\n", "body\nline\n"),
        (b"", ""),
        (b"\nno header\n", "no header\n"),
        (b"no header: at all\n\nbut text\n", "no header: at all\n\nbut text\n"),
        (b"From ann@example.org Mon Jan  1 00:00:00 2024\nSubject: mbox\n\ntext\n", "text\n"),
        (b"Subject: cut short\ntext without an empty line\n", "text without an empty line\n"),
        (b"Subject : spaced\n\ntext\n", "text\n"),
    ],
    ids=[
        "mixed line ends",
        "nothing",
        "empty line first",
        "text first",
        "postmark",
        "no empty line",
        "spaced colon",
    ],
)
def test_text_that_is_hardly_a_mail_is_taken_as_sendmail_takes_it(
    outbox: CommandLine, sendmail: Any, text: bytes, body: str
) -> None:
    assert sendmail("-f", "a@x.org", "b@y.org", stdin=text).status == 0
    _, _, mail = only(outbox)
    assert mail.get_content().replace("\r\n", "\n") == body
    assert mail["From"] == "a@x.org"


@pytest.mark.parametrize(
    "declared",
    [b"", b"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n"],
)
def test_lines_of_any_length_arrive_as_they_are(outbox: CommandLine, sendmail: Any, declared: bytes) -> None:
    text = "ü" * 2000 + "\nshort\n"
    assert sendmail("-f", "a@x.org", "b@y.org", stdin=declared + b"\n" + text.encode()).status == 0
    _, _, mail = only(outbox)
    assert mail.get_content().replace("\r\n", "\n") == text


PROGRESS = b"10%\r20%\r100%\n\r\n.\ngr\xc3\xb6\xc3\x9fer \n" + b"x" * 2000 + b"\rend\r\r\n"
CRONS = b"MIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: 8bit\n"


@pytest.mark.parametrize("declared", [b"", b"Content-Type: text/plain; charset=utf-8\n", CRONS])
def test_a_progress_bar_arrives_as_it_was_drawn(outbox: CommandLine, sendmail: Any, declared: bytes) -> None:
    ran = sendmail("-i", "root", stdin=b"Subject: Cron\n" + declared + b"\n" + PROGRESS)
    assert (ran.status, ran.err) == (0, "")
    _, _, mail = only(outbox)
    assert (mail.get_content_type(), mail.get_content_charset()) == ("text/plain", "utf-8")
    text = mail.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert re.sub(rb"(?<!\r)\r\n", b"\n", text) == re.sub(rb"(?<!\r)\r\n", b"\n", PROGRESS)


LONG = b"x" * 2000 + b"\n"


@pytest.mark.parametrize("more", [b"", LONG])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"Subject: a\nTo: b@y.org\rBcc: c@z.org\n\nx\n", "line 2: a carriage return without a line feed"),
        (b"Content-Type: multipart/mixed; boundary=x\n\nx\n10%\r20%\n", "line 4: a carriage return without a line feed"),
        (b"Content-Transfer-Encoding: base64\n\nx\rx\n", "line 3: a carriage return without a line feed"),
        (b"DKIM-Signature: v=1\n\nx\rx\n", "line 3: a carriage return without a line feed"),
        (b"Subject: a\n\nx\nx\0\n", "line 4: a NUL byte"),
        (b"x\nx\0\r\n", "line 2: a NUL byte"),
    ],
)  # fmt: skip
def test_a_refused_line_is_named_as_it_came_whatever_stands_behind_it(
    outbox: CommandLine, sendmail: Any, text: bytes, words: str, more: bytes
) -> None:
    ran = sendmail("-i", "root", stdin=text + more)
    assert (ran.status, stored(outbox)) == (Exit.DATA, [])
    assert words in ran.complaint


@pytest.mark.parametrize("more", [b"", LONG])
def test_no_return_in_a_field_adds_a_recipient(outbox: CommandLine, sendmail: Any, more: bytes) -> None:
    for end in (b"\r", b"\r\r\n"):
        ran = sendmail("-ti", stdin=b"To: a@x.org\nSubject: hi" + end + b"Bcc: eve@x.org\n\n" + more)
        assert (ran.status, stored(outbox)) == (Exit.DATA, [])


@pytest.mark.parametrize("more", [b"", LONG])
def test_fields_that_are_there_twice_pass_through_as_they_were_written(
    outbox: CommandLine, sendmail: Any, more: bytes
) -> None:
    text = b"To: ann@x.org\nSubject: one\nFrom: a@x.org\nsubject:  two\nFrom: B <b@x.org>\n\nx\n"
    ran = sendmail("-ti", "-fweb@x.org", stdin=text + more)
    assert (ran.status, ran.err) == (0, "")
    sender, recipients, mail = only(outbox)
    assert (sender, recipients) == ("web@x.org", ("ann@x.org",))
    assert (mail.get_all("Subject"), mail.get_all("From")) == (["one", "two"], ["a@x.org", "B <b@x.org>"])


def test_text_beyond_ascii_that_says_nothing_of_itself_is_declared(
    outbox: CommandLine, sendmail: Any
) -> None:
    sendmail("-f", "a@x.org", "b@y.org", stdin="Subject: x\n\ngrün\n".encode())
    _, _, mail = only(outbox)
    assert (mail.get_content().strip(), mail["Content-Type"]) == ("grün", 'text/plain; charset="utf-8"')


def test_the_name_of_who_sends_stands_in_a_from_that_is_added(outbox: CommandLine, sendmail: Any) -> None:
    sendmail("-F", "Nightly Backup", "-f", "backup@example.org", "ann@example.org", stdin=b"done\n")
    _, _, mail = only(outbox)
    assert mail["From"] == "Nightly Backup <backup@example.org>"


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ((), "From: jörg@example.org"),
        (("-F", "J, Doe"), 'From: "J, Doe" <jörg@example.org>'),
        (("-F", "Jörg, D"), "From: =?utf-8?b?SsO2cmcsIEQ=?= <jörg@example.org>"),
    ],
)
def test_a_sender_beyond_ascii_stands_in_a_from_that_is_added(
    outbox: CommandLine, sendmail: Any, words: tuple[str, ...], field: str
) -> None:
    ran = sendmail("-f", "jörg@example.org", *words, "ann@example.org", stdin=b"Subject: x\n\nhi\n")
    assert (ran.status, ran.err) == (0, "")
    (message,) = stored(outbox)
    assert message.sender == "jörg@example.org"
    assert field in message.content.decode().split("\r\n")


@pytest.mark.parametrize(
    "name", ["x\nBcc: eve@example.org", "x\n\nbody", "x\rSubject: y", "x\0", "x\x85y", "\udcff"]
)
@pytest.mark.parametrize("text", [b"To: ann@example.org\n\nx\n", MAIL])
def test_no_name_of_a_sender_breaks_out_of_its_field(
    outbox: CommandLine, sendmail: Any, name: str, text: bytes
) -> None:
    ran = sendmail("-ti", "-F", name, stdin=text)
    assert ran.status == Exit.DATA
    assert "the name of the sender" in ran.complaint
    assert stored(outbox) == []


def test_a_field_of_a_letter_is_one_field() -> None:
    letter = Letter.read(MAIL)
    for value in ("a\nBcc: eve@example.org", "a\rb"):
        with pytest.raises(InvalidMessage, match="holds a line end"):
            letter.add("X-Tag", value)
    assert letter == Letter.read(MAIL)


@pytest.mark.parametrize("null", ["", "<>"])
def test_the_null_sender_is_taken(outbox: CommandLine, sendmail: Any, null: str) -> None:
    assert sendmail("-f", null, "ann@example.org").status == 0
    sender, _, mail = only(outbox)
    assert (sender, mail["Message-ID"].rpartition("@")[2]) == ("", "host.example>")


def test_what_is_said_of_reports_is_kept_for_the_bounce(outbox: CommandLine, sendmail: Any) -> None:
    sendmail("-N", "Delay,Failure", "-R", "hdrs", "-V", "QQ314", "ann@example.org")
    (message,) = stored(outbox)
    assert dict(message.attributes) == {
        "dsn-notify": "delay,failure",
        "dsn-ret": "hdrs",
        "dsn-envid": "QQ314",
    }


# -- aliases


def aliased(outbox: CommandLine, text: str) -> Path:
    path = outbox.home / "aliases"
    path.write_text(text, "utf-8")
    outbox.home.joinpath("empty.toml").write_text('aliases = "aliases"\n')
    return path


def test_aliases_are_followed_to_the_end_for_arguments_and_for_the_header(
    outbox: CommandLine, sendmail: Any
) -> None:
    (outbox.home / "staff").write_text("kim@example.org\n# gone\nroot\n")
    aliased(
        outbox,
        f"""\
# who is who
postmaster: Root
root:   ann@example.org,
        "bob"
bob:    bob@example.net, \\bob
staff: :include:{outbox.home}/staff
""",
    )
    assert (
        sendmail(
            "-t", "POSTMASTER", "elsewhere@example.com", stdin=b"To: staff\nCc: root@host.example\n\nx\n"
        ).status
        == 0
    )
    assert only(outbox)[1] == (
        "kim@example.org", "ann@example.org", "bob@example.net", "bob@host.example", "elsewhere@example.com",
    )  # fmt: skip


def test_who_is_his_own_alias_gets_it_beside_the_others(outbox: CommandLine, sendmail: Any) -> None:
    aliased(outbox, "root: root, ann@example.org\n")
    sendmail("root")
    assert only(outbox)[1] == ("root@host.example", "ann@example.org")


@pytest.mark.parametrize(
    ("aliases", "why"),
    [
        (
            'x: "|/usr/bin/vacation ann, bob"',
            "leads to the program '/usr/bin/vacation ann, bob', and outbox runs none",
        ),
        ("x: |/bin/cat", "leads to the program '/bin/cat'"),
        ("x: /var/log/mail.txt", "leads to the file '/var/log/mail.txt', and outbox writes none"),
        ("x: y\ny: z\nz: Y", "leads back to itself: x → y → z → y"),
        ("x: :include:/nonexistent/list", "cannot read /nonexistent/list: No such file"),
        ("x: :include:list", "write the whole path"),
        ("x: ann@@example.org", "more than one @"),
    ],
)
def test_an_alias_that_leads_nowhere_is_refused_in_one_line_and_the_others_work(
    outbox: CommandLine, sendmail: Any, aliases: str, why: str
) -> None:
    aliased(outbox, aliases + "\nroot: ann@example.org\n")
    ran = sendmail("x")
    assert ran.status == Exit.CONFIGURATION
    assert why in ran.complaint
    assert sendmail("root").status == 0
    assert outbox("sendmail", "-bi").status == Exit.CONFIGURATION


def test_an_include_that_includes_itself_is_refused(outbox: CommandLine, sendmail: Any) -> None:
    path = aliased(outbox, f"x: :include:{outbox.home}/list\n")
    (outbox.home / "list").write_text(f":include:{outbox.home}/list\n")
    assert f"{path}: alias 'x': it leads back to itself" in sendmail("x").complaint


def test_an_alias_that_stands_for_nobody_is_named_where_nobody_else_is_meant(
    outbox: CommandLine, sendmail: Any
) -> None:
    path = aliased(outbox, "kim:\nroot: kim\n")
    ran = sendmail("root")
    assert (ran.status, stored(outbox)) == (Exit.CONFIGURATION, [])
    assert ran.complaint == f"{path}: alias 'root': it leads to nobody: name an address"
    assert sendmail("root", "ann@example.org").status == 0
    assert only(outbox)[1] == ("ann@example.org",)


def test_aliases_that_branch_and_meet_again_are_followed_once(outbox: CommandLine, sendmail: Any) -> None:
    """Each way to the end on its own, there would be 2 ** 24."""
    lists = [outbox.home / f"list{number}" for number in range(25)]
    for path, following in itertools.pairwise(lists):
        path.write_text(f":include:{following}, :include:{following}\n")
    lists[-1].write_text("kim@example.org\n")
    aliases = "".join(f"{name}{i}: b{i + 1}, a{i + 1}\n" for i in range(24) for name in "ab")
    aliased(outbox, f"{aliases}a24: a24, ann@example.org\nb24: a24, :include:{lists[0]}\n")
    assert sendmail("a0").status == 0
    assert only(outbox)[1] == ("a24@host.example", "ann@example.org", "kim@example.org")
    assert outbox("sendmail", "-bi").status == 0


def test_a_loop_is_found_behind_what_was_followed_before(outbox: CommandLine, sendmail: Any) -> None:
    aliased(outbox, "x: a, b\na: ann@example.org\nb: a, c\nc: a, b\n")
    ran = sendmail("x")
    assert ran.status == Exit.CONFIGURATION
    assert "alias 'x': it leads back to itself: x → b → c → b" in ran.complaint


@pytest.mark.parametrize(
    ("text", "line"), [("root\n", 1), ("a: b\n\n: c\n", 3), ("a: b\nA: c\n", 2), ("  x: y\n", 1)]
)
def test_a_line_that_is_no_alias_is_named(outbox: CommandLine, sendmail: Any, text: str, line: int) -> None:
    path = aliased(outbox, text)
    ran = sendmail("ann@example.org")
    assert ran.status == Exit.CONFIGURATION
    assert f"{path}:{line}: " in ran.complaint


def test_newaliases_follows_every_alias_and_builds_nothing(outbox: CommandLine) -> None:
    path = aliased(outbox, "root: ann@example.org\nbob: root\n")
    ran = outbox("sendmail", "-bi")
    assert (ran.status, ran.out) == (0, f"{path}: 2 aliases; they are read at each mail, nothing is built\n")
    assert {each.name for each in outbox.home.iterdir()} == {"aliases", "empty.toml"}


def test_without_a_domain_an_alias_leads_on_and_a_bare_name_is_refused(
    outbox: CommandLine, sendmail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")
    aliased(outbox, "root: ann@example.org\n")
    assert sendmail("-f", "a@x.org", "root", stdin=b"To: root\n\nx\n").status == 0
    assert only(outbox)[1] == ("ann@example.org",)
    ran = sendmail("-f", "a@x.org", "bob")
    assert ran.status == Exit.NO_USER
    assert "'bob' has no domain and no alias" in ran.complaint


# -- how it ends


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        ((), Exit.USAGE, "to whom?"),
        (("-Z",), Exit.USAGE, "unknown option '-Z'"),
        (("-f",), Exit.USAGE, "-f needs a value"),
        (("--queue",), Exit.USAGE, "--queue needs a value"),
        (("-N", "sometimes", "a@x.org"), Exit.USAGE, "say never"),
        (("-R", "some", "a@x.org"), Exit.USAGE, "say full or hdrs"),
        (("-V", "a b", "a@x.org"), Exit.USAGE, "without spaces"),
        (("-bd",), Exit.UNSUPPORTED, "`outbox run`"),
        (("-bv", "a@x.org"), Exit.UNSUPPORTED, "which addresses exist"),
        (("a@@x.org",), Exit.DATA, "the recipient: "),
        (("-f", "a@", "a@x.org"), Exit.DATA, "the sender: "),
        (("--store", "sqlite:////nonexistent/outbox.db", "a@x.org"), Exit.CONFIGURATION, "nonexistent"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_ends_with_the_status_that_programs_know(
    outbox: CommandLine, argv: tuple[str, ...], status: Exit, words: str
) -> None:
    ran = outbox("sendmail", *argv, stdin=MAIL)
    assert ran.status == status
    assert words in ran.complaint


def test_q_is_done_by_those_who_deliver(outbox: CommandLine) -> None:
    assert [outbox("sendmail", word).status for word in ("-q", "-q30m", "-qf")] == [0, 0, 0]


def test_v_prints_the_id(outbox: CommandLine, sendmail: Any) -> None:
    ran = sendmail("-v", "ann@example.org")
    assert ran.err == f"outbox: {stored(outbox)[0].id} is stored\n"


def test_mailq_shows_what_waits_and_says_when_nothing_does(outbox: CommandLine, sendmail: Any) -> None:
    SQLiteStore(outbox.path).close()
    assert outbox("sendmail", "-bp").out == "Mail queue is empty\n"
    sendmail("ann@example.org")
    ran = outbox("sendmail", "-bp")
    assert ran.status == 0
    assert "ann@example.org" in ran.out


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("/usr/sbin/sendmail", ["sendmail", "x"]),
        ("mailq", ["sendmail", "-bp", "x"]),
        ("/usr/bin/newaliases", ["sendmail", "-bi", "x"]),
        ("mailx", ["mail", "x"]),
        ("/srv/venv/bin/outbox", ["x"]),
    ],
)
def test_the_name_that_it_is_called_by_says_which_command_it_is(name: str, command: list[str]) -> None:
    assert list(called_as([name, "x"])) == command


# -- SMTP on standard input and output, as Symfony and old Windows programs speak it


def conversation(outbox: CommandLine, *lines: bytes, end: bytes = b"\r\n") -> list[str]:
    ran = outbox("sendmail", "-bs", stdin=b"".join(line + end for line in lines))
    assert ran.status == 0
    return [line for line in ran.out.splitlines() if line[3:4] != "-"]


@pytest.mark.shows("a control", because="lines of SMTP end in CR LF")
def test_a_session_stores_each_mail_before_it_says_so(outbox: CommandLine) -> None:
    SQLiteStore(outbox.path).close()
    replies = conversation(
        outbox, b"EHLO client", b"MAIL FROM:<a@x.org> BODY=8BITMIME", b"RCPT TO:<b@y.org>", b"RCPT TO:<root>",
        b"DATA", b"Subject: one", b"", b"..dot", b".", b"MAIL FROM:<>", b"RCPT TO:<c@z.org>", b"DATA", b"two", b".", b"QUIT",
    )  # fmt: skip
    assert [reply[:3] for reply in replies] == [
        "220",
        "250",
        "250",
        "250",
        "250",
        "354",
        "250",
        "250",
        "250",
        "354",
        "250",
        "221",
    ]
    one, two = stored(outbox)
    assert (one.sender, one.recipients) == ("a@x.org", ("b@y.org", "root@host.example"))
    assert one.content.endswith(b"\r\n\r\n.dot\r\n")
    assert (two.sender, two.recipients) == ("", ("c@z.org",))
    assert one.id in replies[6]


@pytest.mark.shows("a control", because="lines of SMTP end in CR LF")
def test_a_session_refuses_what_is_out_of_order_and_what_is_no_mail(outbox: CommandLine) -> None:
    SQLiteStore(outbox.path).close()
    replies = conversation(
        outbox, b"HELO client", b"RCPT TO:<b@y.org>", b"DATA", b"WIZ", b"MAIL FROM:a@x.org", b"MAIL FROM:<a@@x.org>",
        b"MAIL FROM:<a@x.org>", b"MAIL FROM:<a@x.org>", b"RCPT TO:<>", b"RCPT TO:<b@y.org>", b"DATA", b"x: \0", b".",
        b"NOOP", b"VRFY b", b"MAIL FROM:<a@x.org>", b"RCPT TO:<bad addr>", b"RSET", b"RCPT TO:<b@y.org>",
    )  # fmt: skip
    assert [reply[:3] for reply in replies] == (
        [
            "220",
            "250",
            "503",
            "503",
            "500",
            "501",
            "553",
            "250",
            "503",
            "501",
            "250",
            "354",
            "550",
            "250",
            "252",
            "250",
            "553",
            "250",
            "503",
        ]
    )
    assert stored(outbox) == []


@pytest.mark.shows("a control", because="lines of SMTP end in CR LF")
def test_a_mail_that_is_cut_off_is_not_stored(outbox: CommandLine) -> None:
    SQLiteStore(outbox.path).close()
    replies = conversation(outbox, b"EHLO x", b"MAIL FROM:<a@x.org>", b"RCPT TO:<b@y.org>", b"DATA", b"half")
    assert replies[-1].startswith("552")
    assert stored(outbox) == []


@pytest.mark.shows("a control", because="lines of SMTP end in CR LF")
@pytest.mark.parametrize(
    ("smuggling", "arrives"),
    [
        (b"one\n.\n", b"one\r\n.\r\n"),
        (b"one\n.\r\n", b"one\r\n.\r\n"),
        (b"one\r\n.\n", b"one\r\n\r\n"),
        (b"one\n.two\r\n", b"one\r\n.two\r\n"),
    ],
)
def test_what_is_no_line_end_to_the_client_ends_no_mail(
    outbox: CommandLine, smuggling: bytes, arrives: bytes
) -> None:
    SQLiteStore(outbox.path).close()
    inner = b"MAIL FROM:<ceo@x.org>\r\nRCPT TO:<eve@y.org>\r\nDATA\r\nSubject: smuggled\r\n"
    replies = conversation(
        outbox, b"EHLO x", b"MAIL FROM:<a@x.org>", b"RCPT TO:<b@y.org>", b"DATA", b"Subject: x", b"", smuggling + inner, b".", b"QUIT",
    )  # fmt: skip
    assert [reply[:3] for reply in replies] == ["220", "250", "250", "250", "354", "250", "221"]
    (message,) = stored(outbox)
    assert message.recipients == ("b@y.org",)
    assert message.content.partition(b"\r\n\r\n")[2].startswith(arrives + b"MAIL FROM:")


@pytest.mark.shows("a control", because="lines of SMTP end in CR LF")
def test_a_client_that_ends_its_lines_in_lf_ends_its_mail_so(outbox: CommandLine) -> None:
    SQLiteStore(outbox.path).close()
    replies = conversation(
        outbox, b"HELO x", b"MAIL FROM:<a@x.org>", b"RCPT TO:<b@y.org>", b"DATA", b"Subject: x", b"", b"..dot", b"r", b".", b"QUIT", end=b"\n",
    )  # fmt: skip
    assert [reply[:3] for reply in replies] == ["220", "250", "250", "250", "354", "250", "221"]
    assert only(outbox)[2].get_content() == ".dot\r\nr\r\n"
