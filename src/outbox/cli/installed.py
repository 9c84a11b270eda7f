"""What is installed here: our version and Python's, what else is called ``outbox``, and how the clock stands."""

from __future__ import annotations

import ctypes
import datetime as dt
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

import outbox
from outbox.clock import SystemClock
from outbox.locate import spell
from outbox.protocols import (
    Finding,
    Store,
    SupportsPresence,
)
from outbox.values import printable

from .moments import local

__all__ = ["clock", "clocks_of", "versions"]

_OURS: Final = "durable-outbox"
_STRANGER: Final = "outbox"
_A_DAY: Final = dt.timedelta(days=1)
_ZERO: Final = dt.timedelta(0)
_APART: Final = dt.timedelta(seconds=30)
_HOLDS: Final = dt.timedelta(seconds=90)
"""For how long at most a runner speaks of itself at a time."""
_NOBODY_KEEPS_IT: Final = 5
_ROOM: Final = 512


def versions() -> Iterator[Finding]:
    """Which releases these are, and whether another distribution's files stand where ours are looked for."""
    home = Path(outbox.__file__).parent
    yield Finding(
        "ok",
        f"{_OURS} {importlib.metadata.version(_OURS)} at {printable(str(home))}, attrs {importlib.metadata.version('attrs')}, "
        f"Python {platform.python_version()}",
    )
    try:
        stranger = importlib.metadata.version(_STRANGER)
    except importlib.metadata.PackageNotFoundError:
        pass
    else:
        yield Finding(
            "error",
            f"another distribution, {_STRANGER} {stranger}, is installed too; its files and ours overwrite each other",
            f"pip uninstall {_STRANGER} {_OURS}, then pip install {_OURS}",
        )
    for other in sorted(_others(home)):
        yield Finding(
            "warning",
            f"another package named {_STRANGER} is on Python's path: {printable(str(other), 200)}",
            "remove it, or that folder from the path: a program that starts elsewhere may find it instead of ours",
        )


def _others(home: Path) -> set[Path]:
    """Packages and modules of our name elsewhere on the path."""
    found = set()
    for entry in dict.fromkeys(sys.path):
        spec = PathFinder.find_spec(_STRANGER, [entry or os.curdir])
        # A folder without code is no package yet, and loses against every one that is.
        if spec is not None and spec.origin is not None and spec.has_location:
            path = Path(spec.origin)
            if path.resolve() != (home / "__init__.py").resolve():
                found.add(path)
    return found


def clock() -> Iterator[Finding]:
    """Whether the clock can be right, and who keeps it so."""
    now = SystemClock().now()
    installed = _installed_at()
    if installed is not None and now < installed - _A_DAY:
        yield Finding(
            "error",
            f"the clock says {local(now)}, which was before outbox was installed ({installed:%Y-%m-%d})",
            "set it (timedatectl, chronyc): what is due, leases and retries go by it",
        )
        return
    kept = "" if _is_kept() is not False else "; the kernel knows of nobody who keeps it right (NTP)"
    yield Finding("ok", f"the clock says {local(now)}{kept}")


def _installed_at() -> dt.datetime | None:
    try:
        return dt.datetime.fromtimestamp(Path(outbox.__file__).stat().st_mtime, dt.UTC)
    except (OSError, OverflowError, ValueError):
        return None


def _is_kept() -> bool | None:
    """Whether the kernel's clock is synchronized (adjtimex(2), which changes nothing here); None where it does not say."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        said: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_ROOM))
    except (OSError, AttributeError):
        return None
    return None if said < 0 else said != _NOBODY_KEEPS_IT


def clocks_of(store: Store) -> Iterator[Finding]:
    """Whether who works on the same store lives at another time; what waits in it the store itself looks at."""
    said = store.announced() if isinstance(store, SupportsPresence) else ()
    apart = max((each.left - _HOLDS for each in said), default=_ZERO)
    if apart > _APART:
        yield Finding(
            "error",
            f"a runner spoke {spell(apart)} from now: the clock there is ahead, or this one is behind",
            "set the clocks of all that use the store (NTP): due times, leases and retries go by them",
        )
