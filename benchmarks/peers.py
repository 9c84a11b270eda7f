"""The peers: other queues from PyPI, each in an environment and a process of its own."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
from laps import Entrant, Lap
from places import Places

__all__ = ["PEERS", "Peer", "entrants", "peers"]

PEERS: Final[Mapping[str, tuple[str, ...]]] = {
    "sqlite": (
        "huey",
        "litequeue",
        "persist-queue",
        "django-mailer",
        "django-mailer WAL",
        "django-post_office",
        "django-post_office WAL",
    ),
    "filesystem": ("mailqueue-runner", "mailqueue-runner synced"),
    "memory": (),
}
"""Who is compared with which store; the first word is the distribution."""

_LOOPS: Final = Path(__file__).with_name("peer_loops.py")
_PATIENCE: Final = 300


@attrs.define
class Peer:
    """One peer and what it has said so far; *missing* says why it takes no part, *failed* in which columns."""

    name: str
    python: Path
    version: str = ""
    durable: bool = False
    durability: str = ""
    missing: str = ""
    failed: dict[str, str] = attrs.Factory(dict)

    def run(self, column: str, folder: Path, *, threads: int, by: int, number: int) -> Lap:
        """A lap; where it comes to none, *failed* says why, and it counts for nothing."""
        told = self._told(folder, threads, by, number)
        if "version" in told:
            self.version, self.durable, self.durability = told["version"], told["durable"], told["durability"]
        if "failed" in told:
            self.failed[column] = told["failed"]
            return Lap(0, 1.0)
        return Lap(told["messages"], told["seconds"])

    def _told(self, folder: Path, threads: int, by: int, number: int) -> dict[str, Any]:
        command = [str(self.python), str(_LOOPS), self.name, str(folder), *map(str, (threads, by, number))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True)
        except subprocess.TimeoutExpired:
            return {"failed": f"not done in {_PATIENCE} s"}
        except subprocess.CalledProcessError as error:
            # The last line of a traceback: the error itself.
            return {"failed": (error.stderr.strip().splitlines() or ["failed"])[-1]}
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told


def peers(kind: str, environments: Path | None) -> list[Peer]:
    """Those of the store; *environments* has a virtual environment for each, named after its distribution."""
    found = []
    for name in PEERS[kind]:
        folder = None if environments is None else environments / name.partition(" ")[0]
        python = Path("none") if folder is None else folder / "bin" / "python"
        missing = "" if python.exists() else "could not be installed here"
        found.append(Peer(name, python, missing=missing))
    return found


def entrants(
    taking_part: Sequence[Peer], column: str, places: Places, *, threads: int, by: int, number: int
) -> Iterator[Entrant]:
    """Each peer that can do it, which a first lap tells that is thrown away."""
    for peer in taking_part:
        work = functools.partial(peer.run, column, threads=threads, by=by)
        if not peer.missing:
            work(places.new(), number=threads * by)
        if not (peer.missing or column in peer.failed):
            yield Entrant(peer.name, functools.partial(_lap, work, places, number))


def _lap(work: Callable[..., Lap], places: Places, number: int) -> Lap:
    return work(places.new(), number=number)
