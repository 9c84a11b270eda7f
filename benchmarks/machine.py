"""The class of machine that figures were taken on: what matters to them, and nothing that names it."""

from __future__ import annotations

import datetime as dt
import os
import platform
import sqlite3
import statistics
from pathlib import Path

import attrs
import raw
from ours import CONTENT
from places import Places

__all__ = ["Machine", "machine"]


@attrs.frozen(kw_only=True)
class Machine:
    """*fsync* is the median of an append of 2 KB and its fsync, in seconds."""

    date: str
    cores: int
    memory: int
    system: str
    file_system: str
    python: str
    sqlite: str
    fsync: float

    def __str__(self) -> str:
        memory = f"{self.memory / 2**30:.0f} GB" if self.memory else "memory unknown"
        return (
            f"{self.cores} cores, {memory}, {self.system}, {self.file_system}; Python {self.python}, "
            f"SQLite {self.sqlite}; append of 2 KB + fsync {self.fsync * 1000:.2f} ms"
        )


def machine(places: Places, *, appends: int) -> Machine:
    lap = raw.appended(places.new(), CONTENT, appends)
    return Machine(
        date=dt.datetime.now(dt.UTC).date().isoformat(),
        cores=os.cpu_count() or 1,
        memory=_memory(),
        system=platform.system(),
        file_system=file_system(places.root),
        python=platform.python_version(),
        sqlite=sqlite3.sqlite_version,
        fsync=statistics.median(lap.waits),
    )


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def file_system(path: Path) -> str:
    """Its type, where the system tells."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return "file system unknown"
    real = path.resolve()
    found = ("/", "file system unknown")
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, point, type_, *_ = line.split()
        # Spaces are written \\040 there, and such a place is rare enough to be unknown.
        if real.is_relative_to(point) and len(point) >= len(found[0]):
            found = (point, type_)
    return found[1]
