"""The one seam to the disk: every call of the store to the file system is a method here.

A test puts another in its place, to count, to fail or to lose power.  What
the store builds on, and what such a stand-in must keep:

* an operation is atomic: a rename is on both sides, or on neither;
* ``create`` has its content on the platter when it returns;
* ``sync`` of a folder makes every operation on that folder durable, together
  with the earlier operations of the same files that it depends on; the
  removal of a folder depends on all that was done in it;
* everything else is lost or kept by a loss of power, in whatever combination.

Folders are named by open descriptors, so that nobody can put another in
their place, and no symbolic link is ever followed.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeAlias, TypeVar

import attrs

from outbox.errors import ConfigurationError, UnsupportedError

__all__ = ["Disk", "Identity", "Kind", "Listing", "Spares", "Status", "Strange"]

T = TypeVar("T")

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
BURIED: Final = 0o400
"""The mode of a tombstone's file."""


_TOO_MANY: Final = frozenset({errno.EMFILE, errno.ENFILE})

Identity: TypeAlias = tuple[int, int]
"""Device and inode."""


class Strange(OSError):
    """An entry that is no regular file stands where one of ours should: it is not opened."""


class Kind(enum.Enum):
    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"


@attrs.frozen
class Status:
    """What the file system says of an entry; *mtime* in nanoseconds."""

    inode: int
    links: int
    size: int
    mode: int
    mtime: int
    kind: Kind = Kind.FILE
    owner: int = 0

    @property
    def buried(self) -> bool:
        """Whether it is the file of a tombstone."""
        return self.mode & 0o777 == BURIED


class Listing:
    """The entries of a folder, read as they are asked for; it can stay open and go on later."""

    def __init__(self, folder: int) -> None:
        # A descriptor of its own: a copy would share its place in the folder with every other listing.
        own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            self._entries = os.scandir(own)
        finally:
            os.close(own)

    def __iter__(self) -> Iterator[tuple[str, Kind]]:
        return self

    def __next__(self) -> tuple[str, Kind]:
        entry = next(self._entries)
        if entry.is_file(follow_symlinks=False):
            return entry.name, Kind.FILE
        return entry.name, Kind.FOLDER if entry.is_dir(follow_symlinks=False) else Kind.OTHER

    def close(self) -> None:
        self._entries.close()


class Spares(Protocol):
    """Who has descriptors that it can do without."""

    def spare(self) -> bool:
        """Close some; whether there were any."""
        ...


class Disk:
    """The file system of this machine; a folder is an open descriptor.

    Raises:
        UnsupportedError: the platform has no descriptors of folders.
    """

    def __init__(self) -> None:
        if os.name != "posix" or os.open not in os.supports_dir_fd:
            raise UnsupportedError(
                "FilesystemStore needs a POSIX system, which this is not: use SQLiteStore, which works here"
            )
        self._spares: weakref.WeakSet[Spares] = weakref.WeakSet()
        self._locked: dict[int, int] = {}
        """The descriptors of the locks that are held or asked for, and by which thread."""

    # -- descriptors

    def may_ask(self, spares: Spares) -> None:
        """Let it close some where this process has too many files open."""
        self._spares.add(spares)

    def leave_alone(self, spares: Spares) -> None:
        """Ask it no more: it has nothing open."""
        self._spares.discard(spares)

    def most_files(self) -> int:
        """How many this process may have open."""
        import resource  # noqa: PLC0415 - Windows has none, and imports this file too

        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return sys.maxsize if soft == resource.RLIM_INFINITY else soft

    def _opening(self, open: Callable[[], T]) -> T:
        """What *open* returns; tried again for as long as somebody can close something."""
        while True:
            try:
                return open()
            except OSError as error:
                if error.errno not in _TOO_MANY or not any(each.spare() for each in list(self._spares)):
                    raise

    # -- folders

    def identity(self, place: str | int) -> Identity | None:
        """Which folder this is, by its path or its descriptor; None where there is none."""
        try:
            found = os.stat(place)  # noqa: PTH116 - the seam speaks of strings
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino

    def open_root(self, path: str) -> int:
        """The spool's own folder, which may be named through a symbolic link."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return self._opened(self._opening(lambda: os.open(path, flags)), path)

    def make_root(self, path: str) -> None:
        """Make it, in a folder that is there; not durable."""
        os.mkdir(path, _FOLDER_MODE)  # noqa: PTH102 - the seam speaks of strings

    def anchor_root(self, root: int) -> None:
        """Make the name of the spool's own folder durable."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            parent = self._opening(lambda: os.open("..", flags, dir_fd=root))
        except PermissionError:
            # What may not be listed may be gone through: then all is synced, once in the life of a spool.
            os.sync()
            return
        try:
            _flush(parent)
        finally:
            os.close(parent)

    def open_folder(self, parent: int, name: str) -> int:
        """Open it; one that others own or can write to is refused."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        return self._opened(self._opening(lambda: os.open(name, flags, dir_fd=parent)), name)

    def make_folder(self, parent: int, name: str) -> None:
        os.mkdir(name, _FOLDER_MODE, dir_fd=parent)

    def remove_folder(self, parent: int, name: str) -> None:
        """Remove it where it is empty."""
        os.rmdir(name, dir_fd=parent)

    def removed(self, folder: int) -> bool:
        """Whether somebody has removed this folder since it was opened."""
        return os.fstat(folder).st_nlink == 0

    def listing(self, folder: int) -> Listing:
        return self._opening(lambda: Listing(folder))

    def sync(self, folder: int) -> None:
        """Make what was done in this folder durable."""
        _flush(folder)

    def close(self, folder: int) -> None:
        os.close(folder)

    def _opened(self, folder: int, name: str) -> int:
        try:
            _require_ours(os.fstat(folder), name)
        except BaseException:
            os.close(folder)
            raise
        return folder

    # -- files

    def create(self, folder: int, name: str, data: bytes) -> None:
        """A new file with this content, on the platter when it returns; none where it fails."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        file = self._opening(lambda: os.open(name, flags, _FILE_MODE, dir_fd=folder))
        try:
            _write(file, data)
            if os.fstat(file).st_mode & 0o777 != _FILE_MODE:
                os.fchmod(file, _FILE_MODE)
            _flush(file)
        except Exception:
            # Half a file takes up room, and it is mostly for want of room that it is half.
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)
            raise
        finally:
            os.close(file)

    def jot(self, folder: int, name: str, data: bytes) -> None:
        """A file with this content, in the place of one that was there; not durable, and a reader may see half of it."""
        flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        file = self._opening(lambda: os.open(name, flags, _FILE_MODE, dir_fd=folder))
        try:
            _write(file, data)
        finally:
            os.close(file)

    def link(self, folder: int, name: str, other: int, new: str) -> None:
        os.link(name, new, src_dir_fd=folder, dst_dir_fd=other, follow_symlinks=False)

    def rename(self, folder: int, name: str, other: int, new: str) -> None:
        os.rename(name, new, src_dir_fd=folder, dst_dir_fd=other)

    def unlink(self, folder: int, name: str) -> None:
        os.unlink(name, dir_fd=folder)

    def stat(self, folder: int, name: str) -> Status:
        return _status(os.stat(name, dir_fd=folder, follow_symlinks=False))

    def owns(self, found: Status) -> bool:
        """Whether it belongs to the user that this process runs as."""
        return found.owner == os.geteuid()

    def read(self, folder: int, name: str, limit: int | None = None) -> tuple[Status, bytes]:
        """What the file is and what it holds, at most its first *limit* bytes."""
        found, data = self._opening(lambda: _contents(folder, name, limit))
        return _status(found), data

    def content(self, folder: int, name: str) -> bytes:
        """All that the file holds."""
        return self._opening(lambda: _contents(folder, name, None))[1]

    def cut(self, folder: int, name: str, size: int) -> None:
        """Cut the file to its first *size* bytes; not durable."""
        file = self._opening(lambda: _opened_to_write(folder, name))
        try:
            os.ftruncate(file, size)
        finally:
            os.close(file)

    def bury(self, folder: int, name: str, size: int, mtime: int) -> None:
        """Cut the file to its first *size* bytes and mark it a tombstone of that time; not durable."""
        file = self._opening(lambda: _opened_to_write(folder, name))
        try:
            os.ftruncate(file, size)
            os.utime(file, ns=(mtime, mtime))
            os.fchmod(file, BURIED)
        finally:
            os.close(file)

    def touch(self, folder: int, name: str, mtime: int) -> None:
        """Set its modification time, in nanoseconds; made where it is not there."""
        try:
            os.utime(name, ns=(mtime, mtime), dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(self._opening(lambda: os.open(name, flags, _FILE_MODE, dir_fd=folder)))
            os.utime(name, ns=(mtime, mtime), dir_fd=folder, follow_symlinks=False)

    # -- the rest

    @contextlib.contextmanager
    def lock(self, folder: int) -> Iterator[None]:
        """Alone in this folder, among those who ask for it: threads as well as processes."""
        import fcntl  # noqa: PLC0415 - Windows has none, and imports this file too

        # The lock belongs to the open file: two threads with one descriptor would both have it.
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        own = self._opening(lambda: os.open(".", flags, dir_fd=folder))
        process = os.getpid()
        try:
            self._locked[own] = threading.get_ident()
            fcntl.flock(own, fcntl.LOCK_EX)
            yield
        finally:
            self._locked.pop(own, None)
            # A child that was forked meanwhile has the open file too, and with it the lock: it is given
            # up here, whoever still has the file.  Not in the child, whose parent may not be done.
            if os.getpid() == process:
                fcntl.flock(own, fcntl.LOCK_UN)
            os.close(own)

    def born(self) -> None:
        """In a forked child, let go of the locks of threads that are not there: it would hold them for ever."""
        for own, thread in list(self._locked.items()):
            if thread != threading.get_ident():
                del self._locked[own]
                os.close(own)

    def boot(self) -> str:
        """Names the time since the machine was started; ``""`` where it cannot be told."""
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - the seam speaks of strings
                return file.read().strip()
        except OSError:
            return ""


def _require_ours(found: os.stat_result, name: str) -> None:
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"the directory {name} belongs to user {found.st_uid}, and this process runs as {os.geteuid()}: "
            "run it as that user, or chown the whole spool"
        )
    if found.st_mode & 0o022:
        raise ConfigurationError(
            f"the directory {name} can be written by others (mode {found.st_mode & 0o777:04o}): "
            f"see that nobody has tampered with it, then chmod go-rwx {name}"
        )


def _opened_to_write(folder: int, name: str) -> int:
    return os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)


def _status(found: os.stat_result) -> Status:
    kind = Kind.FILE if stat.S_ISREG(found.st_mode) else Kind.OTHER
    return Status(
        inode=found.st_ino,
        links=found.st_nlink,
        size=found.st_size,
        mode=found.st_mode,
        mtime=found.st_mtime_ns,
        kind=Kind.FOLDER if stat.S_ISDIR(found.st_mode) else kind,
        owner=found.st_uid,
    )


def _contents(folder: int, name: str, limit: int | None) -> tuple[os.stat_result, bytes]:
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise Strange(errno.EINVAL, "it is no regular file", name)
        return found, _read(file, found.st_size if limit is None else limit)
    finally:
        os.close(file)


def _write(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _read(file: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.read(file, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _flush(file: int) -> None:
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415 - Windows has none, and imports this file too

        # Only this reaches the platter there.
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)
    else:
        os.fsync(file)
