"""`outbox config`: what is in force, who says so, and what is wrong; and that a run heeds the file as it heeds options."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine
from started import Listening, Started

from outbox.cli.delivering import suppress_of
from outbox.errors import ConfigurationError
from outbox.locate import KEYS, Config
from outbox.testing.smtp_sink import SMTPSink

WHOLE = """\
store = "sqlite:////srv/a.db"
transport = "smtp://app:s3cret@mail.example"
workers = 8
password_file = "pw"

# what follows is of tries
[retry]
timeout = "2d"
[retry.queues]
"mail.bulk" = "1h*5, 90s"

[[reply_rules]]
pattern = 'one'
[[reply_rules]]
pattern = '''
two'''
for = "5m"
"""


@pytest.fixture
def file(outbox: CommandLine) -> Path:
    outbox.environ(OUTBOX_STORE="")
    path = outbox.home / "empty.toml"
    path.write_text(WHOLE, "utf-8")
    path.chmod(0o600)
    return path


def settings(outbox: CommandLine, *argv: str) -> dict[str, Any]:
    return {each["key"]: each for each in outbox("config", "--json", *argv).data["settings"]}


def who(setting: dict[str, Any]) -> tuple[Any, ...]:
    return (setting["value"], setting["source"], setting["name"], setting["line"])


def test_every_value_is_told_with_the_line_that_it_comes_from(outbox: CommandLine, file: Path) -> None:
    said = settings(outbox)
    assert who(said["workers"]) == (8, "file", str(file), 3)
    assert who(said["retry.timeout"]) == ("2d", "file", str(file), 8)
    assert who(said['retry.queues."mail.bulk".schedule']) == ("1h*5, 90s", "file", str(file), 10)
    assert who(said["reply_rules[0].pattern"])[::3] == ("one", 13)
    assert who(said["reply_rules[1].pattern"])[::3] == ("two", 15)
    assert who(said["reply_rules[1].for"])[::3] == ("5m", 17)
    assert who(said["reply_rules[0].for"]) == ("15m", "default", None, None)
    assert who(said["retry.wait_max"]) == ("2h", "default", None, None)


def test_a_setting_of_every_key_is_told(outbox: CommandLine) -> None:
    told = {key.partition(".")[0] for key in settings(outbox)}
    assert told == set(KEYS)


def test_what_is_overruled_is_told_beside_what_overrules_it(outbox: CommandLine, file: Path) -> None:
    outbox.environ(OUTBOX_STORE="sqlite:////srv/b.db")
    said = settings(outbox, "--workers", "2", "--store", "sqlite:////srv/c.db")
    assert who(said["workers"]) == (2, "option", "--workers", None)
    assert said["workers"]["overruled"] == [{"value": 8, "source": "file", "name": str(file), "line": 3}]
    assert who(said["store"])[:3] == ("sqlite:////srv/c.db", "option", "--store")
    assert [each["value"] for each in said["store"]["overruled"]] == [
        "sqlite:////srv/b.db",
        "sqlite:////srv/a.db",
    ]


def test_a_password_of_the_environment_sets_the_file_of_the_file_aside(
    outbox: CommandLine, file: Path
) -> None:
    outbox.environ(OUTBOX_SMTP_PASSWORD="hunter22")
    ran = outbox("config", "--json")
    said = {each["key"]: each for each in ran.data["settings"]}
    assert who(said["password"]) == ("***", "environment", "OUTBOX_SMTP_PASSWORD", None)
    assert who(said["password_file"])[:3] == (None, "environment", "OUTBOX_SMTP_PASSWORD")
    assert said["password_file"]["overruled"][0]["line"] == 4
    assert "hunter22" not in ran.out + ran.err


@pytest.mark.parametrize("argv", [(), ("--json",), ("transport",)])
def test_no_secret_is_told(outbox: CommandLine, file: Path, argv: tuple[str, ...]) -> None:
    (outbox.home / "pw").write_text("of-the-file\n", "utf-8")
    (outbox.home / "pw").chmod(0o600)
    ran = outbox("config", *argv, "--transport", "smtp://app:0ther@mail.example")
    text = ran.out + ran.err
    assert "smtp://app:***@mail.example" in text
    assert not any(secret in text for secret in ("s3cret", "0ther", "of-the-file"))


def test_what_is_wrong_is_named_all_of_it_and_the_rest_is_shown(outbox: CommandLine, file: Path) -> None:
    file.write_text('worker = 3\nlease = true\ngrace = "5s"\n[[reply_rules]]\npattern = "("\n', "utf-8")
    ran = outbox("config")
    assert ran.status == 78
    wrong = [line for line in ran.out.splitlines() if line.startswith("WRONG: ")]
    assert [line.removeprefix(f"WRONG: {file}")[:40] for line in wrong] == [
        ":1: unknown key 'worker'; did you mean 'workers'?"[:40],
        ":2: lease: must be a duration such as"[:40] + ' "3',
        ":5: reply_rules.pattern: ReplyRule: '(' is no regular expression"[:40],
    ]
    assert '  line 3  grace = "5s"' in ran.out
    assert outbox("config", "--json").data["wrong"] == [line.removeprefix("WRONG: ") for line in wrong]


def test_a_file_that_is_no_toml_is_named_with_its_line(outbox: CommandLine, file: Path) -> None:
    file.write_text("workers = 3\nlease = \n", "utf-8")
    ran = outbox("config")
    assert (ran.status, f"WRONG: {file}:2: the file is not TOML" in ran.out) == (78, True)
    assert "  workers = 4" in ran.out


def test_an_error_of_the_second_of_several_tables_has_its_line(outbox: CommandLine, file: Path) -> None:
    file.write_text('[[reply_rules]]\npattern = "x"\n[[reply_rules]]\npattern = "y"\nfro = "5m"\n', "utf-8")
    assert f"{file}:5: reply_rules.fro: unknown key 'fro'; did you mean 'for'?" in outbox("status").complaint


def test_what_a_key_is_for_is_told_where_it_is_named_and_an_unknown_one_is_refused(
    outbox: CommandLine, file: Path
) -> None:
    ran = outbox("config", "workers", "retry")
    assert "takes   a whole number from 1 to 1,000" in ran.out
    assert "also    --workers, --threads" in ran.out
    assert f"from    {file}:8" in ran.out
    assert "lease" not in ran.out
    ran = outbox("config", "worker")
    assert (ran.status, "did you mean 'workers'?" in ran.complaint) == (64, True)


def test_on_a_terminal_of_80_columns_nothing_wraps(outbox: CommandLine, file: Path) -> None:
    ran = outbox("config", "--store", "sqlite:////srv/somewhere/far/from/here.db", terminal=True)
    assert ran.status == 0
    assert max(map(len, ran.out.splitlines())) <= 80 + len(str(file))


# -- a run heeds them


@pytest.fixture
def sink() -> Any:
    with SMTPSink() as sink:
        yield sink


def test_a_run_takes_from_the_file_what_it_takes_as_options(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    (outbox.home / "empty.toml").write_text(
        f'transport = "{sink.url}"\nprocesses = 2\npid_file = "pid"\nlog_file = "log"\nlog_format = "json"\n',
        "utf-8",
    )
    with Started() as run:
        systemd.wait_for("READY=1")
        assert (outbox.home / "pid").read_text("utf-8").strip() == str(run.process.pid)
        assert len(run.children()) == 2
        run.signal()
        assert run.ended() == 0
    lines = (outbox.home / "log").read_text("utf-8").splitlines()
    assert "stopped" in [json.loads(line)["msg"] for line in lines if line.startswith("{")]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
def test_a_reload_says_what_it_leaves_as_it_was(
    outbox: CommandLine, sink: SMTPSink, systemd: Listening
) -> None:
    file = outbox.home / "empty.toml"
    file.write_text(f'transport = "{sink.url}"\nlog_level = "warning"\n', "utf-8")
    with Started() as run:
        systemd.wait_for("READY=1")
        file.write_text(f'transport = "{sink.url}"\nprocesses = 3\nlog_level = "warning"\n', "utf-8")
        run.signal(signal.SIGHUP)
        run.wait_for("processes has changed, and is read when `outbox run` begins")
        systemd.wait_for("READY=1")
        assert run.children() == []
        run.signal()
        assert run.ended() == 0
    assert not any("level=info" in line for line in run.lines), "log_level of the file"


def test_functions_of_a_program_are_found_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outbox: CommandLine, sink: SMTPSink
) -> None:
    (tmp_path / "shop_hooks.py").write_text(
        "told = []\ndef listen(notice): told.append(notice)\n"
        "def gone(message, recipients): return [r for r in recipients if r.startswith('bob')]\nsize = 3\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    (outbox.home / "empty.toml").write_text(
        'listeners = ["shop_hooks:listen"]\nsuppress = { python = "shop_hooks:gone" }\n', "utf-8"
    )
    outbox.submit("ann@example.org", "bob@example.org")
    assert outbox("drain", "--transport", sink.url).status == 0
    assert [message.recipients for message in sink.messages] == [("ann@example.org",)]
    import shop_hooks  # type: ignore[import-not-found]  # noqa: PLC0415  # written above

    assert shop_hooks.told
    for name, says in (("shop_hooks:size", "cannot be called"), ("no_such:x", "cannot be loaded")):
        config = Config.load(toml(tmp_path, f'suppress = {{ python = "{name}" }}\n'), environ={})
        with pytest.raises(ConfigurationError, match=says):
            suppress_of(config)


def toml(folder: Path, text: str) -> Path:
    (folder / "other.toml").write_text(text, "utf-8")
    return folder / "other.toml"
