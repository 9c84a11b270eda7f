"""What one process has in hand between its store and its relays, and who gets what of it next.

It decides and does nothing.  It reads no clock: the moment comes with each
call, in seconds of the caller's monotonic clock.  It is not safe for threads
by itself: the performer asks it under one lock, a simulation without any.

Claims lie on it in lanes, one for each relay (and one for each set of relays
that a single message goes to).  A worker takes a *run*: he pulls a lane's
claims one after the other, so that nobody holds back what another could
deliver.  What came of them he notes, and the clerk collects it: he writes
whatever was noted while he wrote the last, and claims what will be wanted
next, in one commit.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeAlias

import attrs

from .leases import Leases
from .lifecycle import Claim, Released, Retry, Settlement
from .protocols import MAX_BYTES
from .relay import Go, Wait
from .stock import Lane, Stock

__all__ = ["Admit", "Desk", "Lane", "Later", "Noted", "Run", "Spoiled", "Work", "released"]

Noted: TypeAlias = tuple[Settlement, dt.timedelta]
"""A verdict, and how long the delivery took."""

Admit: TypeAlias = Callable[[str, str, int], "Go | Wait"]
"""May there go to the relay of this key the message of this id now, and others behind it, so many in all?"""

_PATIENCE: Final = 1.0
"""The seconds for which claims are kept that nobody here can take."""
_FOR_ISOLATION: Final = 1.0
_LONGEST: Final = 3600.0
_SOON: Final = dt.timedelta(seconds=1)
_FOR_A_LIMIT: Final = dt.timedelta(seconds=10)
_UNWRITTEN: Final = 256
_BLOCKED_AT_MOST: Final = 1000
_PAST_THE_BLOCKED: Final = 100
_ZERO: Final = dt.timedelta(0)


@attrs.frozen
class Later:
    """Nothing now: ask again when something has changed, or after so many seconds."""

    seconds: float = math.inf


@attrs.frozen
class Run:
    """Up to *number* claims of a lane, pulled one after the other.

    *admitted* where its relay was asked, for the message whose id is *first*;
    it was not where there are several.
    """

    lane: Lane
    number: int
    admitted: Go | None = None
    first: str = ""


@attrs.frozen
class Spoiled:
    """A claim that may not be delivered any more, *since* so long after it was made; None: its lease was lost."""

    claim: Claim
    since: dt.timedelta | None


@attrs.frozen(kw_only=True)
class Work:
    """What the clerk is to do next: write these, see to what spoiled, and claim up to *limit* more."""

    noted: Sequence[Noted] = ()
    spoiled: Sequence[Spoiled] = ()
    limit: int = 0
    max_bytes: int = MAX_BYTES


@attrs.define(eq=False)
class _Worker:
    """What the desk knows of one worker.

    *size* is how many he takes at a time, *hungry* whether he asked in vain,
    *left* how many more he may pull, *hand* what he has pulled and not told
    of, *moved_at* when he last pulled.
    """

    size: int = 1
    hungry: bool = False
    run: Run | None = None
    left: int = 0
    hand: list[Claim] = attrs.Factory(list)
    moved_at: float = -math.inf

    def wants(self, now: float) -> int:
        """As many as he takes at once; where he has taken, as many again, if he is quick."""
        if self.run is None:
            return self.size if self.hungry else 0
        return self.size if self.size > 1 and now - self.moved_at < _PATIENCE else 0


class Desk:
    """One for each run of a crew.

    Args:
        workers: How many there will be.
        leases: Those that this process holds.
        draining: It ends when nothing is left that is due.
        limit: How many may be claimed in all; None is as many as there are.
        several: There is more than one relay, and what waits for one of them
            must not keep the others' messages from being claimed.
        put_off: For how long to give a message back that a relay cannot take
            now, by its key; asked for each, so that not all come back at once.
    """

    def __init__(
        self,
        *,
        workers: int,
        leases: Leases,
        draining: bool = False,
        limit: int | None = None,
        several: bool = True,
        put_off: Callable[[str], dt.timedelta] | None = None,
    ) -> None:
        self._leases = leases
        self._draining = draining
        self._left = limit
        self._expected = workers
        self._put_off = put_off
        self._several = several
        # A drain keeps what waits for a probe: given back, it would be due at once, and come again and again.
        self._probe_patience = _PATIENCE if several and not draining else math.inf
        self._workers: dict[Hashable, _Worker] = {}
        self._stock = Stock()
        self._blocked: dict[Lane, Wait] = {}
        self._moved_at = 0.0
        self._suspects: deque[tuple[Lane, Claim]] = deque()
        self._suspected_at = 0.0
        self._isolated = False
        # A drain lasts until all that is due was tried: it can wait for a suspect's turn.
        self._patience = self._least = math.inf if draining else _FOR_ISOLATION
        self._noted: list[Noted] = []
        self._aside: list[Noted] = []
        self._spoiled: list[Spoiled] = []
        self._writing: list[Noted] = []
        self._undealt: dict[tuple[str, str], Claim] = {}
        self._faltering = False
        self._retired = False
        self._dry = False
        self._withheld = 0
        self._stopping = False
        self._given_up = False

    # -- the worker's side

    def take(self, worker: Hashable, size: int, now: float, admit: Admit) -> Run | Later | None:
        """What *worker* is to do next, *size* messages of it at most; None: his life ends.

        Every Run is ended by :meth:`drop`.
        """
        mine = self._workers.setdefault(worker, _Worker())
        mine.size, mine.hungry = size, False
        answer = None if self._over else self._next_run(size, now, admit)
        if isinstance(answer, Run):
            mine.run, mine.left, mine.moved_at = answer, answer.number, now
        elif answer is not None:
            mine.hungry = True
        return answer

    def pull(self, worker: Hashable, now: float) -> Claim | None:
        """The next claim of the worker's run, in hand until he notes what came of it; None: there is no more."""
        mine = self._workers[worker]
        if mine.run is None or mine.left == 0 or self._stopping or self._behindhand:
            return None
        while (claim := self._next(mine.run)) is not None:
            self._moved_at = now
            if self._sound(claim, now):
                mine.left -= 1
                mine.hand.append(claim)
                mine.moved_at = now
                return claim
        return None

    def goes_on(self, claim: Claim, now: float) -> bool:
        """Whether a claim that was pulled ahead may still be handed over; where not, its run is dropped."""
        if self._stopping or self._faltering:
            return False
        since = self._since(claim, now)
        return since is not None and _in_time(claim, since)

    def note(
        self, settlement: Settlement, took: dt.timedelta = _ZERO, worker: Hashable | None = None
    ) -> None:
        """What came of a claim, for the clerk to write."""
        if worker is None:
            self._undealt.pop(_key(settlement.claim), None)
        else:
            self._workers[worker].hand.remove(settlement.claim)
        if self._draining and isinstance(settlement.verdict, Released):
            # Given back now it would be due now, and come again before all others.
            self._aside.append((settlement, took))
        else:
            self._noted.append((settlement, took))

    def drop(self, worker: Hashable, now: float) -> None:
        """The worker's run is over; what he pulled and told nothing of is another's."""
        mine = self._workers[worker]
        if mine.run is None:
            return
        for claim in reversed(mine.hand):
            if claim.lost:
                self._suspects.appendleft((mine.run.lane, claim))
                self._suspected_at = now
            else:
                self._stock.put(mine.run.lane, claim, first=True)
        mine.run, mine.hand, mine.left = None, [], 0
        self._isolated, self._moved_at = False, now

    def leave(self, worker: Hashable) -> Sequence[Claim]:
        """The worker is gone; what he had in hand still, which nobody extends any more."""
        mine = self._workers.pop(worker, _Worker())
        if mine.run is not None:
            self._isolated = False
        left = list(mine.hand)
        if self._retired:
            left += self._unwritten()
        self._leases.end(left)
        return left

    def depart(self) -> None:
        """One worker fewer will come."""
        self._expected -= 1

    # -- the clerk's side

    def collect(self, now: float, closed: Wait | None = None) -> Work | Later | None:
        """What the clerk is to do now; None: his life ends.

        *closed*: why there is no relay to speak to at all, where that is so.
        """
        self._give_back(now, closed)
        if self._expected <= 0 or self._stopping:
            # Nobody here claims any more: what is given back before, this drain would claim again.
            self._noted += self._aside
            self._aside = []
        limit = self._demand(now, closed)
        if self._given_up and self._faltering:
            return None
        if not (self._noted or self._spoiled or limit):
            over = self._given_up or self._expected <= 0
            return None if over else Later(self._next_look(now, closed))
        self._writing, self._noted = self._noted, []
        spoiled, self._spoiled = self._spoiled, []
        room = max(1, MAX_BYTES - self._stock.size)
        return Work(noted=self._writing, spoiled=spoiled, limit=limit, max_bytes=room)

    def written(self) -> None:
        """The store has all that was collected."""
        if self._draining and any(isinstance(noted.verdict, Retry) for noted, _ in self._writing):
            # It may be due at once.
            self._dry = False
        self._leases.end(settlement.claim for settlement, _ in self._writing)
        self._writing, self._faltering = [], False

    def faltered(self) -> None:
        """The store did not take what was collected: it is collected again, and nothing is begun until it is written.

        For that could not be noted either.
        """
        self._faltering = bool(self._writing)
        self._noted, self._writing = self._writing + self._noted, []

    def forsaken(self) -> Sequence[Claim]:
        """The clerk fell: what he was writing and dealing is nobody's, and extended by nobody any more."""
        claims = [settlement.claim for settlement, _ in self._writing] + list(self._undealt.values())
        self.written()
        self._undealt.clear()
        self._leases.end(claims)
        return claims

    def retire(self) -> Sequence[Claim]:
        """No clerk comes any more: what is left unwritten, now and by :meth:`leave` hereafter."""
        self._retired = self._stopping = True
        self._return([claim for _, claim in self._clear_all()])
        self._noted += self._aside
        self._aside = []
        left = [*self.forsaken(), *self._unwritten()]
        self._leases.end(left)
        return left

    def claimed(self, claims: Sequence[Claim], now: float, begun: float) -> None:
        """The store was asked for more, by a call that began then, and gave these."""
        self._leases.grant(claims, begun)
        self._undealt.update((_key(claim), claim) for claim in claims)
        self._dry, self._moved_at = not claims, now
        if self._left is not None:
            self._left -= len(claims)

    def deal(self, lane: Lane, claim: Claim, now: float, closed: Wait | None = None) -> None:
        """Lay a claim on the desk; *closed*: why its relay is not to be spoken to, where that is so."""
        self._undealt.pop(_key(claim), None)
        self._withheld = 0
        if closed is not None and self._barred(closed):
            self._close(lane, [claim], closed)
        elif claim.lost:
            self._suspects.append((lane, claim))
            self._suspected_at = now
        else:
            self._stock.put(lane, claim)

    def withhold(self, settlements: Sequence[Settlement]) -> None:
        """Of what was claimed these are given back at once: nobody may be written to of those who wait."""
        for settlement in settlements:
            self.note(settlement)
        self._withheld += len(settlements)

    def news(self) -> None:
        """There may be something to claim."""
        self._dry = False

    @property
    def dry(self) -> bool:
        """Whether the last claim brought nothing."""
        return self._dry

    def stop(self) -> None:
        """Begin nothing more, and give back what was not begun."""
        self._stopping = True

    def give_up(self) -> None:
        """The grace time is over: whoever is at work is left behind."""
        self._given_up = self._stopping = True

    # -- what to deliver

    @property
    def _over(self) -> bool:
        if self._stopping or not self._draining:
            return self._stopping
        # What is under way may be due again as soon as it is written.
        waiting = self._stock.number or self._suspects or self._undealt
        more = waiting or self._noted or self._writing or self._spoiled
        return not (more or self._at_work) and (self._dry or self._left == 0)

    @property
    def _behindhand(self) -> bool:
        """Whether no more is begun before what there is to write is written: at a kill it would all go out again."""
        return self._faltering or len(self._noted) + len(self._writing) >= _UNWRITTEN

    @property
    def _at_work(self) -> bool:
        return any(worker.run is not None for worker in self._workers.values())

    def _next_run(self, size: int, now: float, admit: Admit) -> Run | Later:
        if self._behindhand or self._isolated:
            return Later()
        soonest = math.inf
        for lane in self._stock.lanes:
            answer = self._run_of(lane, size, admit)
            if isinstance(answer, Run):
                # The next one begins with another lane.
                self._stock.turn(lane)
                self._blocked.pop(lane, None)
                return answer
            if answer is not None:
                soonest = min(soonest, self._block(lane, answer))
        if self._suspects and not self._stock.number:
            return self._run_of_suspect(now, admit)
        return Later(max(0.0, soonest))

    def _run_of(self, lane: Lane, size: int, admit: Admit) -> Run | Wait | None:
        """A run of the lane; None: all that was in it lets others go first."""
        while (claim := self._stock.first(lane)) is not None:
            answer = _admitted(lane, claim, admit, size)
            if isinstance(answer, Go):
                return Run(lane, answer.number, answer, claim.message.id)
            if answer is None:
                return Run(lane, 1)
            if not answer.passing:
                return answer
            self._close(lane, [self._stock.pop(lane)], answer)
        return None

    def _block(self, lane: Lane, wait: Wait) -> float:
        """Nothing of this lane may go: after how many seconds to ask again."""
        if self._barred(wait):
            self._close(lane, self._clear(lane, wait), wait)
            return math.inf
        self._blocked[lane] = wait
        # Others than these workers may end what they wait for, and tell nobody here.
        return min(self._probe_patience - wait.under_way, wait.delay.total_seconds(), _PATIENCE)

    def _barred(self, wait: Wait) -> bool:
        """Whether it lasts too long to keep claims for it."""
        if wait.limited:
            # A drain is to deliver what is due, however slowly its relay has to be asked.
            return wait.delay > (_FOR_A_LIMIT if self._draining else _SOON)
        return not wait.full and (not wait.probing or wait.under_way >= self._probe_patience)

    def _run_of_suspect(self, now: float, admit: Admit) -> Run | Later:
        """A message whose worker died may be what killed it: it is handed over alone, and takes no other with it.

        Meanwhile nothing is claimed.  So it waits for *patience* at most, and
        is then given back for four times as long; each time in vain doubles
        both, so that in the end it outlasts the slowest delivery.
        """
        lane, claim = self._suspects[0]
        left, soon = self._suspected_at + self._patience - now, math.inf
        if not (self._at_work or self._noted or self._writing):
            answer = _admitted(lane, claim, admit, 1)
            if not isinstance(answer, Wait):
                return self._isolate(Run(lane, 1, answer, claim.message.id))
            if self._barred(answer):
                self._suspects.popleft()
                self._close(lane, [claim], answer)
                return Later(0.0)
            soon = _PATIENCE
        if left > 0:
            return Later(min(left, soon))
        self._suspects.popleft()
        self._return([claim], dt.timedelta(seconds=4 * self._patience))
        self._patience = min(2 * self._patience, _LONGEST)
        return Later()

    def _isolate(self, run: Run) -> Run:
        # It stays among the suspects until it is pulled: were the run dropped before, it would be one still.
        self._isolated, self._patience = True, self._least
        return run

    def _sound(self, claim: Claim, now: float) -> bool:
        """Whether it may still be delivered; what may not is the clerk's to see to."""
        since = self._since(claim, now)
        if since is not None and _in_time(claim, since):
            return True
        self._spoiled.append(Spoiled(claim, since))
        return False

    def _since(self, claim: Claim, now: float) -> dt.timedelta | None:
        """How long ago it was claimed; None: its lease was lost."""
        lease = self._leases.alive(claim, now)
        return None if lease is None else dt.timedelta(seconds=now - lease.begun)

    # -- what to claim

    def _demand(self, now: float, closed: Wait | None) -> int:
        if closed is not None:
            # No drain waits a pause out; who does not drain asks when it is over.
            self._dry = self._dry or (self._draining and self._barred(closed))
            return 0
        if self._stopping or self._dry or self._faltering or self._isolated or self._suspects:
            return 0
        if self._stock.size >= MAX_BYTES:
            return 0
        missing = self._missing(sum(worker.wants(now) for worker in self._workers.values()))
        return missing if self._left is None else min(missing, self._left)

    def _missing(self, wanted: int) -> int:
        blocked = self._held_up
        ready = self._stock.number - blocked
        # Half of it is on the desk still: the fewer claims, the larger.
        if 2 * ready > wanted or blocked >= _BLOCKED_AT_MOST:
            return 0
        # Past what is blocked in growing steps: behind it there may be mail for other relays.
        past = min(max(blocked, self._withheld), _PAST_THE_BLOCKED)
        return max(wanted - ready, past) if wanted else 0

    @property
    def _held_up(self) -> int:
        """How many wait for relays that take nothing now, while others could be delivered."""
        return sum(self._stock.waiting(lane) for lane in self._blocked) if self._several else 0

    def _next_look(self, now: float, closed: Wait | None) -> float:
        look = math.inf if closed is None else closed.delay.total_seconds()
        if closed is not None and closed.probing:
            # Others than these workers may end what they wait for, and tell nobody here.
            look = min(look, _PATIENCE)
        if self._stock.number and not (self._draining or self._isolated):
            look = min(look, self._moved_at + _PATIENCE - now)
        return max(0.0, look)

    # -- what to give back

    def _give_back(self, now: float, closed: Wait | None) -> None:
        if self._stopping:
            self._return([claim for _, claim in self._clear_all()])
        elif closed is not None and self._barred(closed):
            self._shut_down(closed)
        elif self._draining or self._isolated:
            return
        elif self._stock.number and now - self._moved_at >= _PATIENCE:
            # All are busy for longer: others may deliver it meanwhile.
            self._return(self._stock.clear_all())
        elif self._held_up >= _BLOCKED_AT_MOST:
            # Behind so much that waits for a few relays there may be mail for others.
            for lane, wait in list(self._blocked.items()):
                self._close(lane, self._stock.clear(lane), wait)

    def _shut_down(self, closed: Wait) -> None:
        for lane in self._stock.lanes:
            self._close(lane, self._clear(lane, closed), closed)
        while self._suspects and not (closed.limited and self._isolated):
            lane, claim = self._suspects.popleft()
            self._close(lane, [claim], closed)

    def _clear(self, lane: Lane, wait: Wait) -> Sequence[Claim]:
        """All of a lane; but where a limit is reached, not those who were admitted before it was."""
        claims = self._stock.clear(lane)
        runs = [each for each in self._workers.values() if each.run is not None and each.run.lane == lane]
        admitted = sum(each.left for each in runs) if wait.limited else 0
        for claim in claims[:admitted]:
            self._stock.put(lane, claim)
        return claims[admitted:]

    def _close(self, lane: Lane, claims: Sequence[Claim], wait: Wait) -> None:
        if not self._stock.waiting(lane):
            self._blocked.pop(lane, None)
        if self._draining:
            # Given back now it would be claimed again by this drain, and again.
            self._aside += [(released(claim, reason=wait.reason), _ZERO) for claim in claims]
            return
        for claim in claims:
            self._return([claim], self._back_in(lane, wait), wait.reason)

    def _back_in(self, lane: Lane, wait: Wait) -> dt.timedelta:
        if self._put_off is None or wait.passing or len(lane) > 1:
            return wait.delay
        return self._put_off(lane[0])

    def _return(self, claims: Sequence[Claim], delay: dt.timedelta = _ZERO, reason: str = "") -> None:
        self._noted += [(released(claim, delay, reason), _ZERO) for claim in claims]

    def _clear_all(self) -> Sequence[tuple[Lane, Claim]]:
        cleared = [(lane, claim) for lane in self._stock.lanes for claim in self._stock.clear(lane)]
        cleared += self._suspects
        self._suspects.clear()
        return cleared

    def _unwritten(self) -> Sequence[Claim]:
        noted, self._noted = self._noted, []
        return [settlement.claim for settlement, _ in noted]

    def _next(self, run: Run) -> Claim | None:
        """The next claim of a run, taken away; None where there is none, or it is not the one that may go."""
        if self._isolated:
            meant = self._suspects and self._suspects[0][1].message.id == run.first
            return self._suspects.popleft()[1] if meant else None
        claim = self._stock.first(run.lane)
        probe = run.admitted is not None and run.admitted.probe
        if claim is None or (probe and claim.message.id != run.first):
            return None
        return self._stock.pop(run.lane)


def _admitted(lane: Lane, claim: Claim, admit: Admit, wanted: int) -> Go | Wait | None:
    """What the relay of a claim says to it; None where there are several, and who takes it up asks himself."""
    return admit(lane[0], claim.message.id, wanted) if len(lane) == 1 else None


def _in_time(claim: Claim, since: dt.timedelta) -> bool:
    return claim.expires_in is None or since < claim.expires_in


def _key(claim: Claim) -> tuple[str, str]:
    return claim.message.id, claim.token


def released(claim: Claim, delay: dt.timedelta = _ZERO, reason: str = "") -> Settlement:
    """The claim, given back as though it had never been made; due after *delay*."""
    return Settlement(claim, Released(delay=delay, fates=claim.fates, reason=reason))
