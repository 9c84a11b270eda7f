"""The bucket of one limit as it stands in a register, between the clock of the store and :class:`.Rate`."""

from __future__ import annotations

from typing import Final

import attrs

from .rates import Rate

__all__ = ["LARGEST", "Bucket"]

LARGEST: Final = 0.25
"""No portion is more than comes in so many seconds, unless that is less than one."""

_NANO: Final = 1_000_000_000
_SET_BACK: Final = 5.0
"""A bucket that lacks so many seconds more than any can is one of before a clock was set back."""
_LONGEST: Final = 4 * 20 + 3
"""So many characters have four numbers that a clock may have, in nanoseconds."""
_STRETCH: Final = 3.0
"""Seconds: longer than any permit is of use."""


@attrs.define
class Bucket:
    """A rate whose moments are seconds from the one at which it was read, and what its bucket has *lacked* at least.

    That is known in seconds of its rate, since it *turned*, and of the
    stretch *before*.  What is given back had room for as much at any time
    since it was taken, and may be had anew; of the rest what the bucket has
    gained since then stays lost, for it may have run over.  What has been taken
    ahead fills no room before its time has come: of a bucket with a line
    before it that much is known to be lacking but for the largest portion.

    Attributes:
        set_back: It was written before the clock was set back: it is taken for empty, and has to be written anew.
    """

    rate: Rate
    turned: float = 0.0
    lacked: float = 0.0
    before: float = 0.0
    set_back: bool = False

    @classmethod
    def read(cls, rate: Rate, word: str, at: int, ahead: float) -> Bucket:
        """As it stands in a register at that moment of the store's clock; as *rate* where nobody can read it.

        *ahead*: so many seconds of what is still to come may have been taken.
        """
        if len(word) > _LONGEST:
            return cls(rate, lacked=_lacking(rate))
        try:
            full_at, turned, lacked, before = (int(part) for part in word.split(":"))
        except ValueError:
            return cls(rate, lacked=_lacking(rate))
        missing = (full_at - at) / _NANO
        if missing > (rate.burst - 1) * rate.interval + ahead + rate.interval + _SET_BACK:
            rate.full_at = rate.burst * rate.interval
            return cls(rate, set_back=True)
        rate.full_at = max(missing, 0.0)
        if not turned <= at:
            return cls(rate)
        found = cls(rate, (turned - at) / _NANO, min(lacked / _NANO, _lacking(rate)), before / _NANO)
        found._turn()
        return found

    def written(self, at: int) -> str:
        """The inverse of :meth:`read`."""
        return (
            f"{at + round(self.rate.full_at * _NANO)}:{at + round(self.turned * _NANO)}"
            f":{int(self.lacked * _NANO)}:{int(self.before * _NANO)}"
        )

    def give_back(self, number: int, since: float) -> float:
        """So many were taken then, and did not go; how much of it there is again, in seconds of the rate."""
        whole = number * self.rate.interval
        in_line = self.rate.full_at > self.rate.burst * self.rate.interval
        back = max(0.0 if in_line else whole + since, min(whole, self._lacked_since(since)), 0.0)
        self.rate.full_at -= back
        self.lacked, self.before = max(0.0, self.lacked - back), max(0.0, self.before - back)
        return back

    def _lacked_since(self, since: float) -> float:
        if since >= self.turned:
            return self.lacked
        return min(self.lacked, self.before) if since >= self.turned - _STRETCH else 0.0

    def _turn(self) -> None:
        lacking = _lacking(self.rate)
        if self.turned <= -2 * _STRETCH:
            self.turned, self.lacked, self.before = 0.0, lacking, lacking
        elif self.turned <= -_STRETCH:
            self.turned, self.lacked, self.before = 0.0, lacking, self.lacked


def _lacking(rate: Rate) -> float:
    return max(0.0, min(rate.full_at, rate.burst * rate.interval - max(LARGEST, rate.interval)))
