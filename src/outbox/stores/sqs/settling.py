"""What a verdict comes to in SQS: a successor is sent, then the letter is deleted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import attrs

from outbox.errors import StoreError
from outbox.lifecycle import Delivered, Fate, Held, Released, Retry, Verdict
from outbox.stores import standing as standings
from outbox.stores.instants import width

from .hand import Out, by_queue
from .naming import DEAD, HELD
from .packing import Packing
from .post import Letter, Post
from .slips import Slip
from .spans import LONGEST_DELAY, seconds

__all__ = ["Settling", "Work", "postponed"]

_FAR: Final = LONGEST_DELAY * 1_000_000


def postponed(slip: Slip, delay: int) -> tuple[Slip, int]:
    """The slip to be sent so that it is due after *delay* microseconds, and the seconds that SQS delays it.

    What is due later than SQS can delay it comes before that, and is sent on.
    """
    return attrs.evolve(slip, later=delay > _FAR), min(seconds(delay), LONGEST_DELAY)


@attrs.frozen
class Work:
    """A claim and the verdict on it, with its fates in the order of the recipients."""

    out: Out
    verdict: Verdict
    fates: tuple[Fate, ...]


@attrs.frozen
class _Step:
    out: Out
    letter: Letter | None
    side: str


class Settling:
    """Writes verdicts, in an order in which a crash loses nothing: it may leave a message twice."""

    def __init__(self, post: Post, packing: Packing) -> None:
        self._post = post
        self._packing = packing

    def settle(self, work: Sequence[Work], now: int) -> list[Out]:
        """Write the verdicts; returns those that came to nothing, for their letter was gone.

        Raises:
            StoreError: some are not written; repeated, those that are count as stale.
        """
        steps = [self._step(each, now) for each in work]
        failure = self._sent([step for step in steps if step.letter is not None and not step.out.given.sent])
        done = [step for step in steps if step.letter is None or step.out.given.sent]
        # What a successor was sent with is that one's.
        slips = [(step.out.slip, step.out) for step in done if not step.out.given.sent]
        lost, failed = self._deleted([step.out for step in done])
        self._packing.forget(slip for slip, out in slips if out.given.settled)
        if (failure := failure or failed) is not None:
            raise failure
        return lost

    def _step(self, work: Work, now: int) -> _Step:
        out, verdict = work.out, work.verdict
        if isinstance(verdict, Delivered):
            return _Step(out, None, "")
        before = self._packing.renewed(out.slip, now)
        standing = standings.settled(before.standing, work.fates, verdict, now)
        made = standings.attempt(before.standing.attempts, verdict, now)
        slip = attrs.evolve(before, standing=standing, history=standings.recorded(before.history, made))
        if isinstance(verdict, Retry | Released):
            slip, delay = postponed(slip, width(verdict.delay))
            return _Step(out, Letter(text=self._packing.text(slip), delay=delay), "")
        side = HELD if isinstance(verdict, Held) else DEAD
        label = Letter(text="", reason=standing.reason or str(standing.state))
        return _Step(out, attrs.evolve(label, text=self._packing.text(slip, label.size)), side)

    def _sent(self, steps: Sequence[_Step]) -> StoreError | None:
        failure: StoreError | None = None
        groups: dict[tuple[str, str], list[_Step]] = defaultdict(list)
        for step in steps:
            groups[step.out.queue, step.side].append(step)
        for (queue, side), group in groups.items():
            sent = self._post.send(queue, [step.letter for step in group if step.letter is not None], side)
            for place in sent.stored:
                group[place].out.given.sent = True
            failure = failure or sent.error
        return failure

    def _deleted(self, outs: Sequence[Out]) -> tuple[list[Out], StoreError | None]:
        lost: list[Out] = []
        failure: StoreError | None = None
        for queue, group in by_queue(outs).items():
            try:
                gone = self._post.delete(queue, [out.handle for out in group])
            except StoreError as error:
                failure = failure or error
                continue
            for out in group:
                out.given.slip = None
            # Where a successor was sent the verdict stands in that, whatever became of the letter.
            lost += [out for out in group if out.handle in gone and not out.given.sent]
        return lost, failure
