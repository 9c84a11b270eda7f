"""The form of all URLs, ours and those of plug-ins: taken apart strictly, shown without their passwords."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from outbox.errors import ConfigurationError
from outbox.values import quoted

from .hints import did_you_mean
from .masking import masked, secrets_in, without
from .schemes import check_scheme

__all__ = ["Url"]

_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WORDS: Final = re.compile(r"\s*\w+\s*=")
_LIBPQ: Final = (
    ": write postgresql://user@host:5432/database; libpq's own words are for PostgresStore in a program"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ENCODE: Final[Mapping[str, str]] = {
    "store": "in a file name write # as %23, ? as %3F",
    "transport": "in a user name or password write / as %2F, # as %23, ? as %3F, @ as %40",
}


@attrs.frozen(kw_only=True, repr=False)
class Url:
    """A URL taken apart, its ``%…`` resolved; its ``repr`` is how it may be shown.

    Attributes:
        what: ``"store"`` or ``"transport"``: what it is to name.
        text: As it was written, with the password that may be in it.
        shown: The same with ``***`` in the password's place.
        user, host, path: ``""`` where there is none.
        password, port: None where there is none.
        options: What stands behind the ``?``, each name once.
    """

    what: str
    text: str
    shown: str
    scheme: str
    user: str
    password: str | None
    host: str
    port: int | None
    path: str
    options: Mapping[str, str]

    def __repr__(self) -> str:
        return f"<Url {self.shown}>"

    @classmethod
    def parse(cls, what: str, text: str) -> Url:
        """Take *text* apart; raises ConfigurationError, whose text says what to write."""
        shown = masked(text)
        scheme, colon, rest = text.partition(":")
        if not text.isprintable() or " " in text:
            raise ConfigurationError(
                f"{what} {shown!r}: a URL holds no blank and no control character"
                + (_LIBPQ if _WORDS.match(text) else "")
            )
        check_scheme(what, shown, scheme if colon else "")
        if "#" in rest:
            raise ConfigurationError(f"{what} {shown}: '#' has no meaning here; {_ENCODE[what]}")
        if _ESCAPE.search(rest):
            raise ConfigurationError(f"{what} {shown}: a % begins %20 and the like: write % itself as %25")
        try:
            return cls._split(what, shown, text)
        except UnicodeDecodeError:
            raise ConfigurationError(
                f"{what} {shown}: what its %… stand for is not UTF-8 text: write % itself as %25"
            ) from None
        except ConfigurationError:
            raise
        except ValueError:
            # Its text may quote the password.
            raise ConfigurationError(f"{what} {shown}: not a URL; {_ENCODE[what]}") from None

    @classmethod
    def _split(cls, what: str, shown: str, text: str) -> Url:
        parts = urlsplit(text)
        options = parse_qsl(
            parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), errors="strict"
        )
        parsed = cls(
            what=what,
            text=text,
            shown=shown,
            scheme=parts.scheme,
            user=unquote(parts.username or "", errors="strict"),
            password=None if parts.password is None else unquote(parts.password, errors="strict"),
            host=unquote(parts.hostname or "", errors="strict"),
            port=_port_of(what, shown, parts),
            path=unquote(parts.path, errors="strict"),
            options=dict(options),
        )
        if len(parsed.options) < len(options):
            raise parsed.wrong("an option is given twice")
        if any(map(_CONTROL.search, parsed.texts)):
            raise parsed.wrong("one of its %… stands for a control character")
        return parsed

    @property
    def texts(self) -> Sequence[str]:
        return self.user, self.password or "", self.host, self.path, *self.options.values()

    def wrong(self, reason: str) -> ConfigurationError:
        """The error to raise because of *reason*: it names the URL, without its password."""
        return ConfigurationError(f"{self.what} {self.shown}: {reason}")

    def settings(self, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
        """The options, each read by its reader; an unknown one is refused.

        Raises:
            ConfigurationError: there is one that *known* does not name, or
                its reader raised a ValueError.
        """
        found: dict[str, Any] = {}
        for name, value in self.options.items():
            if name not in known:
                listed = ", ".join(known) or "none"
                raise self.wrong(
                    f"unknown option {quoted(name, 40)}{did_you_mean(name, known)} (known: {listed})"
                )
            try:
                found[name] = known[name](value)
            except (ConfigurationError, ValueError) as error:
                # It may quote the value, and that what was mistaken for its end.
                raise self.wrong(f"option {name}: {without(str(error), secrets_in(self.text))}") from None
        return found


def _port_of(what: str, shown: str, parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        # Not quoted: it may be the beginning of a password.
        raise ConfigurationError(
            f"{what} {shown}: not a URL: what follows the host and a colon is no port, a number from 1 to 65535; "
            f"{_ENCODE[what]}"
        ) from None
