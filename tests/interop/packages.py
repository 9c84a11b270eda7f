"""Unpacks packages of Debian, and what they need, into a folder: nothing is installed, and no script of theirs is run.

    python tests/interop/packages.py FOLDER PACKAGE...

What the machine has already is taken from there: of libraries the files
themselves, so that a program can also be run with the folder as its root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["Missing", "libraries", "unpack", "version"]

_NEEDED: Final = re.compile(r"^Inst (\S+)", re.MULTILINE)
_LINKED: Final = re.compile(r"(/\S+) \(0x")
_ELF: Final = b"\x7fELF"
_NAME_SERVICE: Final = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")


class Missing(Exception):
    """It cannot be had here; the text says why."""


def unpack(names: Sequence[str], root: Path) -> None:
    """Everything that installing *names* would bring, below *root*.

    Raises:
        Missing: there is no apt here, or it does not have them.
    """
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise Missing(f"there is no {tool} on this machine")
    debs = root / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    simulated = _run(["apt-get", "--simulate", "--no-install-recommends", "install", *names], debs)
    # What is installed is not named, and is unpacked all the same where it was asked for.
    wanted = sorted({*_NEEDED.findall(simulated), *names})
    _run(["apt-get", "download", *wanted], debs)
    for deb in sorted(debs.glob("*.deb")):
        _run(["dpkg", "-x", str(deb), str(root)], debs)
    _run(["rm", "-r", str(debs)], root)


def version(name: str) -> str:
    """The version that the machine's list of packages has."""
    shown = _run(["apt-cache", "policy", name], Path("/"))
    found = re.search(r"Candidate: (\S+)", shown)
    return found[1] if found else "of unknown version"


def libraries(root: Path) -> str:
    """Where the libraries below *root* are, for LD_LIBRARY_PATH."""
    folders = {path.parent for path in root.rglob("*.so*") if path.is_file()}
    return ":".join(map(str, sorted(folders)))


def borrow(root: Path) -> None:
    """Copy what the programs below *root* need of this machine's libraries, for them to have *root* as their root."""
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries(root)}
    elves = [path for path in _files(root) if _is_elf(path)]
    for path in elves:
        done = subprocess.run(
            ["ldd", str(path)], capture_output=True, text=True, check=False, env=environment
        )
        for linked in _LINKED.findall(done.stdout):
            _borrow(Path(linked), root)
    for name in _NAME_SERVICE:
        for folder in map(Path, ("/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu")):
            if (folder / name).exists():
                _borrow(folder / name, root)


def _borrow(library: Path, root: Path) -> None:
    if library.is_relative_to(root):
        return
    copy = root / library.relative_to("/")
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, copy)


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == _ELF


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise Missing(f"{' '.join(command[:3])} failed: {said}")
    return done.stdout


if __name__ == "__main__":
    unpack(sys.argv[2:], Path(sys.argv[1]).resolve())
