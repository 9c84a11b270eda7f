"""The store as one process sees it: a real one, that now and then fails this process, before its commit or after."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from outbox.errors import AmbiguousPut, ConfigurationError, StoreFull, StoreUnavailable
from outbox.lifecycle import Claim, PutResult, Settlement
from outbox.message import Message
from outbox.protocols import MAX_BYTES, Exchanged, Suspension

if TYPE_CHECKING:
    from .processing import Process
    from .world import World

__all__ = ["StoreView", "view_for"]

R = TypeVar("R")

_FAULTS: Final = (
    *("fails-before", "fails-after", "breaks", "cannot-read"),
    *("dies-before-commit", "dies-after-commit"),
)
_PUT_FAULTS: Final = ("put-fails-before", "put-fails-after")


class StoreView:
    """What it cannot do in parts (wait) nobody asks of it here."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._die = random.Random(f"{world.scenario.seed}/store/{process.name}")  # noqa: S311 - a seeded die is the point
        self._lock = random.Random(f"{world.scenario.seed}/locked/{process.name}")  # noqa: S311 - the same

    # -- what a crew asks for

    def put(self, messages: Sequence[Message], /) -> Sequence[PutResult]:
        return put(self._world, self._die, messages)

    def claim(
        self, *, limit: int, lease: dt.timedelta, queues: Sequence[str], max_bytes: int = MAX_BYTES
    ) -> Sequence[Claim]:
        world = self._world

        def commit() -> Sequence[Claim]:
            claims = world.store.claim(limit=limit, lease=lease, queues=queues, max_bytes=max_bytes)
            world.witness.claimed(self._process, claims, lease)
            return claims

        return self._asked("claim", commit, ())

    def put_claimed(
        self, messages: Sequence[Message], /, *, lease: dt.timedelta, attempted: bool = False
    ) -> Sequence[Claim]:
        world = self._world

        def commit() -> Sequence[Claim]:
            known = {message.id for message in messages if world.witness.remembers(message.id)}
            claims = world.store.put_claimed(messages, lease=lease, attempted=attempted)
            results = [PutResult(m.id, "known" if m.id in known else "stored") for m in messages]
            world.witness.put(messages, results, claimed=bool(claims))
            world.witness.claimed(self._process, claims, lease, sent=True)
            return claims

        return self._asked("put_claimed", commit, ())

    def extend(self, claims: Sequence[Claim], /, *, lease: dt.timedelta) -> Sequence[Claim]:
        def commit() -> Sequence[Claim]:
            lost = self._world.store.extend(claims, lease=lease)
            self._world.witness.extended(claims, lost, lease)
            return lost

        return self._asked("extend", commit, ())

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        return self._asked("settle", lambda: self._settled(settlements), settlements)

    def prune(self, *, limit: int = 1000) -> int:
        return self._asked("prune", lambda: self._world.store.prune(limit=limit), ())

    def migrate(self) -> Sequence[str]:
        return ()

    def check(self) -> Sequence[object]:
        return ()

    def close(self) -> None:
        """The store is the world's."""

    def wait(self, _timeout: dt.timedelta) -> bool:
        raise AssertionError("nobody waits here but by the kernel")

    def wake(self) -> None:
        self._process.news.notify_all()

    def next_due(self, queues: Sequence[str]) -> dt.timedelta | None:
        if self._world.fault(self._die, ("tells-no-due",)):
            raise StoreUnavailable("simulated: it does not say what is due")
        return self._world.store.next_due(queues)

    def suspend(self, suspension: Suspension, /) -> None:
        raise AssertionError(f"no crew suspends {suspension}")

    def unsuspend(self, kind: str, value: str, /) -> bool:
        raise AssertionError(f"no crew takes back the suspension of {kind} {value}")

    def suspensions(self) -> Sequence[Suspension]:
        return self._asked("suspensions", self._world.store.suspensions, ())

    # -- how it goes

    def delay(self, stall: str) -> float:
        """How long it takes to get there, or back from there."""
        world = self._world
        if world.fault(self._die, (stall,)):
            long = world.scenario.lease * self._die.uniform(0.1, 1.5)
            self._process.disturb(long + 1.0)
            return long
        return self._die.random() * 0.003

    def _settled(self, settlements: Sequence[Settlement]) -> Sequence[Claim]:
        stale = self._world.store.settle(settlements)
        self._world.witness.settled(self._process, settlements, stale)
        self._world.witness.committed(settlements)
        return stale

    def _asked(self, verb: str, commit: Callable[[], R], settlements: Sequence[Settlement]) -> R:
        fault = self._world.outage(self._process.name) or self._world.fault(self._die, _FAULTS)
        if not fault:
            self._in_part(settlements)
            return commit()
        self._process.disturb()
        self._world.note(f"the store {fault} ({verb})", self._process)
        if fault in ("fails-after", "dies-after-commit") or (fault == "breaks" and self._die.random() < 0.5):
            commit()
        else:
            self._world.witness.unwritten(settlements)
        if fault == "breaks":
            raise RuntimeError("simulated: a bug in a store")
        if fault == "cannot-read":
            raise ConfigurationError("simulated: it cannot read what it is asked for")
        if fault.startswith("dies"):
            self._process.kill(f"{fault} ({verb})")
        if fault == "full":
            raise StoreFull("simulated: no room")
        raise StoreUnavailable(f"simulated: {fault}")

    def _in_part(self, settlements: Sequence[Settlement]) -> None:
        """Now and then somebody has locked some of these: the others are written, and it says so."""
        # Most are alone, and of one nothing else is written.
        seldom = len(settlements) == 1 and self._lock.random() < 0.8
        if not settlements or seldom or not self._world.fault(self._lock, ("writes-in-part",)):
            return
        locked = [each for each in settlements if self._lock.random() < 0.5] or settlements[-1:]
        stale = self._settled([each for each in settlements if each not in locked])
        self._world.witness.stuck(locked)
        self._process.stuck_at = self._world.kernel.now
        error = StoreUnavailable("simulated: somebody has locked some of it")
        error.left = {claim.key for claim in (*stale, *(each.claim for each in locked))}
        raise error


class _Exchanging(StoreView):
    """Settles and claims in one commit."""

    def exchange(
        self,
        settlements: Sequence[Settlement],
        /,
        *,
        limit: int,
        lease: dt.timedelta,
        queues: Sequence[str],
        max_bytes: int = MAX_BYTES,
    ) -> Exchanged:
        world = self._world

        def commit() -> Exchanged:
            exchanged = world.store.exchange(
                settlements, limit=limit, lease=lease, queues=queues, max_bytes=max_bytes
            )
            world.witness.settled(self._process, settlements, exchanged.lost)
            world.witness.claimed(self._process, exchanged.claims, lease)
            world.witness.committed(settlements)
            return exchanged

        return self._asked("exchange", commit, settlements)


def view_for(world: World, process: Process) -> StoreView:
    return (_Exchanging if world.scenario.exchanges else StoreView)(world, process)


def put(world: World, die: random.Random, messages: Sequence[Message]) -> Sequence[PutResult]:
    """What a submitter asks for; he may be told nothing certain of it."""
    fault = world.outage("submitters") or world.fault(die, _PUT_FAULTS)
    if fault and fault != "put-fails-after":
        world.witness.refused(messages)
    if fault == "full":
        raise StoreFull("simulated: no room")
    if fault in ("down", "put-fails-before"):
        if die.random() < 0.5:
            raise AmbiguousPut("simulated: it cannot be told")
        raise StoreUnavailable("simulated: down")
    results = world.store.put(messages)
    world.witness.put(messages, results)
    if fault == "put-fails-after":
        raise AmbiguousPut("simulated: it cannot be told")
    return results
