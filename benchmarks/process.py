"""What a process uses, and children that measure themselves and print one line of JSON."""

from __future__ import annotations

import json
import mmap
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

__all__ = ["child", "descriptors", "memory", "peak", "threads"]

_HERE: Final = Path(__file__).parent
_PROC: Final = Path("/proc/self")


def memory() -> int:
    """Resident bytes; where the system does not tell, the most there have been."""
    try:
        pages = int((_PROC / "statm").read_text(encoding="ascii").split()[1])
    except OSError:
        import resource  # noqa: PLC0415 - Windows has none, and /proc does without

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * mmap.PAGESIZE


def peak() -> int:
    """The most resident bytes that this program has had; 0 where the system does not tell."""
    # What getrusage tells includes what our parent had before it became us.
    found = re.search(r"^VmHWM:\s*(\d+) kB", _read(_PROC / "status"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def descriptors() -> int:
    """How many files are open; 0 where the system does not tell."""
    folder = _PROC / "fd"
    return sum(1 for _ in folder.iterdir()) if folder.exists() else 0


def threads() -> int:
    return threading.active_count()


def child(script: str, *arguments: object) -> Any:
    """What a script of this directory, run by itself, says in its last line.

    Raises:
        RuntimeError: it failed; its own words are on standard error.
    """
    command = [sys.executable, str(_HERE / script), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(map(str, arguments))} ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])
