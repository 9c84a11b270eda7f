"""Which messages of a ``put`` are new: pure, and the same for every store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from outbox.errors import ConflictError
from outbox.lifecycle import PutResult
from outbox.message import Message

__all__ = ["sift"]


def sift(messages: Sequence[Message], known: Mapping[str, bytes]) -> tuple[list[Message], list[PutResult]]:
    """The messages to store, and the answer for each of all.

    Args:
        known: The envelope digests of those ids that the store knows.

    Raises:
        ConflictError: an id is known, or comes twice, with another envelope.
    """
    seen = dict(known)
    new: list[Message] = []
    results: list[PutResult] = []
    for message in messages:
        digest = message.envelope_digest
        if message.id not in seen:
            seen[message.id] = digest
            new.append(message)
            results.append(PutResult(message.id, "stored"))
        elif seen[message.id] == digest:
            results.append(PutResult(message.id, "known"))
        else:
            raise ConflictError(
                f"the id {message.id} is known with another sender, other recipients or another queue: "
                "give another message another id"
            )
    return new, results
