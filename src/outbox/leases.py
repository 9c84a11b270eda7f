"""The leases that one process holds.

Not safe for threads by itself; the performer asks under its lock.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

import attrs

from .lifecycle import Claim

__all__ = ["Lease", "Leases", "Since"]


@attrs.frozen
class Since:
    """How long ago a claim was made: *most* since before the store was asked, *least* since it had answered.

    What may not be late counts by the one, what may not be early by the other.
    """

    most: dt.timedelta
    least: dt.timedelta


@attrs.define
class Lease:
    """A claim in our hands; *begun* and *deadline* are by the monotonic clock, from before the store was asked."""

    claim: Claim
    begun: float
    answered: float
    deadline: float
    lost: bool = False

    def since(self, now: float) -> Since:
        """How long ago the claim was made."""
        return Since(dt.timedelta(seconds=now - self.begun), dt.timedelta(seconds=now - self.answered))


class Leases:
    """Kept for as long as somebody is at them: what is left behind is extended by nobody and runs out."""

    def __init__(self, length: dt.timedelta) -> None:
        self._length = length.total_seconds()
        self._leases: dict[tuple[str, str], Lease] = {}

    def grant(self, claims: Iterable[Claim], begun: float, answered: float) -> None:
        """These claims were made by a call that began then, and was answered then."""
        for claim in claims:
            self._leases[claim.key] = Lease(claim, begun, answered, begun + self._length)

    def alive(self, claim: Claim, now: float) -> Lease | None:
        """The claim's lease; None where it was lost or ran out, and is forgotten."""
        lease = self._leases.get(claim.key)
        if lease is None or lease.lost or lease.deadline <= now:
            self._leases.pop(claim.key, None)
            return None
        return lease

    def end(self, claims: Iterable[Claim]) -> None:
        """These were settled, or left behind."""
        for claim in claims:
            self._leases.pop(claim.key, None)

    def held(self) -> Sequence[Lease]:
        """Those that are to be extended: a store that could not extend one, for somebody had locked it, may the next time."""
        return list(self._leases.values())

    def extended(self, held: Sequence[Lease], lost: Iterable[Claim], begun: float) -> None:
        """*held* were extended by a call that began then, all but *lost*."""
        gone = {claim.key for claim in lost}
        for lease in held:
            lease.lost = lease.claim.key in gone
            if not lease.lost:
                lease.deadline = begun + self._length
