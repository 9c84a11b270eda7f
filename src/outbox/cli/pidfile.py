"""A file that says which process delivers here, and is held by a lock for as long as that lives.

The lock tells a living process from a number that another program has by now.
It is on the file itself; the file is put in place whole, by a rename.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from outbox.errors import UnsupportedError
from outbox.values import quoted

from .exits import CommandError, Exit

__all__ = ["pid_file"]

_TRIES: Final = 20
_SHOWN: Final = 40
# Looking at a device or a pipe must neither wait nor give us a terminal.
_FLAGS: Final = (
    os.O_RDWR | os.O_CREAT | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY"))
)
_OURS: Final = re.compile(rb"[0-9]{0,20}\n?")


@contextlib.contextmanager
def pid_file(path: Path | None) -> Iterator[None]:
    """Within the block *path* holds the number of this process; None: no file at all.

    What a process left behind that is gone is taken over: a number, or
    nothing.  Whatever else is there is left alone.

    Raises:
        CommandError: a process that lives holds it, it is something else, or
            it cannot be written.
        UnsupportedError: this system has no such locks.
    """
    if path is None:
        yield
        return
    try:
        held = _hold(path)
    except OSError as error:
        raise CommandError(
            Exit.CONFIGURATION, f"--pid-file {quoted(str(path), 200)}: {error.strerror or error}"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _is(path, held):
                path.unlink()
        os.close(held)


def _hold(path: Path) -> int:
    for _ in range(_TRIES):
        found = os.open(path, _FLAGS, 0o644)
        try:
            _refuse_strangers(found, path)
            _lock(found, path)
            # Another may have put his own in place, or removed this one, before we had the lock.
            if _is(path, found):
                return _put_in_place(path)
        finally:
            os.close(found)
    raise CommandError(
        Exit.TEMPORARY, f"--pid-file {quoted(str(path), 200)}: others take it again and again; try later"
    )


def _refuse_strangers(descriptor: int, path: Path) -> None:
    """It will be replaced and removed: it must not be a device, a database, somebody's notes."""
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    if not regular or not _OURS.fullmatch(os.read(descriptor, _SHOWN)):
        raise CommandError(
            Exit.CONFIGURATION,
            f"--pid-file {quoted(str(path), 200)} is no pid file: it is left as it is; name a file that is not there yet",
        )


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl  # noqa: PLC0415 - Windows has none, and everything imports there
    except ImportError:
        raise UnsupportedError(
            "--pid-file is not for this system: it has no locks that end with their process"
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        number = os.pread(descriptor, _SHOWN, 0).decode("ascii", "replace").strip()
        raise CommandError(
            Exit.TEMPORARY,
            f"--pid-file {quoted(str(path), 200)} is held by a process that runs ({quoted(number, _SHOWN)}): "
            "stop that first, or name another file",
        ) from None


def _put_in_place(path: Path) -> int:
    """A new file under a lock, put where *path* is while we hold what is there."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()  # of a namesake that died right here
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        _lock(descriptor, new)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        new.replace(path)
    except BaseException:
        os.close(descriptor)
        new.unlink(missing_ok=True)
        raise
    return descriptor


def _is(path: Path, descriptor: int) -> bool:
    try:
        there, here = path.lstat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
