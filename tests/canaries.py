"""The words by which a secret of the tests is known wherever it comes out, and what no line may hold.

A password, a token or a body that a test makes up has one of the words in it;
``scan.py`` then looks for them in whatever the product says.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["BODY", "PASSWORD", "TOKEN", "leaks"]

PASSWORD: Final = "c4narypassword"
TOKEN: Final = "c4narytoken"
BODY: Final = "c4narybody"

_WORDS: Final[Mapping[str, str]] = {"a password": PASSWORD, "a token": TOKEN, "a body": BODY}


def _base64(word: str) -> Iterator[str]:
    """What is the same of it in whatever it is encoded with, at each of the three places it may stand in."""
    for before in ("", "x", "xx"):
        # The first and the last characters hold bits of the neighbours.
        start, end = (8 * len(before) + 5) // 6, 8 * (len(before) + len(word)) // 6
        yield base64.b64encode(f"{before}{word}yyy".encode()).decode()[start:end]


def _spelled(word: str) -> Iterator[tuple[str, str]]:
    """How a word may be written where case does not matter."""
    yield word, ""
    yield word.encode().hex(), "hexadecimal"
    yield "".join(f"%{ord(char):02x}" for char in word), "percent-encoded"
    yield "\0".join(word), "UTF-16"
    yield r"\x00".join(word), "UTF-16, escaped"


_IN_ANY_CASE: Final = [(text, kind, how) for kind, word in _WORDS.items() for text, how in _spelled(word)]
_AS_IT_STANDS: Final = [(text, kind, "base64") for kind, word in _WORDS.items() for text in _base64(word)]

# All of C0 but the tabulator and the line feed, DEL and C1; what turns the direction of text or ends a line
# unseen; halves of a surrogate pair, which are bytes that are no text.
_CONTROL: Final = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def leaks(text: str, *, lines: bool = True) -> Iterator[tuple[str, str]]:
    """What *text* holds that nobody may see: of which kind, and around what.

    Args:
        lines: Whether it may be of several lines.
    """
    low = text.lower()
    for haystack, needles in ((low, _IN_ANY_CASE), (text, _AS_IT_STANDS)):
        for needle, kind, how in needles:
            at = haystack.find(needle)
            if at >= 0:
                yield f"{kind}{how and f' ({how})'}", _around(text, at)
    flat = text.replace("\n", "") if lines else text
    if not flat.isprintable():
        found = _CONTROL.search(text) if lines else re.search(r"\n", text) or _CONTROL.search(text)
        if found is not None:
            yield "a control character", _around(text, found.start())


def _around(text: str, at: int) -> str:
    return ascii(text[max(0, at - 60) : at + 60])
