"""Words of a command that a person copies into a shell."""

from __future__ import annotations

import shlex
from typing import Final

__all__ = ["word"]

_BYTES: Final = range(0xDC80, 0xDD00)
"""What Python reads bytes of a command line as that are no text."""


def word(text: str) -> str:
    """One word, which a shell reads as *text*; what would steer a terminal stands there in escapes: ``$'…'``."""
    return shlex.quote(text) if text.isprintable() else f"$'{''.join(map(_escaped, text))}'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    if char.isprintable():
        return char
    number = ord(char)
    if number in _BYTES:
        return f"\\x{number - 0xDC00:02x}"
    # Three digits at most are read of an octal number, and any number of others.
    return f"\\{number:03o}" if char.isascii() else f"\\U{number:08x}"
