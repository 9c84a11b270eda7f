"""Letters from SQS into the hand: those that are due, those that go on waiting, and those that nobody can read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from outbox.errors import CorruptRecord, FormatError, StoreError
from outbox.lifecycle import State
from outbox.stores import standing as standings

from .hand import Got, by_queue
from .naming import HELD
from .packing import Packing
from .post import Letter, Post
from .settling import postponed
from .slips import Slip

__all__ = ["Fetched", "Fetching"]

_LOG: Final = logging.getLogger("outbox.stores.sqs")
_LEFT: Final = 1000
"""Letters of a queue that are remembered, for they are still to be deleted."""
_AGAIN: Final = 60
"""Seconds until a message is tried again whose content cannot be read for now."""


@attrs.define
class Fetched:
    """What has come.

    Attributes:
        ready: What can be claimed, with the receipt handle of each.
        onward: What is not due yet, or can be read by a newer release only.
        aside: What nobody can claim.
    """

    ready: list[tuple[str, Slip]] = attrs.Factory(list)
    onward: list[tuple[str, Letter]] = attrs.Factory(list)
    aside: list[tuple[str, Letter]] = attrs.Factory(list)

    def __bool__(self) -> bool:
        return bool(self.ready or self.onward or self.aside)


class Fetching:
    """Receives letters, and sends on those that are not to be claimed now."""

    def __init__(self, post: Post, packing: Packing, now: Callable[[], int]) -> None:
        self._post = post
        self._packing = packing
        self._now = now
        self._left: dict[str, list[str]] = {}
        """Whose successors were sent, by their queues, and that could not be deleted yet."""

    def forget(self) -> None:
        """Nothing is left to be deleted, for it is another's."""
        self._left = {}

    def fetch(self, queue: str, number: int, *, lease: int, wait: int) -> Fetched:
        """Receive up to *number*, hidden from others for *lease* seconds."""
        fetched = Fetched()
        received = self._post.receive(queue, number, lease=lease, wait=wait)
        now = self._now()
        for each in received:
            try:
                slip = Slip.read(each.text)
                sent_back = slip.standing.state is not State.QUEUED
                slip = _returned(slip, now) if sent_back else _counted(slip, each.number, now)
            except FormatError as error:
                _LOG.warning("a letter in %s is left to a newer release for %d s: %s", queue, _AGAIN, error)
                fetched.onward.append((each.handle, each.again(_AGAIN)))
                continue
            except StoreError as error:
                fetched.aside.append((each.handle, each.aside(str(error))))
                continue
            except Exception as error:  # noqa: BLE001 - one letter, whatever a stranger put there, stops no other
                fetched.aside.append((each.handle, each.aside(f"it cannot be read: {error!r:.200}")))
                continue
            if sent_back or (slip.later and slip.standing.due > now):
                # What was sent back is written anew, so that what SQS counts from now on is claims.
                slip, delay = postponed(self._packing.renewed(slip, now), slip.standing.due - now)
                fetched.onward.append((each.handle, Letter(text=self._packing.text(slip), delay=delay)))
            else:
                fetched.ready.append((each.handle, slip))
        return fetched

    def pass_on(self, queue: str, fetched: Fetched, until: int) -> None:
        """Send on what cannot be claimed now, and is ours until then."""
        self._tidy(queue)
        if until <= self._now():
            return
        self._replace(queue, fetched.onward)
        self._replace(queue, fetched.aside, HELD)

    def hold(self, letter: Got, reason: str) -> None:
        """Put it where a person finds it, as it came."""
        if self._ours([letter]):
            text = self._packing.text(letter.slip)
            self._replace(letter.queue, [(letter.handle, Letter(text=text, reason=reason))], HELD)

    def postpone(self, letter: Got, reason: str) -> None:
        """Let it be tried again later; nothing is held against it."""
        if self._ours([letter]):
            _LOG.warning("%s waits for %d s: %s", letter.slip.id, _AGAIN, reason)
            text = self._packing.text(letter.slip)
            self._replace(letter.queue, [(letter.handle, Letter(text=text, delay=_AGAIN))])

    def give_back(self, letters: Sequence[Got]) -> None:
        """Put back what nobody has claimed, as though it had not been received."""
        for queue, group in by_queue(self._ours(letters)).items():
            texts = [(each.handle, Letter(text=self._packing.text(each.slip))) for each in group]
            self._replace(queue, texts)
        for queue in list(self._left):
            self._tidy(queue)

    def _ours(self, letters: Sequence[Got]) -> list[Got]:
        """Those that nobody else can have had: a successor of another would be a second copy, however long ago it was sent."""
        now = self._now()
        return [each for each in letters if each.until > now]

    def _replace(self, queue: str, letters: Sequence[tuple[str, Letter]], side: str = "") -> None:
        """Send these in the place of those; what fails is as it was, and comes again when its time in hand is over."""
        if not letters:
            return
        sent = self._post.send(queue, [letter for _, letter in letters], side)
        if sent.error is not None:
            _LOG.warning("some letters were not sent on, and come again: %s", sent.error)
        self._delete(queue, [letters[place][0] for place in sorted(sent.stored)])

    def _tidy(self, queue: str) -> None:
        """Delete what could not be deleted when its successor was sent: until then there are two of it."""
        if left := self._left.pop(queue, None):
            self._delete(queue, left)

    def _delete(self, queue: str, handles: Sequence[str]) -> None:
        try:
            self._post.delete(queue, handles)
        except StoreError as error:
            self._left[queue] = [*self._left.get(queue, ()), *handles][-_LEFT:]
            _LOG.warning("some letters were sent on and are still there, too: %s", error)


def _counted(slip: Slip, received: int, now: int) -> Slip:
    """The slip with what SQS counted since it was written: receipts of it but this one were claims that never settled."""
    standing = slip.standing
    # Before it is due nobody hands it over: who had it was sending it on.
    lost = standing.lost if slip.later and standing.due > now else standing.lost + received - 1
    counted = attrs.evolve(standing, lost=lost, attempts=standing.attempts + lost - standing.lost)
    return attrs.evolve(slip, standing=standings.in_doubt(counted, told=standing.lost))


def _returned(slip: Slip, now: int) -> Slip:
    """How a message stands that was aside, and that somebody has sent back by the means of SQS.

    Raises:
        CorruptRecord: nobody's fate is open, or it is not sure that he has not received it.
    """
    step = standings.requeue(slip.id, slip.standing, now, uncertain=False)
    if step.standing is None:
        raise CorruptRecord(f"{slip.id} was sent back and stays aside: {step.change.reason}")
    return attrs.evolve(slip, standing=attrs.evolve(step.standing, due=now))
