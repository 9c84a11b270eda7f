"""The parts of a mail as spans of its bytes (RFC 2046), for whoever changes one and leaves the rest alone.

Where two readers could see different parts, or other types, it is
:class:`Lossy` to touch any of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from outbox.errors import InvalidMessage

from .heads import head_at
from .wire import Field, Start, fields, line_at
from .words import Lossy

__all__ = ["Delimiter", "Head", "delimiters"]

_TYPE: Final = re.compile(rb"\s*([!-.0-:<-~]+)\s*/\s*([!-.0-:<-~]+)\s*(;.*)?", re.DOTALL)
_COMPOSITE: Final = re.compile(rb"multipart|message", re.IGNORECASE)
_PARAMETER: Final = re.compile(
    rb';\s*([^\s;="()]+)\s*=\s*("[^"\\]*(?:\\.[^"\\]*)*"|[^\s;"()]+)\s*(?=;|\Z)|;\s*(?=;|\Z)|(.)', re.DOTALL
)
_BOUNDARY: Final = re.compile(rb"[ -~]*[!-~]")
_ENCODING: Final = re.compile(rb"[A-Za-z0-9-]*")


@attrs.frozen(kw_only=True)
class Head:
    """The header of a mail or of a part: ``content[start:end]``, an empty line, and the body from *body* on.

    Attributes:
        octets: The header itself; *fields* are spans of it, and their lines are counted from its first.
    """

    octets: bytes = attrs.field(repr=False)
    fields: Sequence[Field]
    body: int

    @classmethod
    def at(cls, content: bytes, start: int, end: int) -> Head:
        """The one that begins at *start*, of a part that goes up to *end*.

        Raises:
            InvalidMessage: a line of it is no field.
        """
        octets, body = head_at(content, start, end)
        try:
            found = fields(octets, Start(0, 1))
        except InvalidMessage:
            # Where that is counts the lines of all parts before it: only for who asks what is wrong.
            found = fields(octets, Start(0, line_at(content, start)))
        return cls(octets=octets, fields=found, body=body)

    def the(self, name: str) -> Field | None:
        """The one field of this name.

        Raises:
            Lossy: there are several, and readers differ over which holds.
        """
        found = [field for field in self.fields if field.key == name.lower()]
        if len(found) > 1:
            raise Lossy(f"a part has the field {name!r} twice")
        return found[0] if found else None

    def value(self, name: str) -> bytes | None:
        field = self.the(name)
        return None if field is None else field.value(self.octets)

    def type(self, default: str) -> str:
        """``text/plain``, in lower case; *default* where the header does not say.

        What cannot be read is text (RFC 2045 section 5.2), unless a reader
        could take it for something that has parts.
        """
        value = self.value("Content-Type")
        if value is None:
            return default
        found = _TYPE.fullmatch(value)
        if found is None and _COMPOSITE.search(value):
            raise Lossy("a part has a Content-Type that cannot be read")
        return f"{found[1].decode()}/{found[2].decode()}".lower() if found else "text/plain"

    def encoding(self) -> str:
        """The Content-Transfer-Encoding, in lower case; ``""`` where the header does not say."""
        value = self.value("Content-Transfer-Encoding") or b""
        if not _ENCODING.fullmatch(value):
            raise Lossy("a part has a Content-Transfer-Encoding that cannot be read")
        return value.decode("ascii").lower()

    def boundary(self) -> bytes:
        """What stands between the parts of a multipart."""
        found = _TYPE.fullmatch(self.value("Content-Type") or b"")
        said = [*_PARAMETER.finditer((found and found[3]) or b"")]
        known = [each for each in said if each[1] and each[1].lower().partition(b"*")[0] == b"boundary"]
        if len(known) != 1 or b"*" in known[0][1] or any(each[3] for each in said):
            raise Lossy("a multipart has no boundary that every reader would read alike")
        boundary = known[0][2]
        if boundary.startswith(b'"'):
            boundary = boundary[1:-1]
        if b"\\" in boundary or boundary.startswith(b"<"):
            raise Lossy("a multipart has a boundary that readers take out of its quotes in different ways")
        if not _BOUNDARY.fullmatch(boundary):
            raise Lossy("a multipart has a boundary that is none")
        return boundary


@attrs.frozen
class Delimiter:
    """A line between parts: ``content[start:end]``, with the line end before it, which is part of it."""

    start: int
    end: int
    closing: bool


def delimiters(content: bytes, start: int, end: int, boundary: bytes) -> Iterator[Delimiter]:
    """Those of a multipart's body, up to the closing one.

    Raises:
        Lossy: a line begins like one and goes on otherwise.
    """
    mark = b"--" + boundary
    at = start if content.startswith(mark, start, end) else content.find(b"\r\n" + mark, start, end)
    while at >= 0:
        rest = at + len(mark) + (2 if content.startswith(b"\r\n", at) else 0)
        line_end = content.find(b"\r\n", rest, end)
        said = content[rest : end if line_end < 0 else line_end].rstrip(b" \t")
        if said not in (b"", b"--"):
            raise Lossy("a line begins like a boundary and goes on otherwise")
        yield Delimiter(at, end if line_end < 0 else line_end + 2, said == b"--")
        if said or line_end < 0:
            return
        at = content.find(b"\r\n" + mark, line_end, end)
