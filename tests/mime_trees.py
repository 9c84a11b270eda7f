"""Mails of every shape for hypothesis, and what another author's reader (the standard library's) sees in one."""

from __future__ import annotations

import email
import itertools
import re
from collections.abc import Callable, Iterator
from email.header import decode_header, make_header
from email.headerregistry import Address
from email.message import Message as Email
from email.policy import default
from typing import Any

from hypothesis import strategies as st

FOREIGN = "üßЖ漢😀"
LINES = [
    "",
    ".",
    "..",
    "--",
    "-- ",
    "--x",
    "From a",
    "=",
    "=C3=BC",
    "a b \t",
    " ",
    "a" * 76,
    "a" * 77,
    "-" * 80,
]
FOREIGN_LINES = ["ü", "Grüße, Welt", "ü" * 40, "漢字" * 100, "-- ü", "--ü" * 50, "x" * 75 + "ü ", "ÿ😀" * 300]
LONG_LINES = ["a" * 999, "a" * 997 + "üx", "." * 1200, "- " * 600, "--" * 600]

text = st.text(st.sampled_from("ab ,.-_=" + FOREIGN), min_size=1, max_size=90).map(str.strip).filter(bool)


def lines(*kinds: list[str]) -> st.SearchStrategy[bytes]:
    """A body, with or without a line end behind it."""
    found = st.lists(st.sampled_from([line for kind in kinds for line in kind]), max_size=6)
    return st.tuples(found, st.booleans()).map(lambda t: ("\r\n".join(t[0]) + "\r\n" * t[1]).encode())


BODIES = lines(LINES, FOREIGN_LINES) | lines(LINES, LONG_LINES) | lines(LINES)


@st.composite
def fields(draw: st.DrawFn, kind: str | None, encodings: list[str | None]) -> bytes:
    """The header of a part, its fields in any order."""
    encoding = draw(st.sampled_from(encodings))
    found = [
        *([f"Content-Type: {kind}"] if kind else []),
        *([f"Content-Transfer-Encoding: {encoding}"] if encoding else []),
        *draw(st.lists(text.map(lambda t: f"Content-Description: {t}"), max_size=1)),
        *draw(st.lists(text.map(lambda t: f'Content-Disposition: inline; filename="{t}"'), max_size=1)),
        *draw(st.sampled_from([[], ["X-Any: x"]])),
    ]
    return "".join(f"{each}\r\n" for each in draw(st.permutations(found))).encode()


PLAIN = ["7bit", "8bit", "BINARY", None]


@st.composite
def leaves(draw: st.DrawFn) -> bytes:
    kind = draw(
        st.sampled_from(
            ["text/plain; charset=utf-8", "text/html", "image/png", None, "Application/Octet-Stream"]
        )
    )
    if draw(st.integers(0, 4)) == 0:
        body = draw(st.sampled_from([b"w7w=", b"w7w=\r\n", b""]))
        return draw(fields(kind, ["base64"])) + b"\r\n" + body
    return draw(fields(kind, PLAIN)) + b"\r\n" + draw(BODIES)


@st.composite
def multiparts(draw: st.DrawFn, boundary: str, parts: list[bytes], *, closed: bool) -> bytes:
    subtype = draw(st.sampled_from(["mixed", "alternative", "x-unknown"]))
    said = draw(st.sampled_from([f'"{boundary}"', boundary]))
    header = draw(fields(f"multipart/{subtype}; charset=utf-8;\r\n boundary={said}", PLAIN))
    around = st.sampled_from([b"", b"text\r\n", b"\r\n"])
    mark = b"--" + boundary.encode()
    padding = draw(st.sampled_from([b"", b" ", b"\t "]))
    body = draw(around) + b"\r\n".join(mark + padding + b"\r\n" + part for part in parts)
    behind = [b"\r\n" + mark + b"--", b"\r\n" + mark + b"--\r\n" + draw(around)]
    closing = draw(st.sampled_from(behind if closed else [*behind, b""]))
    return header + b"\r\n" + body + closing


@st.composite
def mails(draw: st.DrawFn, part: bytes) -> bytes:
    names = ["Subject", "X-Note", "Comments"]
    found = draw(st.lists(st.tuples(st.sampled_from(names), text), max_size=2))
    found += draw(st.sampled_from([[], [("MIME-Version", "1.0")]]))
    return "".join(f"{name}: {value}\r\n" for name, value in found).encode() + part


@st.composite
def trees(draw: st.DrawFn, boundaries: Callable[[], str], *, closed: bool) -> bytes:
    """Whole mails, their multiparts with these *boundaries*."""

    def part(depth: int) -> bytes:
        shape = draw(st.sampled_from(["leaf", "multipart", "mail"][: 1 if depth == 3 else 3]))
        if shape == "leaf":
            return draw(leaves())
        if shape == "mail":
            encoding = draw(st.sampled_from([b"", b"Content-Transfer-Encoding: 8bit\r\n"]))
            return b"Content-Type: message/rfc822\r\n" + encoding + b"\r\n" + draw(mails(part(depth + 1)))
        boundary = boundaries()
        parts = [part(depth + 1) for _ in range(draw(st.integers(1, 3)))]
        return draw(multiparts(boundary, parts, closed=closed))

    return draw(mails(part(0)))


@st.composite
def sound_trees(draw: st.DrawFn) -> bytes:
    """Mails that every reader takes apart alike: no boundary is another's, or begins like another."""
    numbers = itertools.count()
    return draw(trees(lambda: f"=_{next(numbers):04}", closed=True))


@st.composite
def unsound_trees(draw: st.DrawFn) -> bytes:
    """Mails with one boundary for several multiparts, or one that begins like another, or that a body has, too."""
    return draw(trees(lambda: draw(st.sampled_from(["x", "xü", "x y", "x-", "-", "aaaa"])), closed=False))


# --- what is in them -----------------------------------------------------------------------------


def leaves_of(content: bytes) -> list[tuple[str, bytes]]:
    """The type of each part that has none within, and what it decodes to."""
    return [
        (part.get_content_type(), part.get_payload(decode=True))
        for part in walked(content)
        if not part.is_multipart()
    ]


def headers_of(content: bytes) -> list[list[tuple[str, str]]]:
    """The fields of every mail and part as a reader shows them, without those that say how it is encoded."""
    return [[*_shown(part)] for part in walked(content)]


def walked(content: bytes) -> list[Any]:
    return [*email.message_from_bytes(content).walk()]


def _shown(part: Email) -> Iterator[tuple[str, str]]:
    for name, value in part.raw_items():
        key = name.lower()
        if key in {"content-transfer-encoding", "mime-version"}:
            continue
        octets = re.sub(r"\r\n(?=[ \t])", "", str(value)).encode("ascii", "surrogateescape")
        said = octets.decode("utf-8", "backslashreplace")
        parsed: Any = default.header_factory(name, said)
        if hasattr(parsed, "addresses"):
            yield key, repr([(each.display_name, _spelled(each)) for each in parsed.addresses])
        elif key in {"content-type", "content-disposition"}:
            yield key, repr((said.partition(";")[0], sorted(parsed.params.items())))
        else:
            yield key, str(make_header(decode_header(said))) if said.isascii() else said


def _spelled(address: Address) -> str:
    """The address with its domain as the DNS has it."""
    return f"{address.username}@{address.domain.encode('idna').decode()}"
