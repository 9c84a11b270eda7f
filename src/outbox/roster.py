"""Who is at work at which relay, and where no further worker goes: a relay that hangs must not come to have them all.

It may hang at any moment, in all that is under way there, and for as long as
the longest deadline.  So while another relay is known to be well, half of
the workers at most join where nothing moves, and the last one who is free is
kept for those that are well.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter, OrderedDict
from collections.abc import Collection, Hashable
from itertools import islice
from typing import Final

import attrs

from .lifecycle import Claim, Released, Verdict
from .relay import Wait
from .slips import Run
from .stock import Lane

__all__ = ["PATIENCE", "Hand", "Roster"]

PATIENCE: Final = 1.0
"""The seconds behind which nothing moves where nobody moved."""
_WELL: Final = 60.0


@attrs.define(eq=False)
class Hand:
    """What the desk knows of one worker.

    *size* is how many he takes at a time, *hungry* whether he asked in vain,
    *left* how many more he may pull, *hand* what he has pulled and not told
    of, *moved_at* when he last pulled; *told*: his relay has answered since.
    """

    size: int = 1
    hungry: bool = False
    run: Run | None = None
    left: int = 0
    hand: list[Claim] = attrs.Factory(list)
    moved_at: float = -math.inf
    told: bool = False

    def wants(self, now: float) -> int:
        """As many as he takes at once; where he has taken, as many again, if he is quick."""
        if self.run is None:
            return self.size if self.hungry else 0
        return self.size if self.size > 1 and now - self.moved_at < PATIENCE else 0

    def tell(self, claim: Claim, verdict: Verdict) -> None:
        """He told what came of a claim."""
        self.hand.remove(claim)
        self.told = self.told or not isinstance(verdict, Released)


class Roster:
    """The workers of a desk.

    Args:
        expected: How many there will be.
        several: There is more than one relay; where there is one, nobody has
            to be kept for another.
    """

    def __init__(self, expected: int, *, several: bool) -> None:
        self.expected = expected
        self._several = several
        self._hands: dict[Hashable, Hand] = {}
        self._at: Counter[str] = Counter()
        self._moved: dict[str, float] = {}
        self._lived: OrderedDict[str, float] = OrderedDict()

    def __getitem__(self, worker: Hashable) -> Hand:
        hand = self._hands.get(worker)
        if hand is None:
            hand = self._hands[worker] = Hand()
        return hand

    @property
    def hands(self) -> Collection[Hand]:
        """All that came and are not gone."""
        return self._hands.values()

    @property
    def at_work(self) -> int:
        """How many have a run."""
        return sum(hand.run is not None for hand in self._hands.values())

    def leave(self, worker: Hashable) -> Hand:
        """He is gone, as he was."""
        hand = self._hands.pop(worker, Hand())
        self._forget(hand.run)
        return hand

    def begin(self, hand: Hand, run: Run, now: float) -> None:
        """He begins a run."""
        hand.run, hand.left, hand.moved_at, hand.told = run, run.number, now, False
        if self._several:
            self._at.update(run.lane)
            # Who begins does not prove that anything moves where others wait.
            for key in run.lane:
                self._moved.setdefault(key, now)

    def pull(self, hand: Hand, claim: Claim, now: float) -> None:
        """He has this one too."""
        self.move(hand, now)
        hand.left -= 1
        hand.hand.append(claim)
        hand.moved_at = now

    def move(self, hand: Hand, now: float) -> None:
        """He goes on; where his relay has answered, it is well."""
        if hand.told and hand.run is not None and self._several:
            for key in hand.run.lane:
                self._moved[key] = self._lived[key] = now
                self._lived.move_to_end(key)
            while self._lived and now - next(iter(self._lived.values())) >= _WELL:
                self._lived.popitem(last=False)
        hand.told = False

    def end(self, hand: Hand, now: float) -> None:
        """His run is over."""
        self.move(hand, now)
        self._forget(hand.run)
        hand.run, hand.hand, hand.left = None, [], 0

    def crowded(self, lane: Lane) -> bool:
        """Whether half of the workers are there: others' mail comes first, then."""
        return self._several and 2 * self._crowd(lane) >= self.expected

    def kept_out(self, lane: Lane, now: float) -> Wait | None:
        """Why no further worker goes there now; ``probing`` where its mail makes way for what is for others."""
        if not self._several or self.expected <= 1 or not self._others_are_well(lane, now):
            return None
        crowd, last = self._crowd(lane), self.expected - self.at_work == 1
        if not crowd:
            return _unknown(self._quiet(now)) if last and not self._well(lane, now, _WELL) else None
        if self._well(lane, now, PATIENCE):
            return _reserved(PATIENCE) if last and crowd >= self.expected - 1 else None
        if not (last or self.crowded(lane)):
            return None
        quiet = max(now - self._moved[key] for key in lane if key in self._moved)
        return _silent(quiet) if quiet >= PATIENCE else _reserved(PATIENCE - quiet)

    def _crowd(self, lane: Lane) -> int:
        return max(self._at[key] for key in lane)

    def _well(self, lane: Lane, now: float, lately: float) -> bool:
        return all(now - self._lived.get(key, -math.inf) < lately for key in lane)

    def _others_are_well(self, lane: Lane, now: float) -> bool:
        latest = islice(reversed(self._lived.items()), len(lane) + 1)
        return any(key not in lane and now - at < _WELL for key, at in latest)

    def _quiet(self, now: float) -> float:
        """For how long nothing has moved anywhere."""
        return now - max(self._moved.values(), default=now)

    def _forget(self, run: Run | None) -> None:
        for key in run.lane if run is not None and self._several else ():
            self._at[key] -= 1
            if not self._at[key]:
                del self._at[key], self._moved[key]


def _silent(quiet: float) -> Wait:
    return Wait(
        dt.timedelta(seconds=quiet),
        f"those who are at work at its relay wait for an answer since {quiet:.0f} s",
        probing=True,
        under_way=quiet,
    )


def _unknown(quiet: float) -> Wait:
    delay = dt.timedelta(seconds=max(PATIENCE, quiet))
    return Wait(delay, "the last free worker is kept for relays that are well", probing=True, under_way=quiet)


def _reserved(seconds: float) -> Wait:
    return Wait(dt.timedelta(seconds=seconds), "a worker is kept for other relays", full=True)
