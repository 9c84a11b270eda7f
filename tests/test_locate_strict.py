"""What cannot work is refused where it is read: before a mail is touched by it."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

import pytest
from command_line import CommandLine

from outbox.errors import ConfigurationError, OutboxError
from outbox.locate import Config, store_from_url, transport_from_url
from outbox.testing.smtp_sink import SMTPSink


def refused(url: str, *, password: str | None = None) -> str:
    of_mail = url.startswith("smtp")
    with pytest.raises(ConfigurationError) as caught:
        transport_from_url(url, password=password) if of_mail else store_from_url(url)
    return str(caught.value)


# -- the transport


@pytest.mark.parametrize("password", ["\udcff", "a\0b", "\ud800x"])
def test_a_password_that_cannot_be_sent_is_refused(password: str) -> None:
    said = refused("smtps://app@h", password=password)
    assert "password" in said
    assert password not in said


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("smtps://a%00b:pw@h", "control character"),
        ("smtps://a%ff:pw@h", "UTF-8"),
        ("smtps://app:p%00w@h", "control character"),
        ("smtps://app:p%w@h", "%25"),
        ("smtp://h?source_address=a%00b", "control character"),
        ("smtp://h?source_address=a%20b", "source_address"),
        ("smtp://h?source_address=%C3%A4%C2%A0", "source_address"),
        ("smtp://h?source_address=%ff", "UTF-8"),
        ("smtp://h?ca_file=%00", "control character"),
        ("smtp://h:0", "port 0"),
        ("smtp://:pw@h", "no user"),
    ],
)
def test_a_part_of_a_url_that_cannot_work_is_refused(url: str, says: str) -> None:
    assert says in refused(url)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "localhost"])
def test_an_address_to_send_from_is_taken(address: str) -> None:
    transport_from_url(f"smtp://h?source_address={address}").close()


@pytest.mark.parametrize(
    "environ",
    [{"OUTBOX_SMTP_PASSWORD": "\udcff"}, {"OUTBOX_SMTP_PASSWORD": "ok", "source": "?source_address=a%00b"}],
)
def test_a_wrong_setting_kills_no_mail_and_no_drain_calls_it_well(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environ: dict[str, str],
) -> None:
    outbox = CommandLine(tmp_path, monkeypatch, capsys)
    outbox.submit("ann@example.org")
    with SMTPSink() as sink:
        url = sink.url.replace("smtp://", "smtp://app@") + environ.get("source", "")
        outbox.environ(OUTBOX_TRANSPORT=url, OUTBOX_SMTP_PASSWORD=environ["OUTBOX_SMTP_PASSWORD"])
        assert outbox("drain").status == 78
    (row,) = outbox("list", "--json").rows
    assert (row["state"], row["attempts"]) == ("queued", 0)


# -- the store


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///x%00y.db", "control character"),
        ("sqlite:///x%0Ay.db", "control character"),
        ("sqlite:///per%cent.db", "%25"),
        ("sqlite:///100%.db", "%25"),
        ("sqlite:///a%ff.db", "UTF-8"),
        ("sqlite:///a#b.db", "in a file name"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(url)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs a file that is no regular one")
def test_no_database_is_looked_for_in_what_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert "no regular file" in refused("sqlite:///socket")
    assert [path.name for path in tmp_path.iterdir()] == ["socket"]


def test_a_new_database_is_announced_only_where_one_was_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "outbox"), pytest.raises(OutboxError):
        store_from_url(f"sqlite:///{tmp_path}/none/new.db")
    assert not caplog.text


def test_the_patience_of_a_store_can_be_set(tmp_path: Path) -> None:
    store_from_url(f"sqlite:///{tmp_path}/x.db?busy_timeout=3s").close()
    assert "busy_timeout" in refused(f"sqlite:///{tmp_path}/x.db?busy_timeout=soon")
    assert "busy_timeout" in refused(f"sqlite:///{tmp_path}/x.db?busy_timeout=2d")


# -- the configuration


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\nlease = 0\n", ":2: lease: "),
        ('lease = "25h"\n', ":1: lease: "),
        ('grace = "2d"\n', ":1: grace: "),
        ("workers = 100000000\n", ":1: workers: "),
        ('queues = ["A B"]\n', ":1: queues: queue 'A B'"),
        ('queues = ["mail", "mail"]\n', ":1: queues: "),
        ('domain = "bad domain"\n', ":1: domain: "),
        ('password_file = "a\\u0000b"\n', ":1: password_file: "),
        ('[retry]\n\nuncertain = "perhaps"\n', ":3: retry.uncertain: "),
        ("[retry]\ntimeout = '1d'\nattempts = 0\n", ":3: retry.attempts: "),
        ("[retry.queues.mail]\nattempts = 3\n[retry]\nattempts = 0\n", ":4: retry.attempts: "),
        ("[retry.queues]\nmail = '1m'\n\"bulk\" = '1x'\n", ":3: retry.queues.bulk: "),
        ("[retry]\n[retry.queues.mail]\nattempts = 0\n", ":3: retry.queues.mail.attempts: "),
        ("[retry.queues]\nMial = '1m'\n", ":2: retry.queues.Mial: queue 'Mial'"),
        ('[retry]\nschedule = """\\\n   1m,\\\n   1x"""\n', ":2: retry.schedule: "),
    ],
)
def test_an_error_names_the_line_and_the_key_that_hold_it(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "outbox.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError) as caught:
        Config.load(file, environ={})
    assert says in str(caught.value)


def test_a_file_of_an_editor_that_marks_its_encoding_is_read(tmp_path: Path) -> None:
    (tmp_path / "outbox.toml").write_bytes("\ufeffworkers = 3\n".encode())
    assert Config.load(tmp_path / "outbox.toml", environ={}).workers == 3


@pytest.mark.skipif(os.name != "posix", reason="bytes in the environment are POSIX's")
def test_a_password_of_the_environment_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="OUTBOX_SMTP_PASSWORD"):
        Config.load(environ={"OUTBOX_SMTP_PASSWORD": "\udcff"}).smtp_password()
