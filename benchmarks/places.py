"""Where the benchmarks keep their files: one fresh folder for each lap, all gone at the end.

Nothing is deleted between two laps: the file system would be busy with it
during the second.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs

__all__ = ["Places", "footprint", "places"]


@attrs.define
class Places:
    root: Path
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def new(self) -> Path:
        folder = self.root / str(next(self._numbers))
        folder.mkdir()
        return folder


@contextlib.contextmanager
def places(directory: Path) -> Iterator[Places]:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix="bench-") as root:
        yield Places(Path(root))


def footprint(folder: Path) -> int:
    """Bytes of all files and directories below *folder*, as the file system counts them."""
    total = 0
    for path, _, names in os.walk(folder):
        for each in (path, *(os.path.join(path, name) for name in names)):  # noqa: PTH118 - many of them
            # One that was renamed meanwhile is counted next time.
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(each, follow_symlinks=False).st_blocks * 512  # noqa: PTH116 - the same
    return total
