"""docs/runbook.md as a person uses it at three in the morning: its commands, in its order, and the words it says to look for."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import attrs
from command_line import CommandLine
from started import Started

__all__ = ["MOST", "PAGE", "System", "Words", "incidents", "played"]

PAGE: Final = Path(__file__).parents[1] / "docs" / "runbook.md"
MOST: Final = 3
"""So many commands name a cause."""

_ASK: Final = "ask"
_WELL: Final = "it is well when"
_SECTION: Final = re.compile(r"^## (.+)\n", re.MULTILINE)
_BLOCK: Final = re.compile(r"^```(console|toml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PHRASE: Final = re.compile(r"(no )?`([^`]+)`")
_ENDS: Final = re.compile(r"ends with (\d+)")
_ID: Final = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_PID: Final = re.compile(r"\bpid (\d+)\b")


@attrs.frozen
class Words:
    """A row of the page: a command, and what its answer has, or has not."""

    command: str
    there: Sequence[str]
    absent: Sequence[str]
    status: int | None

    @classmethod
    def of(cls, row: str) -> Self:
        said, looked_for = (cell.strip() for cell in row.strip().strip("|").split(" | ", 1))
        phrases = _PHRASE.findall(looked_for)
        ends = _ENDS.search(looked_for)
        assert phrases or ends, row
        return cls(
            said.strip("`"),
            [text for no, text in phrases if not no],
            [text for no, text in phrases if no],
            int(ends[1]) if ends else None,
        )


@attrs.frozen
class Incident:
    """A section of the page; *remedies* are its blocks of commands and settings, as (language, text)."""

    title: str
    sees: str
    ask: Sequence[Words]
    remedies: Sequence[tuple[str, str]]
    well: Sequence[Words]


def incidents(text: str) -> dict[str, Incident]:
    """All that are on the page, by title."""
    titles_and_texts = _SECTION.split(text)[1:]
    pairs = zip(titles_and_texts[::2], titles_and_texts[1::2], strict=True)
    # What stands before the first of them has a table of its own.
    return {
        title: Incident(
            title,
            _seen_first(section),
            _rows(section, _ASK),
            _BLOCK.findall(section),
            _rows(section, _WELL),
        )
        for title, section in pairs
    }


def _seen_first(section: str) -> str:
    found = re.search(r"^\*\*You see\*\* (.+?)\n\n", section, re.MULTILINE | re.DOTALL)
    assert found is not None, section
    return found[1]


def _rows(section: str, head: str) -> list[Words]:
    table = re.search(rf"^\| {head} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", section, re.MULTILINE)
    assert table is not None, head
    return [Words.of(row) for row in table[1].splitlines()]


class System:
    """A configuration file, and what runs by it: `outbox run` in a process, as systemd would have it."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.file = home / "outbox.toml"
        self.run: Started | None = None
        self._processes = contextlib.ExitStack()
        home.mkdir(parents=True, exist_ok=True)
        self.file.touch(mode=0o600)
        settings = {"store": f"sqlite:///{home / 'outbox.db'}"} | settings
        self.file.write_text("".join(f"{key} = {value!r}\n" for key, value in settings.items()), "utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.close()

    def start(self, *argv: str, env: Mapping[str, str] | None = None) -> Started:
        begun = Started("--config", str(self.file), *argv, env=env)
        self.run = self._processes.enter_context(begun)
        return begun

    def add(self, toml: str) -> None:
        """A person writes these settings into the file, in the place of those of the same name."""
        keys = re.findall(r"^(\S+) = ", toml, re.MULTILINE)
        kept = [
            line for line in self.file.read_text("utf-8").splitlines() if line.partition(" = ")[0] not in keys
        ]
        self.file.write_text("\n".join([*kept, toml]), "utf-8")

    def reload(self) -> None:
        assert self.run is not None
        before = self.run.err.count("msg=reloaded")
        subprocess.run(["kill", "-HUP", str(self.run.process.pid)], check=True)
        self.run.wait_for("msg=reloaded", before + 1)


@attrs.define
class _Person:
    """Who has the page in hand; remembers what was shown, and puts it where the page says ID and PID."""

    outbox: CommandLine
    system: System
    _shown: str = ""

    def says(self, command: str) -> tuple[int, str]:
        argv = shlex.split(self._filled(command))
        match argv:
            case ["outbox", *rest]:
                ran = self.outbox(*rest)
                status, answer = ran.status, ran.out + ran.err
            case ["systemctl", "reload", "outbox"]:
                self.system.reload()
                status, answer = 0, ""
            case ["kill", *_]:
                done = subprocess.run(argv, capture_output=True, text=True, check=False)
                status, answer = done.returncode, done.stdout + done.stderr
            case _:
                raise AssertionError(f"the page says {command!r}, and this test does not know how to")
        self._shown += answer
        return status, answer

    def _filled(self, command: str) -> str:
        for name, pattern in (("ID", _ID), ("PID", _PID)):
            if re.search(rf"\b{name}\b", command):
                found = pattern.findall(self._shown)
                assert found, f"{command}: nothing that was shown so far has its {name}"
                command = re.sub(rf"\b{name}\b", found[-1], command)
        return command

    def finds(self, row: Words) -> None:
        status, answer = self.says(row.command)
        # A person reads a phrase, wherever the line ends.
        words = " ".join(answer.split())
        assert [text for text in row.there if text not in words] == [], f"{row.command}\n{answer}"
        assert [text for text in row.absent if text in words] == [], f"{row.command}\n{answer}"
        assert row.status in (None, status), f"{row.command} ended with {status}\n{answer}"


def played(
    incident: Incident,
    outbox: CommandLine,
    system: System,
    *,
    between: Sequence[Callable[[], object]] = (),
    finally_: Callable[[], object] = lambda: None,
) -> None:
    """Ask, find the cause named, do what the page says, and see that it is well.

    *between* is what no command does (the relay is brought back): one for
    before each block of the remedy, where there is one.  *finally_* comes
    before the last look.
    """
    outbox.environ(OUTBOX_CONFIG=str(system.file))
    person = _Person(outbox, system)
    assert len(incident.ask) <= MOST
    for row in incident.ask:
        person.finds(row)
    done = iter(between)
    for language, text in incident.remedies:
        next(done, lambda: None)()
        if language == "toml":
            system.add(text)
        else:
            for command in _commands(text):
                status, answer = person.says(command)
                assert status == 0, f"{command} ended with {status}\n{answer}"
    finally_()
    for row in incident.well:
        person.finds(row)


def _commands(text: str) -> Iterator[str]:
    for line in text.splitlines():
        assert line.startswith("$ "), line
        yield line.removeprefix("$ ")
