"""What docs/moving.md shows is so: its commands print what it says, and its program runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, Final

import pytest
from command_line import CommandLine
from test_docs import ROOT, blocks

from outbox.stores.sqlite import SQLiteStore
from outbox.testing.clauses.scene import dead, delivered, put, settle, take

PAGE: Final = ROOT / "docs" / "moving.md"


def test_the_commands_print_what_the_page_shows(
    outbox: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store: Any = SQLiteStore("old.db")
    put(store, *"abcdef")
    claims = {claim.message.id: claim for claim in take(store, 3)}
    for name, verdict in (("a", delivered), ("b", delivered), ("c", dead)):
        settle(store, claims[name], verdict(claims[name]))
    store.close()

    (shown,) = re.findall(r"^```console\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    parts = re.split(r"^\$ (.*)\n", shown, flags=re.MULTILINE)[1:]
    assert len(parts) == 6
    for command, answer in zip(parts[::2], parts[1::2], strict=True):
        ran = outbox(*shlex.split(command)[1:])
        assert (ran.status, ran.out) == (0, answer), ran.err


def test_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in blocks(PAGE, PAGE.read_text("utf-8")) if block.language == "python"]
    exec(compile(block.code, PAGE.name, "exec"), {})


@pytest.mark.parametrize(
    "words",
    [
        "the same store, or one is a copy",
        "has messages of its own",
        "cannot keep that",
        "it is not SupportsMove",
    ],
)
def test_what_it_says_it_says(words: str) -> None:
    code = "".join((ROOT / "src" / "outbox" / name).read_text("utf-8") for name in ("mover.py",))
    # The text of an error may be written in pieces, and with a value in it.
    joined = re.sub(r'"\s*\n?\s*f?"', "", code)
    pattern = ".*".join(map(re.escape, words.split("SupportsMove")))
    assert re.search(pattern, joined), words
    assert words.split(" SupportsMove", maxsplit=1)[0] in PAGE.read_text("utf-8")
