"""The token of a claim: the receipt handle, and what a process that did not claim it has to know to settle it."""

from __future__ import annotations

import attrs

__all__ = ["Token"]


@attrs.frozen(kw_only=True)
class Token:
    """Attributes:
    until: When its lease ran out, as it was given; an extension is known to who made it.
    last: Beyond which SQS extends none.
    key: Where the message's content was set aside; ``""`` where it was not.
    """

    since: int
    submitted: int
    until: int
    last: int
    key: str
    handle: str

    def __str__(self) -> str:
        return f"{self.since}.{self.submitted}.{self.until}.{self.last}.{self.key}.{self.handle}"

    @classmethod
    def read(cls, text: str) -> Token | None:
        """The inverse of ``str``; None where it is no token of ours."""
        try:
            since, submitted, until, last, key, handle = text.split(".", 5)
            return cls(
                since=int(since),
                submitted=int(submitted),
                until=int(until),
                last=int(last),
                key=key,
                handle=handle,
            )
        except ValueError:
            return None
