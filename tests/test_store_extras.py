"""Who has installed none of the extras is told which one a store needs, by whatever command he meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from canaries import PASSWORD

COMMANDS: Final = (
    ("migrate",),
    ("migrate", "--sql"),
    ("status",),
    ("check",),
    ("submit", "ann@example.org"),
    ("drain", "--transport", "smtp://127.0.0.1:1"),
    ("run", "--transport", "smtp://127.0.0.1:1"),
)
DRIVERS: Final = ("psycopg", "redis", "boto3")
SCRIPT: Final = """
import contextlib, io, json, sys

asked = json.load(sys.stdin)
sys.modules.update(dict.fromkeys(asked["without"]))
from outbox.cli import main

answers = []
for command in asked["commands"]:
    text = io.StringIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(b"From: a@example.org\\n\\nhello\\n"))
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            status = main(["--store", asked["url"], *command])
        except SystemExit as left:
            status = left.code
    answers.append([status, text.getvalue()])
print(json.dumps(answers))
"""


def answers(url: str, home: Path) -> dict[tuple[str, ...], tuple[int, str]]:
    """What each command says of the store where no driver is installed."""
    asked: dict[str, Any] = {"without": DRIVERS, "commands": COMMANDS, "url": url}
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        cwd=home,
        env={**environ, "HOME": str(home), "OUTBOX_CONFIG": "", "COLUMNS": "10000"},
    )
    return {
        command: (status, text)
        for command, (status, text) in zip(COMMANDS, json.loads(ran.stdout), strict=True)
    }


@pytest.mark.parametrize(
    ("url", "shown", "extra"),
    [
        (f"postgresql://shop:{PASSWORD}@localhost/shop", "postgresql://shop:***@localhost/shop", "postgres"),
        ("postgresql:///shop", "postgresql:///shop", "postgres"),
        (f"redis://:{PASSWORD}@localhost", "redis://:***@localhost", "redis"),
        ("unix:///run/redis.sock?db=0", "unix:///run/redis.sock?db=0", "redis"),
        ("sqs://eu-central-1/outbox-", "sqs://eu-central-1/outbox-", "sqs"),
    ],
)
def test_each_command_names_the_extra_that_a_store_needs(
    url: str, shown: str, extra: str, tmp_path: Path
) -> None:
    for command, (status, text) in answers(url, tmp_path).items():
        if command == ("migrate", "--sql") and extra != "postgres":
            continue
        assert status == (2 if command == ("check",) else 78), (command, text)
        assert f'pip install "durable-outbox[{extra}]"' in text, command
        assert f"store {shown}: " in text, command
        assert max(line.count(shown) for line in text.splitlines()) == 1, (command, text)
        assert "bug" not in text, command
        assert PASSWORD not in text, command
