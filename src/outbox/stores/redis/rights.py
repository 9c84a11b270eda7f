"""Whether the server lets us run what the scripts run: one that may not go on in its midst leaves half of what it does."""

from __future__ import annotations

import re
from typing import Final

from outbox.values import printable

from .caller import Caller

__all__ = ["TOUCHES", "missing"]

TOUCHES: Final = (
    # First what frees memory: a server that is out of it lets a script go on that has written.
    ("HDEL", "KEY", ""),
    ("HSET", "KEY", "", ""),
    ("HDEL", "KEY", ""),
    ("HINCRBY", "KEY", "", "0"),
    ("HDEL", "KEY", ""),
    ("HEXISTS", "KEY", ""),
    ("HGET", "KEY", ""),
    ("HGETALL", "KEY"),
    ("HLEN", "KEY"),
    ("HMGET", "KEY", ""),
    ("ZADD", "KEY", "XX", "0", ""),
    ("ZCARD", "KEY"),
    ("ZCOUNT", "KEY", "0", "0"),
    ("ZRANGE", "KEY", "0", "0"),
    ("ZRANGEBYLEX", "KEY", "-", "+"),
    ("ZRANGEBYSCORE", "KEY", "0", "0"),
    ("ZREM", "KEY", ""),
    ("ZREMRANGEBYRANK", "KEY", "0", "0"),
    ("ZSCORE", "KEY", ""),
    ("XADD", "KEY", "NOMKSTREAM", "*", "n", "1"),
    ("XREVRANGE", "KEY", "+", "-", "COUNT", "1"),
    ("TIME",),
)
"""Each command that a script uses, so that it does nothing where there is nothing."""
_DENIED: Final = re.compile(
    r"no permission|can't run this command|can't access|unknown redis command", re.IGNORECASE
)


def missing(caller: Caller) -> str | None:
    """The first command that a script needs and may not run, with what the server says of it; None where all may be."""
    answer = caller.try_out(TOUCHES)
    if not answer:
        return None
    words = answer[1].decode("utf-8", "replace")
    # What else it says is of the moment, and the verbs meet it themselves.
    return f"{TOUCHES[int(answer[0])][0]} ({printable(words)})" if _DENIED.search(words) else None
