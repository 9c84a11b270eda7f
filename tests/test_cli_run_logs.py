"""--log-level, --log-file and --log-config of `outbox run`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, Ran
from started import Started, put_mail

from outbox.cli import logging_to
from outbox.testing.smtp_sink import SMTPSink

TABLE: dict[str, Any] = {
    "formatters": {"short": {"format": "%(name)s|%(levelname)s|%(message)s"}},
    "handlers": {"file": {"class": "logging.FileHandler", "formatter": "short"}},
    "root": {"handlers": ["file"], "level": "INFO"},
}


def as_toml(log: Path) -> str:
    return (
        '[formatters.short]\nformat = "%(name)s|%(levelname)s|%(message)s"\n'
        f'[handlers.file]\nclass = "logging.FileHandler"\nformatter = "short"\nfilename = "{log}"\n'
        '[root]\nhandlers = ["file"]\nlevel = "INFO"\n'
    )


def as_json(log: Path) -> str:
    handlers = {"file": TABLE["handlers"]["file"] | {"filename": str(log)}}
    return json.dumps(TABLE | {"handlers": handlers})


@pytest.mark.parametrize(("processes", "name"), [("1", "log.toml"), ("2", "log.json")])
def test_a_logging_configuration_gets_every_line(
    outbox: CommandLine, sink: SMTPSink, processes: str, name: str
) -> None:
    log = outbox.home / "lines"
    text = as_toml(log) if name.endswith("toml") else as_json(log)
    (outbox.home / name).write_text(text, "utf-8")
    put_mail(outbox.path, 1)
    with Started("--processes", processes, "--log-config", str(outbox.home / name)) as run:
        sink.wait_for(1)
        run.signal()
        assert run.ended() == 0
    assert len(run.lines) == 1, "what the signal says"
    lines = [line.split("|", 2) for line in log.read_text("utf-8").splitlines()]
    assert ["outbox.run", "INFO", f"msg=running queues=mail transport={sink.url}"] in lines
    assert ["outbox.run", "INFO", "msg=stopped"] in lines
    (told,) = [
        words for logger, _, words in lines if logger == "outbox.run" and "to=ann@example.org" in words
    ]
    assert "fate=accepted" in told
    assert any(logger == "outbox.delivery" for logger, _, _ in lines)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("log.toml", None, "cannot read the logging configuration {path}: No such file"),
        ("log.toml", "version = ", "{path} is not TOML"),
        ("log.json", "{", "{path} is not JSON"),
        ("log.json", "[]", "{path}: must be one object"),
        ("log.toml", "handler = 1\n", "{path}: unknown key 'handler'; did you mean 'handlers'?"),
        ("log.toml", "version = 2\n", "{path}: Unsupported version: 2"),
        (
            "log.toml",
            '[handlers.file]\nclass = "logging.FileHandler"\nfilename = "/no/such/x"\n',
            "{path}: handlers.file: [Errno 2] No such file or directory: '/no/such/x'",
        ),
        ("log.toml", '[handlers.x]\nclass = "no.Such"\n', "{path}: handlers.x: No module named 'no'"),
        ("log.toml", '[loggers.outbox]\nlevel = "LOUD"\n', "{path}: loggers.outbox: Unknown level: 'LOUD'"),
        ("log.toml", '[root]\nlevel = "LOUD"\n', "{path}: root: Unknown level: 'LOUD'"),
    ],
)
def test_a_logging_configuration_that_cannot_be_used_is_one_line_with_its_file_and_key(
    outbox: CommandLine, sink: SMTPSink, name: str, text: str | None, says: str
) -> None:
    path = outbox.home / name
    if text is not None:
        path.write_text(text, "utf-8")
    ran = outbox("run", "--log-config", str(path))
    assert ran.status == 78
    assert says.format(path=path) in ran.complaint


def test_a_logging_configuration_that_was_refused_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    log = logging.getLogger("outbox")
    before = (log.handlers[:], log.level, log.propagate)
    (tmp_path / "x.toml").write_text("[loggers.outbox]\nlevel = 'LOUD'\n", "utf-8")
    with pytest.raises(Exception, match="LOUD"):
        logging_to.LogTo(file=None, config=tmp_path / "x.toml").apply()
    assert (log.handlers, log.level, log.propagate) == before


def test_a_log_file_that_cannot_be_opened_is_named(outbox: CommandLine, sink: SMTPSink) -> None:
    ran = outbox("run", "--log-file", "/no/such/folder/log")
    assert ran.status == 78
    assert "--log-file '/no/such/folder/log': No such file" in ran.complaint


def test_a_level_says_which_lines_there_are(outbox: CommandLine, sink: SMTPSink) -> None:
    def run_with(level: str) -> str:
        sink.clear()
        sink.on("rcpt", reply="550 5.1.1 no such user", times=1)
        put_mail(outbox.path, 2)
        with Started("--log-level", level, "--log-file", str(outbox.home / level)) as run:
            sink.wait_for(1)
            run.signal()
            assert run.ended() == 0
        return (outbox.home / level).read_text("utf-8")

    info, warning, error = run_with("info"), run_with("warning"), run_with("error")
    assert "level=info" in info
    assert "level=warning" in info
    assert "level=info" not in warning
    assert "level=warning" in warning
    assert "level=" not in error


def test_a_level_that_is_none_is_refused(outbox: CommandLine, sink: SMTPSink) -> None:
    ran: Ran = outbox("run", "--log-level", "loud")
    assert ran.status == 64
    assert "'loud'" in ran.complaint
