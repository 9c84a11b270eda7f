"""A field that is not ASCII, said in ASCII: a reader decodes it to the same text.

Text and display names become encoded-words (RFC 2047), parameters their
percent-encoded form (RFC 2231), domains A-labels (RFC 5890).  What has no
such form, or could be read in two ways before, is :class:`Lossy`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from typing import Final

from outbox.address import domain, parse_address_list, parse_mailbox
from outbox.errors import InvalidMessage
from outbox.values import quoted

from .folding import FOLD
from .wire import LINE_OCTETS

__all__ = ["Lossy", "in_ascii"]

_LINE: Final = 76  # RFC 2047 section 2: a line with an encoded-word in it
_WORD: Final = 75
_LEAST_WORD: Final = 30
"""Where less than this is left of a line, a new one begins."""
_FRAME: Final = len("=?utf-8?q??=")
_UNSAFE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_SPACE: Final = re.compile(r"[ \t]+")

_TEXTS: Final = frozenset(
    {"subject", "comments", "content-description", "organization", "organisation", "thread-topic"}
)
_ADDRESSES: Final = frozenset(
    {"from", "sender", "reply-to", "to", "cc", "disposition-notification-to", "mail-followup-to"}
)
_PARAMETERS: Final = frozenset({"content-type", "content-disposition"})


class Lossy(Exception):
    """It cannot be said otherwise without a loss; the text is the reason."""


def in_ascii(name: str, value: bytes) -> bytes:
    """The field *name* with this *value* (what stands behind its colon, folds and all), whole, in ASCII.

    Raises:
        Lossy: there is no such form, or nobody could say that it is the same.
    """
    text = _decoded(name, value)
    if "=?" in text:
        raise Lossy(f"the field {name!r} has encoded-words beside text that is not ASCII")
    said = _kind(name)(f"{name}:", text)
    if not said.isascii():
        raise Lossy(f"the field {name!r} is not ASCII where nothing can be encoded")
    if any(len(line) > LINE_OCTETS for line in said.split("\r\n")):
        raise Lossy(f"the field {name!r} would have a line of more than {LINE_OCTETS} octets")
    return said.encode("ascii")


def _decoded(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise Lossy(f"the field {name!r} is neither ASCII nor UTF-8") from None
    if _UNSAFE.search(FOLD.sub("", text)):
        raise Lossy(f"the field {name!r} holds a control character")
    return text


def _kind(name: str) -> Callable[[str, str], str]:
    key = name.lower()
    if key in _TEXTS or key.startswith("x-"):
        return _text
    if key in _PARAMETERS:
        return _parameters
    if key.removeprefix("resent-") in _ADDRESSES:
        return _addresses
    raise Lossy(f"the field {name!r} is not ASCII, and its form does not allow for encoded-words")


# --- encoded-words -------------------------------------------------------------------------------

_FOREIGN_TEXT: Final = re.compile(r"[^ \t\r\n]*[^\x00-\x7f](?:.*[^\x00-\x7f])?[^ \t\r\n]*", re.DOTALL)
_UNQUOTED: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
"""What stands for itself in an encoded-word anywhere, in a display name too (RFC 2047 section 5, rule 3)."""


def _text(name: str, value: str) -> str:
    """From the first word that is not ASCII to the last; what is before and behind stays as it is."""
    found = _FOREIGN_TEXT.search(value)
    if found is None:
        return name + value
    start = _with_words(name + value[: found.start()], FOLD.sub("", found[0]))
    return _continued(start, value[found.end() :])


def _with_words(before: str, text: str) -> str:
    """*before* and then *text* as encoded-words, on as many lines as that takes."""
    if before[-1] not in " \t":
        before += " "
    line = before[before.rfind("\n") + 1 :]
    room = min(_LINE - len(line), _WORD)
    words = [*_words(text, _WORD)]
    if len(words[0]) > room:
        # One word rather than two: between two some readers show the space that stands there.
        if len(words) > 1 and room >= _LEAST_WORD:
            words = [*_words(text, room)]
        elif line.strip():
            before = f"{before[:-1]}\r\n{before[-1]}"
    return before + "\r\n ".join(words)


def _continued(start: str, rest: str) -> str:
    """*start*, which ends in an encoded-word, and the *rest*, which is empty or begins with white space."""
    line = start[start.rfind("\n") + 1 :]
    first = rest.partition("\r\n")[0]
    if first.strip() and len(line) + len(first) > _LINE:
        return f"{start}\r\n{rest}"
    return start + rest


def _words(text: str, room: int) -> Iterator[str]:
    """Each is whole by itself: none ends within a character (RFC 2047 section 5)."""
    letter, payload = min(("q", _escaped), ("b", _based), key=lambda way: len(way[1](text)))
    word = ""
    for char in text:
        if _FRAME + len(payload(word + char)) > room:
            yield f"=?utf-8?{letter}?{payload(word)}?="
            word, room = "", _WORD
        word += char
    yield f"=?utf-8?{letter}?{payload(word)}?="


def _escaped(text: str) -> str:
    octets = text.encode()
    return "".join(
        chr(octet) if octet in _UNQUOTED else "_" if octet == ord(" ") else f"={octet:02X}"
        for octet in octets
    )


def _based(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


# --- address lists -------------------------------------------------------------------------------

_QUOTED: Final = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_ATOM: Final = r'[^<>@,:;"\[\]()\s]++'
_PHRASE_WORD: Final = rf"(?:{_QUOTED}|{_ATOM})"
_PIECES: Final = re.compile(
    rf"""(?P<phrase>{_PHRASE_WORD}(?:[ \t\r\n]*+{_PHRASE_WORD})*+)(?P<gap>[ \t\r\n]*)(?=(?P<next>:|<[^>]*>?))
    |(?P<quoted>{_QUOTED})
    |@[ \t\r\n]*(?P<domain>{_ATOM})
    |{_ATOM}
    |.""",
    re.VERBOSE | re.DOTALL,
)


def _addresses(name: str, value: str) -> str:
    """Display names become encoded-words, domains A-labels; the addresses are proven to be the same."""
    if "(" in value:
        raise Lossy(f"the field {name[:-1]!r} has a comment beside text that is not ASCII")
    before = _listed(name, value)
    for address in before:
        if not address.isascii():
            raise Lossy(f"the address {quoted(address)} is not ASCII before its @")
    said = name
    for piece in _PIECES.finditer(value):
        said = _with_piece(said, piece)
    if _listed(name, said.removeprefix(name)) != before:
        raise Lossy(f"the field {name[:-1]!r} would name other addresses")
    return said


def _listed(name: str, value: str) -> tuple[str, ...]:
    try:
        return parse_address_list(value)
    except InvalidMessage as error:
        raise Lossy(f"the field {name[:-1]!r}: {error}") from None


def _with_piece(said: str, piece: re.Match[str]) -> str:
    if piece[0].isascii():
        return said + piece[0]
    if piece["domain"]:
        return said + piece[0].replace(piece["domain"], domain(parse_mailbox(f"a@{piece['domain']}")))
    if piece["phrase"]:
        said = _with_words(said, _display_name(piece["phrase"]))
        gap = piece["gap"] or " "
        return _continued(said, gap + piece["next"])[: -len(piece["next"])]
    return said + piece[0]


def _display_name(phrase: str) -> str:
    """What a person is shown: without quotes, with one space for what was white space between words."""
    words = re.findall(rf"{_QUOTED}|[^\"]+", FOLD.sub("", phrase))
    return "".join(
        re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else _SPACE.sub(" ", word)
        for word in words
    )


# --- parameters ----------------------------------------------------------------------------------

_BARE_VALUE: Final = r'[^\s;"()]+'
_WITH_PARAMETERS: Final = re.compile(
    rf'\s*[^\s;"()]+\s*(?:;\s*[^\s;="()]+\s*=\s*(?:{_QUOTED}|{_BARE_VALUE})\s*)*;?\s*'
)
_PARAMETER: Final = re.compile(rf'(;)\s*([^\s;="()]+)\s*=\s*({_QUOTED}|{_BARE_VALUE})|{_QUOTED}', re.DOTALL)


def _parameters(name: str, value: str) -> str:
    """``filename="ü"`` becomes ``filename*=utf-8''%C3%BC``."""
    if not _WITH_PARAMETERS.fullmatch(value):
        raise Lossy(f"the field {name[:-1]!r} has parameters that can be read in several ways")
    attributes = [found[2].lower() for found in _PARAMETER.finditer(value) if found[1]]
    plain = [attribute.partition("*")[0] for attribute in attributes]
    if len(set(plain)) < len(plain):
        raise Lossy(f"the field {name[:-1]!r} says one parameter twice")
    return name + _PARAMETER.sub(_parameter, value)


def _parameter(found: re.Match[str]) -> str:
    attribute, value = found[2], found[3]
    if found[0].isascii() or "*" in attribute:
        return found[0]
    text = FOLD.sub("", value)
    if text.startswith('"'):
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return f";\r\n {attribute}*=utf-8''{_percented(text)}"


def _percented(text: str) -> str:
    plain = _UNQUOTED - frozenset(b"*/") | frozenset(b"._")
    return "".join(chr(octet) if octet in plain else f"%{octet:02X}" for octet in text.encode())
