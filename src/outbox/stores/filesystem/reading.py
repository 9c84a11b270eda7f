"""One file, read: where it cannot be, that says something of this file, or nothing of any.

A file that is damaged, replaced or closed to us is told as a CorruptRecord,
which stops no other message.  What may have nothing to do with it (too many
open files, say) stays what the operating system raised.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final, TypeVar

from outbox.errors import CorruptRecord

from .disk import Status, Strange
from .folders import Folders
from .names import Path

__all__ = ["DiskFailed", "content", "head"]

T = TypeVar("T")

_OF_ONE_FILE: Final = frozenset(
    {
        errno.EIO,
        errno.EACCES,
        errno.EPERM,
        errno.EBADMSG,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENXIO,
        # Linux: the file system is damaged there.
        getattr(errno, "EUCLEAN", errno.EIO),
    }
)


class DiskFailed(CorruptRecord):
    """It cannot be read now; nothing proves that it never can."""


def content(folders: Folders, path: Path, name: str) -> bytes:
    """All that the file holds.

    Raises:
        CorruptRecord: this one cannot be read; DiskFailed where the disk says no more than that.
        FileNotFoundError: it is not there.
        OSError: nothing can be read now.
    """
    return folders.ask(path, lambda handle: _twice(lambda: folders.disk.content(handle, name)))


def head(folders: Folders, path: Path, name: str, limit: int | None = None) -> tuple[Status, bytes]:
    """What the file is and what it holds, at most its first *limit* bytes; raises as :func:`content`."""
    return folders.ask(path, lambda handle: _twice(lambda: folders.disk.read(handle, name, limit)))


def _twice(read: Callable[[], T]) -> T:
    try:
        return read()
    except OSError as error:
        return _again(error, read)


def _again(error: OSError, read: Callable[[], T]) -> T:
    """After this error: where the disk failed a second try, for a cable that was loose for a moment holds no message."""
    if error.errno == errno.EIO:
        try:
            return read()
        except OSError as second:
            error = second
    if not isinstance(error, Strange) and error.errno not in _OF_ONE_FILE:
        raise error
    kind = DiskFailed if error.errno == errno.EIO else CorruptRecord
    raise kind(f"its file cannot be read: {error.strerror}") from error
