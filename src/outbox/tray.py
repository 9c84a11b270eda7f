"""What came of the claims of one process, from the moment that it is noted until the store has it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from .lifecycle import Claim, Settlement
from .slips import Noted

__all__ = ["STUCK", "Tray"]

STUCK: Final = 10.0
"""The seconds after which what alone could not be written is written again."""

_UNWRITTEN: Final = 256


class Tray:
    """Workers lay on it what they noted, and the clerk takes all of it and writes it, while they note more.

    What the store did not take lies on it again, before the rest; until it is
    written the tray is *faltering*.  What it did not take while it took the
    rest is *stuck*: it lies aside for a while, and nobody else waits for it.
    """

    def __init__(self) -> None:
        self.faltering = False
        self._noted: list[Noted] = []
        self._writing: list[Noted] = []
        self._stuck: list[Noted] = []
        self._stuck_until = math.inf
        self._last_try = False

    def __len__(self) -> int:
        return len(self._noted) + len(self._writing) + len(self._stuck)

    def __iter__(self) -> Iterator[Noted]:
        return iter([*self._noted, *self._writing, *self._stuck])

    @property
    def waiting(self) -> int:
        """How many nobody writes yet."""
        return len(self._noted)

    @property
    def behindhand(self) -> bool:
        """Whether no more is begun before what there is to write is written: at a kill it would all go out again."""
        return self.faltering or len(self) >= _UNWRITTEN

    @property
    def moving(self) -> bool:
        """Whether there is anything but what is stuck."""
        return bool(self._noted or self._writing)

    @property
    def stuck_until(self) -> float:
        """When what is stuck is to be written again; infinity where nothing is."""
        return self._stuck_until

    def recall(self, claim: Claim) -> Noted | None:
        """What came of the claim before this one where that is stuck and somebody was sent it, taken away."""
        found = next((each for each in self._stuck if _preceded(each[0], claim)), None)
        if found is not None:
            self._stuck.remove(found)
            self._stuck_until = self._stuck_until if self._stuck else math.inf
        return found

    def hasten(self) -> None:
        """What is stuck is to be written again at once."""
        self._stuck_until = -math.inf if self._stuck else math.inf

    def look(self, now: float) -> None:
        """What was stuck for long enough waits like all else."""
        if self._stuck_until <= now:
            self._noted = self._stuck + self._noted
            self._stuck, self._stuck_until = [], math.inf

    def add(self, noted: Iterable[Noted]) -> None:
        """Lay these behind the others."""
        self._noted += noted

    def take(self) -> Sequence[Noted]:
        """All that waits: the clerk writes it, and says what came of that."""
        self._writing, self._noted = self._noted, []
        return self._writing

    def written(self) -> Sequence[Noted]:
        """The store has what was taken: that is it."""
        written, self._writing = self._writing, []
        self.faltering = self._last_try = False
        return written

    def falter(self) -> None:
        """The store did not take it: it is taken again."""
        self.faltering = self.faltering or bool(self._writing)
        self._noted, self._writing = self._writing + self._noted, []

    def part(self, left: Collection[tuple[str, str]]) -> Sequence[Noted]:
        """The store has all that was taken but of the claims of these keys: they stay, and the others are it."""
        there = [(each[0].claim.key in left, each) for each in self._writing]
        self._writing = [each for stays, each in there if stays]
        return [each for stays, each in there if not stays]

    def stick(self, now: float) -> None:
        """What was taken alone was not written: it is taken again after a while, and the tray does not falter."""
        if self._writing:
            self._stuck += self._writing
            self._stuck_until = min(self._stuck_until, now + STUCK)
        self._writing, self.faltering, self._last_try = [], False, False

    def fall(self) -> Sequence[Noted]:
        """The clerk fell: what he was writing is the next one's; what takes him too is given up, and returned."""
        if self._last_try and self._writing:
            return self.written()
        self._last_try = self._last_try or bool(self._writing)
        self.falter()
        return ()

    def clear(self) -> Sequence[Noted]:
        """All that waits, taken away: nobody will write it."""
        noted, self._noted, self._stuck = self._stuck + self._noted, [], []
        self._stuck_until = math.inf
        return noted


def _preceded(settlement: Settlement, claim: Claim) -> bool:
    """Whether *claim* is the next one of the message, and was made because this verdict was not written in time."""
    before = settlement.claim
    return (
        settlement.verdict.outcome is not None
        and before.message.id == claim.message.id
        and (before.attempt + 1, before.lost + 1) == (claim.attempt, claim.lost)
    )
