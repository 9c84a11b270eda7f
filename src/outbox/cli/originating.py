"""Where bare names belong, who is meant by them, and who runs this command."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs

from outbox.address import domain, parse_address_list, parse_mailbox
from outbox.errors import ConfigurationError, InvalidMessage
from outbox.locate import Config, entries
from outbox.values import printable, quoted

from .aliases import Aliases
from .exits import CommandError, Exit

__all__ = ["SYSTEM_ALIASES", "Named", "Origin", "aliases_of", "origin", "system_domain"]

SYSTEM_ALIASES: Final = Path("/etc/aliases")
_MAIL_NAME: Final = Path("/etc/mailname")
_NOWHERE: Final = "nowhere.invalid"
"""Completes bare names while nobody knows the domain: an alias may lead on, and what is left is refused."""
_HIMSELF: Final = re.compile(r'"(?:[^"\\]|\\.)*"|(?:\A|(?<=,))\s*\\([^\s,"\\@]+)(?=\s*(?:,|\Z))')
"""A quoted string, or ``\\root`` alone between commas."""


@attrs.frozen
class Named:
    """Whom words name, and who of them is meant himself, whatever aliases he has."""

    addresses: Sequence[str]
    himself: frozenset[str]


@attrs.frozen
class Origin:
    """The domain of bare names, if it is known, and the aliases."""

    domain: str | None
    aliases: Aliases

    @classmethod
    def of(cls, config: Config) -> Origin:
        """What is configured, else what the system says.

        Raises:
            ConfigurationError: the aliases cannot be read.
        """
        return cls(config.domain or system_domain(), aliases_of(config))

    @property
    def name(self) -> str:
        """What stands behind bare names for now."""
        return self.domain or _NOWHERE

    @property
    def shown(self) -> str:
        """What this system calls itself."""
        return self.domain or "localhost"

    @property
    def user(self) -> str:
        """The address of who runs this."""
        return parse_mailbox(_login(), origin=self.name)

    def address(self, text: str, what: str = "the recipient") -> str:
        """An address of the command line; ``Ann <ann@example.org>`` is none.

        Raises:
            InvalidMessage: it is none.
        """
        try:
            return parse_mailbox(text.strip().removeprefix("<").removesuffix(">"), origin=self.name)
        except InvalidMessage as error:
            raise InvalidMessage(f"{what}: {error}") from None

    def named(self, words: Iterable[str]) -> Named:
        """Whom words of the command line name, each of them one or more, as in a header or as ``\\root``.

        Raises:
            InvalidMessage: a word names nobody, or there is no telling whom.
        """
        himself: set[str] = set()

        def plain(found: re.Match[str]) -> str:
            if found[1] is None:
                return found[0]
            himself.add(parse_mailbox(found[1], origin=self.name))
            return found[1]

        try:
            addresses = [each for word in words for each in self._listed(_HIMSELF.sub(plain, word))]
        except InvalidMessage as error:
            raise InvalidMessage(f"the recipient: {error}") from None
        return Named(addresses, frozenset(himself))

    def _listed(self, word: str) -> Sequence[str]:
        found = parse_address_list(word, origin=self.name)
        if not found:
            raise InvalidMessage(f"{quoted(word)} names nobody")
        return found

    def meant(self, recipients: Iterable[str], himself: Container[str] = ()) -> Sequence[str]:
        """Who gets what is for them: the aliases of this domain followed but for who is meant *himself*, each once.

        Raises:
            ConfigurationError: an alias cannot be followed, or nobody is meant.
            CommandError: a bare name is left, and there is no domain.
        """
        found: dict[str, str] = {}
        named = tuple(recipients)
        for recipient in named:
            for each in [recipient] if recipient in himself else self._meant(recipient):
                self.check(each, "the recipient")
                host = domain(each)
                found.setdefault(each.removesuffix(host) + host.lower(), each)
        if named and not found:
            raise self.aliases.empty(named[0].rpartition("@")[0])
        return tuple(found.values())

    def _meant(self, recipient: str) -> list[str]:
        local, host = recipient.rpartition("@")[0], domain(recipient)
        if host.lower() != self.name.lower():
            return [recipient]
        return [parse_mailbox(each, origin=self.name) for each in self.aliases.expanded(local)]

    def check(self, address: str, what: str) -> None:
        """Raise CommandError where a bare name has no domain."""
        if address and domain(address) == _NOWHERE:
            name = printable(address.rpartition("@")[0], 80)
            raise CommandError(
                Exit.NO_USER,
                f'{what} {name!r} has no domain and no alias: say domain = "example.org" in the configuration '
                f"file, or --domain, or add an alias",
            )


def _login() -> str:
    """Who runs this, by the system's own account of it."""
    try:
        import pwd  # noqa: PLC0415 - there is none on Windows

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return os.environ.get("USER") or os.environ.get("USERNAME") or "nobody"


def origin(config: Config, what: str) -> str:
    """The domain that completes a bare name: the configured one, else the system's mail name, else its host's.

    Raises:
        ConfigurationError: there is none; *what* needs it.
    """
    found = config.domain or system_domain()
    if found is None:
        raise ConfigurationError(
            f'{what} needs the domain of this system, and its host name has none: say domain = "example.org" in the '
            "configuration file, or --domain"
        )
    return found


def aliases_of(config: Config) -> Aliases:
    """The configured file, else the system's where it has one.

    Raises:
        ConfigurationError: it cannot be read.
    """
    if config.aliases is None and not SYSTEM_ALIASES.exists():
        return Aliases()
    return Aliases.read(config.aliases or SYSTEM_ALIASES)


def system_domain() -> str | None:
    """The one that Debian keeps in ``/etc/mailname``, else a host name that has a dot; no resolver is asked."""
    names = [socket.gethostname()]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        names.insert(0, _MAIL_NAME.read_text("utf-8").strip())
    for name in names:
        with contextlib.suppress(ConfigurationError):
            if "." in name:
                return entries.domain(name)
    return None
