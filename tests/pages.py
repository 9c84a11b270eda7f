"""The files of a page of the documentation, as a reader has saved them."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from test_docs import Block

__all__ = ["files_of", "imported", "saved"]


def files_of(blocks: Iterable[Block]) -> dict[str, str]:
    """The Python in them, by the file name that its first line gives."""
    return {
        block.code.split("\n", 1)[0].removeprefix("# "): block.code
        for block in blocks
        if block.language == "python"
    }


def saved(files: Mapping[str, str], folder: Path) -> Path:
    """The *folder*, which is made, with these files in it."""
    folder.mkdir()
    for name, code in files.items():
        (folder / name).write_text(code, "utf-8")
    return folder


@contextlib.contextmanager
def imported(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of that name in the *folder*, forgotten afterwards."""
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module(name)
    del sys.modules[name]
