"""URLs as they may be shown: without their passwords, also where they are mistyped.

What is mistyped ends in an error text, and that in a log.  So the place of a
password is guessed generously, and rather too much is hidden than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote, unquote_plus

from outbox.values import frozen_mapping, printable

__all__ = ["OPTIONS", "holds_secret", "masked", "secrets_in", "without"]

_OF_STORES: Final = (
    *("remember", "remember_at_most", "keep_delivered", "keep_content", "discard_after"),
    *("max_messages", "max_bytes", "min_free", "poll"),
)
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = frozen_mapping(
    {
        "sqlite": (*_OF_STORES, "prefix", "busy_timeout"),
        "file": _OF_STORES,
        "smtp": (
            *("timeout", "security", "local_hostname", "source_address"),
            *("ca_file", "client_cert", "client_key", "pipelining", "dialogue"),
        ),
        "python": ("path", "host", "port", "user", "username", "sender", "region"),
    }
)
"""The options of the URLs, none of which is secret; all that lead to a mail server have those of smtp:, a python: URL others beside."""

_STARS: Final = "***"
_NAMES: Final = "|".join(name for names in OPTIONS.values() for name in names)
_PATH: Final = re.compile(
    r"(?:sqlite|memory|file|(?:smtp|lmtp)\+unix):(?!//[^/])|python:[\w.]*(?::[\w.]*)?(?=\?|$)"
)
_SLASHES: Final = re.compile(r"(?:[^:/?#@]*:)?//+")
_SCHEME: Final = re.compile(rf"{_SLASHES.pattern}|(?:smtps?|lmtp|https?|postgres(?:ql)?|rediss?|sqs):/?")
_HOST: Final = re.compile(r"[^:?]*:")
_PORT: Final = re.compile(r"\d*$|\d+[/?#]")
_VALUE: Final = re.compile(r"&[^=&]*=?")
_SHORT: Final = 4
_OPTION: Final = re.compile(rf"(?P<shown>[?&](?!(?:{_NAMES})=)(?:[^=&]*=)?).+", re.DOTALL)
_MAIL: Final = re.compile(r"((?:smtps?|lmtp):/*+[^/?#;]*[/#;])[^?]+")
"""The URL of a mail server, and what has no meaning behind its host: a path, a fragment, parameters."""
_BEHIND: Final = re.compile(r"(\?[^;#]*[;#]).+", re.DOTALL)
"""What follows options in a way that separates nothing here."""


def masked(url: str) -> str:
    """The URL as it may be shown: ``***`` where a password stands, or may stand; printable."""
    return printable(_hidden(url))


def holds_secret(url: str) -> bool:
    """Whether something in it is not to be shown."""
    return _hidden(url) != url


def secrets_in(url: str) -> frozenset[str]:
    """What :func:`masked` hides of *url*: each piece as it is written, and as it is read; a URL within has its own."""
    pieces = set(_pieces(url))
    within = [piece for piece in pieces if "@" in piece and piece != url]
    return frozenset(pieces.union(*map(secrets_in, within))) - {""}


def _pieces(url: str) -> Iterator[str]:
    shown = "(.*)".join(map(re.escape, _hidden(url).split(_STARS)))
    found = re.fullmatch(shown, url, re.DOTALL)
    for part in found.groups() if found else ():
        for piece in (part, *_VALUE.split(part)):
            yield from (piece, unquote(piece), unquote_plus(piece))


def without(text: str, secrets: Iterable[str]) -> str:
    """*text* with ``***`` for each of *secrets*; a very short one is taken for it only where it stands apart."""
    for secret in sorted(secrets, key=len, reverse=True):
        pattern = re.escape(secret)
        if len(secret) < _SHORT:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        text = re.sub(pattern, _STARS, text)
    return text


def _hidden(url: str) -> str:
    if not _PATH.match(url):
        url = _MAIL.sub(rf"\1{_STARS}", _without_password(url))
    url = _BEHIND.sub(rf"\1{_STARS}", url)
    return _OPTION.sub(rf"\g<shown>{_STARS}", url)


def _without_password(url: str) -> str:
    at = url.rfind("@")
    # Without slashes the first colon may as well be the one between user and password.
    colon = url.find(":", _end(_SLASHES.match(url)))
    if 0 <= colon < at:
        return f"{url[: colon + 1]}{_STARS}{url[at:]}"
    host = max(at + 1, _end(_SCHEME.match(url)))
    head = _end(_HOST.match(url, host))
    # The host was forgotten, and this is user:password, where no port stands behind the colon.
    if not head or url.startswith("[", host) or _PORT.match(url, head):
        return url
    return url[:head] + _STARS


def _end(match: re.Match[str] | None) -> int:
    return match.end() if match else 0
