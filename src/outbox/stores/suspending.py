"""Which suspensions are in force, and which queues go on: pure, and the same for every store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from outbox.protocols import Suspension

from .instants import micros

__all__ = ["in_force", "served"]


def in_force(suspensions: Iterable[Suspension], now: int) -> list[Suspension]:
    """Those that have not ended by themselves, sorted by kind and value."""
    lasting = (each for each in suspensions if each.until is None or micros(each.until) > now)
    return sorted(lasting, key=lambda each: (each.kind, each.value))


def served(queues: Sequence[str], suspensions: Iterable[Suspension]) -> list[str]:
    """Those of *queues* that none of *suspensions*, which are in force, names; in their order."""
    stopped = {each.value for each in suspensions if each.kind == "queue"}
    return [queue for queue in queues if queue not in stopped]
