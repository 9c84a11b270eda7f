"""Text in the columns of a terminal: how wide it stands, where it is cut or wrapped, and tables of it.

Also what weight a text has (:class:`Toned`), for a terminal that shows more
than plain text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, Self, TypeAlias

__all__ = [
    "TONES",
    "Tone",
    "Toned",
    "at_least",
    "columns",
    "cut",
    "laid_out",
    "padded",
    "width_of",
    "wrapped",
]

Tone: TypeAlias = Literal["", "head", "bad", "stopped"]
"""``head`` is what a person looks for first, ``bad`` what is wrong, ``stopped`` what somebody keeps back."""
TONES: Final[Mapping[Tone, str]] = {"": "", "head": "bold", "bad": "bold red", "stopped": "magenta"}
"""How each is shown: of the sixteen colours only red and magenta can be read on black and on white."""
Cells: TypeAlias = Sequence[str]

_WIDE: Final = frozenset("WF")
_NOTHING: Final = frozenset(("Mn", "Me", "Cf"))
_VOWELS: Final = range(0x1160, 0x1200)
"""Hangul's, which stand in the square of the letter before."""
_GAP: Final = 2
_LEAST: Final = 8


class Toned(str):
    """A text that knows its weight; to whoever joins or writes it, it is a text as any other."""

    __slots__ = ("tone",)

    tone: Tone

    def __new__(cls, text: str, tone: Tone = "") -> Self:
        made = super().__new__(cls, text)
        made.tone = tone
        return made

    @staticmethod
    def like(text: str, other: str) -> str:
        """*text* with the weight of *other*."""
        return Toned(text, other.tone) if isinstance(other, Toned) else text


def columns(
    head: Cells,
    rows: Sequence[Cells],
    *,
    right: Sequence[str] = (),
    width: int | None = None,
    give: Sequence[str] = (),
) -> list[str]:
    """Lines of a table; see :func:`laid_out`."""
    return ["".join(cells) for cells in laid_out(head, rows, right=right, width=width, give=give)]


def laid_out(
    head: Cells,
    rows: Sequence[Cells],
    *,
    right: Sequence[str] = (),
    width: int | None = None,
    give: Sequence[str] = (),
) -> list[list[str]]:
    """The cells of a table with their blanks, the head first; each knows its weight.

    What does not fit in *width* is cut at its right end.

    Args:
        right: The heads of the columns that are set to the right.
        give: The heads of those that make room before: the widest first.
    """
    table: list[Cells] = [[Toned(cell, "head") for cell in head], *(list(row) for row in rows)]
    widths = [max(width_of(row[n]) for row in table) for n in range(len(head))]
    if width is not None:
        _give_way(widths, [n for n, name in enumerate(head) if name in give], width)
    return [_line(row, widths, [name in right for name in head], width) for row in table]


def _line(row: Cells, widths: Sequence[int], to_right: Sequence[bool], width: int | None) -> list[str]:
    last = max((n for n, cell in enumerate(row) if cell), default=-1)
    cells: list[str] = []
    left = width
    for n, cell in enumerate(row[: last + 1]):
        text = cut(cell, widths[n])
        if n < last or to_right[n]:
            text = Toned.like(padded(text, widths[n], to_right=to_right[n]), cell)
        text = text if n == last else Toned.like(text + " " * _GAP, cell)
        if left is not None:
            text = cut(text, left) if left > 0 else ""
            left -= width_of(text)
        cells.append(text)
    return cells


def _give_way(widths: list[int], giving: Sequence[int], width: int) -> None:
    while sum(widths) + _GAP * (len(widths) - 1) > width:
        widest = max(giving, key=lambda n: widths[n], default=None)
        if widest is None or widths[widest] <= _LEAST:
            return
        widths[widest] -= 1


def cut(text: str, width: int) -> str:
    """At most *width* columns of *text*; an ellipsis says that there was more."""
    if width_of(text) <= width:
        return text
    return Toned.like(f"{_first(text, width - 1)}…", text)


def _first(text: str, width: int) -> str:
    """As much of the beginning as stands in *width* columns, marks on the last letter included."""
    used = 0
    for position, char in enumerate(text):
        used += _column(char)
        if used > width:
            return text[:position]
    return text


def wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """*text* on lines of at most *width* columns, broken between words where it can be; all but the first begin with *indent*.

    A text that fits, or an unknown width, is one line as it is.  So is a command (``-> outbox …``), whose remark goes
    below it where there is no room: it is copied, and the terminal knows that it is one line.
    """
    if width is None or width_of(text) <= width:
        return [text]
    if text.lstrip().startswith("-> outbox "):
        return _commanded(text, width)
    return [Toned.like(line, text) for line in _broken(text, width, indent)]


def _commanded(text: str, width: int) -> list[str]:
    blank = text[: len(text) - len(text.lstrip())]
    command, _, remark = text.lstrip().partition("   ")
    below = f"{blank}   "
    return [blank + command, *(wrapped(below + remark.lstrip(), width, below) if remark else ())]


def _broken(text: str, width: int, indent: str) -> Iterator[str]:
    while width_of(text) > width:
        first = max(1, len(_first(text, width)))
        blank = text.rfind(" ", len(text) - len(text.lstrip()) + 1, first + 1)
        end = blank if blank > 0 else first
        yield text[:end].rstrip()
        rest = text[end:].lstrip()
        text = indent + rest if width_of(indent) < width else rest
    yield text


def at_least(number: int, more: bool) -> str:
    """``25,000+``: a number, and whether it was counted to its end."""
    return f"{number:,}{'+' if more else ''}"


def padded(text: str, width: int, *, to_right: bool = False) -> str:
    """*text* with blanks to *width* columns."""
    blank = " " * (width - width_of(text))
    return blank + text if to_right else text + blank


def width_of(text: str) -> int:
    """How many columns it takes."""
    if text.isascii():
        return len(text)
    return sum(map(_column, text))


def _column(char: str) -> int:
    if unicodedata.category(char) in _NOTHING or ord(char) in _VOWELS:
        return 0
    return 2 if unicodedata.east_asian_width(char) in _WIDE else 1
