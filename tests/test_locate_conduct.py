"""The configuration of mail that fails, waits, or is not to be sent; and the same as options."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from command_line import CommandLine
from test_docs import Block, blocks

from outbox.cli import originating
from outbox.errors import ConfigurationError
from outbox.lifecycle import State
from outbox.locate import BounceSettings, Config, SuppressSettings
from outbox.outcome import TempFailed
from outbox.stores.sqlite import SQLiteStore
from outbox.testing import SMTPSink

WHOLE = """\
soft_bounce = true
warn_after = "4h"
aliases = "aliases"
suppress = "suppressed.txt"

[bounce]
author = "daemon@example.org"
whole_up_to = 0
delayed = true
queue = "mail.bounces"

[[reply_rules]]
pattern = '4\\.7\\.\\d'
relay = "*.example.com:25"
for = "15m"
per_second = 0.5
"""


def loaded(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "outbox.toml"
    path.write_text(text, "utf-8")
    return Config.load(path, environ={})


def test_all_of_it_is_read_and_paths_start_from_the_file(tmp_path: Path) -> None:
    config = loaded(tmp_path, WHOLE)
    assert (config.soft_bounce, config.warn_after) == (True, dt.timedelta(hours=4))
    assert config.aliases == tmp_path / "aliases"
    assert config.suppress == SuppressSettings(file=tmp_path / "suppressed.txt")
    assert config.bounce == BounceSettings(
        author="daemon@example.org", whole_up_to=0, delayed=True, queue="mail.bounces"
    )
    (rule,) = config.reply_rules
    assert (rule.relay, rule.lasting, rule.per_second) == ("*.example.com:25", dt.timedelta(minutes=15), 0.5)
    assert rule.finds("mx.example.com:25", ["421 4.7.0 no"])


def test_nothing_of_it_is_on_unless_it_is_said(tmp_path: Path) -> None:
    config = loaded(tmp_path, "bounce = false\n")
    assert (config.soft_bounce, config.warn_after, config.bounce, config.suppress, config.reply_rules) == (
        False, None, None, None, (),
    )  # fmt: skip
    assert not config.policies(("mail",))["mail"].soft_bounce


def test_soft_bounce_is_for_every_queue(tmp_path: Path) -> None:
    config = loaded(tmp_path, 'soft_bounce = true\n[retry.queues]\n"mail.bulk" = "1h*5"\n')
    assert all(policy.soft_bounce for policy in config.policies(("mail", "mail.bulk")).values())
    assert loaded(tmp_path, "[retry]\nsoft_bounce = true\n").retry.soft_bounce


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("soft_bounce = 1", 1, "soft_bounce: must be true or false"),
        ('\nwarn_after = "0s"', 2, "warn_after: must be more than 0 s"),
        ("bounce = 7", 1, "bounce: must be true, or a table"),
        ('[bounce]\n\nauthor = "postmaster"', 3, "bounce.author: address 'postmaster' has no @"),
        (
            "[bounce]\nwhole_upto = 3",
            2,
            "bounce.whole_upto: unknown key 'whole_upto'; did you mean 'whole_up_to'",
        ),
        ("[bounce]\nwhole_up_to = -1", 2, "bounce.whole_up_to: must be a whole number"),
        ("[bounce]\nqueue = 'A B'", 2, "bounce.queue: "),
        ("suppress = ''", 1, "suppress: '' names no file"),
        ("suppress = { table = 'x' }", 1, "needs a database and a table"),
        ("reply_rules = 'x'", 1, "must be tables, each under"),
        ("[[reply_rules]]\nrelay = 'x'", 1, "a rule needs a pattern"),
        (
            "[[reply_rules]]\nrelay = 'x'\npattern = '('",
            3,
            "reply_rules.pattern: ReplyRule: '(' is no regular",
        ),
        (
            "[[reply_rules]]\nrelay = 'x'\npattern = '.*'",
            3,
            "reply_rules.pattern: ReplyRule: '.*' is found in every",
        ),
        ("[[reply_rules]]\npattern = 'x'\nfor = '2d'", 3, "reply_rules.for: "),
        ("[[reply_rules]]\npattern = 'x'\nfor = '2d'", 3, "a day at most"),
        ("aliases = 3", 1, "aliases: must be text"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(tmp_path, text)
    assert str(refused.value).startswith(f"{tmp_path / 'outbox.toml'}:{line}: ")
    assert reason in str(refused.value)


# -- at work


def configured(outbox: CommandLine, text: str) -> None:
    (outbox.home / "empty.toml").write_text(text, "utf-8")


def test_a_drain_tells_the_sender_and_delivers_what_it_tells(outbox: CommandLine) -> None:
    configured(outbox, 'domain = "mail.example"\n')
    outbox.submit("ann@example.org", "bob@example.org")
    with SMTPSink() as sink:
        sink.on("rcpt", "ann@example.org", reply="550 5.1.1 no such user")
        ran = outbox("drain", "--bounce", "--transport", sink.url)
        if len(sink.messages) < 2:
            ran = outbox("drain", "--bounce", "--transport", sink.url)
        told = [each for each in sink.messages if each.sender == ""]
    assert ran.status == 0
    (bounce,) = told
    assert bounce.recipients == ("shop@example.org",)
    report = email.message_from_bytes(bounce.content, policy=email.policy.default)
    assert report["From"] == "Mail Delivery System <MAILER-DAEMON@mail.example>"
    assert "rfc822; ann@example.org" in str(report)
    assert sink.violations == ()


def test_without_it_nobody_is_told(outbox: CommandLine) -> None:
    outbox.submit("ann@example.org")
    with SMTPSink() as sink:
        sink.on("rcpt", reply="550 5.1.1 no such user")
        outbox("drain", "--transport", sink.url)
    assert [row["state"] for row in outbox("list", "--json").rows] == ["dead"]


def test_who_does_not_know_its_domain_says_so_before_it_begins(
    outbox: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originating, "_MAIL_NAME", outbox.home / "none")
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")
    outbox.submit("ann@example.org")
    ran = outbox("drain", "--bounce", "--transport", "smtp://127.0.0.1:1")
    assert ran.status == 78
    assert "bounce.author needs the domain of this system" in ran.complaint


def test_soft_bounce_kills_no_message(outbox: CommandLine) -> None:
    key = outbox.submit("ann@example.org")
    with SMTPSink() as sink:
        sink.on("rcpt", reply="550 5.7.1 you are not known here")
        outbox("drain", "--soft-bounce", "--transport", sink.url)
    with closing(SQLiteStore(outbox.path)) as store:
        record = store.get(key)
    assert record is not None
    assert record.summary.state is State.QUEUED
    assert not isinstance(record.history[0].results["ann@example.org"], TempFailed)


def test_who_is_in_the_file_or_the_table_is_not_written_to(outbox: CommandLine) -> None:
    (outbox.home / "gone.txt").write_text("ann@example.org\n")
    with closing(sqlite3.connect(outbox.home / "shop.db")) as database, database:
        database.execute("CREATE TABLE gone (email TEXT)")
        database.execute("INSERT INTO gone VALUES ('@example.org')")
    with SMTPSink() as sink:
        outbox.submit("ann@example.org", "bob@example.org")
        outbox("drain", "--suppress", str(outbox.home / "gone.txt"), "--transport", sink.url)
        assert [each.recipients for each in sink.messages] == [("bob@example.org",)]
        configured(outbox, 'suppress = { database = "shop.db", table = "gone", column = "email" }\n')
        outbox.submit("kim@example.org")
        outbox("drain", "--transport", sink.url)
        assert len(sink.messages) == 1
    ran = outbox("drain", "--suppress", "/nonexistent/list", "--transport", "smtp://127.0.0.1:1")
    assert (ran.status, "cannot read the suppression list" in ran.complaint) == (78, True)


def test_a_rule_of_the_file_leaves_a_relay_alone(outbox: CommandLine) -> None:
    configured(outbox, "[[reply_rules]]\npattern = 'too many'\nfor = '10m'\n")
    for _ in range(3):
        outbox.submit("ann@example.org")
    with SMTPSink() as sink:
        sink.on("rcpt", reply="450 4.7.1 Too many mails")
        ran = outbox("drain", "--transport", sink.url)
        tries = [command for command in sink.commands if command.startswith("RCPT")]
    assert len(tries) == 1
    assert ran.status == 75
    assert "a rule of yours leaves it alone" in ran.err


def test_a_late_message_is_a_line_in_the_log(outbox: CommandLine) -> None:
    outbox.submit("ann@example.org")
    with closing(sqlite3.connect(outbox.path)) as database, database:
        for column in ("since", "submitted"):
            database.execute(f"UPDATE {table(database)} SET {column} = {column} - 7200000000")
    with SMTPSink() as sink:
        sink.on("rcpt", reply="450 4.7.1 greylisted")
        ran = outbox("drain", "--warn-after", "1h", "--transport", sink.url)
    assert "msg=delayed waited=7200" in ran.err


def table(database: sqlite3.Connection) -> str:
    """The one that knows since when a message waits."""
    names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for name in names:
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({name})")]
        if "since" in columns:
            return str(name)
    raise AssertionError(names)


PAGE = Path(__file__).parents[1] / "docs" / "failed-mail.md"


@pytest.mark.parametrize(
    "block", [b for b in blocks(PAGE, PAGE.read_text("utf-8")) if b.language == "toml"], ids=str
)
def test_what_the_page_shows_can_be_said(tmp_path: Path, block: Block) -> None:
    assert loaded(tmp_path, block.code) != Config()
