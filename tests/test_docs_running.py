"""docs/running.md: the unit stops as the command does, and the logging configuration is one."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Final

import pytest
from command_line import CommandLine
from started import Started

from outbox.cli.exits import Exit
from outbox.cli.parser import parse
from outbox.locate import Config, parse_duration
from outbox.testing.smtp_sink import SMTPSink

TEXT: Final = (Path(__file__).parents[1] / "docs" / "running.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return str(found)


def test_the_unit_leaves_the_command_its_grace_time_and_does_not_repeat_what_a_person_has_to_mend() -> None:
    unit = configparser.ConfigParser(interpolation=None, delimiters="=", strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser's own documentation has it
    unit.read_string(block("ini"))
    service = unit["Service"]
    options = parse(shlex.split(service["ExecStart"])[1:]).options
    grace = options.grace or Config().grace
    assert parse_duration(service["TimeoutStopSec"]).total_seconds() > grace.total_seconds() + 5
    assert int(service["RestartPreventExitStatus"]) == Exit.CONFIGURATION


def test_the_logging_configuration_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outbox = CommandLine(tmp_path, monkeypatch, capsys)
    log = tmp_path / "outbox.log"
    text, replaced = re.subn(r'filename = ".*"', f'filename = "{log}"', block("toml"))
    assert replaced == 1
    (tmp_path / "log.toml").write_text(text, "utf-8")
    with SMTPSink() as sink:
        outbox.environ(OUTBOX_TRANSPORT=sink.url)
        outbox.submit("ann@example.org")
        with Started("--log-config", str(tmp_path / "log.toml")) as run:
            sink.wait_for(1)
            run.signal()
            assert run.ended() == 0, run.err
    assert "INFO outbox.run msg=running" in log.read_text("utf-8")
    assert "fate=accepted" in log.read_text("utf-8")
