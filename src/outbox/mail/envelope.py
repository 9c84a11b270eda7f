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

from .wire import Field, broken

__all__ = ["Envelope", "envelope"]

_RESENT: Final = "resent-"
_TRACE: Final = frozenset({"received", "return-path"})
_AUTHORS: Final = frozenset({"from", "sender"})
_RECIPIENTS: Final = frozenset({"to", "cc", "bcc"})
_RESENT_RULE: Final = "RFC 5322 section 3.6.6"


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
    origin: str | None,
) -> Envelope:
    """What is given stands for the whole; the rest is taken from the header (see :func:`from_email`)."""
    return Envelope(
        _given_sender(sender, origin) if sender is not None else _said_sender(content, header, origin),
        _unique(
            _given_recipients(recipients, origin)
            if recipients is not None
            else _said_recipients(content, header, origin)
        ),
    )


def _given_sender(sender: str, origin: str | None) -> str:
    return parse_mailbox(sender, origin=origin) if sender != "" else ""


def _given_recipients(recipients: Iterable[str], origin: str | None) -> list[str]:
    if isinstance(recipients, str | bytes):
        raise InvalidMessage(
            "recipients is one string: pass a sequence of addresses, such as ['a@example.org']"
        )
    found = [parse_mailbox(recipient, origin=origin) for recipient in recipients]
    if not found:
        raise InvalidMessage(
            "recipients is empty: name at least one, or leave it out to take them from the header"
        )
    return found


def _said_sender(content: bytes, header: Sequence[Field], origin: str | None) -> str:
    said = {name: list(fields) for name, fields in _by_name(header, _AUTHORS)}
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
                "add a Sender field with the one, or give the sender yourself (sender=, or -f)",
            )
    raise InvalidMessage(
        'the header names no sender (From or Sender): add one, or give the sender yourself (sender=, or -f; "" is the null path)'
    )


def _said_recipients(content: bytes, header: Sequence[Field], origin: str | None) -> list[str]:
    fields = sorted((field for _, fields in _by_name(header, _RECIPIENTS) for field in fields), key=_rank)
    found = _addresses(content, fields, origin)
    if not found:
        raise InvalidMessage("the header names no recipient (To, Cc or Bcc): name one, or pass recipients=")
    return found


def _rank(field: Field) -> int:
    return ("to", "cc", "bcc").index(_plain(field))


def _plain(field: Field) -> str:
    return field.key.removeprefix(_RESENT)


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


# --- resent mail ---------------------------------------------------------------------------------


def _by_name(header: Sequence[Field], names: frozenset[str]) -> Iterator[tuple[str, list[Field]]]:
    """The fields of these names, under the names they have without ``Resent-``.

    Mail that was resent is judged by its topmost block of Resent fields, the
    most recent, and by nothing else.
    """
    fields = _latest_block(header) or header
    for name in names:
        yield name, [field for field in fields if _plain(field) == name]


def _latest_block(header: Sequence[Field]) -> list[Field]:
    blocks = list(_blocks(_topmost_run(header)))
    for block in blocks[1:]:
        # Such a rest is no block of its own, and dropping it would drop its recipients in silence.
        if not any(_plain(field) in _AUTHORS for field in block):
            field = block[0]
            raise broken(
                field.line,
                f"the field {field.name!r} stands there twice, and no block of Resent fields begins between",
                _RESENT_RULE,
                "write one field with all addresses, or pass sender= and recipients=",
            )
    return blocks[0] if blocks else []


def _topmost_run(header: Sequence[Field]) -> Iterator[Field]:
    """The Resent fields above the first trace field that follows one of them."""
    begun = False
    for field in header:
        if field.key.startswith(_RESENT):
            begun = True
            yield field
        elif begun and field.key in _TRACE:
            return


def _blocks(fields: Iterable[Field]) -> Iterator[list[Field]]:
    """A field may stand once in a block, so its second sight begins the next."""
    block: dict[str, Field] = {}
    for field in fields:
        if field.key in block:
            yield list(block.values())
            block = {}
        block[field.key] = field
    if block:
        yield list(block.values())
