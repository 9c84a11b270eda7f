"""What this process has of the queues: letters received and not yet claimed, and claims not yet settled.

Kept under the store's lock; nothing here waits for the service.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Final, Protocol, TypeVar

import attrs

from outbox.lifecycle import Claim
from outbox.stores.selection import Candidate, Offer, choose

from .slips import Slip

__all__ = ["Given", "Got", "Hand", "Out", "by_queue"]

_MANY: Final = 1000
"""Claims that are remembered whether they matter or not."""
_SUSPECTS: Final = 10
"""No more letters are fetched from a queue of which so many suspects are there already."""


@attrs.frozen(kw_only=True)
class Got:
    """A letter that was received; until *until* nobody else gets it, and SQS hides it no longer than to *last*."""

    queue: str
    handle: str
    slip: Slip
    until: int
    last: int

    @property
    def suspect(self) -> bool:
        return self.slip.standing.lost > 0


@attrs.define(kw_only=True)
class Given:
    """What is known of a claim that was given out.

    *slip* is None once it was settled: bodies are large, and what is left
    says no more than that this token is worth nothing.  *sent* tells how far
    its verdict has come, so that a settle that failed goes on where it
    stood; *busy* is it while somebody settles it.  Its lease runs until
    *until*, and SQS extends it to *last* at most.
    """

    slip: Slip | None
    until: int
    last: int
    sent: bool = False
    busy: bool = False

    @property
    def settled(self) -> bool:
        return self.slip is None

    def matters(self, now: int) -> bool:
        """Whether it has to be remembered: what is not is fenced by what its token says."""
        return self.until > now or (self.sent and not self.settled) or self.busy


@attrs.frozen
class Out:
    """A claim, and what its token leads to."""

    claim: Claim
    handle: str
    slip: Slip
    given: Given

    @property
    def queue(self) -> str:
        return self.claim.message.queue


class Hand:
    """Letters in the order in which they came, and claims by their receipt handles."""

    def __init__(self) -> None:
        self._got: dict[str, Got] = {}
        self._given: dict[str, Given] = {}
        self._many = 0
        self._turns: dict[str, int] = {}
        self._turn = 0
        self._alone = False

    def add(self, letters: Iterable[Got]) -> None:
        self._got |= {each.handle: each for each in letters}

    def renew(self, handles: Iterable[str], gone: Collection[str], until: int) -> None:
        """These stay until then, but for those that are *gone*; what was claimed meanwhile is here no more."""
        for handle in handles:
            letter = self._got.pop(handle, None) if handle in gone else self._got.get(handle)
            if letter is not None and handle not in gone:
                self._got[handle] = attrs.evolve(letter, until=until)

    def drop(self, handles: Iterable[str]) -> None:
        for handle in handles:
            self._got.pop(handle, None)

    def all(self) -> list[Got]:
        """Everything that was not claimed; it is in hand no longer."""
        letters, self._got = list(self._got.values()), {}
        return letters

    def ageing(self, queues: Collection[str], now: int, until: int) -> list[Got]:
        """Those whose time is half over; what is over by now is dropped, for others may have it."""
        mine = [each for each in self._got.values() if each.queue in queues]
        self.drop(each.handle for each in mine if each.until <= now)
        return [each for each in mine if now < each.until <= (now + until) // 2]

    def stale(self, now: int, until: int) -> list[Got]:
        """Those whose time is half over, as *ageing* has it, of all queues; they are in hand no longer."""
        old = self.ageing({each.queue for each in self._got.values()}, now, until)
        self.drop(each.handle for each in old)
        return old

    def aged(self, queues: Sequence[str], until: int) -> list[Got]:
        """Those that SQS does not hide until then; they are in hand no longer."""
        aged = [each for each in self._got.values() if each.queue in queues and each.last < until]
        self.drop(each.handle for each in aged)
        return aged

    def in_turn(self, queues: Sequence[str]) -> list[str]:
        """The queues, that first which was first longest ago."""
        return sorted(queues, key=lambda queue: self._turns.get(queue, 0))

    def any(self, queues: Sequence[str]) -> bool:
        return any(each.queue in queues for each in self._got.values())

    def ready(self, queue: str) -> int:
        return sum(1 for each in self._got.values() if each.queue == queue and not each.suspect)

    def size(self, queues: Sequence[str]) -> int:
        """Bytes of content that could be claimed together."""
        return sum(e.slip.size for e in self._got.values() if e.queue in queues and not e.suspect)

    def crowded(self, queue: str) -> bool:
        """Whether enough suspects of this queue are there, each of which comes alone."""
        return sum(1 for e in self._got.values() if e.queue == queue and e.suspect) >= _SUSPECTS

    def lone(self, queues: Sequence[str]) -> bool:
        """Whether the next claim is a suspect whatever else there is: every second one, so that nobody starves."""
        return not self._alone and any(e.suspect and e.queue in queues for e in self._got.values())

    def choose(self, queues: Sequence[str], limit: int, max_bytes: int) -> list[Got]:
        """What a claim takes; it is in hand no longer."""
        suspect = next((e for e in self._got.values() if e.suspect and e.queue in queues), None)
        handles = [] if self.lone(queues) else self._chosen(queues, limit, max_bytes)
        self._alone = not handles and suspect is not None
        if self._alone and suspect is not None and limit > 0:
            handles = [suspect.handle]
        return [self._got.pop(handle) for handle in handles]

    def _chosen(self, queues: Sequence[str], limit: int, max_bytes: int) -> list[str]:
        offers = [offer for queue in self.in_turn(queues) if not (offer := self._offer(queue)).empty]
        if offers and limit > 0:
            self._turn += 1
            self._turns[offers[0].queue] = self._turn
        return choose(offers, limit=limit, max_bytes=max_bytes)

    def _offer(self, queue: str) -> Offer:
        ready = [e for e in self._got.values() if e.queue == queue and not e.suspect]
        return Offer(queue, [Candidate((0, n, e.handle), e.slip.size) for n, e in enumerate(ready)])

    # -- claims

    def give(self, handle: str, given: Given, now: int) -> Given:
        """Remember a claim, and return what is remembered; once there are many, those that do not matter are forgotten."""
        if len(self._given) >= max(_MANY, self._many):
            self._given = {name: each for name, each in self._given.items() if each.matters(now)}
            self._many = 2 * len(self._given)
        return self._given.setdefault(handle, given)

    def given(self, handle: str) -> Given | None:
        return self._given.get(handle)

    def waited_for(self, now: int) -> bool:
        """Whether somebody has a claim that he may settle any moment."""
        return any(each.until > now and not each.settled for each in self._given.values())


class _Queued(Protocol):
    @property
    def queue(self) -> str: ...


Q = TypeVar("Q", bound=_Queued)


def by_queue(things: Iterable[Q]) -> dict[str, list[Q]]:
    """The same, by the queue that each is of."""
    groups: dict[str, list[Q]] = defaultdict(list)
    for thing in things:
        groups[thing.queue].append(thing)
    return groups
