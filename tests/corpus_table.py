"""The mails of the corpus with what is to become of each; every test that sends them asks here."""

from __future__ import annotations

import importlib.util
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

HERE = Path(__file__).parent / "corpus"


@attrs.frozen(kw_only=True)
class Entry:
    """One mail: *fate* is ``delivered`` or ``refused``, the latter with the *line* and *rule* the error names."""

    name: str
    path: Path
    fate: str
    why: str
    line: int = 0
    rule: str = ""

    def read(self) -> bytes:
        """Its bytes; skips the test where the interpreter came without its own tests."""
        if not self.path.is_file():
            pytest.skip(f"{self.name}: this Python was installed without test.test_email.data")
        return self.path.read_bytes()


def folder_of_cpython() -> Path:
    """Where CPython's own mails lie, if they are installed."""
    spec = importlib.util.find_spec("test")
    places = (spec.submodule_search_locations if spec else None) or ["."]
    return Path(places[0], "test_email", "data")


def entries() -> list[Entry]:
    """Every judged mail, CPython's first."""
    table = tomllib.loads((HERE / "EXPECTED.toml").read_text(encoding="utf-8"))
    return [
        *_entries("cpython", folder_of_cpython(), table["cpython"]),
        *_entries("outbox", HERE, table["outbox"]),
    ]


def _entries(origin: str, folder: Path, rows: dict[str, Any]) -> Iterator[Entry]:
    for name, row in rows.items():
        yield Entry(name=f"{origin}/{name}", path=folder / name, **row)


def wire(source: bytes, added: list[bytes]) -> bytes:
    """What a delivered mail's content must be: told a second time, in other words than the library's.

    *added* are the lines that go on top where the header has no such field.
    """
    lines = source.replace(b"\r\n", b"\n").split(b"\n")
    while lines[0].startswith(b"From "):
        del lines[0]
    end = lines.index(b"") if b"" in lines else len(lines)
    kept: list[bytes] = []
    blind = False
    for line in lines[:end]:
        if not line.startswith((b" ", b"\t")):
            blind = line.lower().startswith((b"bcc:", b"resent-bcc:"))
        if not blind:
            kept.append(line)
    names = {line.partition(b":")[0].lower() for line in kept}
    missing = [line for line in added if line.partition(b":")[0].lower() not in names]
    return b"\r\n".join([*missing, *kept, *lines[end:]])
