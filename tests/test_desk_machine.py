"""The desk under every order of calls: no claim is ever lost, or in two places at once."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence

from claims import a_claim, accepted
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from outbox.desk import Desk
from outbox.leases import Leases
from outbox.lifecycle import Claim, Delivered, Fate, Released, Retry, Settlement
from outbox.relay import Go, Wait
from outbox.slips import Later, Run, Work, released

SECOND = dt.timedelta(seconds=1)
WORKERS = ("ann", "bob", "cy")
LANES = (("a",), ("b",), ("a", "b"))
RELAYS: dict[str, Go | Wait] = {
    "well": Go(),
    "new": Go(probe=True),
    "down": Wait(5 * SECOND, "down"),
    "probed": Wait(SECOND, "tried", probing=True),
    "probed long": Wait(2 * SECOND, "tried", probing=True, under_way=2.0),
    "full": Wait(SECOND, "its connections are taken", full=True),
    "limited": Wait(SECOND, "its limit is reached", limited=True),
    "limited long": Wait(60 * SECOND, "its limit is reached", limited=True),
    "passing": Wait(SECOND, "down", passing=True),
}

workers = st.sampled_from(WORKERS)
sizes = st.sampled_from([1, 2, 100])


class DeskMachine(RuleBasedStateMachine):
    """The clerk, the workers, the store and the relays around a desk; *live* are the claims that are somebody's here."""

    @initialize(draining=st.booleans(), limit=st.none() | st.integers(1, 30), several=st.booleans())
    def open(self, draining: bool, limit: int | None, several: bool) -> None:
        self.now, self.number = 0.0, 0
        self.draining, self.limit, self.tried = draining, limit, 0
        self.leases = Leases(dt.timedelta(hours=1))
        self.desk = Desk(
            workers=len(WORKERS), leases=self.leases, draining=draining, limit=limit, several=several
        )
        self.lanes = LANES if several else LANES[:1]
        self.relays = {"a": "well", "b": "well"}
        self.live: dict[str, Claim] = {}
        self.lost: set[str] = set()
        self.hands: dict[str, list[Claim]] = {worker: [] for worker in WORKERS}
        self.runs: dict[str, Run] = {}
        self.pulled: Counter[str] = Counter()
        self.gone: set[str] = set()
        self.writing: Work | None = None
        self.faltering = self.stopped = self.last_try = False

    # -- the workers

    def admit(self, key: str, message: str, wanted: int) -> Go | Wait:
        answer = RELAYS[self.relays[key]]
        return Go(number=wanted) if answer == Go() else answer

    @rule(worker=workers, size=sizes)
    def takes(self, worker: str, size: int) -> None:
        if worker in self.gone or worker in self.runs:
            return
        answer = self.desk.take(worker, size, self.now, self.admit)
        if isinstance(answer, Run):
            assert self.may_begin()
            assert answer.number <= size
            assert answer.admitted is None or self.relays[answer.lane[0]] in ("well", "new")
            self.runs[worker], self.pulled[worker] = answer, 0
        elif answer is None:
            assert self.stopped or self.draining
            self.leaves(worker)
        else:
            assert answer.seconds > 0 or self.draining or not self.stopped

    def may_begin(self) -> bool:
        return not (self.faltering or self.stopped)

    @rule(worker=workers)
    def pulls(self, worker: str) -> None:
        if worker not in self.runs:
            return
        claim = self.desk.pull(worker, self.now)
        if claim is None:
            return
        assert self.may_begin()
        assert claim.message.id not in self.lost, "its lease was lost"
        self.hands[worker].append(claim)
        self.pulled[worker] += 1
        assert self.pulled[worker] <= self.runs[worker].number
        if any(held.lost for hand in self.hands.values() for held in hand):
            assert sum(map(len, self.hands.values())) == 1, "a suspect is handed over alone"
            assert list(self.runs) == [worker]
            assert not self.noted(), "and what others delivered is written before"
            assert not self.desk._aside, "and so is what a drain could not send"

    @rule(worker=workers, kind=st.sampled_from(["delivered", "retry", "released"]))
    def notes(self, worker: str, kind: str) -> None:
        if not self.hands[worker]:
            return
        claim = self.hands[worker].pop(0)
        self.desk.note(_settlement(claim, kind), worker=worker)

    @rule(worker=workers)
    def drops(self, worker: str) -> None:
        if worker in self.runs:
            self.desk.drop(worker, self.now)
            del self.runs[worker]
            self.hands[worker] = []

    @precondition(lambda self: self.draining or self.stopped)
    @rule(worker=workers)
    def dies(self, worker: str) -> None:
        if worker not in self.gone:
            self.leaves(worker)

    def leaves(self, worker: str) -> None:
        left = self.desk.leave(worker)
        assert left == self.hands[worker]
        self.forget(left)
        self.hands[worker] = []
        self.runs.pop(worker, None)
        self.gone.add(worker)
        self.desk.depart()

    # -- the clerk and the store

    @rule()
    def collects(self) -> None:
        if self.writing is None:
            self.collect()

    def collect(self) -> bool:
        """One word of the clerk's; False: his life ends."""
        answer = self.desk.collect(self.now)
        if isinstance(answer, Later) or answer is None:
            return answer is not None
        assert not (answer.limit and (self.faltering or self.stopped))
        for spoiled in answer.spoiled:
            self.forget([spoiled.claim])
        self.writing = answer
        return True

    @precondition(lambda self: self.writing is not None)
    @rule(number=st.integers(0, 6), lost=st.integers(0, 3), lane=st.integers(0, 2))
    def has_written(self, number: int, lost: int, lane: int) -> None:
        work = self.written()
        if not work.limit:
            return
        fresh = self.fresh(min(number, work.limit), lost=lost == 0)
        self.desk.claimed(fresh, self.now, self.now)
        for n, claim in enumerate(fresh):
            self.desk.deal(self.lanes[(lane + n) % len(self.lanes)], claim, self.now)

    def written(self) -> Work:
        work, self.writing = self.writing, None
        assert work is not None
        self.desk.written()
        self.faltering = self.last_try = False
        self.tried += sum(not isinstance(s.verdict, Released) for s, _ in work.noted)
        self.forget([settlement.claim for settlement, _ in work.noted])
        return work

    def fresh(self, number: int, *, lost: bool) -> Sequence[Claim]:
        if self.limit is not None:
            assert self.tried + number + len(self.to_be_tried()) <= self.limit, "the limit was passed"
        found = [a_claim(self.number + n, lost=int(lost)) for n in range(number)]
        self.number += number
        self.live.update((claim.message.id, claim) for claim in found)
        return found

    @precondition(lambda self: self.writing is not None)
    @rule()
    def falters(self) -> None:
        work, self.writing = self.writing, None
        assert work is not None
        self.desk.faltered(self.now)
        self.faltering = bool(work.noted)

    @precondition(lambda self: self.writing is not None and self.writing.noted)
    @rule(left=st.sets(st.integers(0, 9)))
    def has_written_in_part(self, left: set[int]) -> None:
        work, self.writing = self.writing, None
        assert work is not None
        stays = [s.claim for n, (s, _) in enumerate(work.noted) if n in left or n == len(work.noted) - 1]
        gone = [s for s, _ in work.noted if s.claim not in stays]
        self.desk.faltered(self.now, {claim.key for claim in stays})
        self.faltering, self.last_try = self.draining, self.last_try and self.draining
        self.tried += sum(not isinstance(s.verdict, Released) for s in gone)
        self.forget([s.claim for s in gone])

    @precondition(lambda self: self.writing is not None)
    @rule()
    def clerk_falls(self) -> None:
        work, self.writing = self.writing, None
        assert work is not None
        forsaken = self.desk.forsaken()
        assert forsaken == ([settlement.claim for settlement, _ in work.noted] if self.last_try else [])
        self.forget(forsaken)
        self.last_try = bool(work.noted) and not self.last_try
        self.faltering = self.last_try

    @rule()
    def hears_news(self) -> None:
        self.desk.news()

    @rule(pick=st.integers(0, 5))
    def loses_a_lease(self, pick: int) -> None:
        held = self.leases.held()
        if pick < len(held):
            self.lost.add(held[pick].claim.message.id)
            gone = [lease.claim for lease in held if lease.claim.message.id in self.lost]
            self.leases.extended(held, gone, self.now)

    # -- the rest of the world

    @rule(relay=st.sampled_from("ab"), how=st.sampled_from(sorted(RELAYS)))
    def relay_is(self, relay: str, how: str) -> None:
        self.relays[relay] = how

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.number > 3)
    @rule()
    def stops(self) -> None:
        self.desk.stop()
        self.stopped = True

    # -- what holds always

    def forget(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            del self.live[claim.message.id]
            self.lost.discard(claim.message.id)

    def noted(self) -> Sequence[Claim]:
        return [s.claim for s, _ in self.desk._tray]

    def to_be_tried(self) -> set[str]:
        """Those here that are not on their way back untried: of these nobody can say yet."""
        noted = [s for s, _ in self.desk._tray]
        back = [s.claim for s in noted if isinstance(s.verdict, Released)] + [*self.desk._aside.claims]
        return set(self.live) - {claim.message.id for claim in back}

    def places(self) -> Sequence[Claim]:
        desk = self.desk
        stocked = [claim for claims in desk._stock._lanes.values() for claim in claims]
        assert (desk._stock.number, desk._stock.size) == (
            len(stocked),
            sum(len(claim.message.content) for claim in stocked),
        )
        hands = [claim for worker in desk._roster.hands for claim in worker.hand]
        rest = [claim for _, claim in desk._suspects] + [spoiled.claim for spoiled in desk._spoiled]
        return [*stocked, *hands, *rest, *desk._aside.claims, *desk._undealt.values(), *self.noted()]

    @invariant()
    def no_claim_is_lost_or_in_two_places(self) -> None:
        assert Counter(claim.message.id for claim in self.places()) == Counter(list(self.live))

    @invariant()
    def every_claim_is_extended_until_it_is_written(self) -> None:
        held = {lease.claim.message.id for lease in self.leases.held() if not lease.lost}
        assert held == set(self.live) - self.lost

    def teardown(self) -> None:
        """A stop, and everybody comes to his end: nothing is left."""
        if not hasattr(self, "desk"):
            return
        self.desk.stop()
        self.stopped = True
        for worker in set(WORKERS) - self.gone:
            while self.hands[worker]:
                self.notes(worker, "delivered")
            self.drops(worker)
            assert self.desk.take(worker, 1, self.now, self.admit) is None
            self.leaves(worker)
        if self.writing is not None:
            self.written()
        for _ in range(3):
            if not self.collect():
                break
            if self.writing is not None:
                assert self.writing.limit == 0
                self.written()
        else:
            raise AssertionError("the clerk does not end")
        assert self.live == {}


def _settlement(claim: Claim, kind: str) -> Settlement:
    match kind:
        case "delivered":
            fates = dict.fromkeys(claim.fates, Fate.ACCEPTED)
            return Settlement(claim, Delivered(fates=fates, outcome=accepted(claim)))
        case "retry":
            return Settlement(claim, Retry(delay=SECOND, fates=claim.fates))
        case _:
            return released(claim, SECOND)


TestDesk = DeskMachine.TestCase
TestDesk.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
