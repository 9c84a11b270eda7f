"""From a request for claims to the claims: through the hand, which is filled from the queues as far as is needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from outbox.errors import ConfigurationError, CorruptRecord, FormatError, StoreError, StoreUnavailable
from outbox.lifecycle import Claim, State
from outbox.message import Message
from outbox.stores import standing as standings
from outbox.stores.content import intact
from outbox.stores.forking import Hooks, watch_forks
from outbox.stores.standing import Standing

from .fetching import Fetching
from .filling import Asked, Filling
from .hand import Given, Got, Hand, Out, by_queue
from .packing import Packing
from .post import Post
from .slips import Slip
from .spans import Lease
from .tokens import Token

__all__ = ["Claiming"]

_WAITS: Final = (StoreUnavailable, ConfigurationError, FormatError)
"""What says nothing against a message: it can be read by another process, or another time."""


class Claiming:
    """The letters in hand and the claims given out, for all threads of a store."""

    def __init__(
        self, post: Post, packing: Packing, *, poll: int, lock: threading.Lock, now: Callable[[], int]
    ) -> None:
        self._post = post
        self._packing = packing
        self._fetching = Fetching(post, packing, now)
        self._lock = lock
        self._now = now
        self._hand = Hand()
        self._filling = Filling(self._fetching, self._hand, lock, poll=poll, now=now)
        watch_forks(self, _FORKS)

    def claim(self, names: Sequence[str], limit: int, max_bytes: int, lease: Lease) -> list[Claim]:
        """The claims; what is asked for of one queue is not kept back by another that fails.

        Raises:
            StoreError: a queue failed, and there is nothing of the others.
        """
        asked = Asked(names=names, limit=limit, max_bytes=max_bytes, lease=lease)
        self._renew(asked)
        while asked.names:
            self._filling.fill(asked)
            with self._lock:
                chosen = self._hand.choose(asked.names, limit, max_bytes)
            claims = self._claimed(chosen, asked)
            if claims:
                return claims
            if not chosen:
                break
        if asked.error is not None:
            raise asked.error
        return []

    def let_go(self, lease: Lease) -> None:
        """Put back what nobody claims while others are worked on, before its time is over and SQS counts it as lost.

        What fails is as it was.
        """
        with self._lock:
            stale = self._hand.stale(lease.now, lease.until)
        self._fetching.give_back(stale)

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
            given = self._strange(claim, token)
            with self._lock:
                given = self._hand.give(token.handle, given, now)
        if given.slip is None or given.slip.id != claim.message.id:
            return None
        return Out(claim, token.handle, given.slip, given)

    def _strange(self, claim: Claim, token: Token) -> Given:
        """What a claim itself tells, which another process or an earlier object gave out."""
        message = claim.message
        standing = Standing(
            state=State.CLAIMED,
            fates=tuple(claim.fates[recipient] for recipient in message.recipients),
            due=token.until,
            since=token.since,
            submitted=token.submitted,
            attempts=claim.attempt,
            lost=claim.lost,
        )
        if token.key:
            slip = Slip(id=message.id, size=len(message.content), standing=standing, key=token.key)
        else:
            slip = self._packing.pack(message, standing)
        return Given(slip=slip, until=token.until, last=token.last)

    def _renew(self, asked: Asked) -> None:
        """What was received and left over stays ours while we go on claiming; what SQS hides no longer goes back."""
        lease = asked.lease
        with self._lock:
            ageing = self._hand.ageing(asked.names, lease.now, lease.until)
            aged = self._hand.aged(asked.names, lease.until)
        self._fetching.give_back(aged)
        gone_back = {each.handle for each in aged}
        for queue, group in by_queue(each for each in ageing if each.handle not in gone_back).items():
            try:
                gone = self._post.hide(queue, {each.handle: lease.seconds for each in group})
            except StoreError as error:
                self._filling.failed(asked, queue, error)
                continue
            with self._lock:
                self._hand.renew([each.handle for each in group], gone, lease.until)

    def _after_in_child(self) -> None:
        """What was received is the parent's; of claims the child knows what whoever reads their tokens does, and more."""
        self._hand.all()
        self._fetching.forget()

    # -- the claims

    def _claimed(self, chosen: Sequence[Got], asked: Asked) -> list[Claim]:
        """Each for most of the lease from now on, however long it has taken since it was asked for."""
        lease = asked.lease.at(self._now())
        chosen = [each for each in chosen if each.until > lease.now]
        fresh = [each for each in chosen if _fresh(each, asked.lease, lease)]
        ours = {each.handle: each for each in fresh}
        for queue, group in by_queue(each for each in chosen if each.handle not in ours).items():
            try:
                ours |= self._extended(queue, group, lease)
            except StoreError as error:
                # They stay in hand for their time, and keep nothing of the other queues.
                with self._lock:
                    self._hand.add(group)
                self._filling.failed(asked, queue, error)
                asked.names = [name for name in asked.names if name != queue]
        claims = [self._claim(ours[each.handle], lease.now) for each in chosen if each.handle in ours]
        return [claim for claim in claims if claim is not None]

    def _extended(self, queue: str, letters: Sequence[Got], lease: Lease) -> dict[str, Got]:
        """Those that are not lost, with the whole of their lease before them."""
        seconds = {each.handle: lease.within(each.last) for each in letters}
        gone = self._post.hide(queue, seconds)
        return {
            each.handle: attrs.evolve(each, until=lease.end(seconds[each.handle]))
            for each in letters
            if each.handle not in gone and seconds[each.handle]
        }

    def _claim(self, letter: Got, now: int) -> Claim | None:
        """The claim on it; None where it cannot be read, and is aside or waits."""
        try:
            message = self._read(letter)
        except _WAITS as error:
            self._fetching.postpone(letter, str(error))
            return None
        except StoreError as error:
            self._fetching.hold(letter, str(error))
            return None
        standing = standings.claimed(letter.slip.standing, letter.until)
        slip = attrs.evolve(letter.slip, standing=standing)
        with self._lock:
            given = Given(slip=slip, until=letter.until, last=letter.last)
            self._hand.give(letter.handle, given, now)
        token = Token(
            since=standing.since,
            submitted=standing.submitted,
            until=letter.until,
            last=letter.last,
            key=slip.key,
            handle=letter.handle,
        )
        return standings.claim(message, standing, str(token), now)

    def _read(self, letter: Got) -> Message:
        message = intact(letter.slip.id, lambda: self._packing.unpack(letter.slip))
        if message.queue != letter.queue:
            raise CorruptRecord(
                f"{message.id} is of the queue {message.queue}, and came in {letter.queue}: somebody has sent it "
                "there, or the names of two stores overlap"
            )
        return message


def _fresh(letter: Got, asked: Lease, lease: Lease) -> bool:
    """Whether it was received for this claim, and most of its lease is left."""
    return letter.until >= asked.until and letter.until >= lease.middle


_FORKS: Final[Hooks[Claiming]] = Hooks(
    before=lambda _: None,
    in_parent=lambda _: None,
    in_child=Claiming._after_in_child,  # noqa: SLF001 - its own
)
