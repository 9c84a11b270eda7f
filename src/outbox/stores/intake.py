"""Which messages of a ``put`` are new: pure, and the same for every store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import attrs

from outbox.errors import ConflictError
from outbox.lifecycle import PutResult
from outbox.message import Message

__all__ = ["Draft", "Identified", "sift"]


class Identified(Protocol):
    """What is told apart by its id, and by its envelope from another of that id: a Message, or a Draft."""

    @property
    def id(self) -> str: ...

    @property
    def envelope_digest(self) -> bytes: ...


@attrs.frozen
class Draft:
    """A message to be stored, its envelope's digest made before the turn to write has come."""

    message: Message
    envelope_digest: bytes

    @property
    def id(self) -> str:
        return self.message.id


D = TypeVar("D", bound=Identified)


def sift(drafts: Sequence[D], known: Mapping[str, bytes]) -> tuple[list[D], list[PutResult]]:
    """What is to be stored, and the answer for each of all.

    Args:
        known: The envelope digests of those ids that the store knows.

    Raises:
        ConflictError: an id is known, or comes twice, with another envelope.
    """
    seen = dict(known)
    new: list[D] = []
    results: list[PutResult] = []
    for draft in drafts:
        id = draft.id
        if id not in seen:
            seen[id] = draft.envelope_digest
            new.append(draft)
            results.append(PutResult(id, "stored"))
        elif seen[id] == draft.envelope_digest:
            results.append(PutResult(id, "known"))
        else:
            raise ConflictError(
                f"the id {draft.id} is known with another sender, other recipients or another queue: "
                "give another message another id"
            )
    return new, results
