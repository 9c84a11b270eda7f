"""Claims as a store would give them, for tests of what is done with them."""

import datetime as dt

from outbox.lifecycle import Claim, Fate
from outbox.message import Message
from outbox.outcome import Accepted, Outcome

ZERO = dt.timedelta(0)
TO = "to@example.org"


def a_claim(
    number: int = 1,
    *,
    lost: int = 0,
    expires_in: dt.timedelta | None = None,
    content: bytes = b"x",
    queue: str = "mail",
) -> Claim:
    return Claim(
        message=Message(id=f"m{number}", recipients=[TO], content=content, queue=queue),
        fates={TO: Fate.WAITING},
        attempt=1,
        lost=lost,
        age=ZERO,
        expires_in=expires_in,
        token="1",
    )


def accepted(claim: Claim) -> Outcome:
    return Outcome.same(claim.recipients, Accepted("250 ok"))
