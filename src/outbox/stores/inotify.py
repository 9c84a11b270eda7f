"""What the kernel tells of one file: Linux's inotify, asked for through the C library.

The file is watched by its path and never opened: closing any descriptor of a
database's file would drop SQLite's locks.  Whoever sleeps before a watch can
be woken by any thread, too.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import sys
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ctypes

__all__ = ["Watch"]

_MODIFY: Final = 0x002
_ATTRIBUTES: Final = 0x004
_MOVED_TO: Final = 0x080
_CREATE: Final = 0x100
_DELETE_SELF: Final = 0x400
_MOVE_SELF: Final = 0x800
_OF_FILE: Final = _MODIFY | _ATTRIBUTES | _DELETE_SELF | _MOVE_SELF
_OF_FOLDER: Final = _CREATE | _MOVED_TO | _DELETE_SELF | _MOVE_SELF

_READ: Final = 1 << 16
_READS: Final = 64
"""Many times what the kernel keeps for us: at most 16384 changes that differ from the one before them."""


class Watch:
    """Of the file at *path*, or until it is there of its folder; for one thread at a time, :meth:`release` apart.

    Its two descriptors are closed when nobody has it any more: never while
    another thread may be about to write to one, whose number may be
    another file's by then.

    Attributes:
        told: Whether the kernel has told of something since :meth:`stirred` was last asked.
        missed: How many changes were found since it last told of one.

    Raises:
        OSError: this system cannot, or has no watch left to give.
    """

    def __init__(self, path: str) -> None:
        self._path = os.fsencode(path)
        self._folder = os.path.dirname(self._path)  # noqa: PTH120 - the kernel is asked in bytes
        self._libc = _c_library()
        self._number: int | None = None
        self.told = False
        self.missed = 0
        self._events, self._bell = _descriptors(self._libc)
        self._closing = weakref.finalize(self, _close, self._events, self._bell)
        self._closing.atexit = False

    def close(self) -> None:
        """At once: for a forked child, where no other thread is."""
        self._closing()

    def acquire(self, *, timeout: float) -> None:
        """Sleep until the kernel tells of something, or somebody calls :meth:`release`; at most *timeout* seconds."""
        poll = select.poll()
        poll.register(self._events, select.POLLIN)
        poll.register(self._bell, select.POLLIN)
        ready = dict(poll.poll(math.ceil(timeout * 1000)))
        if self._bell in ready:
            with contextlib.suppress(OSError):
                os.eventfd_read(self._bell)
        self.told |= self._events in ready

    def release(self) -> None:
        """Wake whoever sleeps, or keep the next one from it."""
        with contextlib.suppress(OSError):
            os.eventfd_write(self._bell, 1)

    def stirred(self) -> bool:
        """Whether there was a change since this was last asked, or may have been; what comes from now on is told.

        Raises:
            OSError: it cannot be watched.
        """
        if not self._closing.alive:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        stirred = self._look_at_path()
        stirred |= self._drain() or self.told
        self.told = False
        if stirred:
            self.missed = 0
        return stirred

    def _look_at_path(self) -> bool:
        """Watch what the path leads to now; True where that is another file than before."""
        try:
            number = self._add(self._path, _OF_FILE)
        except FileNotFoundError:
            number = self._add(self._folder, _OF_FOLDER)
        before, self._number = self._number, number
        if before not in (None, number):
            # Where its file is gone the kernel has done it already.
            self._libc.inotify_rm_watch(self._events, before)
        return before != number

    def _add(self, path: bytes, changes: int) -> int:
        # For a file that is watched already it gives the number that it gave before.
        number: int = self._libc.inotify_add_watch(self._events, path, changes)
        return _checked(number)

    def _drain(self) -> bool:
        some = False
        for _ in range(_READS):
            try:
                some = bool(os.read(self._events, _READ))
            except BlockingIOError:
                break
        return some


def _c_library() -> ctypes.CDLL:
    """The C library of this process, whichever it is."""
    if sys.platform != "linux" or not hasattr(os, "eventfd"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    try:
        import ctypes  # noqa: PLC0415 - it is slow to load, and few who open a store wait

        libc = ctypes.CDLL(None, use_errno=True)
        libc.inotify_init1.argtypes = (ctypes.c_int,)
        libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)
        libc.inotify_rm_watch.argtypes = (ctypes.c_int, ctypes.c_int)
    except (ImportError, AttributeError) as error:
        raise OSError(errno.ENOSYS, "this Python or its C library knows no inotify") from error
    return libc


def _checked(answer: int) -> int:
    import ctypes  # noqa: PLC0415 - as above

    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer


def _descriptors(libc: ctypes.CDLL) -> tuple[int, int]:
    events = _checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    try:
        return events, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except BaseException:
        os.close(events)
        raise


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
