"""How the strictest, the loosest and another author's reader take a mail apart: written for the tests alone."""

from __future__ import annotations

import email
import re
from collections.abc import Callable, Iterator
from email.message import Message as Email
from typing import Any, Final

import attrs
from mime_trees import headers_of, leaves_of

_DEPTH: Final = 40
_SIGNATURES: Final = {"dkim-signature", "arc-message-signature", "domainkey-signature"}
_SEALED: Final = {"multipart/signed", "multipart/encrypted"}


@attrs.frozen
class Said:
    """A field of some header, unfolded; *attached*: of a mail within the mail, or of one of its parts."""

    octets: bytes
    attached: bool


Reader = Callable[[bytes], Iterator[Said]]


# --- the standard library ------------------------------------------------------------------------


def by_the_library(content: bytes) -> Iterator[Said]:
    yield from _library(email.message_from_bytes(content), attached=False)


def _library(part: Any, *, attached: bool) -> Iterator[Said]:
    for name, value in part.raw_items():
        yield Said(_octets(f"{name}: {value}"), attached)
    kind = part.get_content_type()
    if kind.startswith("message/") and kind != "message/rfc822":
        return  # What it takes for mails within them is text of a kind of its own (docs/decisions/013).
    for each in part.get_payload() if part.is_multipart() else ():
        yield from _library(each, attached=attached or kind == "message/rfc822")


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# --- line by line --------------------------------------------------------------------------------


def by_the_rules(content: bytes) -> Iterator[Said]:
    """RFC 2045 and 2046 to the letter: what is against the rules is text."""
    yield from _Lines(_strict_types, _strict_mark).entity(content.split(b"\r\n"))


def by_guesses(content: bytes) -> Iterator[Said]:
    """Every Content-Type counts, and so does every line that begins like a boundary."""
    yield from _Lines(_loose_types, bytes.startswith).entity(content.split(b"\r\n"))


READERS: Final[tuple[Reader, ...]] = (by_the_rules, by_guesses, by_the_library)

Types = Callable[[list[bytes]], list[tuple[str, bytes]]]
Marks = Callable[[bytes, bytes], bool]


@attrs.frozen
class _Lines:
    _types: Types
    _marks: Marks

    def entity(
        self, lines: list[bytes], default: str = "text/plain", *, attached: bool = False, depth: int = 0
    ) -> Iterator[Said]:
        end = lines.index(b"") if b"" in lines else len(lines)
        fields = re.split(rb"\r\n(?![ \t])", b"\r\n".join(lines[:end]))
        yield from (Said(field, attached) for field in fields)
        for kind, boundary in self._types(fields) or [(default, b"")] if depth < _DEPTH else ():
            if kind == "message/rfc822":
                yield from self.entity(lines[end + 1 :], attached=True, depth=depth + 1)
            elif kind.startswith("multipart/") and boundary:
                inner = "message/rfc822" if kind == "multipart/digest" else "text/plain"
                for part in self._parts(lines[end + 1 :], b"--" + boundary):
                    yield from self.entity(part, inner, attached=attached, depth=depth + 1)

    def _parts(self, lines: list[bytes], mark: bytes) -> Iterator[list[bytes]]:
        part: list[bytes] | None = None
        for line in lines:
            if not self._marks(line, mark):
                if part is not None:
                    part.append(line)
                continue
            if part is not None:
                yield part
            part = []
            if line.rstrip(b" \t") == mark + b"--":
                return
        if part is not None:
            yield part


def _strict_mark(line: bytes, mark: bytes) -> bool:
    return line.rstrip(b" \t") in (mark, mark + b"--")


_CLEAN: Final = re.compile(
    rb"""\s*([!-.0-:<-~]+/[!-.0-:<-~]+)\s*((?:;\s*[^\s;="()*]+\s*=\s*(?:"[^"\\]*"|[^\s;"()<>]+)\s*)*)""",
)
_BOUNDARY: Final = re.compile(rb'boundary\s*=\s*("[^"]*"|[^\s;]+)', re.IGNORECASE)
_LOOSE: Final = re.compile(rb"\s*([^\s/;]+)\s*/\s*([^\s;]+)")


def _values(fields: list[bytes]) -> list[bytes]:
    found = (re.match(rb"(?is)content-type[ \t]*:(.*)", field) for field in fields)
    return [each[1].replace(b"\r\n", b"") for each in found if each]


def _strict_types(fields: list[bytes]) -> list[tuple[str, bytes]]:
    values = _values(fields)
    said = _CLEAN.fullmatch(values[0]) if len(values) == 1 else None
    if said is None:
        return [("text/plain", b"")] if values else []
    boundaries = _BOUNDARY.findall(said[2])
    return [(said[1].decode().lower(), boundaries[0].strip(b'"') if len(boundaries) == 1 else b"")]


def _loose_types(fields: list[bytes]) -> list[tuple[str, bytes]]:
    """With comments and without them, with the first boundary, the last, and the one that the library reads."""
    found = set[tuple[str, bytes]]()
    for value in _values(fields):
        for text in {value, re.sub(rb"\([^()]*\)", b"", value)}:
            if said := _LOOSE.match(text):
                kind = b"%b/%b" % said.groups()
                found |= {(kind.decode("latin-1").lower(), mark) for mark in _boundaries(text)}
    return sorted(found)


def _boundaries(value: bytes) -> set[bytes]:
    library = Email()
    library["Content-Type"] = value.decode("ascii", "surrogateescape")
    known = _octets(library.get_boundary() or "")
    return {known, *(each.strip(b'"') for each in _BOUNDARY.findall(value))}


# --- what a mail means ---------------------------------------------------------------------------


def meaning(content: bytes) -> dict[str, object]:
    """All that must not change: its parts, what they decode to, what their headers say, what is sealed."""
    content = _opaque(content)
    return {
        "shape": shape(content),
        "leaves": [(kind, _opaque(octets)) for kind, octets in leaves_of(content)],
        "headers": headers_of(content),
        "sealed": sealed(content),
    }


def _opaque(octets: bytes) -> bytes:
    """A message/global may be encoded (RFC 6532 section 3.7), where the library does not decode it."""
    return re.sub(rb"(?im)^(content-type:\s*)message/(?=global)", rb"\1application/", octets)


def shape(content: bytes) -> object:
    """The types of its parts, as the library nests them."""

    def shaped(part: Any) -> object:
        inner = [shaped(each) for each in part.get_payload()] if part.is_multipart() else []
        return part.get_content_type(), inner

    return shaped(email.message_from_bytes(content))


def sealed(content: bytes) -> list[str]:
    """All that a signature covers or could cover, and what is encrypted as a whole, as the library has it."""
    found: list[object] = []
    for part in email.message_from_bytes(content).walk():
        if not _SIGNATURES.isdisjoint(name.lower() for name in part):
            found.append(([*part.raw_items()], _raw(part)))
        elif part.get_content_type() in _SEALED:
            found.append(_raw(part))
    return [*map(repr, found)]


def _raw(part: Any) -> object:
    """Its body, byte for byte."""
    if not part.is_multipart():
        return part.get_payload()
    inner = [([*each.raw_items()], _raw(each)) for each in part.get_payload()]
    return inner, part.preamble, part.epilogue
