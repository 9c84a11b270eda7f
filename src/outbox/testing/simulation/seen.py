"""What a witness knows of each message and each lease, apart from the store."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

from outbox.lifecycle import Claim, Fate, State, Verdict
from outbox.message import Message

from .verdicts import Answer, Expected

if TYPE_CHECKING:
    from .processing import Process
    from .world import World

__all__ = ["Lease", "Ledger", "Seen", "Violation"]

_OPEN: Final = (State.QUEUED, State.CLAIMED)


@attrs.frozen
class Violation:
    """A promise that was broken: when, of which message, in words."""

    at: float
    message: str
    text: str

    def __str__(self) -> str:
        return f"at {self.at:.3f} s, {self.message or 'all'}: {self.text}"


@attrs.define(eq=False, kw_only=True)
class Lease:
    """One claim as the witness knows it.

    *sent*: by a caller's own thread; *suppressed* is what the user's function
    said when it was asked last, *expected* what the hook made of the verdict.
    *stuck* is its verdict where the store has said that it could not write that one alone.
    """

    claim: Claim
    holder: Process
    claimed_at: float
    granted_at: float
    until: float
    sent: bool = False
    answers: dict[str, Answer] = attrs.Factory(dict)
    suppressed: dict[str, Answer] = attrs.Factory(dict)
    expected: Expected | None = None
    took: set[str] = attrs.Factory(set)
    written: bool = False
    stuck: Verdict | None = None
    told: bool = False
    over: str = ""

    @property
    def undisturbed(self) -> bool:
        """Whether nothing befell its holder since he has it."""
        holder = self.holder
        return (
            holder.alive
            and not (holder.frozen or holder.failures)
            and max(holder.disturbed_at, holder.thawed_at) < self.claimed_at
        )


@attrs.define(eq=False, kw_only=True)
class Seen:
    """One message as the witness knows it; *since* is what its age counts from."""

    message: Message
    due: float
    since: float
    state: State = State.QUEUED
    fates: dict[str, Fate]
    attempts: int = 0
    lost: int = 0
    lease: Lease | None = None
    takes: dict[str, list[Lease | None]] = attrs.Factory(dict)
    forced: set[str] = attrs.Factory(set)
    handings: int = 0


class Ledger:
    """All that was seen, and what was wrong with it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: dict[str, Seen] = {}
        self.purged: set[str] = set()
        self.acknowledged: set[str] = set()
        self.violations: list[Violation] = []
        self.again: Counter[str] = Counter()
        self.copies = 0
        self._leases: dict[tuple[str, str], Lease] = {}
        self._old: dict[str, Seen] = {}

    @property
    def _now(self) -> float:
        return self._world.kernel.now

    def broken(self, text: str, message: str = "") -> None:
        self.violations.append(Violation(self._now, message, text))
        self._world.note(f"BROKEN: {text}", None, message)

    def must(self, holds: bool, text: str, message: str = "") -> None:
        if not holds:
            self.broken(text, message)

    @property
    def unsettled(self) -> Sequence[str]:
        return [name for name, seen in self.seen.items() if seen.state in _OPEN]

    def lease_of(self, claim: Claim | None) -> Lease | None:
        """What is known of a claim, whether its lease still holds or not."""
        return None if claim is None else self._leases.get(claim.key)

    def _expires(self, message: Message) -> float:
        return math.inf if message.expires_at is None else self._world.seconds(message.expires_at)
