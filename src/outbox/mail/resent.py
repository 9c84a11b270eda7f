"""Resent mail: which Resent fields are of the most recent block (RFC 5322 section 3.6.6).

Blocks stand on top of each other, and nothing marks where one ends but a
trace field, if there is one.  Each holds one Resent-From, and no field twice.
Where a run of Resent fields can be cut so in several ways, the fields that
are once of the topmost block and once of the next are nobody's: taken for
the topmost, they would send the mail to who got an older one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import attrs

from outbox.errors import InvalidMessage

from .wire import Field, broken

__all__ = ["RULE", "Block", "latest_block", "plain"]

RULE: Final = "RFC 5322 section 3.6.6"

_RESENT: Final = "resent-"
_TRACE: Final = frozenset({"received", "return-path"})
_KNOWN: Final = frozenset({"date", "from", "sender", "to", "cc", "bcc", "message-id", "reply-to"})


@attrs.frozen
class Block:
    """The topmost block.

    Attributes:
        fields: What is of it for certain.
        doubtful: What is of it or of the next, nobody can tell.
    """

    fields: Sequence[Field]
    doubtful: Sequence[Field]


def plain(field: Field) -> str:
    """The name in lower case and without ``Resent-``."""
    return field.key.removeprefix(_RESENT)


def latest_block(header: Sequence[Field]) -> Block | None:
    """The most recent block, or None where the mail was not resent.

    Raises:
        InvalidMessage: a field is repeated, and no block begins between.
    """
    if not any(field.key.startswith(_RESENT) for field in header):
        return None
    run = list(_topmost_run(header))
    ends = _ends([plain(field) for field in run])
    if not ends:
        raise _repeated(run)
    return Block(run[: min(ends)], run[min(ends) : max(ends)])


def _topmost_run(header: Sequence[Field]) -> Iterator[Field]:
    """The Resent fields that a standard knows, above the first trace field that follows one."""
    begun = False
    for field in header:
        if field.key.startswith(_RESENT):
            begun = True
            if plain(field) in _KNOWN:
                yield field
        elif begun and field.key in _TRACE:
            return


def _ends(names: Sequence[str]) -> Sequence[int]:
    """Where the first block can end, if the rest can be cut into blocks, too."""
    if len(set(names)) == len(names):
        return [len(names)]
    ends: Sequence[int] = ()
    rest_can_be_cut = {len(names)}
    for begin in reversed(range(len(names))):
        ends = [end for end in _blocks_from(names, begin) if end in rest_can_be_cut]
        if ends:
            rest_can_be_cut.add(begin)
    return ends


def _blocks_from(names: Sequence[str], begin: int) -> Iterator[int]:
    """The ends of all that could be a block, if it begins there; it has as many fields as there are names at most."""
    seen: set[str] = set()
    for at in range(begin, len(names)):
        if names[at] in seen:
            return
        seen.add(names[at])
        if "from" in seen:
            yield at + 1


def _repeated(run: Sequence[Field]) -> InvalidMessage:
    names = [plain(field) for field in run]
    twice = next(field for at, field in enumerate(run) if names[at] in names[:at])
    return broken(
        twice.line,
        f"the field {twice.name!r} stands there twice, and no block of Resent fields begins between",
        RULE,
        "write one field with all addresses, or pass sender= and recipients=",
    )
