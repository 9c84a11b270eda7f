"""The database file as the file system sees it: made for its owner alone, and watched for being replaced.

It is never opened here once SQLite may have it open: closing any descriptor
of a file drops every POSIX lock that the process holds on it, SQLite's too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, TypeAlias

from outbox.errors import ConfigurationError, StoreUnavailable

__all__ = ["Identity", "behind", "create", "identity", "is_open_here", "open_to_others", "size"]

Identity: TypeAlias = tuple[int, int]
"""Device and inode."""

_DESCRIPTORS: Final = "/dev/fd"
_OWNER_ONLY: Final = 0o600
_NEW: Final = os.O_CREAT | os.O_EXCL | os.O_WRONLY


def create(path: Path) -> None:
    """Make an empty file with mode 0600, whatever the umask, where there is none; durably.

    Raises:
        ConfigurationError: the path is a directory, or its directory is missing.
        StoreUnavailable: it cannot be created.
    """
    try:
        if path.is_dir():
            raise ConfigurationError(
                f"{path} is a directory: name a file in it, such as {path / 'outbox.db'}"
            )
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"{path} is no regular file: name one, or a new one, for the messages")
        if not path.parent.is_dir():
            raise ConfigurationError(f"{path}: there is no directory {path.parent}: create it first")
        if not os.path.lexists(path):
            _create(path)
    except FileExistsError:
        return  # another thread or process was quicker, and did the same
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be created: {error.strerror}") from error


def _create(path: Path) -> None:
    # Made under another name and closed before it is known by its own: see above.
    import secrets  # noqa: PLC0415 - brings OpenSSL, and is of use once in the life of a file

    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    _make_empty(draft)
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        _make_empty(path)
    finally:
        draft.unlink()
    _sync_directory(path.parent)


def _make_empty(path: Path) -> None:
    descriptor = os.open(path, _NEW, _OWNER_ONLY)
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, _OWNER_ONLY)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    if os.name != "posix":
        return  # Windows cannot open a directory, and keeps its names by itself
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def behind(path: Path) -> Path:
    """The file behind any links, which is where SQLite lays its own beside it."""
    return Path(os.path.realpath(path))


def identity(path: Path | str) -> Identity | None:
    """Which file the path leads to now; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - asked at every write, and three times as fast
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be reached: {error.strerror}") from error
    return status.st_dev, status.st_ino


def is_open_here(identity: Identity | None) -> bool:
    """Whether this process has that file open; False where the system does not tell."""
    try:
        descriptors = [int(name) for name in os.listdir(_DESCRIPTORS)]  # noqa: PTH208 - names are all there is
    except OSError:
        return False
    return any(_leads_to(descriptor, identity) for descriptor in descriptors)


def _leads_to(descriptor: int, identity: Identity | None) -> bool:
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False  # the one that the list was read through
    return (status.st_dev, status.st_ino) == identity


def open_to_others(path: Path) -> int:
    """Those permission bits that let the group or others read or write; 0 is none (and on Windows)."""
    return path.stat().st_mode & 0o077 if os.name == "posix" else 0


def size(path: str) -> int:
    """Bytes of the file; 0 where there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - at every commit, and a Path takes four times as long
    except OSError:
        return 0
