"""The lives of a worker and of the clerk, as straight-line code that does nothing itself.

The generators here yield actions and are sent their results.  The runner
performs the actions on threads; a simulation performs them in one, seeded.
A store that fails is *thrown* into the generator as the StoreError it raised.

Workers speak to the relays, the clerk to the store: he writes what the
workers have noted since he last wrote, and claims what they will want next,
in one commit.  Between them lies the desk (:mod:`outbox.desk`).
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal

import attrs

from .actions import (
    Admit,
    Amend,
    Announce,
    AwaitProbe,
    Begin,
    CloseIdle,
    Collect,
    Deal,
    Deliver,
    Drop,
    Exchange,
    ExtendAll,
    Handed,
    Note,
    Prune,
    Pull,
    Report,
    Reread,
    Rest,
    Screen,
    Script,
    Settle,
    Stop,
    Take,
    TakeUp,
    Tell,
    TellLater,
    TellLeft,
    Withdraw,
    ask,
)
from .errors import StoreError
from .events import LeaseLost, Settled, StoreFailed
from .judge import amendable, before, judge
from .lifecycle import Claim, Released, Settlement
from .retry import RetryPolicy
from .slips import Noted, Spoiled, released
from .tray import STUCK

__all__ = ["Setup", "clerk", "deliver_now", "keep", "sweep", "tidy", "work"]

MAX_BATCH: Final = 100
_QUICK: Final = dt.timedelta(milliseconds=10)
_TIDY_EVERY: Final = dt.timedelta(seconds=10)
_SWEEP_AT_MOST: Final = 50
_ZERO: Final = dt.timedelta(0)
_STUCK: Final = dt.timedelta(seconds=STUCK)


@attrs.frozen(kw_only=True)
class Setup:
    """What a worker is told before it starts.

    *store_tries* is how often a failing store is asked again before the
    error ends the worker; None is for ever.  *draining*: this life ends with
    what is due, and no breaker outlives it.  *hooked*: there is a hook to
    ask before a verdict is noted.
    """

    policy: Callable[[str], RetryPolicy]
    rng: random.Random
    store_tries: int | None = None
    draining: bool = False
    hooked: bool = False

    def pause(self, wait: dt.timedelta) -> dt.timedelta:
        """How long a relay's pause delays a message: a drain gives back what it did not send as it was,
        for the next drain (a minute later, or right after the password was mended) has to find it due.
        """
        return _ZERO if self.draining else wait


def work(setup: Setup) -> Script[None]:
    """Take, deliver, judge, note; until there is nothing more to take."""
    size = 1
    while (run := (yield from ask(Take(size)))) is not None:
        took = yield from (_deliver_run(setup) if len(run.lane) == 1 else _deliver_to_several(setup))
        yield from ask(Drop())
        if took is not None:
            size = min(size * 2, MAX_BATCH) if took < _QUICK else max(1, size // 2)


def _deliver_run(setup: Setup) -> Script[dt.timedelta | None]:
    """Deliver one message after the other; how long each of them took."""
    took, number = _ZERO, 0
    yield from ask(Begin())
    while (handed := (yield from ask(Report()))) is not None:
        number += 1
        if isinstance(handed, Settlement):
            yield from ask(Note(handed))
            continue
        yield from ask(Note((yield from _judged(setup, handed)), handed.took))
        took += handed.took
    return took / number if number else None


def _deliver_to_several(setup: Setup) -> Script[dt.timedelta | None]:
    """Deliver the one message of a run to each of its relays."""
    claim = yield from ask(Pull())
    handed = None if claim is None else (yield from _delivered(setup, claim))
    match handed:
        case Handed(took=took):
            yield from ask(Note((yield from _judged(setup, handed)), took))
            return took
        case Settlement():
            yield from ask(Note(handed))
    return None


def clerk(setup: Setup) -> Script[None]:
    """Write what was noted and claim what is wanted; until everybody is at his end."""
    failures = 0
    while (collected := (yield from ask(Collect()))) is not None:
        yield from _see_to(collected.spoiled)
        settlements = [settlement for settlement, _ in collected.noted]
        try:
            exchanged = yield from ask(Exchange(settlements, collected.limit, collected.max_bytes))
        except StoreError as error:
            left = yield from _tell_of_the_rest(collected.noted, error.left)
            if error.left is not None and setup.store_tries is None:
                # The desk keeps it for a while: the rest goes on.
                yield from ask(Tell(StoreFailed(error, _STUCK, [each.claim for each in left])))
                continue
            failures += 1
            yield from _falter(setup, error, failures, left, lasting=collected.at_work)
            continue
        failures = 0
        yield from _deal(exchanged.claims)
        yield from _tell(collected.noted, exchanged.lost)


def _see_to(spoiled: Sequence[Spoiled]) -> Script[None]:
    for each in spoiled:
        # It was not handed over: where the lease ran out by our clock alone, nobody has to wait for it, nor to doubt.
        settlement = released(each.claim) if each.since is None else _past_its_time(each.claim, each.since)
        yield from ask(Note(settlement))


def _deal(claims: Sequence[Claim]) -> Script[None]:
    fresh = []
    for claim in claims:
        verdict = before(claim)
        if verdict is None:
            fresh.append(claim)
        else:
            yield from ask(Note(Settlement(claim, verdict)))
    if fresh:
        yield from ask(Deal(fresh))


def _falter(
    setup: Setup,
    error: StoreError,
    failures: int,
    settlements: Sequence[Settlement],
    *,
    lasting: bool = False,
) -> Script[None]:
    """Wait before a failing store is asked again, or raise: what was not written is collected again.

    A drain is patient while it is *lasting* in any case: what its deliveries
    come to is to be written, and until they have ended the store may be back.
    """
    if setup.store_tries is not None and failures >= setup.store_tries and not lasting:
        raise _naming(error, settlements) from error
    wait = _back_off(failures, setup.rng)
    yield from ask(Tell(StoreFailed(error, wait, [settlement.claim for settlement in settlements])))
    yield from ask(Rest(wait, within_grace=bool(settlements)))


def deliver_now(setup: Setup, claim: Claim) -> Script[None]:
    """Deliver, judge and settle a claim that was made elsewhere; what came of it is told."""
    handed = yield from _delivered(setup, claim)
    if handed is None:
        # It was not handed over: where the lease ran out by our clock alone, nobody has to wait for it, nor to doubt.
        handed = released(claim)
    if isinstance(handed, Settlement):
        yield from _settle(setup, handed)
    else:
        yield from _settle(setup, (yield from _judged(setup, handed)), handed.took)


def keep(lease: dt.timedelta) -> Script[None]:
    """Keep the leases of all workers alive, and do nothing else: whatever waits here costs a second copy."""
    pause = usual = lease / 3
    while (yield from ask(Rest(pause))):
        try:
            # What somebody has locked may be free in a moment.
            pause = usual if (yield from ask(ExtendAll())) else usual / 4
        except StoreError as error:
            pause = usual
            yield from ask(TellLater(StoreFailed(error, pause)))


def tidy() -> Script[None]:
    """Keep the house tidy while it is served, and tell what its keeper left to be told."""
    yield from ask(Announce())
    while (yield from ask(Rest(_TIDY_EVERY))):
        # First of all: listeners, closing and pruning may take long.
        yield from _reread()
        yield from ask(Announce())
        yield from ask(TellLeft())
        yield from ask(CloseIdle())
        yield from sweep()
    yield from ask(Withdraw())
    yield from ask(TellLeft())


def _reread() -> Script[None]:
    try:
        yield from ask(Reread())
    except StoreError as error:
        yield from ask(Tell(StoreFailed(error, _TIDY_EVERY)))


def sweep() -> Script[None]:
    """Prune what is past its retention, in small steps; what one sweep leaves the next one takes."""
    try:
        for _ in range(_SWEEP_AT_MOST):
            if not (yield from ask(Prune())):
                return
    except StoreError as error:
        yield from ask(Tell(StoreFailed(error, _TIDY_EVERY)))


def _delivered(setup: Setup, claim: Claim) -> Script[Handed | Settlement | None]:
    """Deliver the claim, unless there is a verdict already; None where its lease was lost."""
    while True:
        unfit = yield from _unfit(claim)
        if unfit is not None:
            return None if unfit is Stop.LOST else unfit
        screened = yield from ask(Screen(claim))
        if isinstance(screened, Released):
            return Settlement(claim, screened)
        recipients = claim.recipients if screened is None else screened.recipients
        if screened is not None and not recipients:
            return Handed(claim, screened.outcome, _ZERO)
        # A suppress may take long, and what it kept waiting may be another's by now.
        unfit = yield from _unfit(claim)
        if unfit is not None:
            return None if unfit is Stop.LOST else unfit
        # Directly before the delivery: an admission may be the relay's probe, and each waits for its report.
        closed = yield from ask(Admit(claim, recipients))
        if closed is None:
            handed = yield from ask(Deliver(claim))
            return handed if screened is None else attrs.evolve(handed, report=screened.joined(handed.report))
        # Meanwhile the lease may be lost, or the message expire: all is asked again.
        if not (closed.probing and (yield from ask(AwaitProbe()))):
            return released(claim, setup.pause(closed.delay), closed.reason)


def _unfit(claim: Claim) -> Script[Settlement | Literal[Stop.LOST] | None]:
    """Take the claim in hand; what becomes of it where it may not be handed over."""
    since = yield from ask(TakeUp(claim))
    if since is Stop.LOST:
        return Stop.LOST
    if since is Stop.STOPPING:
        return released(claim)
    return _past_its_time(claim, since.least) if before(claim, since.most) else None


def _past_its_time(claim: Claim, since: dt.timedelta) -> Settlement:
    """It may not be handed over any more; where that is not sure by our clock, the store's says at the next claim."""
    verdict = before(claim, since)
    return released(claim) if verdict is None else Settlement(claim, verdict)


def _judged(setup: Setup, handed: Handed) -> Script[Settlement]:
    claim = handed.claim
    policy = setup.policy(claim.message.queue)
    verdict = judge(claim, handed.report, policy, setup.rng, relay_wait=setup.pause(handed.relay_wait))
    if setup.hooked and amendable(claim, verdict):
        verdict = yield from ask(Amend(claim, handed.report, verdict))
    return Settlement(claim, verdict)


def _settle(setup: Setup, settlement: Settlement, took: dt.timedelta = _ZERO) -> Script[None]:
    failures = 0
    while True:
        try:
            lost = yield from ask(Settle([settlement]))
        except StoreError as error:
            failures += 1
            yield from _falter(setup, error, failures, [settlement])
        else:
            return (yield from _tell([(settlement, took)], lost))


def _tell_of_the_rest(
    noted: Sequence[Noted], left: Collection[tuple[str, str]] | None
) -> Script[Sequence[Settlement]]:
    """Tell of what was written of these, where all but of the claims of *left* is; return the others."""
    if left is None:
        return [settlement for settlement, _ in noted]
    yield from _tell([each for each in noted if each[0].claim.key not in left], ())
    return [settlement for settlement, _ in noted if settlement.claim.key in left]


def _tell(noted: Sequence[Noted], lost: Sequence[Claim]) -> Script[None]:
    gone = {claim.key for claim in lost}
    for settlement, took in noted:
        claim, verdict = settlement.claim, settlement.verdict
        stale = claim.key in gone
        yield from ask(Tell(LeaseLost(claim, verdict) if stale else Settled(claim, verdict, took)))


def _back_off(tries: int, rng: random.Random) -> dt.timedelta:
    return dt.timedelta(seconds=min(30.0, 0.1 * 2 ** min(tries, 10)) * rng.uniform(0.5, 1.0))


def _naming(error: StoreError, settlements: Sequence[Settlement]) -> StoreError:
    """The error, and what a person has to know: which messages were handed over without a note of it."""
    handed = [each.claim.message.id for each in settlements if each.verdict.outcome is not None]
    if not handed:
        return error
    # A stranger's subclass may be made in another way than ours.
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == StoreError.__module__)
    named: StoreError = kind(
        f"{error}; handed over, and what came of it is not noted: {', '.join(handed)}; "
        "they may go out again when their leases have run out"
    )
    return named
