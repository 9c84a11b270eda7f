"""What the value of a field must not hold: control characters, and line breaks hidden in an encoding.

A reader that decodes ``=?utf-8?q?a=0ABcc:_b?=`` or ``name*=utf-8''a%0AX:b``
and writes the header anew, as many programs between us and the recipient do,
makes a field of its own of what follows the line break.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Final

from .heads import foreign_heads
from .wire import Field, broken, line_at

__all__ = ["check_header", "check_parts", "hidden_break"]

# TAB may stand in a value and CRLF folds it; the lone forms were refused with the line ends.
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
# All that some language's splitlines() takes for a line end.
_BREAK: Final = re.compile(rb"[\r\n\0\x0b\x0c\x1c-\x1e]")
_UTF8_BREAK: Final = re.compile(rb"\xc2\x85|\xe2\x80[\xa8\xa9]")

# As loose as the loosest reader: white space and question marks may stand within.
_ENCODED_WORD: Final = re.compile(rb"=\?([^?]*)\?([bBqQ])\?(.*?)\?=", re.DOTALL)
_PARAMETER: Final = re.compile(
    rb';[ \t]*[^ \t;="]+[ \t]*\*[ \t]*=[ \t]*("[^"\\]*(?:\\.[^"\\]*)*"|[^;]*)', re.DOTALL
)
_QUOTED_OCTET: Final = re.compile(rb"=([0-9A-Fa-f]{2})")
_PERCENT_OCTET: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/=]+")
# Reads otherwise in UTF-7, UTF-16, UTF-32, EBCDIC, punycode and Python's own escapes.
_TELLTALE: Final = b"a+AAoADQ-b\\n"
_CHARSET_LENGTH: Final = 40  # Python keeps every name it was ever asked for


def check_header(content: bytes, header: Sequence[Field]) -> None:
    """Refuse control characters, text that is not UTF-8, and hidden line breaks, anywhere in the header."""
    if not header:
        return
    _check_characters(content, header)
    for field in header:
        value = field.value(content)
        if cause := hidden_break(value):
            raise broken(
                field.line,
                f"the field {field.name!r} holds {cause}",
                "RFC 2047 section 5, RFC 2231 section 4",
                "take the line break, or the whole encoding, out of the value",
            )


def _check_characters(content: bytes, header: Sequence[Field]) -> None:
    first, end = header[0].start, header[-1].end
    if control := _CONTROL.search(content, first, end):
        raise broken(
            line_at(content, control.start()),
            f"the control character {control[0].decode()!r} in the header",
            "RFC 5322 section 2.2",
            "take it away, or encode the value (RFC 2047)",
        )
    try:
        content[first:end].decode()
    except UnicodeDecodeError as error:
        raise broken(
            line_at(content, first + error.start),
            "bytes in the header that are neither ASCII nor UTF-8",
            "RFC 6532 section 3.2",
            "encode the value as an encoded-word (RFC 2047)",
        ) from None


def check_parts(content: bytes) -> None:
    """Refuse text that is not UTF-8 in the header of a part: no server can be told of it.

    An attached mail is another's, and goes as it is.
    """
    for head in () if content.isascii() else foreign_heads(content):
        try:
            head.decode()
        except UnicodeDecodeError as error:
            raise broken(
                line_at(content, content.find(head) + error.start),
                "bytes in the header of a part that are neither ASCII nor UTF-8",
                "RFC 6532 section 3.2",
                "encode the value (RFC 2047, for a file's name RFC 2231)",
            ) from None


def hidden_break(value: bytes) -> str:
    """How an unfolded value hides a CR, LF or NUL, or ``""``."""
    for charset, payload in _encoded_words(value):
        if _breaks(charset, payload):
            return "an encoded-word that decodes to a line break or NUL"
        if not _keeps_ascii(charset):
            return "an encoded-word in a character set in which a line break can hide"
    for text in _PARAMETER.findall(value):
        if _breaks(text.partition(b"'")[0].strip(b'"'), _octets(_PERCENT_OCTET, text)):
            return "a percent-encoded parameter that decodes to a line break or NUL"
        if b"'" in text and not _keeps_ascii(text.partition(b"'")[0].strip(b'"')):
            return "a percent-encoded parameter in a character set in which a line break can hide"
    return ""


def _breaks(charset: bytes, octets: bytes) -> bool:
    # In ISO-8859-1, too, 0x85 is a line end, but who writes it there means Windows' ellipsis.
    utf8 = charset.lower().replace(b"-", b"").replace(b"_", b"") == b"utf8"
    return bool(_BREAK.search(octets) or (utf8 and _UTF8_BREAK.search(octets)))


def _encoded_words(value: bytes) -> Iterator[tuple[bytes, bytes]]:
    # Up to the last end of a word only: an opening without an end would be searched for anew from each.
    last = value.rfind(b"?=") + 2
    for charset, encoding, payload in _ENCODED_WORD.findall(value, 0, last) if last > 1 else ():
        decoded = _octets(_QUOTED_OCTET, payload) if encoding in b"qQ" else _unbase64(payload)
        yield charset.partition(b"*")[0], decoded


def _octets(escape: re.Pattern[bytes], text: bytes) -> bytes:
    return escape.sub(lambda found: bytes([int(found[1], 16)]), text)


def _unbase64(text: bytes) -> bytes:
    """All that some decoder could make of it: what is no base64 is skipped, each padding starts anew."""
    pieces = filter(None, _NOT_BASE64.sub(b"", text).split(b"="))
    return b"".join(
        binascii.a2b_base64(piece[: len(piece) - (len(piece) % 4 == 1)] + b"==") for piece in pieces
    )


def _keeps_ascii(charset: bytes) -> bool:
    """Whether a line break in this character set is the byte that it is in ASCII; unknown sets nobody decodes."""
    try:
        text = _TELLTALE.decode(charset[:_CHARSET_LENGTH].decode("ascii").strip() or "ascii")
    except LookupError:
        return True
    except ValueError:
        return False
    # Shift_JIS shows a yen sign for the backslash, and that is no harm.
    return text.startswith("a+AAoADQ-b") and len(text) == len(_TELLTALE)
