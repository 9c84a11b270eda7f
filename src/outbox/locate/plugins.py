"""Stores and transports of others: by the scheme of an entry point, or by a ``python:`` URL.

A distribution offers a scheme by an entry point of its name in the group
``outbox.stores`` or ``outbox.transports``; the object is a
:class:`StoreFactory` or a :class:`TransportFactory`::

    [project.entry-points."outbox.stores"]
    journal = "journal_store:from_url"

A ``python:package.module:factory?key=value`` URL needs no entry point: the
factory is called with its options, each a keyword argument and a string.

What is installed is looked up where a scheme is none of ours, and not before.
A plug-in is a stranger: whatever it raises becomes one error that names it,
and what a URL hides is taken out of its words, and out of all that a transport
reports later.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import attrs

from outbox.clock import Clock
from outbox.errors import ConfigurationError, OutboxError
from outbox.protocols import Guarantee, Store, Transport
from outbox.values import printable, words_of

from .discreet import discreet
from .grammar import Url
from .masking import secrets_in, without
from .schemes import PYTHON

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["StoreFactory", "TransportFactory", "open_store", "open_transport", "schemes"]

T = TypeVar("T")

_LOG: Final = logging.getLogger("outbox.locate")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII)
_DOTTED: Final = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_FACTORY: Final = re.compile(rf"{_DOTTED}:{_DOTTED}", re.ASCII)
_STORE_VERBS: Final = ("put", "claim", "extend", "settle", "close")
_TRANSPORT_VERBS: Final = ("deliver", "close")


class StoreFactory(Protocol):
    """What an entry point of ``outbox.stores`` leads to."""

    def __call__(self, url: Url, /, *, create: bool, clock: Clock | None) -> Store:
        """Open the store that *url* names.

        Args:
            url: Taken apart; ``url.settings`` reads its options, and
                ``url.wrong`` makes the error for what cannot be used.
            create: Whether one that is not there is made, and one in an older format brought to yours.
            clock: What decides what is due; None is the system's.

        Raises:
            ConfigurationError: it cannot be used, or is not there and *create* is false.
            StoreError: it is there and cannot be opened.
        """
        ...


class TransportFactory(Protocol):
    """What an entry point of ``outbox.transports`` leads to."""

    def __call__(self, url: Url, /, *, password: str | None) -> Transport:
        """The transport that *url* names; it connects when it first delivers.

        Args:
            url: Taken apart; see :class:`StoreFactory`.
            password: From where passwords are configured, for the user whom
                *url* names; ``url.password``, where there is one, goes before it.

        Raises:
            ConfigurationError: it cannot be used.
        """
        ...


def schemes(what: str) -> list[str]:
    """The schemes that installed distributions offer for a store or a transport, sorted."""
    return sorted({entry.name for entry in _installed(what)})


def open_store(url: Url, *, create: bool, clock: Clock | None) -> Store:
    """The store of another's making that *url* names.

    Raises:
        ConfigurationError: it is not there, does not load, or makes no store.
        OutboxError: whatever its factory raised of these.
    """
    plugin = _PlugIn.of(url, None)
    made: Any = plugin.makes(_STORE_VERBS, create=create, clock=clock)
    with plugin.closing_refused(made):
        plugin.require_guarantees(made)
    store: Store = made
    return store


def open_transport(url: Url, *, password: str | None) -> Transport:
    """The transport of another's making that *url* names; raises as :func:`open_store` does."""
    plugin = _PlugIn.of(url, password)
    if password and url.scheme == PYTHON:
        _LOG.warning("a password is set and not used: %s is given nothing but its options", url.shown)
    transport: Transport = discreet(plugin.makes(_TRANSPORT_VERBS, password=password), plugin.secrets)
    return transport


@attrs.frozen
class _PlugIn:
    """One factory that is none of ours, and how its errors are told."""

    url: Url
    entry: EntryPoint
    secrets: frozenset[str] = attrs.field(repr=False)

    @classmethod
    def of(cls, url: Url, password: str | None) -> _PlugIn:
        entry = _named_outright(url) if url.scheme == PYTHON else _offered(url)
        return cls(url, entry, secrets_in(url.text) | ({url.password or "", password or ""} - {""}))

    def makes(self, verbs: Sequence[str], **terms: Any) -> Any:
        """What the factory returned, seen to have the *verbs*."""
        factory = self._asked("cannot be loaded", self.entry.load)
        if not callable(factory):
            raise self._wrong(f"is {_kind(factory)}, which cannot be called")
        if self.url.scheme == PYTHON:
            made = self._asked("failed", lambda: factory(**self.url.options))
        else:
            made = self._asked("failed", lambda: factory(self.url, **terms))
        with self.closing_refused(made):
            self._require(made, verbs)
        return made

    def _require(self, made: Any, verbs: Sequence[str]) -> None:
        if inspect.isclass(made):
            raise self._wrong(f"returned the class {made.__qualname__}, and no object of it")
        missing = [verb for verb in verbs if not _has(made, verb)]
        if missing:
            listed = ", ".join(missing)
            raise self._wrong(f"returned {_kind(made)}, which is no {self.url.what}: it has no {listed}")

    def require_guarantees(self, store: Any) -> None:
        try:
            lacks: Any = getattr(store, "lacks", frozenset())
            well = {Guarantee(each) for each in lacks} == lacks
        except Exception:  # noqa: BLE001 - what raises is no set of guarantees either
            well = False
        if not well:
            known = ", ".join(Guarantee)
            raise self._wrong(f"made a store whose `lacks` is no set of outbox.Guarantee ({known})")

    @contextlib.contextmanager
    def closing_refused(self, made: Any) -> Iterator[None]:
        """What is refused may hold a connection or a file."""
        try:
            yield
        except ConfigurationError:
            with contextlib.suppress(Exception):
                made.close()
            raise

    def _asked(self, fails: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except (Exception, SystemExit) as error:
            clean = all(self._said(each) == words_of(each) for each in _chain(error))
            if clean and self._speaks_for_itself(error):
                raise
            text = f"{fails}: {type(error).__name__}: {self._said(error)}"
            raise self._wrong(text) from (error if clean else None)

    def _speaks_for_itself(self, error: BaseException) -> bool:
        """A store that is there and cannot be opened says so; a setting is refused with the URL's name."""
        if isinstance(error, ConfigurationError):
            return words_of(error).startswith(str(self.url.wrong("")))
        return isinstance(error, OutboxError)

    def _said(self, error: BaseException) -> str:
        return without(words_of(error), self.secrets)

    def _wrong(self, reason: str) -> ConfigurationError:
        return self.url.wrong(printable(f"{_name(self.entry)} {reason}"))


def _named_outright(url: Url) -> EntryPoint:
    if url.host or not _FACTORY.fullmatch(url.path):
        raise url.wrong(
            "write python:package.module:factory, two dotted names with a colon between, and ?key=value behind"
        )
    from importlib.metadata import EntryPoint  # noqa: PLC0415 - slow to load, and seldom needed

    return EntryPoint(name=PYTHON, value=url.path, group=f"outbox.{url.what}s")


def _offered(url: Url) -> EntryPoint:
    entries = [entry for entry in _installed(url.what) if entry.name == url.scheme]
    if len({entry.value for entry in entries}) > 1:
        both = " and ".join(sorted(map(_name, entries)))
        raise url.wrong(f"two plug-ins offer {url.scheme}:, {both}; uninstall one of them")
    return entries[0]


def _installed(what: str) -> list[EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow to load, and seldom needed

    group = f"outbox.{what}s"
    try:
        return [entry for entry in entry_points(group=group) if _SCHEME.fullmatch(entry.name)]
    except Exception as error:
        raise ConfigurationError(
            f"what is installed cannot be read for entry points of {group}: "
            f"{type(error).__name__}: {printable(str(error))}"
        ) from error


def _name(entry: EntryPoint) -> str:
    if entry.name == PYTHON:
        return entry.value
    return f"the plug-in {entry.value} of {_distribution(entry)}"


def _distribution(entry: EntryPoint) -> str:
    try:
        return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
    except Exception:  # noqa: BLE001 - its metadata are a stranger's, and only named here
        return "a distribution without a name"


def _has(made: Any, verb: str) -> bool:
    try:
        return callable(getattr(made, verb, None))
    except Exception:  # noqa: BLE001 - an attribute that raises is none
        return False


def _kind(made: Any) -> str:
    return "None" if made is None else f"an object of {type(made).__qualname__}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """What a traceback of *error* shows."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
