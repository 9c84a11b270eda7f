"""What the queues are called in SQS, where a name is up to 80 letters, digits, hyphens and underscores."""

from __future__ import annotations

import re
from typing import Final

from outbox.errors import ConfigurationError
from outbox.values import quoted

__all__ = ["DEAD", "HELD", "require_prefix", "sqs_name"]

DEAD: Final = "-dead"
"""Beside a queue: what is DEAD or EXPIRED."""
HELD: Final = "-held"
"""Beside a queue: what is HELD, and what SQS itself has moved there."""

_LONGEST: Final = 80
_PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{0,70}", re.ASCII)
_UNCLEAR: Final = re.compile(r"__|_\.|\._|-(dead|held)$")


def require_prefix(prefix: str) -> str:
    """The same where names of queues in SQS can begin so.

    Raises:
        ConfigurationError: none can.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ConfigurationError(
            f"prefix {quoted(prefix)} is not up to 70 letters, digits, hyphens and underscores, of which SQS makes names"
        )
    return prefix


def sqs_name(prefix: str, queue: str, side: str = "") -> str:
    """The name in SQS of *queue*, or of what stands beside it; no two have the same.

    A name has no dot there: each is written as two underscores.

    Raises:
        ConfigurationError: it would be too long, or could be taken for another's.
    """
    if _UNCLEAR.search(queue):
        raise ConfigurationError(
            f"queue {quoted(queue)} cannot be told from another in SQS, where a dot is written as two underscores "
            f"and {DEAD} and {HELD} name what stands beside a queue: give it another name"
        )
    name = prefix + queue.replace(".", "__") + side
    if len(name) > _LONGEST - (0 if side else len(DEAD)):
        raise ConfigurationError(
            f"queue {quoted(queue)} with the prefix {quoted(prefix)} makes a name longer than the {_LONGEST} characters "
            "that SQS takes: give it a shorter one"
        )
    return name
