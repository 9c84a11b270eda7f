"""URLs as they may be shown: without their passwords, also where they are mistyped.

What is mistyped ends in an error text, and that in a log.  So the place of a
password is guessed generously, and rather too much is hidden than too little.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from outbox.values import frozen_mapping, printable

__all__ = ["OPTIONS", "Hiding", "holds_secret", "masked", "secrets_in", "without"]

_OF_ALL_STORES: Final = (
    *("remember", "remember_at_most", "keep_delivered", "keep_content", "discard_after"),
    *("max_messages", "max_bytes", "poll"),
)
_OF_STORES: Final = (*_OF_ALL_STORES, "min_free")
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = frozen_mapping(
    {
        "sqlite": (*_OF_STORES, "prefix", "busy_timeout"),
        "file": _OF_STORES,
        "redis": (*_OF_ALL_STORES, "prefix", "timeout", "ca_file", "client_cert", "client_key", "db"),
        "postgresql": (
            *(name for name in _OF_STORES if name != "min_free"),
            *("schema", "max_connections", "patience", "timeout", "notify", "listen", "prepare"),
            *(
                "host",
                "hostaddr",
                "port",
                "sslmode",
                "sslrootcert",
                "sslcert",
                "sslkey",
                "sslcrl",
                "ssl_min_protocol_version",
            ),
            *("channel_binding", "gssencmode", "krbsrvname", "service", "passfile", "target_session_attrs"),
            *("load_balance_hosts", "connect_timeout", "tcp_user_timeout", "keepalives", "keepalives_idle"),
            *("keepalives_interval", "keepalives_count", "application_name", "options", "client_encoding"),
        ),
        "smtp": (
            *("timeout", "security", "local_hostname", "source_address"),
            *("ca_file", "client_cert", "client_key", "pipelining", "dialogue"),
        ),
        "sqs": ("profile", "endpoint", "blobs", "max_message", "poll", "queues", "create"),
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
_PASSWORD_ALONE: Final = re.compile(r"(?:rediss?|unix):", re.IGNORECASE)
"""Where one word before the @ is a password as a rule: their servers have no users, unless somebody makes some."""
_KEYS: Final = re.compile(r"sqs:/*", re.IGNORECASE)
"""Where both words before the @ are hidden: neither belongs there, and a key is easily swapped with its id."""
_ONE_WORD: Final = re.compile(rf"{_PASSWORD_ALONE.pattern}/*[^:@/?#]+@[^@]*$", re.IGNORECASE)
_SAID_OF_ONE_WORD: Final = frozenset(
    {
        *(
            "store",
            "redis",
            "rediss",
            "unix",
            "there",
            "is",
            "a",
            "user",
            "users",
            "and",
            "no",
            "password",
            "before",
        ),
        *("the", "write", "host", "or", "where", "server", "has", "outbox"),
    }
)
_HOST: Final = re.compile(r"[^:?]*:")
_PORT: Final = re.compile(r"\d*$|\d+[/?#]")
_VALUE: Final = re.compile(r"&[^=&]*=?")
_SHORT: Final = 4
_CUT: Final = re.compile(r"…|\.\.\.")
"""What stands where a text was cut, by us and by others."""
_OPTION: Final = re.compile(rf"(?P<shown>[?&](?!(?:{_NAMES})=)(?:[^=&]*=)?).+", re.DOTALL)
_MAIL: Final = re.compile(r"((?:smtps?|lmtp):/*+[^/?#;]*[/#;])[^?]+")
"""The URL of a mail server, and what has no meaning behind its host: a path, a fragment, parameters."""
_BEHIND: Final = re.compile(r"(\?[^;#]*[;#]).+", re.DOTALL)
"""What follows options in a way that separates nothing here."""

_SAID: Final = re.compile(
    r"""((?:^|[\s'"])(?:\w*(?:password|passwd|pwd)|\w+_(?:secret|token|auth|(?:secret|access)\w*_key))\s*=\s*).+""",
    re.DOTALL | re.IGNORECASE,
)
"""A password as libpq has it said, or as a shell has it set; neither is a URL: ``host=db password=…``, ``PGPASSWORD=… …``."""


def masked(url: str) -> str:
    """The URL as it may be shown: ``***`` where a password stands, or may stand; printable."""
    return printable(_hidden(url))


def holds_secret(url: str) -> bool:
    """Whether something in it is not to be shown."""
    return _hidden(url) != url


def secrets_in(url: str) -> frozenset[str]:
    """What :func:`masked` hides of *url*: each piece as it is written, and as it is read; a URL within has its own.

    But for a name that stands alone before the @ of a Redis server and is in
    a word of what is said of that: nobody connects with it, and to hide it in
    our own text would make that unreadable, and tell the name.
    """
    pieces = set(_pieces(url))
    if _ONE_WORD.match(url):
        pieces = {piece for piece in pieces if not any(piece.lower() in word for word in _SAID_OF_ONE_WORD)}
    within = [piece for piece in pieces if "@" in piece and piece != url]
    return frozenset(pieces.union(*map(secrets_in, within))) - {""}


def _pieces(url: str) -> Iterator[str]:
    shown = "(.*)".join(map(re.escape, _hidden(url).split(_STARS)))
    found = re.fullmatch(shown, url, re.DOTALL)
    for part in found.groups() if found else ():
        for piece in (part, *_VALUE.split(part)):
            yield from (piece, unquote(piece), unquote_plus(piece))


class Hiding:
    """Puts ``***`` for each of *secrets*, in either case of letters, also where it is quoted or cut short.

    A very short one is taken for it only as it is written, and where it
    stands apart.  What there is to look for is made once, and most text is
    found to hold none of it at a glance.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for form in _forms(secret)}
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        each = (
            f"(?i:{re.escape(form)})" if len(form) >= _SHORT else rf"(?<!\w){re.escape(form)}(?!\w)"
            for form in longest_first
        )
        self._low = [form.lower() for form in longest_first]
        self._pattern = re.compile("|".join(each))

    def __repr__(self) -> str:
        return "Hiding(...)"

    def may_find(self, text: str) -> bool:
        """Whether there may be something to hide in it: a glance for who has many texts."""
        low = text.lower()
        return bool(self._low) and (any(form in low for form in self._low) or _CUT.search(text) is not None)

    def __call__(self, text: str) -> str:
        low = text.lower()
        if any(form in low for form in self._low):
            text = self._pattern.sub(_STARS, text)
        return _without_beginnings(text, self._low) if self._low and _CUT.search(text) else text


def without(text: str, secrets: Iterable[str]) -> str:
    """*text* as :class:`Hiding` has it."""
    return Hiding(secrets)(text)


def _forms(secret: str) -> Iterator[str]:
    """It, and what it becomes on its way into a text: as ``repr`` has it, in JSON, HTML, a URL, base64."""
    yield secret
    if len(secret) < _SHORT:
        return
    # For who has something to hide: one of them brings all of HTML's names.
    import base64  # noqa: PLC0415
    import html  # noqa: PLC0415

    octets = secret.encode(errors="surrogatepass")
    # Beside both quotation marks, and beside one: what repr escapes depends on what else is in the text.
    for shown in (repr(secret)[1:-1], ascii(secret)[1:-1], repr(octets)[2:-1]):
        yield from (shown, shown.replace("'", r"\'"))
    yield from (json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
    yield from (html.escape(secret), html.escape(secret, quote=False))
    yield from (quote(octets), quote(octets, safe=""), quote_plus(octets))
    yield base64.b64encode(octets).decode()
    # What is escaped on its way into a report.
    yield printable(secret)


def _without_beginnings(text: str, forms: Sequence[str]) -> str:
    """A secret that was cut short may be known by what is left of it."""
    shown, begin = "", 0
    for cut in _CUT.finditer(text):
        shown += _without_beginning(text[begin : cut.start()], forms) + cut[0]
        begin = cut.end()
    return shown + text[begin:]


def _without_beginning(part: str, forms: Sequence[str]) -> str:
    low = part.lower()
    # At a glance it is the beginning of nearly none.
    likely = [form for form in forms if low[-_SHORT:] in form]
    ends = (n for form in likely for n in range(_SHORT, len(form)) if low.endswith(form[:n]))
    longest = max(ends, default=0)
    return part[: len(part) - longest] + _STARS if longest else part


def _hidden(url: str) -> str:
    if not _PATH.match(url):
        url = _MAIL.sub(rf"\1{_STARS}", _without_password(url))
    url = _BEHIND.sub(rf"\1{_STARS}", _SAID.sub(rf"\1{_STARS}", url))
    return _OPTION.sub(rf"\g<shown>{_STARS}", url)


def _without_password(url: str) -> str:
    at = url.rfind("@")
    # Without slashes the first colon may as well be the one between user and password.
    begin = _end(_SLASHES.match(url))
    colon = url.find(":", begin)
    # What holds one of these is no user's name there, so that its colon separates nothing.
    alone = not 0 <= colon < at or re.search("[@/?#]", url[begin:colon])
    keys = _end(_KEYS.match(url))
    if keys and at >= 0 and {":", "@"} & set(url[keys:].partition("?")[0]):
        return f"{url[:keys]}{_STARS}{url[at:]}"
    if at >= 0 and alone and _PASSWORD_ALONE.match(url):
        return f"{url[:begin]}{_STARS}{url[at:]}"
    if 0 <= colon < at:
        return f"{url[: colon + 1]}{_STARS}{url[at:]}"
    host = max(at + 1, _end(_SCHEME.match(url)))
    head = _end(_HOST.match(url, host))
    # The host was forgotten, and this is user:password, where no port stands behind the colon.
    if not head or url.startswith("[", host) or _PORT.match(url, head):
        return url
    return url[: keys or head] + _STARS


def _end(match: re.Match[str] | None) -> int:
    return match.end() if match else 0
