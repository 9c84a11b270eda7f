"""The files that hold one secret: how they are read, and who else may."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from outbox.errors import ConfigurationError

__all__ = ["guarded", "others_may_read", "secret_in"]

_LOG: Final = logging.getLogger("outbox.locate")
_MAX_SECRET: Final = 16 << 10


def guarded(what: str, path: Path) -> str:
    """What it holds, with a warning where others can have it, too."""
    secret = secret_in(what, path)
    if others_may_read(path):
        _LOG.warning("others may read the %s file %s: chmod 600 it", what, path)
    return secret


def secret_in(what: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            secret = file.read(_MAX_SECRET + 1).decode()
    except OSError as error:
        raise ConfigurationError(f"cannot read the {what} file {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"the {what} file {path} is not UTF-8 text") from None
    if len(secret) > _MAX_SECRET:
        raise ConfigurationError(f"the {what} file {path} is too long for a {what}")
    secret = secret.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ConfigurationError(f"the {what} file {path} is empty")
    if secret.startswith("\ufeff"):
        raise ConfigurationError(
            f"the {what} file {path} begins with a byte order mark (U+FEFF), which would be sent: save it without one"
        )
    if "\n" in secret or "\r" in secret:
        raise ConfigurationError(
            f"the {what} file {path} holds more than one line: leave the {what} alone in it"
        )
    return secret


def others_may_read(path: Path) -> bool:
    try:
        return os.name == "posix" and bool(path.stat().st_mode & 0o004)
    except OSError:
        return False
