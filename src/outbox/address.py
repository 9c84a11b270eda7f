"""One strict grammar for mail addresses, the same on every Python.

An envelope holds a *Mailbox* (RFC 5321 section 4.1.2, with the UTF-8 of RFC
6531 section 3.3): :func:`parse_mailbox`.  A header holds an *address-list*
(RFC 5322 section 3.4): :func:`parse_address_list`.  What two readers could
read as two addresses is refused, never guessed; the standard library's own
parsers are not asked, for their answers changed between releases.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from .errors import InvalidMessage
from .values import printable, quoted

__all__ = ["domain", "needs_smtputf8", "parse_address_list", "parse_mailbox", "qualified"]

_ATEXT: Final = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
# By what does not belong: a class that ends at U+10FFFF takes `re` milliseconds to compile, at every start.
_WORD: Final = r"[^\x00- \"(),.:;<>@\[\\\]\x7f]"
"""Of atext, or foreign: any character that is not ASCII."""
_DOT_STRING: Final = re.compile(rf"{_WORD}+(?:\.{_WORD}+)*")
_QUOTED: Final = re.compile(r'"(?:[^\x00-\x1f"\\\x7f]|\\[ -~])*"')
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_PLAIN: Final = re.compile(rf"[{_ATEXT}]*")

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# What no eye sees: soft hyphen, joiners, direction marks, fillers, variation selectors, tags, an old space mark.
_INVISIBLE: Final = re.compile(
    r"[\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffd\U000e0000-\U000e0fff]"
)
# IDNA 2003 maps these to other letters or to nothing, IDNA 2008 keeps them: two readers, two domains.
_DEVIATION: Final = re.compile("[\u00df\u1e9e\u03c2\u200c\u200d]")
_FOREIGN_DOT: Final = re.compile("[\u3002\uff0e\uff61]")

_LOCAL_OCTETS: Final = 64
_DOMAIN_OCTETS: Final = 255
_LABEL_OCTETS: Final = 63
_MAILBOX_OCTETS: Final = 254  # RFC 5321 section 4.5.3.1.3: a path of 256 with its angle brackets
_SHOWN: Final = 80


def parse_mailbox(text: str, *, origin: str | None = None) -> str:
    """The envelope address that *text* is, whole: no display name, angle brackets, comment or route.

    The local part and the case of the domain stay as they are.  A label of
    the domain that is not ASCII becomes its A-label ("xn--…"), unless that
    would lead to another domain for some reader.

    Args:
        text: ``local@domain``, with a dot-string or quoted local part and a
            domain or an address literal: ``[192.0.2.1]``, ``[IPv6:2001:db8::1]``.
        origin: The domain that completes a bare local name such as ``root``;
            without it a bare name is refused.

    Raises:
        InvalidMessage: it is none; the text names the address and the cause.
    """
    if not isinstance(text, str):
        raise InvalidMessage(f"an address must be a string, not {type(text).__name__}")
    # A domain of A-labels only grows, and a code point is at least an octet: what is longer here cannot fit.
    if len(text) > _MAILBOX_OCTETS:
        raise _refused(text, f"is longer than {_MAILBOX_OCTETS} octets (RFC 5321 section 4.5.3.1)")
    if control := _CONTROL.search(text):
        raise _refused(text, f"holds the control character {printable(control[0])}")
    local, host = _halves(text, origin)
    return _measured(text, _local_part(text, local), _domain(text, host))


def needs_smtputf8(address: str) -> bool:
    """Whether only a server that offers SMTPUTF8 (RFC 6531) can take this address."""
    return not address.isascii()


def domain(address: str) -> str:
    """What follows the last ``@`` of an address that :func:`parse_mailbox` returned."""
    return address.rpartition("@")[2]


def _refused(text: str, why: str) -> InvalidMessage:
    return InvalidMessage(f"address {quoted(text, _SHOWN)} {why}")


def _halves(text: str, origin: str | None) -> tuple[str, str]:
    quoted = _QUOTED.match(text)
    if text.startswith('"') and quoted is None:
        raise _refused(text, "has a quoted local part that is not closed, or holds what must be escaped")
    local = quoted[0] if quoted else text.partition("@")[0]
    rest = text[len(local) :]
    if not rest and local and origin is not None:
        return local, origin
    if not rest:
        raise _refused(text, "has no @ and domain: give the whole address, such as root@example.org")
    if not rest.startswith("@"):
        raise _refused(text, "has text between its quoted local part and the @")
    return local, rest[1:]


def _measured(text: str, local: str, host: str) -> str:
    address = f"{local}@{host}"
    for what, octets, limit in (
        ("a local part", len(local.encode()), _LOCAL_OCTETS),
        ("a domain", len(host), _DOMAIN_OCTETS),
        ("a length", len(address.encode()), _MAILBOX_OCTETS),
    ):
        if octets > limit:
            raise _refused(
                text, f"has {what} of {octets} octets, where {limit} are allowed (RFC 5321 section 4.5.3.1)"
            )
    return address


# --- the local part ------------------------------------------------------------------------------


def _local_part(text: str, local: str) -> str:
    if "=?" in local and "?=" in local:
        raise _refused(
            text, "has an encoded-word for a local part, which some servers decode to another address"
        )
    for char in local:
        if not char.isascii():
            _check_foreign(text, char)
    if not local.startswith('"') and not _DOT_STRING.fullmatch(local):
        raise _refused(text, _why_no_dot_string(local))
    return local


def _check_foreign(text: str, char: str) -> None:
    """Refuse what looks like nothing, or like one of the ASCII signs that an address is made of."""
    if _INVISIBLE.match(char) or _posing(char):
        raise _refused(text, f"holds U+{ord(char):04X}, which looks like something else or like nothing")


def _posing(char: str) -> bool:
    plain = unicodedata.normalize("NFKC", char)
    return any(part.isascii() and not _PLAIN.fullmatch(part) for part in plain)


def _why_no_dot_string(local: str) -> str:
    if not local:
        return "has nothing before its @"
    if local.startswith(".") or local.endswith(".") or ".." in local:
        return "has a dot too many in its local part: quote the local part if it is meant"
    if "<" in local or ">" in local:
        return "has angle brackets: give the bare address, without a display name"
    odd = next(char for char in local if char != "." and not _DOT_STRING.fullmatch(char))
    return f"holds {quoted(odd)} in its local part, which only a quoted local part may hold"


# --- the domain ----------------------------------------------------------------------------------


def _domain(text: str, host: str) -> str:
    if "@" in host:
        raise _refused(text, "has more than one @")
    if host.startswith("["):
        return _literal(text, host)
    if not host or host.endswith("."):
        raise _refused(text, "ends in a dot" if host else "has no domain after its @")
    labels = [_label(text, label) for label in host.split(".")]
    if labels[-1].isdigit():
        raise _refused(text, "ends in a number: write an address literal as [192.0.2.1]")
    return ".".join(labels)


def _label(text: str, label: str) -> str:
    known = label if label.isascii() else _a_label(text, label)
    hyphen = label.startswith("-") or label.endswith("-")
    if _LABEL.fullmatch(known) and not hyphen:
        return known
    if not known:
        raise _refused(text, "has an empty label in its domain (two dots, or one at the start)")
    if len(known) > _LABEL_OCTETS:
        raise _refused(text, f"has a domain label of more than {_LABEL_OCTETS} octets")
    if hyphen:
        raise _refused(text, "has a domain label that starts or ends with '-'")
    odd = next(char for char in known if not _LABEL.fullmatch(char) and char != "-")
    raise _refused(text, f"holds {quoted(odd)} in its domain (RFC 5321 section 4.1.2)")


def _a_label(text: str, label: str) -> str:
    if deviation := _DEVIATION.search(label):
        raise _refused(
            text,
            f"holds U+{ord(deviation[0]):04X} in its domain, which old and new IDNA take to different domains: "
            'give the A-label ("xn--…")',
        )
    if _FOREIGN_DOT.search(label):
        raise _refused(text, "has a dot in its domain that is not the ASCII full stop")
    if any(unicodedata.ucd_3_2_0.category(char) == "Cn" for char in label):
        # Later releases of Python know later characters, and would map them otherwise.
        raise _refused(
            text, 'has a character in its domain that IDNA 2003 does not know: give the A-label ("xn--…")'
        )
    from encodings import idna  # noqa: PLC0415 - with its tables of Unicode, for the few domains that are not ASCII

    try:
        prepared = idna.nameprep(label)
        encoded = idna.ToASCII(label).decode("ascii")
    except UnicodeError as error:
        raise _refused(text, 'has a domain that IDNA cannot encode: give the A-label ("xn--…")') from error
    if prepared != unicodedata.normalize("NFC", label).lower():
        raise _refused(
            text, 'has a domain that IDNA would map to another one: give that, or the A-label ("xn--…")'
        )
    return encoded


def _literal(text: str, host: str) -> str:
    inner = host[1:-1] if host.endswith("]") else ""
    version, colon, number = inner.partition(":")
    try:
        if not colon:
            ipaddress.IPv4Address(inner)
        elif version.lower() == "ipv6" and "%" not in number:
            ipaddress.IPv6Address(number)
        else:
            raise ValueError(version)  # noqa: TRY301  # one place says what a literal looks like
    except ValueError:
        raise _refused(
            text, "has no address literal such as [192.0.2.1] or [IPv6:2001:db8::1] (RFC 5321 section 4.1.3)"
        ) from None
    return host


# --- address lists -------------------------------------------------------------------------------

_FOLD: Final = re.compile(r"\r?\n(?=[ \t])")
_TOKEN: Final = re.compile(
    rf"""(?P<space>[ \t]+)
    |(?P<word>{_WORD}+)
    |(?P<quoted>"[^"\\]*(?:\\.[^"\\]*)*")
    |(?P<literal>\[[^\[\]\\]*\])
    |(?P<sign>[<>@,:;.])""",
    re.VERBOSE,
)
_COMMENT_SIGN: Final = re.compile(r"\\.|[()]")
_ABRIDGED: Final = 1000


def parse_address_list(value: str, *, origin: str | None = None) -> tuple[str, ...]:
    """The addresses in the value of a To, Cc, Bcc, From, Sender or Resent-* field, in order.

    Display names, comments and folding fall away; groups give their members
    (``undisclosed-recipients:;`` gives none); white space and comments
    within an address, which RFC 5322 section 4.4 calls obsolete, are
    understood.  An encoded-word is never decoded into an address.

    Args:
        value: What stands behind the field's colon, folded or not.
        origin: As for :func:`parse_mailbox`.

    Raises:
        InvalidMessage: a piece has no single meaning; the text names it.
            That includes source routes, text beside an address that is not
            a display name, and a missing comma, quote or bracket.
    """
    text = _FOLD.sub("", value)
    if control := _CONTROL.search(text.replace("\t", " ")):
        raise _unclear(text, f"holds the control character {printable(control[0])}")
    return tuple(_mailbox(text, entry, origin) for entry in _entries(text) if entry)


def qualified(value: str, origin: str) -> str:
    """The value of such a field with ``@origin`` behind each bare local name; *value* itself where there is none.

    Raises:
        InvalidMessage: as :func:`parse_address_list`.
    """
    parse_address_list(value, origin=origin)
    text = _FOLD.sub("", value)
    bare = [tokens[-1].end for entry in _entries(text) if (tokens := _bare(entry))]
    for end in reversed(bare):
        text = f"{text[:end]}@{origin}{text[end:]}"
    return text if bare else value


def _bare(entry: Sequence[_Token]) -> Sequence[_Token]:
    """The local name of an entry that has no domain; nothing of one that has."""
    opening = next((i for i, token in enumerate(entry) if token.text == "<"), None)
    address = entry if opening is None else entry[opening + 1 : -1]
    return () if any(token.text == "@" for token in address) else address


@attrs.frozen
class _Token:
    kind: str
    text: str
    start: int
    end: int


def _unclear(piece: str, why: str) -> InvalidMessage:
    return InvalidMessage(f"address list: {quoted(piece, _SHOWN)} {why} (RFC 5322 section 3.4)")


def _tokens(text: str) -> Iterator[_Token]:
    """Words, quoted strings, literals and signs; white space and comments are passed over."""
    at = 0
    while at < len(text):
        if text[at] == "(":
            at = _after_comment(text, at)
            continue
        found = _TOKEN.match(text, at)
        if found is None:
            raise _unclear(text[at : at + _ABRIDGED], _why_no_token(text[at]))
        at = found.end()
        if found.lastgroup and found.lastgroup != "space":
            yield _Token(found.lastgroup, found[0], found.start(), found.end())


def _after_comment(text: str, start: int) -> int:
    depth = 0
    for sign in _COMMENT_SIGN.finditer(text, start):
        depth += {"(": 1, ")": -1}.get(sign[0], 0)
        if depth == 0:
            return sign.end()
    raise _unclear(text[start : start + _ABRIDGED], "is a comment without its end")


def _why_no_token(char: str) -> str:
    return {
        '"': "is a quoted string without its end",
        "[": "is an address literal without its end",
        "\\": "starts with a backslash outside of quotes",
    }.get(char, f"starts with {quoted(char)}, which nothing opened")


def _entries(text: str) -> Iterator[Sequence[_Token]]:
    """The tokens of one mailbox at a time; the names and ends of groups are taken off."""
    entry: list[_Token] = []
    group = bracket = closed = False
    for token in _tokens(text):
        sign = token.text if token.kind == "sign" else ""
        bracket = (bracket or sign == "<") and sign != ">"
        if bracket or sign not in {",", ":", ";"}:
            if closed:
                raise _unclear(_piece(text, [token]), "follows the end of a group without a comma")
            entry.append(token)
            continue
        if sign == ":":
            _check_group_opens(text, entry, group=group)
        elif sign == ";" and not group:
            raise _unclear(
                _piece(text, [*entry, token]), "ends in ';' outside of a group: separate by commas"
            )
        else:
            yield entry
        group, closed = sign == ":" or (group and sign == ","), sign == ";"
        entry = []
    if group:
        raise _unclear(_piece(text, entry) or text, "stands in a group that is not closed by ';'")
    yield entry


def _piece(text: str, tokens: Sequence[_Token]) -> str:
    return text[tokens[0].start : tokens[-1].end] if tokens else ""


def _check_group_opens(text: str, name: Sequence[_Token], *, group: bool) -> None:
    if group or not name:
        why = "opens a group within a group" if group else "has a ':' without the name of a group"
        raise _unclear(_piece(text, name) or text, why)
    _check_phrase(text, name)


def _check_phrase(text: str, tokens: Sequence[_Token]) -> None:
    for token in tokens:
        if token.kind == "literal" or (token.kind == "sign" and token.text != "."):
            raise _unclear(
                _piece(text, tokens), f"is no display name because of its {token.text[0]!r}: quote it"
            )


def _mailbox(text: str, entry: Sequence[_Token], origin: str | None) -> str:
    """``display name <address>`` or a bare address."""
    opening = next((i for i, token in enumerate(entry) if token.text == "<"), None)
    if opening is None:
        return _address(text, entry, origin)
    _check_phrase(text, entry[:opening])
    if entry[-1].text != ">":
        raise _unclear(
            _piece(text, entry), "does not end with its '>': is a comma missing, or a quote around a name?"
        )
    return _address(text, entry[opening + 1 : -1], origin, inside=_piece(text, entry))


def _address(text: str, tokens: Sequence[_Token], origin: str | None, inside: str = "") -> str:
    piece = inside or _piece(text, tokens)
    if not tokens:
        raise _unclear(piece, "names the null address, to which nothing can be sent")
    if tokens[0].text == "@" or any(token.text in {"<", ">", ",", ":", ";"} for token in tokens):
        raise _unclear(piece, "is a source route or holds one bracket too many: give the bare address")
    if any(a.kind != "sign" and b.kind != "sign" for a, b in itertools.pairwise(tokens)):
        raise _unclear(piece, "has words beside an address: put the address in <> or a comma between")
    try:
        return parse_mailbox("".join(token.text for token in tokens), origin=origin)
    except InvalidMessage as error:
        raise InvalidMessage(f"address list: {quoted(piece, _SHOWN)}: {error}") from None
