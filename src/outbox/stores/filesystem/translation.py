"""From what the operating system raises to what a store raises: the thing, the cause and what to do."""

from __future__ import annotations

import errno
from typing import Final

from outbox.errors import StoreError, StoreFull, StoreUnavailable

__all__ = ["translated"]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMLINK})
_ADVICE: Final = {
    errno.EACCES: "look at the permissions of the directories above it, and who owns them",
    errno.EPERM: "look at the permissions and attributes of its files",
    errno.EROFS: "the file system is mounted read-only: look at the disk, and mount it read-write",
    errno.EIO: "reading or writing failed: look at the disk",
    errno.EMFILE: "this process has too many files open: raise its limit (ulimit -n)",
    errno.ENFILE: "the system has too many files open",
    errno.ELOOP: "a symbolic link stands where a directory should: see who put it there",
    errno.ENOTDIR: "a file or a symbolic link stands where a directory should: see who put it there",
    errno.ESTALE: "it was replaced on its server: open the store anew",
}


def translated(error: OSError, path: str) -> StoreError:
    """The store's error for one of the operating system's."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StoreFull(f"{path}: {reason}: make room; deliveries go on as soon as they can be written down")
    advice = _ADVICE.get(error.errno or 0, "look at the spool with `outbox check`")
    return StoreUnavailable(f"{path}: {reason}: {advice}")
