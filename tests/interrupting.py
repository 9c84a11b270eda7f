"""An interrupt at any chosen call, as a signal handler would raise it there."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from types import FrameType

__all__ = ["Interrupting"]


class Interrupting:
    """Raises in this thread after so many calls in the files that are watched; *where* says which it was.

    The interpreter lets signal handlers run when a call has returned and when
    a function begins, and so does this, where it is given to ``sys.setprofile``.
    """

    def __init__(self, calls: int, watched: Collection[str], raises: type[BaseException]) -> None:
        self._left = calls
        self._watched = watched
        self._raises = raises
        self.where = ""

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event not in ("call", "c_return") or frame.f_code.co_filename not in self._watched:
            return
        self._left -= 1
        if self._left == 0:
            self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            sys.setprofile(None)
            raise self._raises
