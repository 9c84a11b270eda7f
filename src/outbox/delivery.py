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

__all__ = ["Action", "Script", "Setup", "keep", "work"]

R = TypeVar("R")

MAX_BATCH: Final = 100
_QUICK: Final = dt.timedelta(milliseconds=10)
_TIDY_EVERY: Final = dt.timedelta(seconds=10)
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
class Isolate(Action[bool]):
    """Wait until nothing else of this process is in flight; False: another has that turn."""


@attrs.frozen
class Admit(Action["Wait | Stop | None"]):
    """May this claim be handed over now?  None is yes."""

    claim: Claim


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
class Tidy(Action[None]):
    """Close idle connections and prune what is past its retention, one bounded step."""


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
    size = 1
    while (yield from ask(Proceed())):
        closed = yield from ask(Open())
        claims = None if closed else (yield from _persistently(setup, ClaimDue(size)))
        if claims:
            size = yield from _deliver_all(setup, claims, size)
        elif not (yield from ask(Idle(closed))):
            return


def keep(lease: dt.timedelta) -> Script[None]:
    """Keep the leases of all workers alive, and the house tidy."""
    pause = min(lease / 3, _TIDY_EVERY)
    since = _ZERO
    while (yield from ask(Rest(pause))):
        since += pause
        tidy = since >= _TIDY_EVERY
        since = _ZERO if tidy else since
        for action in (ExtendAll(), Tidy()) if tidy else (ExtendAll(),):
            try:
                yield from ask(action)
            except StoreError as error:
                yield from ask(Tell(StoreFailed(error, pause)))


def _deliver_all(setup: Setup, claims: Sequence[Claim], size: int) -> Script[int]:
    """Deliver a batch; the size of the next one."""
    if claims[0].lost and not (yield from ask(Isolate())):
        yield from _settle(setup, [_released(claim, _ZERO, "") for claim in claims])
        return size
    released: list[Settlement] = []
    for claim in claims:
        admission = yield from ask(Admit(claim))
        if admission is Stop.LOST:
            yield from ask(Tell(LeaseLost(claim)))
        elif admission is Stop.STOPPING:
            released.append(_released(claim, _ZERO, ""))
        elif isinstance(admission, Wait):
            released.append(_released(claim, setup.pause(admission.delay), admission.reason))
        else:
            took = yield from _deliver(setup, claim)
            size = min(size * 2, MAX_BATCH) if took < _QUICK else max(1, size // 2)
    if released:
        yield from _settle(setup, released)
    return size


def _deliver(setup: Setup, claim: Claim) -> Script[dt.timedelta]:
    verdict = before(claim)
    took = _ZERO
    if verdict is None:
        handed = yield from ask(Deliver(claim))
        took = handed.took
        policy = setup.policy(claim.message.queue)
        verdict = judge(claim, handed.report, policy, setup.rng, relay_wait=setup.pause(handed.relay_wait))
    yield from _settle(setup, [Settlement(claim, verdict)], took)
    return took


def _settle(setup: Setup, settlements: Sequence[Settlement], took: dt.timedelta = _ZERO) -> Script[None]:
    # Until this is written nothing new is claimed: a delivered message whose
    # settle is forgotten would be sent twice.
    answer = yield from _persistently(setup, Settle(settlements), within_grace=True)
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
            yield from ask(Tell(StoreFailed(error, wait)))
            if not (yield from ask(Rest(wait, within_grace))):
                return None


def _back_off(tries: int, rng: random.Random) -> dt.timedelta:
    return dt.timedelta(seconds=min(30.0, 0.1 * 2 ** min(tries, 10)) * rng.uniform(0.5, 1.0))


def _released(claim: Claim, delay: dt.timedelta, reason: str) -> Settlement:
    verdict: Verdict = Released(delay=delay, fates=claim.fates, reason=reason)
    return Settlement(claim, verdict)
