"""The envelope: who sends and who receives, as given, or else as the header says.

The header is read only for what was not given, so that an odd ``To`` stops
nobody who names the recipients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import attrs

from outbox.address import domain, parse_address_list, parse_mailbox
from outbox.errors import InvalidMessage

from .resent import RULE, latest_block, plain
from .wire import Field, broken

__all__ = ["Envelope", "envelope"]

_AUTHORS: Final = frozenset({"from", "sender"})
_RECIPIENTS: Final = frozenset({"to", "cc", "bcc"})
_NAME_SENDER: Final = "give the sender yourself (sender=, or -f)"
_NAME_RECIPIENTS: Final = "give the recipients yourself (recipients=, or as arguments without -t)"


@attrs.frozen
class Envelope:
    """Checked addresses; the recipients are unique and in the order of their first mention."""

    sender: str
    recipients: tuple[str, ...]


def envelope(
    content: bytes,
    header: Sequence[Field],
    sender: str | None,
    recipients: Iterable[str] | None,
    *,
    also: Iterable[str],
    origin: str | None,
) -> Envelope:
    """What is given stands for the whole; the rest is taken from the header (see :func:`from_email`)."""
    others = _mailboxes("also", also, origin)
    return Envelope(
        _given_sender(sender, origin) if sender is not None else _said_sender(content, header, origin),
        _unique(
            [*_given_recipients(recipients, origin), *others]
            if recipients is not None
            else [*_said_recipients(content, header, origin, need=not others), *others]
        ),
    )


def _given_sender(sender: str, origin: str | None) -> str:
    return parse_mailbox(sender, origin=origin) if sender != "" else ""


def _mailboxes(name: str, addresses: Iterable[str], origin: str | None) -> list[str]:
    if isinstance(addresses, str | bytes):
        raise InvalidMessage(f"{name} is one string: pass a sequence of addresses, such as ['a@example.org']")
    return [parse_mailbox(address, origin=origin) for address in addresses]


def _given_recipients(recipients: Iterable[str], origin: str | None) -> list[str]:
    found = _mailboxes("recipients", recipients, origin)
    if not found:
        raise InvalidMessage(
            "recipients is empty: name at least one, or leave it out to take them from the header"
        )
    return found


def _said_sender(content: bytes, header: Sequence[Field], origin: str | None) -> str:
    said = {name: list(fields) for name, fields in _by_name(header, _AUTHORS, _NAME_SENDER)}
    for name in ("sender", "from"):
        addresses = _addresses(content, said.get(name, ()), origin)
        if len(addresses) == 1:
            return addresses[0]
        if addresses:
            field = said[name][0]
            raise broken(
                field.line,
                f"the field {field.name!r} names {len(addresses)} mailboxes, and one of them must be the sender",
                "RFC 5322 section 3.6.2",
                f"add a Sender field with the one, or {_NAME_SENDER}",
            )
    raise InvalidMessage(
        'the header names no sender (From or Sender): add one, or give the sender yourself (sender=, or -f; "" is the null path)'
    )


def _said_recipients(content: bytes, header: Sequence[Field], origin: str | None, *, need: bool) -> list[str]:
    named = _by_name(header, _RECIPIENTS, _NAME_RECIPIENTS)
    fields = sorted((field for _, fields in named for field in fields), key=_rank)
    found = _addresses(content, fields, origin)
    if need and not found:
        raise InvalidMessage("the header names no recipient (To, Cc or Bcc): name one, or pass recipients=")
    return found


def _rank(field: Field) -> int:
    return ("to", "cc", "bcc").index(plain(field))


def _addresses(content: bytes, fields: Iterable[Field], origin: str | None) -> list[str]:
    found: list[str] = []
    for field in fields:
        try:
            found += parse_address_list(field.value(content).decode(), origin=origin)
        except InvalidMessage as error:
            raise InvalidMessage(f"line {field.line}: the field {field.name!r}: {error}") from None
    return found


def _unique(addresses: Iterable[str]) -> tuple[str, ...]:
    """Domains are the same in any case; local parts are their servers' business (RFC 5321 section 2.4)."""
    first: dict[str, str] = {}
    for address in addresses:
        host = domain(address)
        first.setdefault(address.removesuffix(host) + host.lower(), address)
    return tuple(first.values())


def _by_name(
    header: Sequence[Field], names: frozenset[str], remedy: str
) -> Iterator[tuple[str, list[Field]]]:
    """The fields of these names, under the names they have without ``Resent-``.

    Mail that was resent is judged by its topmost block of Resent fields, the
    most recent, and by nothing else.
    """
    block = latest_block(header)
    for field in block.doubtful if block else ():
        if plain(field) in names:
            raise broken(
                field.line,
                f"the field {field.name!r} may belong to the latest block of Resent fields or to the one below",
                RULE,
                remedy,
            )
    fields = block.fields if block else header
    for name in names:
        yield name, [field for field in fields if plain(field) == name]
