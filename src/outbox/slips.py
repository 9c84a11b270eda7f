"""What passes over the desk: what workers are given to do, what the clerk is, and what came of it."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Final, TypeAlias

import attrs

from .lifecycle import Claim, Released, Settlement
from .protocols import MAX_BYTES
from .relay import Go
from .stock import Lane

__all__ = ["Later", "Noted", "Run", "Spoiled", "Work", "released"]

Noted: TypeAlias = tuple[Settlement, dt.timedelta]
"""A verdict, and how long the delivery took."""

_ZERO: Final = dt.timedelta(0)


@attrs.frozen
class Later:
    """Nothing now: ask again when something has changed, or after so many seconds."""

    seconds: float = math.inf


@attrs.frozen
class Run:
    """Up to *number* claims of a lane, pulled one after the other.

    *admitted* where its relay was asked, for the message whose id is *first*;
    it was not where there are several.
    """

    lane: Lane
    number: int
    admitted: Go | None = None
    first: str = ""


@attrs.frozen
class Spoiled:
    """A claim that may not be delivered any more, *since* so long after it was made, at least; None: its lease was lost."""

    claim: Claim
    since: dt.timedelta | None


@attrs.frozen(kw_only=True)
class Work:
    """What the clerk is to do next: write these, see to what spoiled, and claim up to *limit* more.

    *at_work*: somebody delivers meanwhile, and there will be more to write.
    """

    noted: Sequence[Noted] = ()
    spoiled: Sequence[Spoiled] = ()
    limit: int = 0
    max_bytes: int = MAX_BYTES
    at_work: bool = False


def released(claim: Claim, delay: dt.timedelta = _ZERO, reason: str = "") -> Settlement:
    """The claim, given back as though it had never been made; due after *delay*."""
    return Settlement(claim, Released(delay=delay, fates=claim.fates, reason=reason))
