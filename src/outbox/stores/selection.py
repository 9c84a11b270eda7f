"""Which of the due messages a claim takes: pure, and the same for every store.

Within a queue the order is priority, due, id.  Round the queues one message
at a time, so that a long queue keeps no short one waiting; the first turn
goes to the queue that had it longest ago.

A message whose last claim never settled is a *suspect*, and comes alone.
Where it is first in the order of the queue whose turn it is, it is the only
claim; otherwise it is passed over, and keeps nobody waiting.  So neither
starves the other: a suspect waits for those before it in its queue and for
one turn of each other queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

import attrs

from outbox.errors import ConfigurationError

from .names import require_queue

__all__ = ["PROMOTED", "Candidate", "Key", "Offer", "Turns", "choose", "distinct"]

PROMOTED: Final = 1000
"""How many scheduled messages that have become due one claim makes ready, shared by its queues."""

Key: TypeAlias = tuple[int, int, str]
"""``(-priority, due, id)``: smaller goes first."""


@attrs.frozen
class Candidate:
    """A message that could be claimed now."""

    key: Key
    size: int

    @property
    def id(self) -> str:
        return self.key[2]


@attrs.frozen
class Offer:
    """What a queue has to give: its ready messages in order, and the first of its suspects."""

    queue: str
    ready: Sequence[Candidate]
    suspect: Candidate | None = None

    @property
    def empty(self) -> bool:
        return not self.ready and self.suspect is None

    @property
    def suspect_first(self) -> bool:
        if self.suspect is None:
            return False
        return not self.ready or self.suspect.key < self.ready[0].key


class Turns:
    """Whose turn is first: that of the queue which was first longest ago.

    Kept by a store object for its own callers, and not safe from many
    threads: the store's lock is around it.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._taken = 0

    def sort(self, offers: Iterable[Offer]) -> list[Offer]:
        """The offers that have something, in the order of their turns; the first has had its turn."""
        there = [offer for offer in offers if not offer.empty]
        there.sort(key=lambda offer: self._last.get(offer.queue, 0))
        if there:
            self.took(there[0].queue)
        return there

    def order(self, queues: Iterable[str]) -> list[str]:
        """The queues in the order of their turns, whatever they have: for a store whose server does the choosing."""
        return sorted(queues, key=lambda queue: self._last.get(queue, 0))

    def took(self, queue: str) -> None:
        """This one was first."""
        self._taken += 1
        self._last[queue] = self._taken


def choose(offers: Sequence[Offer], *, limit: int, max_bytes: int) -> list[str]:
    """The ids to claim, from what the queues offer in the order of their turns."""
    if not offers or limit < 1:
        return []
    first = offers[0]
    if first.suspect is not None and first.suspect_first:
        return [first.suspect.id]
    return list(_dealt([iter(offer.ready) for offer in offers], limit, max_bytes))


def _dealt(hands: list[Iterator[Candidate]], limit: int, room: int) -> Iterator[str]:
    dealt = 0
    while hands and dealt < limit:
        hand = hands.pop(0)
        candidate = next(hand, None)
        # A queue whose next message does not fit waits: what is behind it must not pass it by.
        if candidate is None or (dealt and candidate.size > room):
            continue
        yield candidate.id
        dealt += 1
        room -= candidate.size
        hands.append(hand)


def distinct(queues: Sequence[str]) -> list[str]:
    """The names, each once.

    Raises:
        ConfigurationError: it is a bare string, whose letters would be taken
            for queues; or no message can have such a queue.
    """
    if isinstance(queues, str):
        raise ConfigurationError(
            f"queues is the one string {queues!r}: pass a sequence, such as [{queues!r}]"
        )
    return [require_queue(name) for name in dict.fromkeys(queues)]
