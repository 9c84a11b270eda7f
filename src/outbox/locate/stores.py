"""The stores of ours, each opened as its URL says; only the one that is asked for is imported."""

from __future__ import annotations

import contextlib
import logging
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from outbox.clock import Clock
from outbox.errors import ConfigurationError
from outbox.protocols import Store
from outbox.values import printable

from .grammar import Url
from .masking import OPTIONS
from .readers import SETTINGS

__all__ = ["STORES"]

_LOG: Final = logging.getLogger("outbox.locate")


def _memory(url: Url, create: bool, clock: Clock | None) -> Store:  # noqa: ARG001 - every store's opener has these
    if url.host or url.path.strip("/"):
        raise url.wrong("memory: stands alone")
    url.settings({})
    from outbox.stores.memory import MemoryStore  # noqa: PLC0415 - only the store that is asked for is imported

    return MemoryStore() if clock is None else MemoryStore(clock=clock)


def _sqlite(url: Url, create: bool, clock: Clock | None) -> Store:
    path = _sqlite_path(url)
    settings = _settings(url, clock)
    is_there = _is_there(path, url)
    if not is_there and not create:
        raise url.wrong(f"there is no database {printable(str(path))}; `outbox submit` makes one")
    from outbox.stores.sqlite.schema import holds_store  # noqa: PLC0415 - as the store itself
    from outbox.stores.sqlite.store import SQLiteStore  # noqa: PLC0415 - only the store that is asked for is imported

    prefix = settings.get("prefix")
    with _naming(url):
        if not create and not holds_store(path, prefix):
            missing, it = ("is no store", "one") if prefix is None else (f"are no tables {prefix}…", "them")
            raise ConfigurationError(f"there {missing} in {printable(str(path))}; `outbox submit` makes {it}")
        store = SQLiteStore(path, migrate=create, **settings)
    if not is_there:
        _LOG.warning("there was no database %s: a new one is made", path)
    return store


def _file(url: Url, create: bool, clock: Clock | None) -> Store:
    if url.host or not url.path.strip("/") or not url.path.startswith("/"):
        raise url.wrong(
            "names no directory: write file:///var/spool/outbox (three slashes, an absolute path)"
        )
    path = Path(url.path)
    settings = _settings(url, clock)
    is_there = _is_there(path, url)
    if not is_there and not create:
        raise url.wrong(f"there is no spool {printable(str(path))}; `outbox submit` makes one")
    from outbox.stores.filesystem import FilesystemStore  # noqa: PLC0415 - only the store that is asked for is imported
    from outbox.stores.filesystem.opening import is_blank  # noqa: PLC0415 - as the store itself

    blank = not is_there or is_blank(path)
    if blank and not create:
        raise url.wrong(
            f"there is no spool in {printable(str(path))}, which is empty: is its volume mounted? "
            "`outbox submit` makes one"
        )
    with _naming(url):
        store = FilesystemStore(path, **settings)
    if blank:
        _LOG.warning("there was no spool %s: a new one is made", path)
    return store


def _redis(url: Url, create: bool, clock: Clock | None) -> Store:
    settings = url.settings({name: SETTINGS[name] for name in OPTIONS["redis"]})
    db = settings.pop("db", None)
    if db is not None and url.scheme != "unix":
        raise url.wrong("the database stands behind the host: write redis://host/3")
    address = url.text.partition("?")[0] + ("" if db is None else f"?db={db}")
    with _naming(url):
        try:
            from outbox.stores.redis import RedisStore  # noqa: PLC0415 - only the store that is asked for is imported
        except ModuleNotFoundError as error:
            raise url.wrong(str(error)) from error
        return RedisStore(address, clock=clock, create=create, **settings)


def _settings(url: Url, clock: Clock | None) -> dict[str, Any]:
    settings = url.settings({name: SETTINGS[name] for name in OPTIONS[url.scheme]})
    return settings if clock is None else {**settings, "clock": clock}


@contextlib.contextmanager
def _naming(url: Url) -> Iterator[None]:
    """What a store refuses is told with the URL that asked for it."""
    try:
        yield
    except ConfigurationError as error:
        raise url.wrong(str(error)) from None


def _is_there(path: Path, url: Url) -> bool:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise url.wrong(f"{printable(str(path))} cannot be reached: {error.strerror}") from error
    # SQLite would open a device, and lay its journal beside it.
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise url.wrong(f"{printable(str(path))} is there and is no regular file: name another")
    return True


def _sqlite_path(url: Url) -> Path:
    if url.host or not url.path.startswith("/"):
        raise url.wrong("write sqlite:///relative.db or sqlite:////absolute.db (three or four slashes)")
    name = url.path[1:]
    if name in ("", "/"):
        raise url.wrong("names no file: write sqlite:///outbox.db or sqlite:////var/lib/outbox.db")
    if name == ":memory:":
        raise url.wrong("write memory: for a store that does not outlive the process")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise url.wrong("the home directory is not known here: write the absolute path") from None


STORES: Final[Mapping[str, Callable[[Url, bool, Clock | None], Store]]] = {
    "sqlite": _sqlite,
    "file": _file,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
    "memory": _memory,
}
