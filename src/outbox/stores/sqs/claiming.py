"""From a request for claims to the claims: through the hand, which is filled from the queues as far as is needed."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Sequence
from typing import Final

import attrs

from outbox.errors import ConfigurationError, FormatError, StoreError, StoreUnavailable
from outbox.lifecycle import Claim, State
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.content import intact
from outbox.stores.instants import later, width
from outbox.stores.standing import Standing

from .fetching import Fetching
from .hand import Given, Got, Hand, Out, by_queue
from .packing import Packing
from .post import BATCH, LONGEST_LEASE, Post
from .settling import seconds
from .slips import Slip
from .tokens import Token

__all__ = ["Claiming", "Lease"]

_WAITS: Final = (StoreUnavailable, ConfigurationError, FormatError)
"""What says nothing against a message: it can be read by another process, or another time."""


@attrs.frozen
class Lease:
    """As SQS gives it: whole seconds from *now* on, from one to twelve hours."""

    now: int
    seconds: int
    until: int

    @classmethod
    def of(cls, lease: dt.timedelta, now: int) -> Lease:
        hidden = min(max(1, seconds(width(lease))), LONGEST_LEASE)
        return cls(now, hidden, later(now, dt.timedelta(seconds=hidden)))


class Claiming:
    """The letters in hand and the claims given out, for all threads of a store."""

    def __init__(self, post: Post, packing: Packing, *, poll: int, lock: threading.Lock) -> None:
        self._post = post
        self._packing = packing
        self._fetching = Fetching(post, packing)
        self._poll = poll
        self._lock = lock
        self._hand = Hand()

    def claim(self, names: Sequence[str], limit: int, max_bytes: int, lease: Lease) -> list[Claim]:
        self._renew(names, lease)
        while True:
            self._fill(names, limit, max_bytes, lease)
            with self._lock:
                chosen = self._hand.choose(names, limit, max_bytes)
            claims = self._claimed(chosen, lease)
            if claims or not chosen:
                return claims

    def give_back(self) -> None:
        """Put back what was received and not claimed, as though it had not been received."""
        with self._lock:
            left = self._hand.all()
        self._fetching.give_back(left)

    def out(self, claim: Claim, now: int) -> Out | None:
        """What is known of a claim; None where its token leads nowhere, or it was settled."""
        token = Token.read(claim.token)
        if token is None:
            return None
        with self._lock:
            given = self._hand.given(token.handle)
        if given is None:
            given = self._strange(claim, token, now)
            with self._lock:
                given = self._hand.give(token.handle, given, now)
        if given.settled or given.slip.id != claim.message.id:
            return None
        return Out(claim, token.handle, given)

    def _strange(self, claim: Claim, token: Token, now: int) -> Given:
        """What a claim itself tells, which another process or an earlier object gave out."""
        message = claim.message
        standing = Standing(
            state=State.CLAIMED,
            fates=tuple(claim.fates[recipient] for recipient in message.recipients),
            due=now,
            since=token.since,
            submitted=token.submitted,
            attempts=claim.attempt,
            lost=claim.lost,
        )
        if token.key:
            slip = Slip(id=message.id, size=len(message.content), standing=standing, key=token.key)
        else:
            slip = self._packing.pack(message, standing)
        return Given(slip=slip, until=later(now, dt.timedelta(seconds=LONGEST_LEASE)))

    # -- the hand

    def _renew(self, names: Sequence[str], lease: Lease) -> None:
        """What was received and left over stays ours while we go on claiming."""
        with self._lock:
            ageing = self._hand.ageing(names, lease.now, lease.until)
        for queue, group in by_queue(ageing).items():
            gone = self._post.hide(queue, [each.handle for each in group], lease.seconds)
            with self._lock:
                self._hand.renew([each.handle for each in group], gone, lease.until)

    def _fill(self, names: Sequence[str], limit: int, max_bytes: int, lease: Lease) -> None:
        """Fetch until there is as much in hand as was asked for, or nothing more comes."""
        with self._lock:
            left = [] if self._hand.lone(names) else self._hand.in_turn(names)
        wait = self._poll
        while left:
            with self._lock:
                ready = {queue: self._hand.ready(queue) for queue in names}
                full = self._hand.size(names) >= max_bytes and any(ready.values())
            missing = limit - sum(ready.values())
            if missing <= 0 or full:
                return
            queue = min(left, key=ready.__getitem__)
            number = min(-(-missing // len(left)), BATCH)
            if not self._fetched(queue, number, lease, wait):
                left.remove(queue)
            else:
                wait = 0

    def _fetched(self, queue: str, number: int, lease: Lease, wait: int) -> bool:
        """Whether there may be more of this queue."""
        fetched = self._fetching.fetch(queue, number, lease=lease.seconds, wait=wait, now=lease.now)
        with self._lock:
            self._hand.add(
                Got(queue=queue, handle=handle, slip=slip, until=lease.until)
                for handle, slip in fetched.ready
            )
            crowded = self._hand.crowded(queue)
        self._fetching.pass_on(queue, fetched)
        return bool(fetched) and not crowded

    # -- the claims

    def _claimed(self, chosen: Sequence[Got], lease: Lease) -> list[Claim]:
        try:
            gone = self._extended([each for each in chosen if each.until != lease.until], lease)
        except StoreError:
            with self._lock:
                self._hand.add(chosen)
            raise
        claims = [self._claim(each, lease) for each in chosen if each.handle not in gone]
        return [claim for claim in claims if claim is not None]

    def _extended(self, letters: Sequence[Got], lease: Lease) -> set[str]:
        gone: set[str] = set()
        for queue, group in by_queue(letters).items():
            gone |= self._post.hide(queue, [each.handle for each in group], lease.seconds)
        return gone

    def _claim(self, letter: Got, lease: Lease) -> Claim | None:
        """The claim on it; None where it cannot be read, and is aside or waits."""
        try:
            message = self._read(letter.slip)
        except _WAITS as error:
            self._fetching.postpone(letter, str(error))
            return None
        except StoreError as error:
            self._fetching.hold(letter, str(error))
            return None
        standing = standings.claimed(letter.slip.standing, lease.until)
        slip = attrs.evolve(letter.slip, standing=standing)
        with self._lock:
            self._hand.give(letter.handle, Given(slip=slip, until=lease.until), lease.now)
        token = Token(since=standing.since, submitted=standing.submitted, key=slip.key, handle=letter.handle)
        return standings.claim(message, standing, str(token), lease.now)

    def _read(self, slip: Slip) -> Message:
        return intact(slip.id, lambda: self._packing.unpack(slip))
