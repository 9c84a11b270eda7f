"""From URLs and configuration files to stores and transports: every promise and every refusal."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from outbox.errors import ConfigurationError
from outbox.locate import (
    Config,
    masked,
    parse_duration,
    spell,
    store_from_url,
    transport_from_url,
)
from outbox.protocols import Store, Transport
from outbox.relay import RelayLimits
from outbox.retry import RetryPolicy


def refusal(open_it: Callable[[str], Store | Transport], url: str) -> str | None:
    """What is said, with all that a traceback would show; None where nothing is refused."""
    try:
        open_it(url).close()
    except ConfigurationError as error:
        return "".join(traceback.format_exception_only(error)) + repr(error.__cause__)
    return None


SECRETS = [
    "smtp://app:c4narypassword@mail.example.org",
    "smtp://app:c4narypassword@mail.example.org:587/?timeout=30",
    "smtp://app:s3c/ret@mail.example.org",
    "smtp://app:s3c@ret@mail.example.org",
    "smtp://app:s3c#ret@mail.example.org",
    "smtp://app:s3c?ret@mail.example.org",
    "smtp://app:c4narypassword",
    "smtps://app:c4narypassword/",
    "smtp://app:25c4narypassword",
    "smtp://host?password=c4narypassword&timeout=3",
    "smtp://[::1:c4narypassword@host",
    "smtp://app:c4narypassword@[::1",
    "smtp://app:c4narypassword@host:noport",
    "postgres://app:c4narypassword@db/out/box",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_masked_url_shows_no_password(url: str) -> None:
    assert "s3c" not in masked(url)
    assert "ret" not in masked(url).replace("***", "")
    assert masked(url).startswith(url[: url.index(":")])


@pytest.mark.parametrize(
    "text",
    [
        "host=db port=1 password=c4narypassword",
        "host=db password = 'c4nary password'",
        "PASSWORD=c4narypassword host=db",
        "host=db sslpassword=c4narypassword",
        "postgresql://db:1/host=h password=c4narypassword",
    ],
)
def test_what_libpq_takes_and_a_url_is_not_shows_no_password(text: str) -> None:
    said = refusal(store_from_url, text)
    assert said is not None
    assert "c4nary" not in said
    assert "***" in said


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///outbox.db",
        "sqlite:////var/lib/outbox.db",
        "sqlite:///C:/outbox/outbox.db",
        "memory:",
        "smtp://localhost:25",
        "smtp://[2001:db8::1]:2525",
        "smtps://app@mail.example.org?timeout=3",
    ],
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert masked(url) == url


@pytest.mark.parametrize(
    "url", [*SECRETS, "gopher://app:c4narypassword@host", "smtp://app:c4narypassword@host/?tiemout=1"]
)
def test_no_refusal_of_a_url_quotes_its_password(url: str) -> None:
    for open_it in (store_from_url, transport_from_url):
        said = refusal(open_it, url)
        assert said is None or "s3c" not in said


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("outbox.db", "not a URL"),
        ("", "not a URL"),
        ("sqlite:outbox.db", "three or four slashes"),
        ("sqlite://outbox.db", "three or four slashes"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "write memory:"),
        ("sqlite:///x.db?remeber=7d", "did you mean 'remember'"),
        ("sqlite:///x.db?remember=soon", "option remember: 'soon' is not a duration"),
        ("sqlite:///x.db?remember=1d&remember=2d", "given twice"),
        ("sqlite:///x.db?remember", "not a URL"),
        ("sqlite:///a#b.db", "%23"),
        ("sqlite:///a b.db", "no blank"),
        ("sqlite:///a\nb.db", "no control character"),
        ("memory://host", "stands alone"),
        ("memory:?x=1", "unknown option"),
        ("sqllite:///x.db", "did you mean 'sqlite'"),
        ("postgres://db", "names no database"),
        ("file://spool", "names no directory"),
        ("smtp://localhost", "names a transport, not a store"),
    ],
)
def test_a_store_that_cannot_be_opened_is_refused_with_what_to_write(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=r"store") as caught:
        store_from_url(url)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:25", "unknown scheme 'localhost'"),
        ("smtp:localhost", "names no server"),
        ("smtp://", "names no server"),
        ("smtp://host:99999", "is no port, a number from 1 to 65535"),
        ("smtp://host:port", "is no port, a number from 1 to 65535"),
        ("smtp://[::1", "not a URL"),
        ("smtp://host/inbox", "a path"),
        ("smtp://host?tiemout=3", "did you mean 'timeout'"),
        ("smtp://host?timeout=soon", "option timeout"),
        ("smtp://host?security=yes", "security"),
        ("smtps://host?security=starttls", "TLS from the first byte"),
        ("smtp://user@host", "there is no password for 'user'"),
        ("smtp://host?ca_file=/no/such/file", "ca_file '/no/such/file'"),
        ("smtp://host?client_cert=/no/such/file", "client_cert '/no/such/file'"),
        ("smtp:///run/smtp.sock", "a Unix socket is smtp+unix:///"),
        ("smpt://host", "did you mean 'smtp'"),
        ("SMTP://host", "did you mean 'smtp'"),
        ("lmtp://host:25", "RFC 2033"),
        ("lmtp:///run/dovecot/lmtp", "a Unix socket is lmtp+unix:///"),
        ("lmtp+unix://run/dovecot/lmtp", "names a Unix socket and nothing else"),
        ("lmtp+unix:run/dovecot/lmtp", "names a Unix socket and nothing else"),
        ("lmtp+unix://", "names a Unix socket and nothing else"),
        ("lmtp+unix:///run/lmtp?security=starttls", "there is no TLS"),
        ("smtp+unix://u:c4narypassword@h/run/smtp", "names a Unix socket and nothing else"),
        ("http://host", "not in this release"),
        ("sqlite:///x.db", "names a store, not a transport"),
    ],
)
def test_a_transport_that_cannot_be_made_is_refused_with_what_to_write(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=r"transport") as caught:
        transport_from_url(url)
    assert says in str(caught.value)


def test_three_slashes_are_relative_and_four_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store_from_url("sqlite:///here.db").close()
    store_from_url(f"sqlite:///{tmp_path}/there%20too.db").close()
    assert (tmp_path / "here.db").exists()
    assert (tmp_path / "there too.db").exists()


def test_a_path_in_the_home_directory_is_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store_from_url("sqlite:///~/mine.db").close()
    assert (tmp_path / "mine.db").exists()


def test_a_database_that_is_not_there_is_not_made_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no database"):
        store_from_url(f"sqlite:///{tmp_path}/typo.db", create=False)
    assert not list(tmp_path.iterdir())


def test_looking_makes_no_store_in_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(ConfigurationError, match=r"there is no store in .*`outbox submit` makes one"):
        store_from_url(f"sqlite:///{path}", create=False)
    assert [(each.name, each.stat().st_size) for each in tmp_path.iterdir()] == [("empty.db", 0)]

    store_from_url(f"sqlite:///{path}").close()
    store_from_url(f"sqlite:///{path}", create=False).close()


def test_looking_makes_no_spool_where_a_volume_is_not_mounted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        ConfigurationError, match=r"there is no spool in .* mounted.*`outbox submit` makes one"
    ):
        store_from_url(f"file://{tmp_path}", create=False)
    assert not list(tmp_path.iterdir())

    with caplog.at_level(logging.WARNING, "outbox"):
        store_from_url(f"file://{tmp_path}").close()
    assert "a new one is made" in caplog.text
    store_from_url(f"file://{tmp_path}", create=False).close()


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_looking_says_of_what_is_something_else_s_that_it_is(tmp_path: Path, scheme: str) -> None:
    path = tmp_path / "theirs"
    if scheme == "file":
        path.mkdir()
        (path / "letter").touch()
    else:
        with contextlib.closing(sqlite3.connect(path)) as sql:
            sql.execute("CREATE TABLE orders (number)")
    with pytest.raises(ConfigurationError, match=r"is no spool, and holds|is the database of something else"):
        store_from_url(f"{scheme}:{'///' if scheme == 'sqlite' else '//'}{path}", create=False)


def test_a_new_database_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "outbox"):
        store_from_url(f"sqlite:///{tmp_path}/new.db").close()
    assert "a new one is made" in caplog.text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("smtp://mail.example.org", "'mail.example.org', 25"),
        ("smtp://mail.example.org:2525", "'mail.example.org', 2525"),
        ("smtp://app:pw@mail.example.org", "'mail.example.org', 587"),
        ("smtp://mail.example.org?security=starttls", "'mail.example.org', 587"),
        ("smtps://mail.example.org", "'mail.example.org', 465"),
        ("smtps://app:pw@mail.example.org:1465", "'mail.example.org', 1465"),
        ("smtp://[2001:db8::1]:2525?security=none", "'2001:db8::1', 2525"),
        ("smtp://us%40er:p%2Fw@h?security=tls", "username='us@er'"),
        ("lmtp://mail.example.org", "'mail.example.org', 24, protocol='lmtp'"),
        ("lmtp://app:pw@mail.example.org:2424", "'mail.example.org', 2424, protocol='lmtp'"),
        ("lmtp+unix:///run/dovecot/lmtp", "path='/run/dovecot/lmtp', protocol='lmtp'"),
        ("smtp+unix:///run/a%20b?local_hostname=mx.example.org", "path='/run/a b', security='auto'"),
    ],
)
def test_a_transport_is_what_its_url_says(url: str, shown: str) -> None:
    transport = transport_from_url(url)
    transport.close()
    assert shown in repr(transport)
    assert "p/w" not in repr(transport)


def test_a_password_that_no_user_has_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "outbox"):
        transport_from_url("smtp://localhost", password="c4narypassword").close()
    assert "names no user" in caplog.text
    assert "c4narypassword" not in caplog.text


# -- durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("2d", 172800),
        ("0", 0),
        ("500ms", 0.5),
        ("1m1s1ms", 61.001),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == dt.timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1w", "1e9", "h", "1h 30m x", "\u0661s", "999999999d1d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (58, "58 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (7 * 86400 + 3 * 3600 + 59, "7 d 3 h"),
        (-5, "0.0 s"),
    ],
)
def test_a_duration_is_spelled_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert spell(dt.timedelta(seconds=seconds)) == words


def test_a_table_has_room_for_one_unit() -> None:
    assert spell(dt.timedelta(hours=23, minutes=59), units=1) == "23 h"


# -- the configuration


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_of_the_file_is_read(tmp_path: Path) -> None:
    file = write(
        tmp_path / "outbox.toml",
        """
        store = "sqlite:////var/lib/outbox/outbox.db"
        transport = "smtps://app@smtp.example.org"
        password_file = "pw"
        queues = ["mail", "mail.bulk"]
        workers = 8
        lease = "90s"
        grace = 5
        domain = "example.org"
        [retry]
        schedule = "1m, 5m*2"
        timeout = "2d"
        uncertain = "hold"
        [retry.queues]
        "mail.bulk" = "1h*3"
        [limits]
        per_second = 10
        connections = 4
        [limits.relays]
        "corp.example" = { per_hour = 100.5, per_day = 1000, new_connections_per_minute = 6 }
        """,
    )
    config = Config.load(file, environ={})
    assert config.store == "sqlite:////var/lib/outbox/outbox.db"
    assert config.transport == "smtps://app@smtp.example.org"
    assert config.password_file == tmp_path / "pw"
    assert (config.queues, config.workers, config.domain) == (("mail", "mail.bulk"), 8, "example.org")
    assert (config.lease, config.grace) == (dt.timedelta(seconds=90), dt.timedelta(seconds=5))
    minute, hour = dt.timedelta(minutes=1), dt.timedelta(hours=1)
    assert config.policies(config.queues) == {
        "mail": RetryPolicy(
            schedule=(minute, 5 * minute, 5 * minute), timeout=dt.timedelta(days=2), uncertain="hold"
        ),
        "mail.bulk": RetryPolicy(schedule=(hour, hour, hour)),
    }
    assert config.limits == {
        "*": RelayLimits(connections=4, per_second=10),
        "corp.example": RelayLimits(per_hour=100.5, per_day=1000, new_connections_per_minute=6),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('store = "memory:"\nworker = 3\n', ":2: unknown key 'worker'; did you mean 'workers'?"),
        ('\n\nworkers = "many"\n', ":3: workers: must be a whole number"),
        ("workers = 0\n", ":1: workers"),
        ("workers = true\n", ":1: workers"),
        ('lease = "soon"\n', ":1: lease: 'soon' is not a duration"),
        ('queues = "mail"\n', ":1: queues: must be a list"),
        ("queues = []\n", ":1: queues: must be a list"),
        ("store = 3\n", ":1: store: must be text"),
        ('retry = "1x"\n', ":1: retry: retry schedule '1x'"),
        ('[retry]\nuncertain = "perhaps"\n', ":2: retry.uncertain: RetryPolicy: uncertain"),
        ("[retry]\nattempt = 3\n", "unknown key 'attempt'; did you mean 'attempts'?"),
        ("[retry.queues.mail]\nattempts = 0\n", ":2: retry.queues.mail.attempts: must be a whole number"),
        ("[retry]\nqueues = 3\n", ":2: retry.queues: must be a table"),
        ("limits = 3\n", ":1: limits: must be a table, such as { per_second = 10 }, not a number"),
        ("[limits]\nper_minute = 3\n", ":2: limits.per_minute: unknown key 'per_minute'"),
        ("[limits]\nper_secnd = 3\n", "did you mean 'per_second'?"),
        ("[limits]\nconnections = 1.5\n", ":2: limits.connections: must be a whole number from 1"),
        ("[limits]\nper_day = 0\n", ":2: limits.per_day: must be a number above 0, not 0"),
        ("[limits]\nper_day = inf\n", ":2: limits.per_day: must be a number above 0"),
        ("[limits]\nper_day = '3'\n", ":2: limits.per_day: must be a number, not '3'"),
        (
            "[limits]\nper_day = 0.3\nshared = true\n",
            ":1: limits: RelayLimits: per_day is 0.3 and shared: that is",
        ),
        (
            "[limits.relays.mx]\nper_day = 0.3\nshared = true\n",
            ":1: limits.relays.mx: RelayLimits: per_day is 0.3 and shared: that is less than one a day",
        ),
        ("[limits]\nrelays = 3\n", ":2: limits.relays: must be a table of relays"),
        ('[limits.relays]\n"mx" = 3\n', ":2: limits.relays.mx: must be a table"),
        ('[limits.relays]\n"*" = { per_day = 3 }\n', ":2: limits.relays.*: what holds for all others"),
        ("[limits.relays.mx]\nper_hour = -1\n", ":2: limits.relays.mx.per_hour: must be a number above 0"),
        ("store = \n", "is not TOML"),
        ("workers = 3\nstore = '\udcff'", ":2: the file is not TOML: store: this line is not UTF-8 text"),
        ("workers = 3\n# \udcff", ":2: the file is not TOML: this line is not UTF-8 text"),
        ("\nworkers = 3\n workers = 4\n", ":3: the file is not TOML: workers: Cannot overwrite a value"),
        ("workers = 3\n\nqueues = ['mail',\n  'bulk'\n", ":3: the file is not TOML: queues: Unclosed array"),
        ("[retry]\nattempts = 3\n[retry]\n", ":3: the file is not TOML: Cannot declare ('retry',) twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_file_line_and_key(
    tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "outbox.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError) as caught:
        Config.load(file, environ={})
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "outbox.toml", 'store = "sqlite:////a.db"\ntransport = "smtp://a"\n')
    environ = {"OUTBOX_CONFIG": str(file), "OUTBOX_STORE": "sqlite:////b.db", "OUTBOX_TRANSPORT": ""}
    config = Config.load(environ=environ)
    assert (config.store, config.transport, config.file) == ("sqlite:////b.db", "smtp://a", file)


def test_the_file_that_is_named_goes_before_the_one_at_home(tmp_path: Path) -> None:
    write(tmp_path / ".config/outbox/outbox.toml", "workers = 1\n")
    write(tmp_path / "xdg/outbox/outbox.toml", "workers = 2\n")
    environ_file = write(tmp_path / "environ.toml", "workers = 3\n")
    named = write(tmp_path / "named.toml", "workers = 4\n")
    environ = {"HOME": str(tmp_path)}
    assert Config.load(environ=environ).workers == 1
    environ["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    assert Config.load(environ=environ).workers == 2
    environ["OUTBOX_CONFIG"] = str(environ_file)
    assert Config.load(environ=environ).workers == 3
    assert Config.load(named, environ=environ).workers == 4


def test_no_file_of_the_current_directory_is_read_unless_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "outbox.toml", "nonsense")
    write(tmp_path / "outbox/outbox.toml", "nonsense")
    write(tmp_path / ".config/outbox/outbox.toml", "nonsense")
    monkeypatch.chdir(tmp_path)
    assert Config.load(environ={"XDG_CONFIG_HOME": ".config", "HOME": ""}).file in (
        None,
        Path("/etc/outbox/outbox.toml"),
    )


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    for config in ({"file": tmp_path / "no.toml", "environ": {}}, {"environ": {"OUTBOX_CONFIG": "/no.toml"}}):
        with pytest.raises(
            ConfigurationError, match=r"cannot read the configuration .*no\.toml: No such file"
        ):
            Config.load(**config)


def test_relative_paths_of_a_file_start_from_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "a b"
    file = write(home / "outbox.toml", 'store = "sqlite:///sub.db?remember=1d"\npassword_file = "pw"\n')
    monkeypatch.chdir(tmp_path)
    config = Config.load(file.relative_to(tmp_path), environ={})
    assert config.password_file == home / "pw"
    store_from_url(config.store or "").close()
    assert (home / "sub.db").exists()


def test_a_password_comes_from_the_environment_else_from_its_file(tmp_path: Path) -> None:
    file = write(tmp_path / "pw", "of the file \r\n")
    file.chmod(0o600)
    environ = {"OUTBOX_SMTP_PASSWORD_FILE": str(file)}
    assert Config.load(environ=environ).smtp_password() == "of the file "
    environ["OUTBOX_SMTP_PASSWORD"] = "of the environment"
    assert Config.load(environ=environ).smtp_password() == "of the environment"
    assert Config.load(environ={}).smtp_password() is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff", "not UTF-8"),
        (b"\xef\xbb\xbfpw\n", "byte order mark"),
        (b"pw\nmore\n", "more than one line"),
        (b"\npw", "more than one line"),
    ],
)
def test_a_password_file_without_a_password_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "pw").write_bytes(content)
    with pytest.raises(ConfigurationError, match=says):
        Config(password_file=tmp_path / "pw").smtp_password()
    with pytest.raises(ConfigurationError, match="cannot read the password file"):
        Config(password_file=tmp_path / "none").smtp_password()


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_a_secret_that_others_may_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    password = write(tmp_path / "pw", "c4narypassword")
    config = write(tmp_path / "outbox.toml", 'transport = "smtp://app:c4narypassword@host"\n')
    for file, read in (
        (password, lambda: Config(password_file=password).smtp_password()),
        (config, lambda: Config.load(config, environ={})),
    ):
        caplog.clear()
        file.chmod(0o640)
        read()
        assert not caplog.text
        file.chmod(0o644)
        read()
        assert str(file) in caplog.text
        assert "c4narypassword" not in caplog.text


def test_a_configuration_shows_no_password() -> None:
    config = Config(transport="smtp://app:c4narypassword@host", password="c4narypassword")
    assert "c4narypassword" not in repr(config)
