"""The stores of ours, each opened as its URL says; only the one that is asked for is imported."""

from __future__ import annotations

import contextlib
import functools
import logging
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from outbox.clock import Clock
from outbox.errors import ConfigurationError, UnsupportedError
from outbox.protocols import Store, SupportsMaintain
from outbox.values import printable

from .grammar import Url
from .masking import OPTIONS
from .readers import SETTINGS
from .sqs import open_sqs

__all__ = ["MIGRATIONS", "STORES", "Migration"]

_LOG: Final = logging.getLogger("outbox.locate")


class Migration(Protocol):
    """How a store is made, or brought to this release's format, when a person says so."""

    def run(self) -> Sequence[str]:
        """Do it, under a lock; what was done, in words."""
        ...

    def script(self) -> Sequence[str]:
        """What :meth:`run` would do, in SQL; nothing where there is nothing to do.

        Raises:
            UnsupportedError: the store has no tables.
        """
        ...


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
    store, made = _redis_opened(url, create=create, clock=clock)
    if made:
        _LOG.warning("there was no store in %s: a new one is made", url.shown)
    return store


class _RedisMigration:
    """A store in Redis has one format, and may have to be made."""

    def __init__(self, url: Url) -> None:
        self._url = url

    def run(self) -> Sequence[str]:
        store, made = _redis_opened(self._url, create=True)
        with contextlib.closing(store):
            if isinstance(store, SupportsMaintain):
                store.migrate()
        return [f"made the store in {self._url.shown}"] if made else []

    def script(self) -> Sequence[str]:
        raise UnsupportedError("a store in Redis has no tables, and nothing to be done in SQL")


def _redis_opened(url: Url, *, create: bool, clock: Clock | None = None) -> tuple[Store, bool]:
    """The store, and whether there was none before."""
    settings = url.settings({name: SETTINGS[name] for name in OPTIONS["redis"]})
    db = settings.pop("db", None)
    if db is not None and url.scheme != "unix":
        raise url.wrong("the database stands behind the host: write redis://host/3")
    address = url.text.partition("?")[0] + ("" if db is None else f"?db={db}")
    with _naming(url):
        from outbox.stores.redis import RedisStore  # noqa: PLC0415 - only the store that is asked for is imported
        from outbox.stores.redis.opening import NoStore  # noqa: PLC0415 - as the store itself

        opened = functools.partial(RedisStore, address, clock=clock, **settings)
        try:
            return opened(create=False), False
        except NoStore:
            if not create:
                raise
        return opened(create=True), True


def _postgres(url: Url, create: bool, clock: Clock | None) -> Store:
    dsn, settings = _postgres_said(url)
    if clock is not None:
        settings["clock"] = clock
    with _naming(url):
        from outbox.stores.postgres import PostgresStore  # noqa: PLC0415 - only the store that is asked for is imported

        return PostgresStore(dsn, migrate=create, **settings)


def _postgres_migration(url: Url) -> Migration:
    dsn, settings = _postgres_said(url)
    with _naming(url):
        from outbox.stores.postgres.migrations import PostgresMigration  # noqa: PLC0415 - as the store itself

        return PostgresMigration(dsn, schema=settings.get("schema", "public"))


def _postgres_said(url: Url) -> tuple[str, dict[str, Any]]:
    """What libpq is told, and what the store is."""
    readers = {name: SETTINGS.get(name, str) for name in OPTIONS["postgresql"]}
    # A host or a port among the options is what libpq takes for several, or for the directory of a socket.
    readers |= dict.fromkeys(_LIBPQ_ALSO, str)
    said = url.settings(readers)
    settings = {name: said.pop(name) for name in list(said) if name in SETTINGS}
    if url.path.count("/") > 1 or (url.path.strip("/") == "" and "service" not in said):
        raise url.wrong("names no database: write postgresql://user@host/database")
    parts = {
        "user": url.user,
        "password": url.password,
        "host": url.host,
        "port": url.port,
        "dbname": url.path.strip("/"),
        **said,
    }
    quoted_parts = (
        f"{name}={_libpq_quoted(str(value))}" for name, value in parts.items() if value not in ("", None)
    )
    return " ".join(quoted_parts), settings


_LIBPQ_ALSO: Final = ("password", "user", "sslpassword")


def _libpq_quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _settings(url: Url, clock: Clock | None) -> dict[str, Any]:
    settings = url.settings({name: SETTINGS[name] for name in OPTIONS[url.scheme]})
    return settings if clock is None else {**settings, "clock": clock}


@contextlib.contextmanager
def _naming(url: Url) -> Iterator[None]:
    """What a store refuses, or needs and has not got, is told with the URL that asked for it."""
    try:
        yield
    except ConfigurationError as error:
        raise url.wrong(str(error)) from None
    except ModuleNotFoundError as error:
        raise url.wrong(str(error)) from error


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
    "postgresql": _postgres,
    "postgres": _postgres,
    "sqs": open_sqs,
}
MIGRATIONS: Final[Mapping[str, Callable[[Url], Migration]]] = {
    "postgresql": _postgres_migration,
    "postgres": _postgres_migration,
    "redis": _RedisMigration,
    "rediss": _RedisMigration,
    "unix": _RedisMigration,
}
"""Of the stores that a person makes, or brings up to date."""
