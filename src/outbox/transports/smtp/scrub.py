"""Text of a server fit to be shown, also where it repeats what it was told in confidence."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Final

from outbox.values import printable

__all__ = ["Scrub", "base64_of"]

_STARS: Final = "***"
_SHOWN: Final = 4096
_SHORT: Final = 4
_RUN: Final = re.compile(r"[\w+/=.~-]{8,}")
_LEAST: Final = 8
"""So many characters of a secret, and nothing beside, are taken for a piece of it."""
_PIECE: Final = 12
"""So many are within something longer, too."""
_STRIDE: Final = _PIECE - _LEAST + 1
"""A piece holds one of the shorter ones that begin at each multiple of it."""


class Scrub:
    """Puts ``***`` for *secret*, as it is written and in the forms *sent*, whole or in part; the rest is escaped.

    It is asked of every message's last reply, so what there is to look for is
    made once, and most text is found to hold none of it at a few glances.
    """

    def __init__(self, secret: str, sent: Iterable[str]) -> None:
        misread = secret.encode("latin-1", "ignore").decode("utf-8", "backslashreplace")
        secrets = [each for each in (secret, misread, base64_of(secret).decode(), *sent) if each]
        self._long = [each for each in secrets if len(each) >= _SHORT]
        # A very short one is taken for it only where it stands apart: within other words, stars would spell it.
        self._short = [
            re.compile(rf"(?<!\w){re.escape(each)}(?!\w)") for each in secrets if len(each) < _SHORT
        ]
        self._all = "\0".join(secrets)

    def __repr__(self) -> str:
        return "Scrub(...)"

    def __call__(self, text: str) -> str:
        for secret in self._long:
            text = text.replace(secret, _STARS)
        for short in self._short:
            text = short.sub(_STARS, text)
        return printable(_RUN.sub(self._whole_or_stars, text[:_SHOWN]))

    def _whole_or_stars(self, found: re.Match[str]) -> str:
        run = found[0]
        if not any(run[n : n + _LEAST] in self._all for n in range(0, len(run) - _LEAST + 1, _STRIDE)):
            return run
        size = min(len(run), _PIECE)
        holds = any(run[n : n + size] in self._all for n in range(len(run) - size + 1))
        return _STARS if holds else run


def base64_of(text: str) -> bytes:
    return base64.b64encode(text.encode())
