"""Header values of ``email`` objects as wire lines.

ASCII text is folded here, at white space only, and addresses are written
from their parsed parts: the standard library's folding encodes long
Message-IDs and URLs, and drops quotes around display names, whereupon a
comma in a name makes two recipients of one.
"""

from __future__ import annotations

import re
from email.errors import InvalidHeaderDefect
from email.header import Header
from email.headerregistry import Address, Group
from email.policy import EmailPolicy, compat32
from typing import Any, ClassVar, Final

from outbox.address import parse_mailbox

from .wire import LINE_OCTETS

__all__ = ["FOLD", "SignedPolicy", "WirePolicy"]

FOLD: Final = re.compile(r"\r?\n(?=[ \t])")
"""A line break that only folds a value."""

_LINE: Final = 78  # RFC 5322 section 2.1.1: should
_ENCODED_WORD: Final = 75  # RFC 2047 section 2
_SURROGATE: Final = re.compile(r"[\udc80-\udcff]")
_WORD_START: Final = re.compile(r"(?<=[^ \t])(?=[ \t])")
_PHRASE: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ \x80-\U0010ffff-]*")


class WirePolicy(EmailPolicy):
    """How the fields of a draft are written."""

    signed: ClassVar = False

    def fold_binary(self, name: str, value: Any) -> bytes:
        # The generator says with 0 that it is within multipart/signed.
        signed = self.signed or not self.max_line_length
        if isinstance(value, str) and not hasattr(value, "name"):
            if _SURROGATE.search(value) or (value.isascii() and (signed or _fits(name, value))):
                return _verbatim(name, value)
            if value.isascii():
                return _folded(name, FOLD.sub("", value))
        return self._as_the_library(name, value) if signed else self._anew(name, value)

    def parsed(self, name: str, value: Any) -> Any:
        """The header object for a value, which may be one already."""
        return value if hasattr(value, "name") else self.header_factory(name, FOLD.sub("", str(value)))

    def _as_the_library(self, name: str, value: Any) -> bytes:
        if hasattr(value, "name"):
            return super().fold_binary(name, value)
        plain = compat32.clone(linesep=self.linesep, max_line_length=self.max_line_length)
        return plain.fold_binary(name, value)

    def _anew(self, name: str, value: Any) -> bytes:
        if isinstance(value, Header):
            return _line(f"{name}: {value.encode(linesep=self.linesep)}")
        header = self.parsed(name, value)
        if hasattr(header, "groups"):
            return self._addresses(name, header)
        text = str(header)
        if _plain(text) or (self.utf8 and not hasattr(header, "params")):
            return _folded(name, text)
        if hasattr(header, "params"):
            return super().fold_binary(name, header)
        return _line(f"{name}: {_encoded(text, name).encode(linesep=self.linesep)}")

    def _addresses(self, name: str, header: Any) -> bytes:
        if any(isinstance(defect, InvalidHeaderDefect) for defect in header.defects):
            return super().fold_binary(name, header)
        return _folded(name, ", ".join(_group(group, utf8=self.utf8) for group in header.groups))


class SignedPolicy(WirePolicy):
    """The same for signed mail: what the signer let the library write, it writes again."""

    signed: ClassVar = True


def _line(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape") + b"\r\n"


def _verbatim(name: str, value: str) -> bytes:
    return _line(f"{name}: " + FOLD.sub("\r\n", value))


def _fits(name: str, value: str) -> bool:
    return all(len(line) <= LINE_OCTETS for line in FOLD.split(f"{name}: {value}"))


def _plain(text: str) -> bool:
    """Whether text may stand as it is: ASCII, no word beyond a line, nothing that looks encoded."""
    return text.isascii() and "=?" not in text and all(map(_short, text.split()))


def _short(word: str) -> bool:
    return len(word) <= LINE_OCTETS - _LINE


def _folded(name: str, text: str) -> bytes:
    """Each line ends before white space once it would pass 78 octets, and unfolds to what it was."""
    pieces = _WORD_START.split(f"{name}: {text}")
    lines = ["".join(pieces[:2])]
    for piece in pieces[2:]:
        if piece.isspace() or len(lines[-1]) + len(piece) <= _LINE:
            lines[-1] += piece
        else:
            lines.append(piece)
    return _line("\r\n".join(lines))


# --- addresses -----------------------------------------------------------------------------------


def _group(group: Group, *, utf8: bool) -> str:
    members = ", ".join(_address(address, utf8=utf8) for address in group.addresses)
    if group.display_name is None:
        return members
    return f"{_phrase(group.display_name, utf8=utf8)}:{' ' if members else ''}{members};"


def _address(address: Address, *, utf8: bool) -> str:
    spec = address.addr_spec
    if not address.domain.isascii():
        spec = parse_mailbox(spec)
    if not address.display_name:
        return spec
    return f"{_phrase(address.display_name, utf8=utf8)} <{spec.strip('<>')}>"


def _phrase(name: str, *, utf8: bool) -> str:
    if not name.isascii() and not utf8:
        return _encoded(name).encode(linesep="")
    if _PHRASE.fullmatch(name) and "=?" not in name:
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _encoded(text: str, name: str | None = None) -> Header:
    return Header(text, "utf-8", header_name=name, maxlinelen=_ENCODED_WORD)
