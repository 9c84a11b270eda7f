"""The ``outbox`` command as a test's user has it: in this process, with a store, a home and a terminal of its own."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from scan import said

from outbox.cli import main

MAIL: Final = b"""\
From: Shop <shop@example.org>
To: ann@example.org, Bob <bob@example.org>
Bcc: eve@example.org
Subject: Invoice 1042

c4narybody. Thank you.
"""


@attrs.frozen
class Ran:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def complaint(self) -> str:
        """The one line on standard error; more than one, or a traceback, is a failure."""
        assert re.fullmatch(r"outbox: [^\n]+\n", self.err), self.err
        return self.err.removeprefix("outbox: ").rstrip("\n")


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class CommandLine:
    """Runs commands on one database in *home*; nothing of the machine's own configuration is seen."""

    def __init__(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.home = home
        self.path = home / "outbox.db"
        self.store = f"sqlite:///{self.path}"
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        for name in [name for name in os.environ if name.startswith("OUTBOX_")]:
            monkeypatch.delenv(name)
        (home / "empty.toml").touch()
        monkeypatch.setenv("OUTBOX_CONFIG", str(home / "empty.toml"))
        monkeypatch.setenv("OUTBOX_STORE", self.store)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setenv("NO_COLOR", "1")

    def __call__(self, *argv: str, stdin: bytes = b"", terminal: bool = False) -> Ran:
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
            streams = [Terminal(io.BytesIO(), encoding="utf-8") for _ in range(2)] if terminal else []
            for name, stream in zip(("stdout", "stderr"), streams, strict=False):
                patch.setattr(sys, name, stream)
            self._capsys.readouterr()
            status = self._status(argv)
            if streams:
                out, err = (_shown(stream) for stream in streams)
                # A line of progress begins where the last did.
                said((out + err).replace("\r", ""), "what a terminal shows")
                return Ran(status, out, err)
            return Ran(status, *self._capsys.readouterr())

    def environ(self, **variables: str) -> None:
        for name, value in variables.items():
            self._monkeypatch.setenv(name, value)

    def wait_until_left(self, number: int) -> None:
        """Until so many messages are there: what was delivered goes when that is written down."""
        while len(self("list", "--json").rows) != number:
            pass

    def submit(self, *recipients: str, **options: str) -> str:
        """Submit a mail to *recipients* and return its id."""
        given = [f"--{name}={value}" for name, value in options.items()]
        ran = self("submit", *given, *recipients, stdin=MAIL)
        assert ran.status == 0, ran.err
        return ran.out.strip()

    @staticmethod
    def start(
        *argv: str, stdout: int = subprocess.PIPE, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """The same in a process of its own, with pipes."""
        command = [sys.executable, "-m", "outbox", *argv]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE, env=env
        )

    @staticmethod
    def _status(argv: tuple[str, ...]) -> int:
        try:
            return main(argv)
        except SystemExit as left:
            return int(left.code or 0)


def _shown(stream: Terminal) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()
