"""The headers in a mail: its own, those of its parts, and those of the mails within it.

Read as loosely as the loosest reader does: what one of them could take for
the header of a part is one.  (:mod:`.parts` is as strict as the strictest,
for it says what may be changed.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

__all__ = ["DEPTH", "foreign_heads", "foreign_within", "head_at", "is_utf8"]

DEPTH: Final = 32
"""Mails within mails within parts: nobody nests so deep who does not want to keep us busy."""

_FIELD_END: Final = re.compile(rb"\r\n(?![ \t])")
_FOLD: Final = re.compile(rb"\r\n(?=[ \t])")
_TYPE: Final = re.compile(rb"^content-type[ \t]*:([^\r]*)", re.IGNORECASE | re.MULTILINE)
_SPACE: Final = bytes([*b"\t\x0b\x0c", *range(0x1C, 0x21)])
"""What some reader passes over as white space."""
_COMPOSITE: Final = re.compile(rb"multipart|message", re.IGNORECASE)
_QUOTED: Final = re.compile(rb'"(?:[^"\\]|\\.)*"')
_MAIL: Final = b"message/rfc822"
_DIGEST: Final = b"multipart/digest"
_BOUNDARY: Final = re.compile(
    rb';[%b]*boundary(\*?)[0-9*]*[%b]*=[%b]*(?:"([^"\\]*)"[%b]*(?=;|\Z)|([^;]*))' % ((_SPACE,) * 4),
    re.IGNORECASE,
)
_DOUBTFUL: Final = re.compile(rb'["<(\\]')
_ANY: Final = frozenset({b"--", b"--*"})


def foreign_heads(
    content: bytes, start: int = 0, end: int | None = None, *, mails: bool = False, attached: bool = False
) -> Iterator[bytes]:
    """Those that are not ASCII, of ``content[start:end]`` and all that is within it, outermost first.

    Of an attached mail, and of its parts, those fields: it is another's, who
    may have broken it.  A field there that is not UTF-8 nothing declares, and
    it counts for 8-bit text; the one beside it that is UTF-8 is declared.

    What they hold needs SMTPUTF8 (RFC 6532 section 3).  It costs a look for
    the boundaries; bodies are not read for it.

    Args:
        mails: It is a mail within another unless its header says otherwise, as in ``multipart/digest``.
        attached: It stands within an attached mail.
    """
    return _Search(content, attached).entity(start, len(content) if end is None else end, mails, DEPTH)


def foreign_within(
    content: bytes, start: int, end: int, *, mails: bool = False, attached: bool = False
) -> Iterator[bytes]:
    """The same without the header of ``content[start:end]`` itself."""
    return _Search(content, attached).within(*head_at(content, start, end), end, mails, DEPTH)


def head_at(content: bytes, start: int, end: int) -> tuple[bytes, int]:
    """The header that begins at *start*, of what goes up to *end*, and where its body begins."""
    if content.startswith(b"\r\n", start, end):
        return b"", start + 2
    gap = content.find(b"\r\n\r\n", start, end)
    return (content[start:end], end) if gap < 0 else (content[start : gap + 2], gap + 4)


@attrs.frozen
class _Search:
    _content: bytes
    _attached: bool

    def entity(self, start: int, end: int, mails: bool, depth: int) -> Iterator[bytes]:
        head, body = head_at(self._content, start, end)
        yield from self._foreign(head)
        yield from self.within(head, body, end, mails, depth)

    def within(self, head: bytes, body: int, end: int, mails: bool, depth: int) -> Iterator[bytes]:
        shapes = _shapes(head, mails)
        if len(shapes) > 1 or (shapes and not depth):
            # What one reader takes for text, another may take for a header.
            yield from self._foreign(self._content[body:end])
            return
        for kind, mark in shapes:
            if kind == _MAIL:
                yield from _Search(self._content, True).entity(body, end, mails=False, depth=depth - 1)
            for start, stop in _parts(self._content, body, end, mark) if mark else ():
                yield from self.entity(start, stop, kind == _DIGEST, depth - 1)

    def _foreign(self, octets: bytes) -> Iterable[bytes]:
        if octets.isascii():
            return []
        return filter(_is_foreign, _each_field(octets)) if self._attached else [octets]


def _each_field(octets: bytes) -> Iterator[bytes]:
    at = 0
    for found in _FIELD_END.finditer(octets):
        yield octets[at : found.end()]
        at = found.end()
    yield octets[at:]


def _is_foreign(field: bytes) -> bool:
    return not field.isascii() and is_utf8(field)


def _shapes(head: bytes, mails: bool) -> set[tuple[bytes, bytes]]:
    """Its types, as far as it has something within, each with the mark of its parts; several where readers differ."""
    said = _TYPE.findall(_FOLD.sub(b"", head)) or ([_MAIL] if mails else [])
    found = {shape for value in said for shape in _shapes_of(value)}
    return found if any(kind for kind, _ in found) else set()


def _shapes_of(value: bytes) -> set[tuple[bytes, bytes]]:
    """Those that this Content-Type could be read as; where there is none within, one of them is all empty."""
    if b"(" in value and b"(" in _QUOTED.sub(b"", value) and _COMPOSITE.search(value):
        return {(b"multipart/", mark) for mark in _ANY}  # Some readers pass over comments.
    main, _, rest = value.partition(b"/")
    sub, _, _ = rest.partition(b";")
    kind = b"%b/%b" % (main.strip(_SPACE).lower(), sub.strip(_SPACE).lower())
    if kind.startswith(b"multipart/"):
        return {(kind, mark) for mark in _marks(rest) or [b""]}
    return {(kind if kind == _MAIL else b"", b"")}


def is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _parts(content: bytes, start: int, end: int, mark: bytes) -> Iterator[tuple[int, int]]:
    """What some reader could take for parts: behind each line that begins like a boundary."""
    at = start if content.startswith(mark, start, end) else _find(content, mark, start, end)
    while at >= 0:
        line_end = content.find(b"\r\n", at + len(mark), end)
        if line_end < 0 or content[at + len(mark) : line_end].strip(b" \t") == b"--":
            return
        at = _find(content, mark, line_end, end)
        yield line_end + 2, end if at < 0 else max(line_end + 2, at - 2)


def _find(content: bytes, mark: bytes, start: int, end: int) -> int:
    found = content.find(b"\r\n" + mark, start, end)
    return found if found < 0 else found + 2


def _marks(parameters: bytes) -> set[bytes]:
    """How lines between parts begin; several where it is encoded (RFC 2231), or readers differ over its quotes."""
    marks: set[bytes] = set()
    for found in _BOUNDARY.finditer(parameters):
        star, quoted, bare = found.groups(b"")
        if star or quoted.startswith(b"<") or _DOUBTFUL.search(bare):
            return set(_ANY)
        marks.add(b"--" + (quoted.rstrip(_SPACE) or b"".join(bare.split()[:1])))
    return marks
