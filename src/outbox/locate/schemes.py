"""What a URL may begin with: the schemes of ours, those that are installed, and what is said of all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from outbox.errors import ConfigurationError
from outbox.values import frozen_mapping, quoted

from .hints import did_you_mean

__all__ = ["OURS", "PYTHON", "check_scheme"]

PYTHON: Final = "python"
OURS: Final[Mapping[str, tuple[str, ...]]] = frozen_mapping(
    {
        "store": (
            *("sqlite", "file", "memory"),
            *("postgresql", "postgres", "redis", "rediss", "unix", "sqs"),
        ),
        "transport": ("smtp", "smtps", "lmtp", "smtp+unix", "lmtp+unix"),
    }
)
"""By what they name, in the order in which they are listed."""
_NOT_YET: Final[Mapping[str, str]] = {
    "http": "transport",
    "https": "transport",
}


def check_scheme(what: str, shown: str, scheme: str) -> None:
    """Raise ConfigurationError where nothing of this scheme is known; *shown* is the URL as it may be shown."""
    ours = (*OURS[what], PYTHON)
    if scheme in ours:
        return
    names = ", ".join(f"{name}:" for name in ours)
    if not scheme:
        raise ConfigurationError(f"{what} {shown!r} is not a URL: it begins with one of {names}")
    other = "transport" if what == "store" else "store"
    if scheme in OURS[other]:
        raise _misplaced(what, shown, scheme, other, names)
    from .plugins import schemes  # noqa: PLC0415 - what is installed is looked up only where it is asked for

    installed = schemes(what)
    if scheme in installed:
        return
    names = ", ".join(f"{name}:" for name in (*ours, *installed))
    if _NOT_YET.get(scheme) == what:
        raise ConfigurationError(f"{what} {shown}: {scheme}: is not in this release (known: {names})")
    if scheme in _NOT_YET or scheme in schemes(other):
        raise _misplaced(what, shown, scheme, other, names)
    hint = did_you_mean(scheme.lower(), (*ours, *installed))
    raise ConfigurationError(f"{what} {shown}: unknown scheme {quoted(scheme, 40)}{hint} (known: {names})")


def _misplaced(what: str, shown: str, scheme: str, other: str, names: str) -> ConfigurationError:
    return ConfigurationError(f"{what} {shown}: {scheme}: names a {other}, not a {what} (known: {names})")
