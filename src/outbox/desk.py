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
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from typing import Final, TypeAlias

from .aside import Aside
from .demand import BLOCKED_AT_MOST, Demand
from .leases import Leases, Since
from .lifecycle import Claim, Released, Retry, Settlement
from .protocols import MAX_BYTES
from .relay import Go, Wait
from .roster import PATIENCE, Roster
from .slips import Later, Noted, Run, Spoiled, Work, released
from .stock import Lane, Stock
from .suspects import Suspects
from .tray import Tray

__all__ = ["Admit", "Desk", "Later", "Run", "Work"]

Admit: TypeAlias = Callable[[str, str, int], "Go | Wait"]
"""May there go to the relay of this key the message of this id now, and others behind it, so many in all?"""

_SOON: Final = dt.timedelta(seconds=1)
_FOR_A_LIMIT: Final = dt.timedelta(seconds=10)
_PACE: Final = 0.01
_A_MOMENT: Final = 0.25
"""The seconds in which a relay that is well has answered for the first time."""
_COMPANY: Final = 64
_ZERO: Final = dt.timedelta(0)


class Desk:
    """One for each run of a crew.

    Args:
        workers: How many there will be.
        leases: Those that this process holds.
        draining: It ends when nothing is left that is due.
        limit: How many may be tried in all; None is as many as there are.
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
        self._put_off = put_off
        self._several = several
        # A drain keeps what waits for a probe: given back, it would be for a later one, though its relay may only be slow.
        self._probe_patience = PATIENCE if several and not draining else math.inf
        self._roster = Roster(workers, several=several)
        self._stock = Stock()
        self._demand = Demand(self._stock, self._roster, several=several, limit=limit)
        self._moved_at = 0.0
        # A drain lasts until all that is due was tried: it can wait for a suspect's turn.
        self._suspects = Suspects(patient=draining)
        self._tray = Tray()
        self._aside = Aside()
        self._spoiled: list[Spoiled] = []
        self._collected_at = -math.inf
        self._undealt: dict[tuple[str, str], Claim] = {}
        self._retired = False
        self._stopping = False
        self._given_up = False

    # -- the worker's side

    def take(self, worker: Hashable, size: int, now: float, admit: Admit) -> Run | Later | None:
        """What *worker* is to do next, *size* messages of it at most; None: his life ends.

        Every Run is ended by :meth:`drop`.
        """
        mine = self._roster[worker]
        mine.size, mine.hungry = size, False
        answer = None if self.over else self._next_run(size, now, admit)
        if isinstance(answer, Later) and self.over:
            # What was left was for a relay that takes nothing now, and has just been put aside.
            answer = None
        if isinstance(answer, Run):
            self._roster.begin(mine, answer, now)
        elif answer is not None:
            mine.hungry = True
        return answer

    def pull(self, worker: Hashable, now: float) -> Claim | None:
        """The next claim of the worker's run, in hand until he notes what came of it; None: there is no more."""
        mine = self._roster[worker]
        if mine.run is None or mine.left == 0 or self._stopping or self._tray.behindhand:
            return None
        while (claim := self._next(mine.run)) is not None:
            self._moved_at = now
            if self._sound(claim, now):
                if now - mine.moved_at >= PATIENCE:
                    # Whoever is quick again wants more.
                    self._demand.low = math.inf
                self._roster.pull(mine, claim, now)
                return claim
        return None

    def goes_on(self, claim: Claim, now: float) -> bool:
        """Whether a claim that was pulled ahead may still be handed over; where not, its run is dropped."""
        if self._stopping or self._tray.faltering:
            return False
        since = self._since(claim, now)
        return since is not None and _in_time(claim, since.most)

    def note(
        self, settlement: Settlement, took: dt.timedelta = _ZERO, worker: Hashable | None = None
    ) -> None:
        """What came of a claim, for the clerk to write."""
        if worker is None:
            self._undealt.pop(settlement.claim.key, None)
        else:
            self._roster[worker].tell(settlement.claim, settlement.verdict)
        if self._draining and isinstance(settlement.verdict, Released):
            self._set_aside([(settlement, took)])
        else:
            self._tray.add([(settlement, took)])

    def drop(self, worker: Hashable, now: float) -> None:
        """The worker's run is over; what he pulled and told nothing of is another's."""
        mine = self._roster[worker]
        if mine.run is None:
            return
        for claim in reversed(mine.hand):
            if claim.lost:
                self._suspects.add(mine.run.lane, claim, now, first=True)
            else:
                self._stock.put(mine.run.lane, claim, first=True)
        self._roster.end(mine, now)
        self._suspects.alone, self._moved_at = False, now

    def leave(self, worker: Hashable) -> Sequence[Claim]:
        """The worker is gone; what he had in hand still, which nobody extends any more."""
        mine = self._roster.leave(worker)
        if mine.run is not None:
            self._suspects.alone = False
        left = list(mine.hand)
        if self._retired:
            left += _claims(self._tray.clear())
        self._leases.end(left)
        return left

    def depart(self) -> None:
        """One worker fewer will come."""
        self._roster.expected -= 1

    # -- the clerk's side

    def collect(self, now: float, closed: Wait | None = None) -> Work | Later | None:
        """What the clerk is to do now; None: his life ends.

        *closed*: why there is no relay to speak to at all, where that is so.
        """
        self._tray.look(now)
        self._heed_limit(closed)
        self._give_back(now, closed)
        self._see_to_aside(now)
        limit = self._wanted(now, closed)
        if self._given_up and self._tray.faltering:
            return None
        if not (self._tray.waiting or self._spoiled or limit):
            over = self._given_up or (self._roster.expected <= 0 and not self._tray)
            return None if over else Later(self._next_look(now, closed))
        if (pause := self._collected_at + _PACE - now) > 0 and self._lingers(limit):
            return Later(min(pause, self._next_look(now, closed)))
        self._collected_at = now
        self._demand.ask(limit)
        spoiled, self._spoiled = self._spoiled, []
        room = max(1, MAX_BYTES - self._stock.size)
        return Work(
            noted=self._tray.take(), spoiled=spoiled, limit=limit, max_bytes=room, at_work=self._at_work
        )

    def written(self) -> None:
        """The store has all that was collected."""
        self._written(self._tray.written())

    def faltered(self, now: float, left: Collection[tuple[str, str]] | None = None) -> None:
        """The store did not take what was collected: it is collected again, and nothing is begun until it is written.

        For that could not be noted either.  Where the store has all but what
        was *left* (the keys of the claims), others go on, and that is collected
        after a while; but a drain ends with it.
        """
        if left is not None:
            self._written(self._tray.part(left))
        if left is None or self._draining:
            self._tray.falter()
        else:
            self._tray.stick(now)

    def _written(self, noted: Sequence[Noted]) -> None:
        if self._draining and any(isinstance(settlement.verdict, Retry) for settlement, _ in noted):
            # It may be due at once.
            self._demand.dry = False
        self._leases.end(settlement.claim for settlement, _ in noted)

    def forsaken(self) -> Sequence[Claim]:
        """The clerk fell: what he was dealing is nobody's, and extended by nobody any more.

        What he was writing is the next one's, and all that he does before he
        claims; what takes him too is nobody's.
        """
        claims = [*self._undealt.values(), *_claims(self._tray.fall())]
        self._undealt.clear()
        self._leases.end(claims)
        return claims

    def retire(self) -> Sequence[Claim]:
        """No clerk comes any more: what is left unwritten, now and by :meth:`leave` hereafter."""
        self._retired = self._stopping = True
        self._return([claim for _, claim in self._clear_all()])
        self._tray.add(self._aside.give_back())
        left = [*self.forsaken(), *_claims(self._tray.clear())]
        self._leases.end(left)
        return left

    def claimed(self, claims: Sequence[Claim], now: float, begun: float) -> Sequence[Claim]:
        """The store was asked for more, by a call that began then, and gave these; returns those that are to be dealt.

        Of the others it is known what came of them: it could not be written
        before their leases had run out.
        """
        self._leases.grant(claims, begun, now)
        fresh = [claim for claim in claims if not self._recalled(claim)]
        self._undealt.update((claim.key, claim) for claim in fresh)
        self._moved_at = now
        self._demand.claimed(len(claims))
        self._demand.missed(len(claims) - len(fresh))
        return fresh

    def _recalled(self, claim: Claim) -> bool:
        stuck = self._tray.recall(claim)
        if stuck is None:
            return False
        settlement, took = stuck
        self._leases.end([settlement.claim])
        self._tray.add([(Settlement(claim, settlement.verdict), took)])
        return True

    def deal(self, lane: Lane, claim: Claim, now: float, closed: Wait | None = None) -> None:
        """Lay a claim on the desk; *closed*: why its relay is not to be spoken to, where that is so."""
        self._undealt.pop(claim.key, None)
        if closed is not None and self._barred(closed):
            self._close(lane, [claim], closed)
        elif claim.lost:
            self._suspects.add(lane, claim, now)
        else:
            self._stock.put(lane, claim)

    def withhold(self, settlements: Sequence[Settlement]) -> None:
        """Of what was claimed these are given back at once: nobody may be written to of those who wait."""
        for settlement in settlements:
            self.note(settlement)
        self._demand.missed(len(settlements))

    def news(self) -> None:
        """There may be something to claim."""
        self._demand.dry = False

    @property
    def calls(self) -> bool:
        """Whether a clerk who waits has something to see to that was not there when he looked."""
        noted = self._tray.waiting
        return (
            noted == 1 or noted >= _COMPANY or bool(self._spoiled) or self._stock.number <= self._demand.low
        )

    @property
    def dry(self) -> bool:
        """Whether the last claim brought nothing."""
        return self._demand.dry or self._demand.shut

    def stop(self) -> None:
        """Begin nothing more, and give back what was not begun."""
        self._stopping = True
        self._tray.hasten()

    def give_up(self) -> None:
        """The grace time is over: whoever is at work is left behind."""
        self._given_up = self._stopping = True
        self._tray.hasten()

    # -- what to deliver

    @property
    def over(self) -> bool:
        """Whether nobody begins anything more."""
        if self._stopping or not self._draining:
            return self._stopping
        # What is under way may be due again as soon as it is written.
        waiting = self._stock.number or self._suspects or self._undealt
        more = waiting or self._tray or self._spoiled
        return not (more or self._at_work) and (self.dry or self._demand.left == 0)

    @property
    def _at_work(self) -> bool:
        return self._roster.at_work > 0

    def _next_run(self, size: int, now: float, admit: Admit) -> Run | Later:
        if self._tray.behindhand or self._suspects.alone:
            return Later()
        soonest = math.inf
        for lane in self._in_turn():
            kept_out = self._roster.kept_out(lane, now)
            if kept_out is not None and kept_out.full:
                # Those who are there go on with it; nothing makes way for others.
                soonest = min(soonest, kept_out.delay.total_seconds())
                continue
            answer = kept_out or self._run_of(lane, size, admit)
            if isinstance(answer, Run):
                # The next one begins with another lane.
                self._stock.turn(lane)
                self._demand.met()
                return answer
            if answer is not None:
                soonest = min(soonest, self._block(lane, answer, now))
        if self._suspects and not self._stock.number:
            return self._run_of_suspect(now, admit)
        return Later(max(0.0, soonest))

    def _in_turn(self) -> Iterator[Lane]:
        """The lanes, those last that half of the workers are at."""
        crowded = []
        for lane in self._stock.lanes:
            if self._roster.crowded(lane):
                crowded.append(lane)
            else:
                yield lane
        yield from crowded

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

    def _block(self, lane: Lane, wait: Wait, now: float) -> float:
        """Nothing of this lane may go: after how many seconds to ask again."""
        if self._barred(wait):
            self._heed_limit(wait)
            self._close(lane, self._clear(lane, wait), wait)
            return math.inf
        self._stock.block(lane, wait, now)
        # Others than these workers may end what they wait for, and tell nobody here.
        return min(self._probe_patience - wait.under_way, wait.delay.total_seconds(), PATIENCE)

    def _barred(self, wait: Wait) -> bool:
        """Whether it lasts too long to keep claims for it."""
        if wait.limited:
            # A drain is to deliver what is due, however slowly its relay has to be asked.
            return wait.delay > (_FOR_A_LIMIT if self._draining else _SOON)
        return not wait.full and (not wait.probing or wait.under_way >= self._probe_patience)

    def _run_of_suspect(self, now: float, admit: Admit) -> Run | Later:
        """It goes alone, or waits until it can; meanwhile nothing is claimed."""
        lane, claim = self._suspects.first
        soon = math.inf
        # For what is stuck nobody can tell how long that would be.
        if not (self._at_work or self._tray.moving or self._aside):
            answer = _admitted(lane, claim, admit, 1)
            if not isinstance(answer, Wait):
                self._suspects.isolate()
                return Run(lane, 1, answer, claim.message.id)
            if self._barred(answer):
                self._close(lane, [self._suspects.pop()[1]], answer)
                return Later(0.0)
            soon = PATIENCE
        if (left := self._suspects.left(now)) > 0:
            return Later(min(left, soon))
        given_up, delay = self._suspects.give_up()
        self._return([given_up], delay)
        return Later()

    def _sound(self, claim: Claim, now: float) -> bool:
        """Whether it may still be delivered; what may not is the clerk's to see to."""
        since = self._since(claim, now)
        if since is not None and _in_time(claim, since.most):
            return True
        self._spoiled.append(Spoiled(claim, None if since is None else since.least))
        return False

    def _since(self, claim: Claim, now: float) -> Since | None:
        """How long ago it was claimed; None: its lease was lost."""
        lease = self._leases.alive(claim, now)
        return None if lease is None else lease.since(now)

    # -- what to claim

    def _lingers(self, limit: int) -> bool:
        """Whether what there is to write, and the few that there are to claim, may wait for company.

        While others are under way they share a commit with what comes next;
        where nobody is at work no verdict waits, nor does anything where a
        stock is to be filled.
        """
        if self._stopping or self._spoiled or self._tray.waiting >= _COMPANY:
            return False
        # What was just claimed is about to be taken up: to ask for more in that moment would take the processor from it.
        under_way = self._at_work or (self._stock.number > 0 and not self._tray.waiting)
        return under_way and (not limit or self._demand.trickling)

    def _wanted(self, now: float, closed: Wait | None) -> int:
        self._demand.low = math.inf
        # No drain waits a pause out; who does not drain asks when it is over.
        self._demand.shut = closed is not None and self._draining and self._barred(closed)
        if closed is not None or self._stopping or self._tray.faltering:
            return 0
        return 0 if self._suspects.alone or self._suspects else self._demand.number(now)

    def _heed_limit(self, wait: Wait | None) -> None:
        if wait is not None and wait.limited and not self._several and self._barred(wait):
            self._demand.ration()

    def _next_look(self, now: float, closed: Wait | None) -> float:
        look = min((self._aside and self._aside.look(now)) or math.inf, self._tray.stuck_until - now)
        if closed is not None:
            look = min(look, closed.delay.total_seconds())
        if closed is not None and closed.probing:
            # Others than these workers may end what they wait for, and tell nobody here.
            look = min(look, PATIENCE)
        if self._stock.number and not (self._draining or self._suspects.alone):
            look = min(look, self._moved_at + PATIENCE - now)
            if self._demand.held_up >= BLOCKED_AT_MOST:
                look = min(look, self._stock.blocked[0][2] + _A_MOMENT - now)
        return max(0.0, look)

    # -- what to give back

    def _give_back(self, now: float, closed: Wait | None) -> None:
        if self._stopping:
            self._return([claim for _, claim in self._clear_all()])
        elif closed is not None and self._barred(closed):
            self._shut_down(closed)
        elif self._draining or self._suspects.alone:
            return
        elif self._stock.number and now - self._moved_at >= PATIENCE:
            # All are busy for longer: others may deliver it meanwhile.
            self._return(self._stock.clear_all())
        elif self._demand.held_up >= BLOCKED_AT_MOST:
            self._make_room(now)

    def _make_room(self, now: float) -> None:
        """Behind so much that waits for a few relays there may be mail for others.

        What waits for the first answer of a relay that is well goes in a moment, and is not put off for a silent one.
        """
        for lane, wait, since in self._stock.blocked:
            if self._demand.held_up >= BLOCKED_AT_MOST and now - since >= _A_MOMENT:
                self._close(lane, self._stock.clear(lane), wait)

    def _set_aside(self, noted: Sequence[Noted]) -> None:
        """A drain gives back what it could not send."""
        self._aside.add(noted)
        self._demand.untried(len(noted))

    def _see_to_aside(self, now: float) -> None:
        look = self._aside.look(now)
        if self._roster.expected <= 0 or self._stopping:
            self._tray.add(self._aside.give_back())
        elif self._suspects or (look <= 0 and not self.over):
            # Before a suspect goes nothing is here that would die with it.
            self._tray.add(self._aside.put_off(now))

    def _shut_down(self, closed: Wait) -> None:
        for lane in self._stock.lanes:
            self._close(lane, self._clear(lane, closed), closed)
        while self._suspects and not (closed.limited and self._suspects.alone):
            lane, claim = self._suspects.pop()
            self._close(lane, [claim], closed)

    def _clear(self, lane: Lane, wait: Wait) -> Sequence[Claim]:
        """All of a lane; but where a limit is reached, not those who were admitted before it was."""
        claims = self._stock.clear(lane)
        runs = [each for each in self._roster.hands if each.run is not None and each.run.lane == lane]
        admitted = sum(each.left for each in runs) if wait.limited else 0
        for claim in claims[:admitted]:
            self._stock.put(lane, claim)
        return claims[admitted:]

    def _close(self, lane: Lane, claims: Sequence[Claim], wait: Wait) -> None:
        self._demand.missed(len(claims))
        if self._draining:
            self._set_aside([(released(claim, reason=wait.reason), _ZERO) for claim in claims])
            return
        for claim in claims:
            self._return([claim], self._back_in(lane, wait), wait.reason)

    def _back_in(self, lane: Lane, wait: Wait) -> dt.timedelta:
        if self._put_off is None or wait.passing or len(lane) > 1:
            return wait.delay
        if wait.limited and not self._several:
            # So few are claimed that they need not be spread; behind all others their turn would be lost.
            return wait.delay
        return max(wait.delay, self._put_off(lane[0]))

    def _return(self, claims: Sequence[Claim], delay: dt.timedelta = _ZERO, reason: str = "") -> None:
        self._tray.add((released(claim, delay, reason), _ZERO) for claim in claims)

    def _clear_all(self) -> Sequence[tuple[Lane, Claim]]:
        cleared = [(lane, claim) for lane in self._stock.lanes for claim in self._stock.clear(lane)]
        return [*cleared, *self._suspects.clear()]

    def _next(self, run: Run) -> Claim | None:
        """The next claim of a run, taken away; None where there is none, or it is not the one that may go."""
        if self._suspects.alone:
            meant = self._suspects and self._suspects.first[1].message.id == run.first
            return self._suspects.pop()[1] if meant else None
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


def _claims(noted: Sequence[Noted]) -> Sequence[Claim]:
    return [settlement.claim for settlement, _ in noted]
