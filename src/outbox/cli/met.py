"""What those that wait have met, the most frequent first, whomever it was said of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from outbox.address import domain
from outbox.lifecycle import Summary
from outbox.values import printable

from .columns import cut

__all__ = ["Met", "lines", "met"]

_SHOWN: Final = 3
_LONG: Final = 300
_BY_HAND: Final = frozenset({"", "requeued", "released"})
"""What a person did says nothing of what a message met."""


@attrs.frozen(kw_only=True)
class Met:
    """One reason that *number* of the messages wait for.

    Attributes:
        domain: Where those are of whom it was said, if all are at one; ``""`` where they are not, or it was said
            of no recipient.
    """

    reason: str
    number: int
    domain: str = ""


def met(waiting: Iterable[Summary]) -> list[Met]:
    """Of messages that wait: what they wait for, the most frequent first."""
    number: Counter[str] = Counter()
    domains: dict[str, set[str]] = {}
    for summary in waiting:
        if summary.reason not in _BY_HAND:
            reason, at = _apart(summary)
            number[reason] += 1
            domains.setdefault(reason, set()).add(at)
    return [
        Met(reason=reason, number=n, domain="".join(domains[reason]) if len(domains[reason]) == 1 else "")
        for reason, n in number.most_common(_SHOWN)
    ]


def _apart(summary: Summary) -> tuple[str, str]:
    """What was said, and at which domain the recipient is of whom it was."""
    for recipient in summary.recipients:
        if summary.reason.startswith(f"{recipient}: "):
            return summary.reason.removeprefix(f"{recipient}: "), domain(recipient).lower()
    return summary.reason, ""


def lines(found: Sequence[Met]) -> list[str]:
    """For a person."""
    told = [
        f"  {each.number} {'waits' if each.number == 1 else 'wait'}"
        + (f" for recipients at {printable(each.domain)}" if each.domain else "")
        + f": {cut(printable(each.reason), _LONG)}"
        for each in found
    ]
    return ["", *told] if told else []
