"""Text of a server fit to be shown, also where it repeats what it was told in confidence."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from outbox.values import printable

__all__ = ["Scrub", "base64_of", "scrubbed"]

_STARS: Final = "***"
_SHOWN: Final = 4096
_SHORT: Final = 4
_PIECE: Final = 8
"""So many characters of a secret, one behind the other, are a piece of it."""
_GLANCE: Final = 4
_STRIDE: Final = _PIECE - _GLANCE + 1
"""A piece holds one of the shorter ones that begin at each multiple of it."""
_LONG: Final = 12
"""Of a piece so long the neighbours are hidden, too: they may be the rest of it, in a form that nobody thought of."""
_RUN: Final = re.compile(r"[\w+/=.~-]+")
_GAP: Final = re.compile(r"\s+(?:[245]\.\d{1,3}\.\d{1,3}\s+)?")
"""What may stand between two halves of a word: blanks, or the beginning of a reply's next line."""
_CHARACTER: Final = re.compile(rf"(?P<gap>{_GAP.pattern})|.", re.DOTALL)
_DECODED: Final = re.compile(rf"(?P<gap>{_GAP.pattern}|\+)|%(?P<code>[0-9A-Fa-f]{{2}})|.", re.DOTALL)

_Spans: TypeAlias = list[tuple[int, int]]


class Scrub:
    """Puts ``***`` for *secret*, as it is written and in the forms *sent*, whole or in part; the rest is escaped.

    A part is any eight characters of it: in either case, percent-encoded, and
    also where blanks or the end of a reply's line stand between them.

    It is asked of every message's last reply, so what there is to look for is
    made once, and most text is found to hold none of it at a few glances.
    """

    def __init__(self, secret: str, sent: Iterable[str]) -> None:
        misread = secret.encode("latin-1", "ignore").decode("utf-8", "backslashreplace")
        octets = secret.encode().decode("latin-1")
        secrets = {each for each in (secret, misread, octets, base64_of(secret).decode(), *sent) if each}
        whole = sorted((each for each in secrets if len(_plain(each)) < _PIECE), key=len, reverse=True)
        # A very short one is taken for it only where it stands apart: within other words, stars would spell it.
        patterns = [
            re.escape(each) if len(each) >= _SHORT else rf"(?<!\w){re.escape(each)}(?!\w)" for each in whole
        ]
        self._whole = re.compile("|".join(patterns), re.IGNORECASE) if patterns else None
        pieces = [_plain(each) for each in secrets if len(_plain(each)) >= _PIECE]
        self._all = "\0".join(pieces)
        self._glances = frozenset(
            each[n : n + _GLANCE] for each in pieces for n in range(len(each) - _GLANCE + 1)
        )

    def __repr__(self) -> str:
        return "Scrub(...)"

    def __call__(self, text: str) -> str:
        text = text[:_SHOWN]
        if self._may_hold(text):
            text = _starred(text, [*self._found(text, _CHARACTER), *self._found(text, _DECODED)])
        if self._whole is not None:
            text = self._whole.sub(_STARS, text)
        return printable(text)

    def _may_hold(self, text: str) -> bool:
        """A few glances; it says no of nearly every text."""
        plain = _plain(text)
        glances = range(0, len(plain) - _GLANCE + 1, _STRIDE)
        return "%" in text or any(plain[n : n + _GLANCE] in self._glances for n in glances)

    def _found(self, text: str, characters: re.Pattern[str]) -> Iterator[tuple[int, int]]:
        """Where in *text*, read so, each piece begins and ends."""
        plain, spans = _read(text, characters)
        for n in range(len(plain) - _PIECE + 1):
            if plain[n : n + _PIECE] in self._all:
                yield spans[n][0], spans[n + _PIECE - 1][1]


def scrubbed(scrub: Callable[[str], str], lines: Sequence[str]) -> Sequence[str]:
    """The lines of one reply, each as *scrub* has it; neither of two that have a piece in common is shown."""
    shown = [scrub(line) for line in lines]
    for number in range(len(lines) - 1):
        end, begin = lines[number][-_SHOWN // 64 :], lines[number + 1][: _SHOWN // 64]
        if scrub(f"{end} {begin}") != f"{scrub(end)} {scrub(begin)}".strip():
            shown[number : number + 2] = [_STARS, _STARS]
    return shown


def _plain(text: str) -> str:
    """*text* in one case, without what may stand between."""
    return _GAP.sub("", text).lower()


def _read(text: str, characters: re.Pattern[str]) -> tuple[str, _Spans]:
    """The same, and where in *text* each character of it stands."""
    plain: list[str] = []
    spans: _Spans = []
    for found in characters.finditer(text):
        if found["gap"] is None:
            code = found.groupdict().get("code")
            character = chr(int(code, 16)) if code else found[0]
            if not character.isspace():
                # One for each: a few have more than one in lower case.
                plain.append(character.lower()[:1])
                spans.append(found.span())
    return "".join(plain), spans


def _starred(text: str, spans: Iterable[tuple[int, int]]) -> str:
    whole = [_with_neighbours(text, *span) if span[1] - span[0] >= _LONG else span for span in _merged(spans)]
    for begin, end in reversed(_merged(whole)):
        text = text[:begin] + _STARS + text[end:]
    return text


def _merged(spans: Iterable[tuple[int, int]]) -> _Spans:
    merged: _Spans = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _with_neighbours(text: str, begin: int, end: int) -> tuple[int, int]:
    before = next((run for run in _RUN.finditer(text, 0, begin) if run.end() == begin), None)
    after = _RUN.match(text, end)
    return (before.start() if before else begin), (after.end() if after else end)


def base64_of(text: str) -> bytes:
    return base64.b64encode(text.encode())
