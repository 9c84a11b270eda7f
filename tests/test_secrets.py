"""No password is shown, however the URL that holds it is mistyped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from canaries import PASSWORD
from command_line import CommandLine

from outbox.errors import ConfigurationError
from outbox.locate import Config, holds_secret, masked, store_from_url, transport_from_url
from outbox.locate.masking import OPTIONS

MISTYPED = [
    "smtp:u:c4narypassword@h",
    "smtp:/u:c4narypassword@h",
    "smtp:///u:c4narypassword@h",
    "u:c4narypassword@h",
    "u:c4narypassword",
    "smtp//u:c4narypassword@h",
    "smtp:u:c4narypassword",
    "smtp://me@example.org:c4narypassword",
    "smtp://h/u:c4narypassword@x",
    "smtp://h?pwd=c4narypassword",
    "smtp://h?auth=c4narypassword",
    "smtp://h?key=c4narypassword&c4narypassword",
    "smtp://h?timeout=3&key=c4narypassword",
    "smtp://h?c4narypassword",
    "smtp://h?timeout=3&c4narypassword",
    "smtp://u:c4narypassword%W@h",
    "smtps://u:c4narypassword@h:0",
    "smtp://:c4narypassword@h",
    "smtp://u:c4narypassword%00@h",
    "smtp://localhost:25/shop:c4narypassword",
    "smtp://shop@localhost/c4narypassword",
    "smtps://localhost/c4narypassword?timeout=3s",
    "smtp://localhost#password=c4narypassword",
    "lmtp://localhost:24;password=c4narypassword",
    "smtp://localhost?timeout=3s;password=c4narypassword",
    "smtp://localhost?timeout=3s#c4narypassword",
    "PGPASSWORD=c4narypassword postgresql://localhost/shop",
    "env PGPASSWORD=c4nary@c4narypassword postgresql://localhost/shop",
    "REDISCLI_AUTH='c4narypassword' redis://localhost",
    "AWS_SECRET_ACCESS_KEY=c4narypassword sqs://eu-central-1/outbox-",
]


@pytest.fixture
def outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> CommandLine:
    outbox = CommandLine(tmp_path, monkeypatch, capsys)
    outbox.submit("ann@example.org")
    return outbox


def hidden(text: str) -> bool:
    return PASSWORD not in text


def test_a_user_name_with_a_host_of_its_own_hides_no_password() -> None:
    assert masked("smtp://me@example.org:c4narypassword@h") == "smtp://me@example.org:***@h"


@pytest.mark.parametrize("url", MISTYPED)
def test_a_mistyped_url_shows_no_password(url: str) -> None:
    assert hidden(masked(url))
    for open_it in (store_from_url, transport_from_url):
        with pytest.raises(ConfigurationError) as caught:
            open_it(url)
        assert hidden(str(caught.value))


@pytest.mark.parametrize("url", MISTYPED)
@pytest.mark.parametrize("command", [["drain"], ["-vv", "drain"], ["--json", "drain"], ["check"]])
def test_no_command_shows_the_password_of_a_mistyped_url(
    outbox: CommandLine, url: str, command: list[str]
) -> None:
    outbox.environ(OUTBOX_TRANSPORT=url)
    ran = outbox(*command)
    assert ran.status == (2 if command == ["check"] else 78)
    assert hidden(ran.out + ran.err)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:25",
        "smtp:mail.example.org:25",
        "smtp://app@mail.example.org:587?timeout=30s&security=starttls&ca_file=/etc/ca.pem",
        "smtp://app@[2001:db8::1]:25",
        "smtps://app@mail.example.org?client_cert=/etc/me.pem&client_key=/etc/me.key",
        "lmtp+unix:///run/dovecot:1/lmtp?timeout=30s",
        "sqlite:outbox.db",
        "sqlite:///C:/me@home/outbox.db?remember=7d&keep_delivered=1d&busy_timeout=5s",
        "memory:",
    ],
)
def test_what_holds_no_password_is_shown_whole(url: str) -> None:
    assert masked(url) == url
    assert not holds_secret(url)


def test_every_option_that_is_known_is_known_to_be_no_secret() -> None:
    with pytest.raises(ConfigurationError) as caught:
        transport_from_url("smtp://h?x=1")
    assert str(caught.value).endswith(f"(known: {', '.join(OPTIONS['smtp'])})")


def test_a_file_name_of_odd_bytes_is_taken_for_no_password(outbox: CommandLine) -> None:
    ran = outbox("--store", "sqlite:///\udcff.db", "list")
    assert "password" not in ran.complaint


@pytest.mark.parametrize("key", ["store", "transport"])
@pytest.mark.parametrize("entry", ['["smtp://u:c4narypassword@h"]', '{ u = "c4narypassword" }'])
def test_an_entry_of_the_wrong_type_is_named_by_its_type_alone(tmp_path: Path, key: str, entry: str) -> None:
    (tmp_path / "outbox.toml").write_text(f"{key} = {entry}\n", "utf-8")
    with pytest.raises(ConfigurationError, match=f"{key}: must be text, not an? (array|table)$"):
        Config.load(tmp_path / "outbox.toml", environ={})


class Talkative:
    """A store that says what it was told, whatever it is asked."""

    lacks: frozenset[str] = frozenset()

    def __init__(self, pw: str = "") -> None:
        self._pw = pw

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def fails(*_: object, **__: object) -> None:
            raise RuntimeError(
                f"connect failed for dsn app:{self._pw.rpartition(':')[2].partition('@')[0]}@host"
            )

        return fails


SAID_BY_A_STRANGER = pytest.mark.shows(
    "a password",
    because="the record of a log has the exception of a stranger as it is; what the command prints of it has not",
)


@pytest.mark.parametrize(
    "command",
    [
        ["submit", "-f", "c@d.example", "a@b.example"],
        pytest.param(["drain"], marks=SAID_BY_A_STRANGER),
        pytest.param(["-vv", "drain"], marks=SAID_BY_A_STRANGER),
        ["status"],
        ["check"],
    ],
)
@pytest.mark.parametrize("option", ["c4narypassword", "redis://app:c4narypassword@host/0"])
def test_what_a_plug_in_s_store_says_when_it_fails_is_shown_without_its_secrets(
    outbox: CommandLine, command: list[str], option: str
) -> None:
    outbox.environ(OUTBOX_TRANSPORT="smtp://localhost:1")
    store = f"python:{__name__}:Talkative?pw={option}"
    ran = outbox("--store", store, *command, stdin=b"Subject: x\n\nhello\n")

    assert ran.status != 0
    assert "connect failed for dsn app:" in ran.out + ran.err
    assert "c4narypassword" not in ran.out + ran.err
