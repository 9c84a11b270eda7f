"""--log-level, --log-file and --log-config of `outbox run`."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from canaries import PASSWORD
from command_line import CommandLine, Ran
from started import Listening, Started, put_mail

from outbox.cli import logging_to
from outbox.cli.exits import CommandError
from outbox.cli.hearing import LibraryLog
from outbox.cli.output import Console
from outbox.clock import SystemClock
from outbox.errors import StoreUnavailable
from outbox.stores.memory import MemoryStore
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
    log_to = logging_to.LogTo(config=tmp_path / "x.toml")
    with pytest.raises(Exception, match="LOUD"):
        log_to.apply(log_to.read())
    assert (log.handlers, log.level, log.propagate) == before


def test_a_log_file_that_cannot_be_opened_is_named(outbox: CommandLine, sink: SMTPSink) -> None:
    ran = outbox("run", "--log-file", "/no/such/folder/log")
    assert ran.status == 78
    assert "log file '/no/such/folder/log': No such file" in ran.complaint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_log_file_that_is_a_pipe_without_a_reader_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(CommandError, match=r"log file '.*/pipe': No such device"):
        logging_to.LogTo(path).reopen()


@pytest.mark.parametrize("option", ["--log-file", "--log-config", "--pid-file"])
def test_a_file_without_a_name_is_refused_as_such(outbox: CommandLine, sink: SMTPSink, option: str) -> None:
    ran = outbox("run", option, "")
    assert ran.status == 64
    assert f"{option}: '' names no file" in ran.complaint


def test_a_value_that_begins_with_a_hyphen_is_told_where_it_may_stand(
    outbox: CommandLine, sink: SMTPSink
) -> None:
    ran = outbox("run", "--grace", "-1s")
    assert ran.status == 64
    assert "--grace: expected one argument, or behind '=' one that begins with '-'" in ran.complaint
    assert "'-1s'" in outbox("run", "--grace=-1s").complaint


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


class Teller(MemoryStore):
    """A store of somebody else's, which says in its errors what it was told."""

    def __init__(self, dsn: str = "") -> None:
        super().__init__()
        self._dsn = dsn

    def exchange(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError(f"cannot connect to {self._dsn}")

    claim = exchange


@pytest.mark.parametrize(
    "formatter", ['format = "%(name)s %(message)s"', 'class = "outbox.formats.JSONFormatter"']
)
@pytest.mark.parametrize("processes", ["1", "2"])
def test_no_handler_of_a_logging_configuration_is_told_a_secret_that_a_plug_in_says(
    outbox: CommandLine, sink: SMTPSink, processes: str, formatter: str
) -> None:
    config = outbox.home / "log.toml"
    config.write_text(
        f"[formatters.own]\n{formatter}\n"
        '[handlers.err]\nclass = "logging.StreamHandler"\nformatter = "own"\n'
        '[root]\nhandlers = ["err"]\nlevel = "INFO"\n',
        "utf-8",
    )
    outbox.environ(
        OUTBOX_STORE=f"python:{__name__}:Teller?dsn=db://app:{PASSWORD}@host",
        PYTHONPATH=os.pathsep.join(sys.path),
    )
    with Started("--processes", processes, "--log-config", str(config)) as run:
        told = run.wait_for("RuntimeError: cannot connect to ")
        run.signal()
        run.ended()
    assert "***" in told
    assert PASSWORD not in run.err


class Refusing(Teller):
    """One that says it when it can be reached later, as a store of ours would."""

    def exchange(self, *_: Any, **__: Any) -> Any:
        raise StoreUnavailable(f"cannot connect with {self._dsn}")

    claim = exchange


@pytest.mark.parametrize(
    "options",
    [["--log-format", "json"], ["--log-format", "text"], ["--processes", "2"]],
    ids=lambda options: options[-1],
)
def test_the_log_of_a_run_says_no_secret_that_a_store_says(
    outbox: CommandLine, sink: SMTPSink, options: list[str]
) -> None:
    outbox.environ(
        OUTBOX_STORE=f"python:{__name__}:Refusing?dsn={PASSWORD}", PYTHONPATH=os.pathsep.join(sys.path)
    )
    with Started(*options) as run:
        told = run.wait_for("cannot connect with ")
        run.signal()
        run.ended()
    assert "cannot connect with ***" in told
    assert PASSWORD not in run.err


def test_what_the_library_logs_in_words_of_a_stranger_is_shown_without_secrets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = Console()
    console.hide(frozenset({'S3cr3t"Pass'}))
    error = RuntimeError('no S3cr3t"Pass')
    said = logging.LogRecord("outbox.x", logging.ERROR, "", 0, "it cannot be counted: %s", (error,), None)
    LibraryLog(console).emit(said)
    for console.form in ("json", "logfmt"):
        console.entry("error", {"reason": error, "of": ['S3cr3t"Pass'], "tries": 3}, SystemClock().now())
        LibraryLog(console).emit(said)
    err = capsys.readouterr().err
    assert "S3cr3t" not in err
    assert err.count("cannot be counted: no ***") == 3
    assert "tries=3" in err


# -- what the configuration warns of


def open_to_all(outbox: CommandLine, text: str) -> None:
    """The file of settings, which holds a password and others may read."""
    file = outbox.home / "empty.toml"
    file.write_text(f'transport = "smtp://ann:{PASSWORD}@127.0.0.1:1"\n{text}', "utf-8")
    file.chmod(0o644)


@pytest.mark.parametrize("command", ["drain", "run"])
def test_what_the_configuration_warns_of_has_the_form_that_it_names(
    outbox: CommandLine, command: str
) -> None:
    open_to_all(outbox, 'log_format = "json"\nstore = "sqlite:nowhere/o.db"\n')
    outbox.environ(OUTBOX_STORE="")

    ran = outbox(command)

    told = [json.loads(line) for line in ran.err.splitlines()]
    assert "holds a password and others may read it" in told[0]["msg"]
    assert (told[0]["level"], ran.status) == ("warning", 78)


def test_what_the_configuration_warns_of_is_told_where_it_cannot_be_used(outbox: CommandLine) -> None:
    open_to_all(outbox, 'log_format = "json"\nlog_file = "nowhere/run.log"\n')

    ran = outbox("run")

    assert "holds a password" in ran.err
    assert "log file" in ran.err


def test_every_line_of_a_log_file_is_of_one_form(outbox: CommandLine, systemd: Listening) -> None:
    open_to_all(outbox, 'log_file = "run.log"\n')
    log = outbox.home / "run.log"
    with Started() as run:
        systemd.wait_for("READY=1")
        open_to_all(outbox, 'log_file = "run.log"\nprocesses = 2\n')
        run.signal(signal.SIGHUP)
        systemd.wait_for("RELOADING=1")
        systemd.wait_for("READY=1")
        run.signal()
        run.ended()
    lines = log.read_text("utf-8").splitlines()

    assert run.err == ""
    assert "holds a password" in lines[0]
    assert any("processes has changed" in line for line in lines)
    assert [line for line in lines if not line.startswith("time=")] == [
        line for line in lines if "stopping when what is under way has ended" in line
    ]
