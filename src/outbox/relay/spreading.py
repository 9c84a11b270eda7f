"""When those come back who were given back while they could not go: not all at once."""

from __future__ import annotations

import math
import random
from typing import Final

__all__ = ["place_behind", "strewn"]

_DOUBLES_EVERY: Final = 1.0


def place_behind(last: float, opens: float, pace: float) -> float:
    """The moment at which one more comes back, behind the one who comes at *last*.

    The first comes when the relay *opens*.  Behind him they come as the relay
    is going to take them: one in the first second, and twice as many in each
    further one, until it is *pace* messages a second.

    While a probe is under way *opens* moves away faster than time passes, and
    soon is behind whoever was last.  He is not forgotten for it: otherwise
    everybody would be the first.
    """
    ramp = math.exp2(min(max(0.0, last - opens) / _DOUBLES_EVERY, 1000.0))
    return max(opens, last + 1.0 / min(pace, ramp))


def strewn(place: float, opens: float, at_most: float, rng: random.Random) -> float:
    """Somewhere about *place*, never before it *opens*, and never later than *at_most* seconds after that.

    Other processes count their own places from the same moment: so each is
    moved by a tenth at most.  Where the places have run out, any will do.
    """
    behind = place - opens
    return opens + (behind * rng.uniform(0.9, 1.1) if behind <= at_most else rng.uniform(0.0, at_most))
