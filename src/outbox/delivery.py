"""A worker's life, as straight-line code that does nothing itself.

The generators here yield actions and are sent their results.  The runner
performs the actions on threads; a simulation performs them in one, seeded.
A store that fails is *thrown* into the generator as the StoreError it raised.
"""

from __future__ import annotations

import datetime as dt
import enum
import random
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

import attrs

from .errors import RelayFault, StoreError
from .events import LeaseLost, Notice, Settled, StoreFailed
from .judge import before, judge
from .lifecycle import Claim, Released, Settlement, Verdict
from .outcome import Outcome
from .relay import Wait
from .retry import RetryPolicy

__all__ = ["Action", "Script", "Setup", "deliver_now", "keep", "sweep", "tidy", "work"]

R = TypeVar("R")

MAX_BATCH: Final = 100
_QUICK: Final = dt.timedelta(milliseconds=10)
_TIDY_EVERY: Final = dt.timedelta(seconds=10)
_SWEEP_AT_MOST: Final = 50
_WHILE_PROBED: Final = dt.timedelta(milliseconds=50)
_ZERO: Final = dt.timedelta(0)


class Action(Generic[R]):
    """Something for the performer to do; R is what it sends back."""

    __slots__ = ()


Script: TypeAlias = Generator[Action[Any], Any, R]


class Stop(enum.Enum):
    """Why a claim is not handed over although its relay is well."""

    STOPPING = "the runner is stopping"
    LOST = "the lease was lost"


@attrs.frozen
class Proceed(Action[bool]):
    """Give up the turn held, and take the next; False: this worker's life ends."""


@attrs.frozen
class Open(Action["Wait | None"]):
    """Is there any relay to speak to?  Otherwise claiming would only be writing."""


@attrs.frozen
class ClaimDue(Action[Sequence[Claim]]):
    """Claim up to *limit* due messages."""

    limit: int


@attrs.frozen
class Isolate(Action["dt.timedelta | None"]):
    """Wait until nothing else of this process is in flight; otherwise for how long to give the claim back."""


@attrs.frozen
class TakeUp(Action["Stop | dt.timedelta"]):
    """Take the next claim of a batch in hand: how long ago it was claimed, or why it is left."""

    claim: Claim


@attrs.frozen
class Admit(Action["Wait | None"]):
    """May this claim go to its relay now?  None is yes, and :class:`Deliver` follows."""

    claim: Claim


@attrs.frozen
class AwaitProbe(Action[bool]):
    """Wait for the probe that keeps the claim at hand back: True, ask again; False, it is not worth waiting for."""


@attrs.frozen
class Handed:
    """What came of handing over: the report, how long it took, how long the relay is now left alone."""

    report: Outcome | RelayFault
    took: dt.timedelta
    relay_wait: dt.timedelta = _ZERO


@attrs.frozen
class Deliver(Action[Handed]):
    """Hand the claim over for its waiting recipients."""

    claim: Claim


@attrs.frozen
class Settle(Action[Sequence[Claim]]):
    """Write verdicts; the claims whose lease was lost come back."""

    settlements: Sequence[Settlement]


@attrs.frozen
class Tell(Action[None]):
    """Tell the listeners."""

    notice: Notice


@attrs.frozen
class Idle(Action[bool]):
    """Wait for something to claim, or until the relay may be asked again; False: this worker's life ends."""

    closed: Wait | None


@attrs.frozen
class Gather(Action[None]):
    """Wait until every worker is at his end: what is given back before, another would claim again."""


@attrs.frozen
class Rest(Action[bool]):
    """Wait out *delay*; False: it was cut short, for the runner is stopping.

    *within_grace*: only the end of the grace time cuts it short.
    """

    delay: dt.timedelta
    within_grace: bool = False


@attrs.frozen
class ExtendAll(Action[None]):
    """Extend every lease that is held."""


@attrs.frozen
class CloseIdle(Action[None]):
    """Close the connections that have been idle for too long."""


@attrs.frozen
class Prune(Action[bool]):
    """Remove what is past its retention, one bounded step; True: there may be more."""


@attrs.frozen(kw_only=True)
class Setup:
    """What a worker is told before it starts.

    *store_tries* is how often a failing store is asked again before the
    error ends the worker; None is for ever.  *draining*: this life ends with
    what is due, and no breaker outlives it.
    """

    policy: Callable[[str], RetryPolicy]
    rng: random.Random
    store_tries: int | None = None
    draining: bool = False

    def pause(self, wait: dt.timedelta) -> dt.timedelta:
        """How long a relay's pause delays a message: a drain gives back what it did not send as it was,
        for the next drain (a minute later, or right after the password was mended) has to find it due.
        """
        return _ZERO if self.draining else wait


def ask(action: Action[R]) -> Script[R]:
    """Yield *action* and return its result, typed."""
    result: R = yield action
    return result


def work(setup: Setup) -> Script[None]:
    """Claim, deliver, judge, settle; until the performer says that it is enough."""
    hand = _Hand(setup)
    while (yield from ask(Proceed())):
        closed = yield from ask(Open())
        claims = None if closed else (yield from _persistently(setup, ClaimDue(hand.size)))
        if claims:
            yield from _deliver_all(hand, claims)
        elif not (yield from ask(Idle(closed))):
            break
    if hand.aside:
        yield from ask(Gather())
    yield from _release(hand, hand.aside)


def deliver_now(setup: Setup, claim: Claim) -> Script[None]:
    """Deliver, judge and settle a claim that was made elsewhere; what came of it is told."""
    yield from _deliver_all(_Hand(setup), [claim])


def keep(lease: dt.timedelta) -> Script[None]:
    """Keep the leases of all workers alive, and do nothing else: whatever waits here costs a second copy."""
    pause = lease / 3
    while (yield from ask(Rest(pause))):
        try:
            yield from ask(ExtendAll())
        except StoreError as error:
            yield from ask(Tell(StoreFailed(error, pause)))


def tidy() -> Script[None]:
    """Keep the house tidy while it is served."""
    while (yield from ask(Rest(_TIDY_EVERY))):
        yield from ask(CloseIdle())
        yield from sweep()


def sweep() -> Script[None]:
    """Prune what is past its retention, in small steps; what one sweep leaves the next one takes."""
    try:
        for _ in range(_SWEEP_AT_MOST):
            if not (yield from ask(Prune())):
                return
    except StoreError as error:
        yield from ask(Tell(StoreFailed(error, _TIDY_EVERY)))


@attrs.define
class _Hand:
    """What one worker keeps in mind: the size of his next batch, and what he gives back at his end."""

    setup: Setup
    size: int = 1
    aside: list[Settlement] = attrs.Factory(list)

    def grow(self, took: dt.timedelta) -> None:
        self.size = min(self.size * 2, MAX_BATCH) if took < _QUICK else max(1, self.size // 2)


def _deliver_all(hand: _Hand, claims: Sequence[Claim]) -> Script[None]:
    if claims[0].lost:
        crowded = yield from ask(Isolate())
        if crowded is not None:
            yield from _settle(hand.setup, [_released(claim, crowded, "") for claim in claims])
            return
    released: list[Settlement] = []
    for claim in claims:
        released += yield from _deliver_one(hand, claim)
    yield from _release(hand, released)


def _deliver_one(hand: _Hand, claim: Claim) -> Script[Sequence[Settlement]]:
    """Deliver the claim, unless there is a verdict already; how it is released, where it is not handed over."""
    while True:
        since = yield from ask(TakeUp(claim))
        if since is Stop.LOST:
            yield from ask(Tell(LeaseLost(claim)))
            return ()
        if since is Stop.STOPPING:
            return [_released(claim, _ZERO, "")]
        verdict = before(claim, since)
        if verdict is not None:
            yield from _settle(hand.setup, [Settlement(claim, verdict)])
            return ()
        # Directly before the delivery: an admission may be the relay's probe, and each waits for its report.
        closed = yield from ask(Admit(claim))
        if closed is None:
            yield from _deliver(hand, claim)
            return ()
        # Meanwhile the lease may be lost, or the message expire: all is asked again.
        if not (closed.probing and (yield from ask(AwaitProbe()))):
            return (yield from _give_back(hand, claim, closed))


def _give_back(hand: _Hand, claim: Claim, closed: Wait) -> Script[Sequence[Settlement]]:
    """How a claim is released whose relays are all closed; nothing, where that is left to the worker's end."""
    setup = hand.setup
    settlement = _released(claim, setup.pause(closed.delay), closed.reason)
    if not setup.draining:
        return [settlement]
    if closed.probing:
        # It comes again at once, for the probe may succeed; not more often than a probe can be waited for.
        yield from ask(Rest(_WHILE_PROBED))
        return [settlement]
    # Given back now it would be claimed again, and again; other relays' messages are still to come.
    hand.aside.append(settlement)
    return ()


def _deliver(hand: _Hand, claim: Claim) -> Script[None]:
    setup = hand.setup
    handed = yield from ask(Deliver(claim))
    hand.grow(handed.took)
    policy = setup.policy(claim.message.queue)
    verdict = judge(claim, handed.report, policy, setup.rng, relay_wait=setup.pause(handed.relay_wait))
    settlement = Settlement(claim, verdict)
    if setup.draining and isinstance(verdict, Released):
        # Given back now it would be due now, and come again before all others.
        hand.aside.append(settlement)
    else:
        yield from _settle(setup, [settlement], handed.took)


def _release(hand: _Hand, released: Sequence[Settlement]) -> Script[None]:
    if released:
        yield from _settle(hand.setup, released)


def _settle(setup: Setup, settlements: Sequence[Settlement], took: dt.timedelta = _ZERO) -> Script[None]:
    # Until this is written nothing new is claimed: a delivered message whose
    # settle is forgotten would be sent twice.
    try:
        answer = yield from _persistently(setup, Settle(settlements), within_grace=True)
    except StoreError as error:
        handed = [s.claim.message.id for s in settlements if s.verdict.outcome is not None]
        if not handed:
            raise
        raise _naming(error, handed) from error
    if answer is None:
        return
    lost = {(claim.message.id, claim.token) for claim in answer}
    for settlement in settlements:
        claim, verdict = settlement.claim, settlement.verdict
        stale = (claim.message.id, claim.token) in lost
        yield from ask(Tell(LeaseLost(claim, verdict) if stale else Settled(claim, verdict, took)))


def _persistently(setup: Setup, action: Action[R], *, within_grace: bool = False) -> Script[R | None]:
    """Ask a store until it answers; None: there is no time left to ask again."""
    tries = 0
    while True:
        try:
            return (yield from ask(action))
        except StoreError as error:
            tries += 1
            if setup.store_tries is not None and tries >= setup.store_tries:
                raise
            wait = _back_off(tries, setup.rng)
            unwritten = [s.claim for s in action.settlements] if isinstance(action, Settle) else []
            yield from ask(Tell(StoreFailed(error, wait, unwritten)))
            if not (yield from ask(Rest(wait, within_grace))):
                return None


def _back_off(tries: int, rng: random.Random) -> dt.timedelta:
    return dt.timedelta(seconds=min(30.0, 0.1 * 2 ** min(tries, 10)) * rng.uniform(0.5, 1.0))


def _naming(error: StoreError, handed: Sequence[str]) -> StoreError:
    """The error, and what a person has to know: which messages were handed over without a note of it."""
    # A stranger's subclass may be made in another way than ours.
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == StoreError.__module__)
    named: StoreError = kind(
        f"{error}; handed over, and what came of it is not noted: {', '.join(handed)}; "
        "they may go out again when their leases have run out"
    )
    return named


def _released(claim: Claim, delay: dt.timedelta, reason: str) -> Settlement:
    verdict: Verdict = Released(delay=delay, fates=claim.fates, reason=reason)
    return Settlement(claim, verdict)
