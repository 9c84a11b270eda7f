"""Microseconds inside, aware UTC datetimes at the surface.

Whole numbers compare, sort and index exactly; a float of seconds does not.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

__all__ = ["EARLIEST", "FOREVER", "later", "micros", "moment", "span", "width"]

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)


def micros(moment: dt.datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (moment - _EPOCH) // _MICROSECOND


EARLIEST: Final = micros(dt.datetime.min.replace(tzinfo=dt.UTC))
"""The first instant that a datetime can name."""

FOREVER: Final = micros(dt.datetime.max.replace(tzinfo=dt.UTC))
"""The last instant that a datetime can name; nothing is due later."""

_WIDEST: Final = 1 << 62


def moment(at: int) -> dt.datetime:
    """The aware UTC datetime of so many microseconds since 1970."""
    return _EPOCH + dt.timedelta(microseconds=at)


def span(microseconds: int) -> dt.timedelta:
    return dt.timedelta(microseconds=microseconds)


def width(duration: dt.timedelta) -> int:
    """A duration in microseconds; what is negative is nothing, and what no two datetimes are apart is longer than that.

    Before or after any instant by so much is a number of 64 bits.
    """
    return max(0, min(duration // _MICROSECOND, _WIDEST))


def later(now: int, duration: dt.timedelta) -> int:
    """*duration* after *now*, and no later than a datetime can say."""
    return min(now + width(duration), FOREVER)
