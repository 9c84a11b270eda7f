"""The desk between the workers and their clerk: who gets what next, and when it is written and claimed."""

import datetime as dt
import math
from collections.abc import Callable, Sequence

import attrs
import pytest
from claims import a_claim, accepted

from outbox.desk import Desk
from outbox.errors import RelayUnavailable
from outbox.leases import Leases
from outbox.lifecycle import Claim, Delivered, Fate, Released, Retry, Settlement, Verdict
from outbox.protocols import MAX_BYTES
from outbox.relay import Go, Wait
from outbox.slips import Later, Run, Work
from outbox.tray import STUCK

LEASE = 60.0
MX: tuple[str, ...] = ("mx",)
SECOND = dt.timedelta(seconds=1)
DOWN = Wait(5 * SECOND, "mx: down", fault=RelayUnavailable("mx", "down"))
PROBED = Wait(SECOND, "another message tries this relay first", probing=True)


def delivered(claim: Claim) -> Settlement:
    return Settlement(
        claim, Delivered(fates=dict.fromkeys(claim.fates, Fate.ACCEPTED), outcome=accepted(claim))
    )


def retried(claim: Claim) -> Settlement:
    return Settlement(claim, Retry(delay=dt.timedelta(0), fates=claim.fates))


class Scene:
    """A desk with a clock, and the clerk's and the workers' words at it."""

    def __init__(
        self,
        *,
        workers: int = 2,
        draining: bool = False,
        limit: int | None = None,
        several: bool = False,
        put_off: Callable[[str], dt.timedelta] | None = None,
    ) -> None:
        self.now = 0.0
        self.leases = Leases(dt.timedelta(seconds=LEASE))
        self.desk = Desk(
            workers=workers,
            leases=self.leases,
            draining=draining,
            limit=limit,
            several=several,
            put_off=put_off,
        )
        self.answers: dict[str, Go | Wait] = {}
        self.asked: list[str] = []

    def admit(self, key: str, message: str, wanted: int) -> Go | Wait:
        self.asked.append(message)
        return self.answers.get(message) or self.answers.get(key) or Go(number=wanted)

    def take(self, worker: str = "w", size: int = 1) -> Run | Later | None:
        return self.desk.take(worker, size, self.now, self.admit)

    def run(self, worker: str = "w", size: int = 1) -> Run:
        run = self.take(worker, size)
        assert isinstance(run, Run), run
        return run

    def pull(self, worker: str = "w") -> Claim:
        claim = self.desk.pull(worker, self.now)
        assert claim is not None
        return claim

    def nothing(self, worker: str = "w") -> bool:
        return self.desk.pull(worker, self.now) is None

    def collect(self, closed: Wait | None = None) -> Work | Later | None:
        return self.desk.collect(self.now, closed)

    def work(self, closed: Wait | None = None) -> Work:
        # As long after the last one as the clerk's pace asks.
        self.now += 0.01
        work = self.collect(closed)
        assert isinstance(work, Work), work
        return work

    def rests(self, closed: Wait | None = None) -> float:
        later = self.collect(closed)
        assert isinstance(later, Later), later
        return later.seconds

    def claims(self, *claims: Claim, lane: tuple[str, ...] = MX, closed: Wait | None = None) -> Work:
        """The clerk's whole round: he collects, the store has it all and gives these, he deals them."""
        work = self.work()
        self.desk.written()
        self.desk.claimed(claims, self.now, self.now)
        self.deal(*claims, lane=lane, closed=closed)
        return work

    def deal(self, *claims: Claim, lane: tuple[str, ...] = MX, closed: Wait | None = None) -> None:
        for claim in claims:
            self.desk.deal(lane, claim, self.now, closed)

    def stocked(self, *claims: Claim, lane: tuple[str, ...] = MX, closed: Wait | None = None) -> "Scene":
        """These lie on the desk, however they came there."""
        self.desk.claimed(claims, self.now, self.now)
        self.deal(*claims, lane=lane, closed=closed)
        return self

    def written(self, closed: Wait | None = None) -> Sequence[Verdict]:
        """What the clerk writes now, and the store has it."""
        work = self.work(closed)
        self.desk.written()
        return [settlement.verdict for settlement, _ in work.noted]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def ids(work: Work) -> Sequence[str]:
    return [settlement.claim.message.id for settlement, _ in work.noted]


# -- what is claimed


def test_nothing_is_claimed_for_nobody(scene: Scene) -> None:
    assert scene.rests() == math.inf


def test_a_worker_who_asked_in_vain_is_claimed_for(scene: Scene) -> None:
    assert scene.take(size=7) == Later()
    assert scene.work().limit == 7


def test_for_a_worker_who_is_slow_nothing_is_claimed_before_he_asks(scene: Scene) -> None:
    scene.stocked(a_claim()).run()
    scene.pull()
    assert scene.rests() == math.inf


def test_for_a_quick_worker_the_next_are_claimed_while_he_is_at_the_last(scene: Scene) -> None:
    scene.stocked(*map(a_claim, range(8))).run(size=8)
    for _ in range(3):
        scene.pull()
    assert scene.rests() < math.inf, "half of it is on the desk still: the fewer claims, the larger"
    scene.pull()
    assert scene.work().limit == 4


def test_a_quick_worker_who_hangs_is_claimed_for_no_more(scene: Scene) -> None:
    scene.stocked(a_claim()).run(size=8)
    scene.pull()
    scene.now += 1.0
    assert scene.rests() == math.inf


def test_what_was_claimed_in_vain_is_not_claimed_again_before_there_is_news(scene: Scene) -> None:
    scene.take()
    scene.claims()
    assert scene.desk.dry
    assert scene.rests() == math.inf
    scene.desk.news()
    assert scene.work().limit == 1


def test_a_closed_relay_costs_no_claim_and_is_claimed_for_when_its_pause_is_over(scene: Scene) -> None:
    scene.take()
    assert scene.rests(DOWN) == 5.0
    assert not scene.desk.dry, "nobody would hear that there is something again"
    assert scene.work().limit == 1


def test_a_probe_that_another_may_have_is_asked_for_each_second(scene: Scene) -> None:
    scene.take()
    assert scene.rests(Wait(20 * SECOND, "tried", probing=True, under_way=20.0)) == 1.0


def test_a_limit_is_never_passed() -> None:
    scene = Scene(draining=True, limit=3)
    scene.take(size=100)
    assert scene.claims(a_claim(1), a_claim(2)).limit == 3
    scene.run(size=100)
    scene.pull()
    scene.pull()
    scene.take("v", size=100)
    assert scene.claims(a_claim(3)).limit == 1
    scene.run("v")
    scene.pull("v")
    assert scene.rests() == math.inf


def test_a_drain_is_not_over_before_what_was_claimed_last_lies_on_the_desk() -> None:
    scene = Scene(draining=True, limit=1)
    scene.take()
    scene.work()
    scene.desk.written()
    scene.desk.claimed([a_claim()], scene.now, scene.now)
    assert isinstance(scene.take(), Later), "its limit is reached, and the clerk deals only now"
    scene.deal(a_claim())
    assert scene.run().first == "m1"


def test_large_messages_are_claimed_only_as_long_as_there_is_room_for_them(scene: Scene) -> None:
    half = bytes(MAX_BYTES // 2)
    scene.take(size=100)
    assert scene.claims(a_claim(1, content=half)).max_bytes == MAX_BYTES
    assert scene.claims(a_claim(2, content=half)).max_bytes == MAX_BYTES // 2
    assert scene.rests() < math.inf, "however many more they could take"


# -- who gets what


def test_a_run_brings_as_many_as_were_asked_for_and_no_more(scene: Scene) -> None:
    scene.stocked(*map(a_claim, range(3)))
    assert scene.run(size=2) == Run(MX, 2, Go(number=2), "m0")
    assert [scene.pull().message.id, scene.pull().message.id] == ["m0", "m1"]
    assert scene.nothing()


def test_two_workers_share_a_lane_and_nobody_hoards(scene: Scene) -> None:
    scene.stocked(*map(a_claim, range(4)))
    scene.run("v", size=100)
    scene.run("w", size=100)
    assert [scene.pull(worker).message.id for worker in "vwvw"] == ["m0", "m1", "m2", "m3"]


def test_lanes_take_turns(scene: Scene) -> None:
    scene.stocked(a_claim(1), a_claim(2), lane=("a",)).stocked(a_claim(3), a_claim(4), lane=("b",))
    lanes: list[str] = []
    for _ in range(4):
        lanes += scene.run().lane
        scene.desk.note(delivered(scene.pull()), worker="w")
        scene.desk.drop("w", scene.now)
    assert lanes == ["a", "b", "a", "b"]


def test_a_probe_goes_with_its_own_message_alone(scene: Scene) -> None:
    scene.answers["mx"] = Go(probe=True)
    scene.stocked(a_claim(1), a_claim(2))
    assert scene.run(size=50).number == 1
    assert scene.pull().message.id == "m1"
    assert scene.nothing()


def test_a_message_for_several_relays_is_a_run_of_its_own_and_asks_them_itself(scene: Scene) -> None:
    scene.stocked(a_claim(1), a_claim(2), lane=("a", "b"))
    assert scene.run(size=50) == Run(("a", "b"), 1)
    assert scene.asked == []


def test_what_was_pulled_ahead_and_not_told_of_is_another_s_in_its_old_place(scene: Scene) -> None:
    scene.stocked(*map(a_claim, range(3)))
    scene.run("v", size=3)
    told, ahead = scene.pull("v"), scene.pull("v")
    scene.desk.note(delivered(told), worker="v")
    scene.desk.drop("v", scene.now)
    scene.run("w", size=3)
    assert [scene.pull("w"), scene.pull("w").message.id] == [ahead, "m2"]


def test_a_claim_whose_lease_was_lost_is_not_handed_over_and_the_clerk_is_told(scene: Scene) -> None:
    scene.stocked(a_claim(1), a_claim(2))
    scene.leases.extended(scene.leases.held(), [a_claim(1)], 0.0)
    scene.run(size=2)
    assert scene.pull().message.id == "m2"
    (spoiled,) = scene.work().spoiled
    assert (spoiled.claim.message.id, spoiled.since) == ("m1", None)


def test_what_expires_while_it_lies_there_is_not_handed_over_and_the_clerk_is_told(scene: Scene) -> None:
    scene.stocked(a_claim(expires_in=SECOND))
    scene.run()
    scene.now = 1.0
    assert scene.nothing()
    (spoiled,) = scene.work().spoiled
    assert spoiled.since == SECOND


def test_a_slow_answer_of_the_store_makes_no_message_expire_the_sooner(scene: Scene) -> None:
    """It is not handed over, for the store may have counted from before; nor is it given up, for it may not."""
    scene.now = 1.0
    scene.desk.claimed([claim := a_claim(expires_in=SECOND)], scene.now, 0.0)
    scene.deal(claim)
    scene.run()
    assert scene.nothing()
    (spoiled,) = scene.work().spoiled
    assert spoiled.since == 0 * SECOND


def test_what_was_pulled_ahead_is_looked_at_again_before_it_is_begun(scene: Scene) -> None:
    scene.stocked(*(a_claim(n, expires_in=SECOND) for n in range(3))).run(size=3)
    lost, sound = scene.pull(), scene.pull()
    scene.leases.extended(scene.leases.held(), [lost], 0.0)
    assert not scene.desk.goes_on(lost, scene.now)
    assert scene.desk.goes_on(sound, scene.now)
    assert not scene.desk.goes_on(sound, 1.0), "it has expired"
    scene.desk.stop()
    assert not scene.desk.goes_on(sound, scene.now)


def test_what_was_noted_meanwhile_is_written_behind_what_could_not_be_written(scene: Scene) -> None:
    scene.stocked(a_claim(1), a_claim(2)).run(size=2)
    first, second = scene.pull(), scene.pull()
    scene.desk.note(delivered(first), worker="w")
    scene.work()
    scene.desk.note(delivered(second), worker="w")
    scene.desk.faltered(scene.now)
    assert ids(scene.work()) == ["m1", "m2"]


def test_what_a_dead_worker_had_is_extended_by_nobody(scene: Scene) -> None:
    scene.stocked(a_claim()).run()
    claim = scene.pull()
    assert scene.desk.leave("w") == [claim]
    assert scene.leases.held() == []


# -- what is given back


def test_what_nobody_here_can_take_for_a_second_is_given_back_as_it_was(scene: Scene) -> None:
    scene.stocked(a_claim(1), a_claim(2)).run()
    scene.pull()
    assert scene.rests() == 1.0
    scene.now = 1.0
    (verdict,) = scene.written()
    assert verdict == Released(delay=dt.timedelta(0), fates=verdict.fates)


def test_what_a_paused_relay_may_not_get_is_given_back_for_as_long(scene: Scene) -> None:
    scene.answers["mx"] = DOWN
    scene.stocked(a_claim(1), a_claim(2))
    assert scene.take() == Later()
    assert [(v.delay, v.reason) for v in scene.written() if isinstance(v, Released)] == [
        (5 * SECOND, "mx: down")
    ] * 2


def test_all_is_given_back_at_once_where_the_only_relay_is_paused(scene: Scene) -> None:
    scene.stocked(a_claim(1)).stocked(a_claim(2, lost=1))
    assert len(scene.work(DOWN).noted) == 2


def test_a_paused_relay_s_claims_do_not_come_on_the_desk(scene: Scene) -> None:
    scene.stocked(a_claim(1), a_claim(2, lost=1), closed=DOWN)
    assert scene.take() == Later()
    assert len(scene.written()) == 2


def test_what_waits_for_a_probe_stays_for_a_second_where_there_are_other_relays() -> None:
    scene = Scene(several=True)
    scene.answers["mx"] = PROBED
    scene.stocked(a_claim())
    assert scene.take() == Later(1.0)
    scene.now = 0.5
    scene.answers["mx"] = Wait(SECOND, "tried", probing=True, under_way=1.0)
    assert scene.take() == Later()
    assert [type(verdict) for verdict in scene.written()] == [Released]


def test_a_message_that_lets_others_go_first_is_given_back_alone_and_the_next_one_probes(
    scene: Scene,
) -> None:
    scene.answers.update(m1=Wait(SECOND, "mx: down", passing=True), m2=Go(probe=True))
    scene.stocked(a_claim(1), a_claim(2), a_claim(3))
    assert scene.run().first == "m2"
    assert scene.pull().message.id == "m2"
    work = scene.work()
    assert ids(work) == ["m1"]


def test_after_a_stop_everything_that_was_not_begun_is_given_back() -> None:
    scene = Scene(draining=True)
    scene.answers["b"] = DOWN
    scene.stocked(a_claim(1), lane=("b",))
    scene.take()
    scene.stocked(a_claim(2), a_claim(3)).run(size=2)
    under_way = scene.pull()
    scene.stocked(a_claim(4, lost=1))
    scene.desk.stop()
    assert scene.nothing()
    assert sorted(ids(scene.work())) == ["m1", "m3", "m4"], "also what a drain had set aside"
    scene.desk.written()
    scene.desk.note(delivered(under_way), worker="w")
    scene.desk.drop("w", scene.now)
    assert scene.take() is None


# -- suspects


def test_a_suspect_waits_until_nothing_else_is_under_way_and_keeps_others_from_beginning(
    scene: Scene,
) -> None:
    scene.stocked(a_claim(1)).run("v")
    other = scene.pull("v")
    scene.stocked(a_claim(2, lost=1))
    scene.take("w", size=50)
    assert scene.rests() == math.inf, "meanwhile nothing is claimed"
    scene.desk.note(delivered(other), worker="v")
    scene.desk.drop("v", scene.now)
    assert isinstance(scene.take("w"), Later), "what was delivered is written first"
    scene.written()
    run = scene.run("w", size=50)
    assert (run.number, scene.pull("w").message.id) == (1, "m2")
    assert isinstance(scene.take("v"), Later), "nobody works beside it"
    assert scene.rests() == math.inf
    scene.stocked(a_claim(3))
    assert scene.take("v") == Later(), "whatever else there is"
    scene.desk.note(delivered(a_claim(2, lost=1)), worker="w")
    scene.desk.drop("w", scene.now)
    assert scene.run("v", size=1).first == "m3"


def test_a_suspect_that_cannot_be_alone_is_given_back_and_each_time_in_vain_for_longer(scene: Scene) -> None:
    scene.stocked(a_claim(1)).run("v")
    scene.pull("v")
    waits: list[float] = []
    for _ in range(5):
        scene.stocked(a_claim(2, lost=1))
        later = scene.take("w")
        assert isinstance(later, Later)
        waits.append(later.seconds)
        scene.now += later.seconds
        assert scene.take("w") == Later()
        (verdict,) = scene.written()
        assert isinstance(verdict, Released)
        waits.append(verdict.delay.total_seconds())
    assert waits == pytest.approx([1, 4, 2, 8, 4, 16, 5, 20, 5, 20]), "up to five seconds"


def test_the_patience_begins_anew_when_a_suspect_had_its_turn(scene: Scene) -> None:
    scene.stocked(a_claim(1)).run("v")
    scene.pull("v")
    scene.stocked(a_claim(2, lost=1))
    scene.take("w")
    scene.now = 1.0
    scene.take("w")
    scene.written()
    scene.desk.drop("v", scene.now)
    scene.run("v")
    scene.desk.note(delivered(scene.pull("v")), worker="v")
    scene.desk.drop("v", scene.now)
    scene.written()
    scene.stocked(a_claim(2, lost=1)).run("w")
    scene.desk.note(delivered(scene.pull("w")), worker="w")
    scene.desk.drop("w", scene.now)
    scene.written()
    scene.stocked(a_claim(3)).run("v")
    scene.pull("v")
    scene.stocked(a_claim(4, lost=1))
    later = scene.take("w")
    assert isinstance(later, Later)
    assert later.seconds == pytest.approx(1.0)


@pytest.mark.parametrize("pulled", [True, False])
def test_a_suspect_whose_run_was_dropped_is_a_suspect_still(scene: Scene, pulled: bool) -> None:
    scene.stocked(a_claim(1, lost=1)).run("v")
    if pulled:
        scene.pull("v")
    scene.desk.drop("v", scene.now)
    scene.stocked(a_claim(2)).run("w")
    scene.pull("w")
    assert isinstance(scene.take("v"), Later), "it is not handed over beside another"


def test_a_drain_waits_for_a_suspect_s_turn_however_long_it_takes() -> None:
    scene = Scene(draining=True)
    scene.stocked(a_claim(1)).run("v")
    scene.pull("v")
    scene.stocked(a_claim(2, lost=1))
    assert scene.take("w") == Later()
    scene.now = 1000.0
    assert scene.take("w") == Later()


def test_a_suspect_asks_its_relay_like_any_other(scene: Scene) -> None:
    scene.answers["mx"] = DOWN
    scene.stocked(a_claim(lost=1))
    scene.take()
    (verdict,) = scene.written()
    assert isinstance(verdict, Released)
    assert verdict.delay == 5 * SECOND


def test_a_suspect_waits_for_another_s_probe_of_its_relay_and_not_for_ever(scene: Scene) -> None:
    scene.answers["mx"] = PROBED
    scene.stocked(a_claim(lost=1))
    assert scene.take() == Later(1.0)
    scene.now = 1.0
    scene.take()
    assert [type(verdict) for verdict in scene.written()] == [Released]


def test_suspects_that_a_store_gives_together_go_one_after_the_other(scene: Scene) -> None:
    scene.stocked(a_claim(1, lost=1), a_claim(2, lost=1))
    for expected in ("m1", "m2"):
        scene.run()
        claim = scene.pull()
        assert claim.message.id == expected
        assert scene.nothing()
        scene.desk.note(delivered(claim), worker="w")
        scene.desk.drop("w", scene.now)
        scene.written()


# -- what is written


def test_what_is_noted_while_the_clerk_writes_is_his_next(scene: Scene) -> None:
    scene.stocked(a_claim(1), a_claim(2)).run(size=2)
    first, second = scene.pull(), scene.pull()
    scene.desk.note(delivered(first), worker="w")
    assert ids(scene.work()) == ["m1"]
    scene.desk.note(delivered(second), worker="w")
    scene.desk.written()
    assert ids(scene.work()) == ["m2"]


def test_what_could_not_be_written_is_collected_again_first_and_nothing_is_begun_meanwhile(
    scene: Scene,
) -> None:
    scene.stocked(*map(a_claim, range(4))).run(size=3)
    first, second = scene.pull(), scene.pull()
    scene.desk.note(delivered(first), worker="w")
    scene.work()
    assert scene.desk.goes_on(second, scene.now)
    scene.desk.faltered(scene.now)
    assert not scene.desk.goes_on(second, scene.now), "not what was pulled ahead"
    assert scene.nothing(), "nothing more of a run that is under way"
    assert isinstance(scene.take("v", size=9), Later), "and no other run"
    scene.desk.note(delivered(second), worker="w")
    work = scene.work()
    assert (ids(work), work.limit) == (["m0", "m1"], 0)
    scene.desk.written()
    assert scene.run("v").first == "m2"


def test_no_more_is_begun_while_256_verdicts_are_unwritten_for_a_kill_would_send_them_all_again(
    scene: Scene,
) -> None:
    scene.stocked(*map(a_claim, range(300))).run("v", size=300)
    for n in range(256):
        scene.desk.note(delivered(scene.pull("v")), worker="v")
        if n == 128:
            scene.work()
    assert scene.nothing("v")
    scene.desk.drop("v", scene.now)
    assert scene.take("v", size=9) == Later()
    scene.desk.written()
    assert scene.run("v", size=9).number == 9


def stuck(scene: Scene, *claims: Claim) -> None:
    """Noted and collected, and written but for the first of them."""
    scene.stocked(*claims).run("w", size=len(claims))
    for _ in claims:
        scene.desk.note(delivered(scene.pull("w")), worker="w")
    scene.desk.drop("w", scene.now)
    assert len(scene.work().noted) == len(claims)
    scene.desk.faltered(scene.now, {claims[0].key})


def test_what_alone_could_not_be_written_keeps_nobody_waiting_and_is_written_again_after_a_while(
    scene: Scene,
) -> None:
    stuck(scene, a_claim(1), a_claim(2))
    assert [lease.claim.message.id for lease in scene.leases.held()] == ["m1"], "its lease is kept alone"

    scene.stocked(a_claim(3)).run("v")
    scene.desk.note(delivered(scene.pull("v")), worker="v")
    scene.desk.drop("v", scene.now)
    assert ids(scene.work()) == ["m3"], "others go on"
    scene.desk.written()
    assert isinstance(scene.take("w"), Later)
    scene.claims()
    assert 0 < scene.rests() <= STUCK

    scene.now += STUCK
    assert ids(scene.work()) == ["m1"]
    scene.desk.written()
    assert scene.leases.held() == []


def test_what_is_stuck_is_tried_at_a_stop_and_waited_for_until_the_grace_time_is_over(scene: Scene) -> None:
    stuck(scene, a_claim(1), a_claim(2))
    scene.desk.stop()
    assert ids(scene.work()) == ["m1"]
    scene.desk.faltered(scene.now, {a_claim(1).key})
    for worker in ("v", "w"):
        assert scene.take(worker) is None
        scene.desk.leave(worker)
        scene.desk.depart()
    assert 0 < scene.rests() <= STUCK, "nobody delivers any more, and what is not written goes out again"

    scene.desk.give_up()
    assert ids(scene.work()) == ["m1"]
    scene.desk.faltered(scene.now, {a_claim(1).key})
    assert scene.collect() is None
    assert [claim.message.id for claim in scene.desk.retire()] == ["m1"]
    assert scene.leases.held() == []


def test_a_drain_begins_nothing_before_what_alone_could_not_be_written_is() -> None:
    scene = Scene(draining=True)
    stuck(scene, a_claim(1), a_claim(2))
    scene.stocked(a_claim(3))
    assert isinstance(scene.take("v"), Later)
    assert ids(scene.work()) == ["m1"]
    scene.desk.written()
    assert scene.run("v").first == "m3"


def test_no_more_is_begun_where_very_much_is_stuck(scene: Scene) -> None:
    for number in range(256):
        stuck(scene, a_claim(number))
    scene.stocked(a_claim(1000))
    assert isinstance(scene.take("w"), Later)
    scene.now += STUCK
    assert set(ids(scene.work())) >= {f"m{number}" for number in range(256)}
    scene.desk.written()
    assert scene.stocked(a_claim(1001)).run("w").first == "m1001"


def test_what_is_stuck_is_written_and_not_sent_again_where_its_lease_has_run_out_and_it_is_claimed_anew(
    scene: Scene,
) -> None:
    stuck(scene, a_claim(1), a_claim(2))
    again = attrs.evolve(a_claim(1, lost=1), token="another", attempt=a_claim(1).attempt + 1)
    assert scene.desk.claimed([again, a_claim(3)], scene.now, scene.now) == [a_claim(3)]

    assert [lease.claim for lease in scene.leases.held()] == [again, a_claim(3)]
    (noted, _) = scene.work().noted[0]
    assert (noted.claim, noted.verdict) == (again, delivered(a_claim(1)).verdict)
    scene.desk.written()
    scene.now += STUCK
    collected = scene.collect()
    assert not isinstance(collected, Work) or collected.noted == [], "nothing is stuck any more"
    assert [lease.claim for lease in scene.leases.held()] == [a_claim(3)]


@pytest.mark.parametrize("lost", [0, 1])
def test_what_was_only_given_back_is_dealt_when_it_is_claimed_anew(scene: Scene, lost: int) -> None:
    scene.stocked(a_claim(1)).run("w")
    claim = scene.pull("w")
    scene.desk.note(Settlement(claim, Released(delay=SECOND, fates=claim.fates)), worker="w")
    scene.desk.drop("w", scene.now)
    scene.work()
    scene.desk.faltered(scene.now, {claim.key})
    again = attrs.evolve(claim, token="another", attempt=claim.attempt + lost, lost=lost)
    assert scene.desk.claimed([again], scene.now, scene.now) == [again]
    scene.now += STUCK
    assert claim in [settlement.claim for settlement, _ in scene.work().noted], (
        "whether it was written the store says"
    )


def test_a_message_is_dealt_whose_stuck_verdict_was_written_after_all(scene: Scene) -> None:
    """The answer was lost, its repeat was stuck, and somebody has requeued the message meanwhile."""
    stuck(scene, a_claim(1), a_claim(2))
    again = attrs.evolve(a_claim(1), token="another")
    assert scene.desk.claimed([again], scene.now, scene.now) == [again]


def test_a_suspect_goes_although_something_is_stuck(scene: Scene) -> None:
    stuck(scene, a_claim(1), a_claim(2))
    assert scene.stocked(a_claim(3, lost=1)).run("v").first == "m3"


def test_a_lease_that_could_not_be_extended_once_is_kept_where_it_can_be_the_next_time(scene: Scene) -> None:
    scene.stocked(a_claim(1))
    scene.leases.extended(scene.leases.held(), [a_claim(1)], scene.now)
    scene.now += LEASE / 2
    scene.leases.extended(scene.leases.held(), [], scene.now)
    scene.now += LEASE * 0.9
    assert scene.leases.alive(a_claim(1), scene.now) is not None


def test_a_lease_that_could_not_be_extended_ends_when_it_would_have(scene: Scene) -> None:
    scene.stocked(a_claim(1))
    scene.now += LEASE / 2
    scene.leases.extended(scene.leases.held(), [a_claim(1)], scene.now)
    (lease,) = scene.leases.held()
    assert lease.deadline == LEASE


def test_a_claim_that_failed_keeps_nobody_from_what_is_there(scene: Scene) -> None:
    scene.take("v", size=9)
    scene.stocked(a_claim())
    scene.work()
    scene.desk.faltered(scene.now)
    assert scene.run("w").number == 1


def test_a_lease_is_kept_until_its_verdict_is_written(scene: Scene) -> None:
    scene.stocked(a_claim()).run()
    scene.desk.note(delivered(scene.pull()), worker="w")
    scene.work()
    assert scene.leases.held()
    scene.desk.written()
    assert not scene.leases.held()


def test_what_a_fallen_clerk_was_dealing_is_extended_by_nobody(scene: Scene) -> None:
    scene.desk.claimed([a_claim(2), a_claim(3), a_claim(4)], 0.0, 0.0)
    scene.deal(a_claim(2))
    scene.desk.note(delivered(a_claim(3)))
    assert scene.desk.forsaken() == [a_claim(4)]
    assert [lease.claim.message.id for lease in scene.leases.held()] == ["m2", "m3"]
    assert ids(scene.work()) == ["m3"], "the next clerk goes on with the rest"


def test_what_a_fallen_clerk_was_writing_the_next_one_writes_alone_before_anything_is_begun(
    scene: Scene,
) -> None:
    scene.stocked(a_claim(1), a_claim(2)).run()
    scene.desk.note(delivered(scene.pull()), worker="w")
    scene.desk.drop("w", scene.now)
    scene.work()
    assert scene.desk.forsaken() == []
    assert isinstance(scene.take(size=9), Later), "nothing is begun"
    work = scene.work()
    assert (ids(work), work.limit) == (["m1"], 0)
    assert len(scene.leases.held()) == 2
    scene.desk.written()
    assert scene.run().first == "m2"


def test_a_verdict_that_takes_the_next_clerk_too_is_nobody_s_and_the_mail_goes_on(scene: Scene) -> None:
    scene.stocked(*map(a_claim, range(3))).run()
    scene.desk.forsaken()
    for _ in range(2):
        claim = scene.pull()
        scene.desk.note(delivered(claim), worker="w")
        scene.desk.drop("w", scene.now)
        scene.work()
        assert scene.desk.forsaken() == []
        scene.work()
        assert scene.desk.forsaken() == [claim]
        assert claim not in [lease.claim for lease in scene.leases.held()]
        scene.run()


def test_a_clerk_who_falls_before_he_collects_again_leaves_nothing_to_be_begun(scene: Scene) -> None:
    scene.stocked(a_claim(1), a_claim(2)).run()
    scene.desk.note(delivered(scene.pull()), worker="w")
    scene.desk.drop("w", scene.now)
    scene.work()
    scene.desk.faltered(scene.now)
    assert scene.desk.forsaken() == []
    assert isinstance(scene.take(size=9), Later)
    assert ids(scene.work()) == ["m1"]
    assert scene.desk.forsaken() == []
    assert scene.desk.forsaken() == [], "he had not collected"
    assert isinstance(scene.take(size=9), Later)


def test_when_no_clerk_comes_any_more_all_that_is_unwritten_is_named_also_what_is_noted_later() -> None:
    scene = Scene(draining=True)
    scene.stocked(*map(a_claim, range(4))).run("v", size=2)
    first, second = scene.pull("v"), scene.pull("v")
    scene.desk.note(delivered(first), worker="v")
    assert {claim.message.id for claim in scene.desk.retire()} == {"m0", "m2", "m3"}
    assert scene.take("w") is None
    scene.desk.note(delivered(second), worker="v")
    scene.desk.drop("v", scene.now)
    assert scene.desk.leave("v") == [second]
    assert scene.leases.held() == []


# -- the end


def test_a_drain_ends_when_nothing_is_left_that_is_due_and_gives_back_what_it_set_aside_last() -> None:
    scene = Scene(workers=1, draining=True)
    scene.stocked(a_claim(1), a_claim(2)).run(size=2)
    refused, taken = scene.pull(), scene.pull()
    scene.desk.note(Settlement(refused, Released(delay=SECOND, fates=refused.fates)), worker="w")
    scene.desk.note(delivered(taken), worker="w")
    scene.desk.drop("w", scene.now)
    assert scene.take() == Later(), "what was delivered is not written yet"
    assert ids(scene.work()) == ["m2"]
    scene.desk.written()
    scene.desk.claimed([], scene.now, scene.now)
    assert scene.take() is None
    scene.desk.leave("w")
    scene.desk.depart()
    assert ids(scene.work()) == ["m1"]
    scene.desk.written()
    assert scene.collect() is None


def test_a_drain_asks_again_after_a_retry_that_may_be_due_at_once() -> None:
    scene = Scene(draining=True)
    scene.stocked(a_claim()).run()
    scene.desk.note(retried(scene.pull()), worker="w")
    scene.desk.drop("w", scene.now)
    scene.work()
    scene.desk.claimed([], scene.now, scene.now)
    scene.desk.written()
    assert scene.take() == Later()
    assert scene.work().limit == 1


def test_a_drain_is_not_over_while_another_worker_is_at_work() -> None:
    scene = Scene(draining=True)
    scene.stocked(a_claim()).run("v")
    scene.pull("v")
    scene.desk.claimed([], scene.now, scene.now)
    assert scene.take("w") == Later()


def test_a_drain_sets_aside_what_a_paused_relay_may_not_get_and_waits_no_pause_out() -> None:
    scene = Scene(draining=True)
    scene.answers["mx"] = DOWN
    scene.stocked(a_claim())
    assert scene.take() == Later()
    assert isinstance(scene.collect(DOWN), Later)
    assert scene.take() is None


def test_a_drain_is_over_where_all_that_is_left_is_put_aside_when_a_worker_asks_for_it() -> None:
    scene = Scene(workers=1, draining=True, several=True)
    scene.answers["down"] = DOWN
    scene.stocked(a_claim(), lane=("down",))
    scene.desk.claimed([], scene.now, scene.now)
    assert scene.take() is None, "nobody would wake him"


def test_a_drain_keeps_what_waits_for_a_probe_and_claims_past_it_in_growing_steps() -> None:
    scene = Scene(draining=True, several=True)
    scene.answers["slow"] = Wait(20 * SECOND, "tried", probing=True, under_way=20.0)
    number = 0
    for wanted in (1, 1, 2, 4, 8):
        assert isinstance(scene.take(), Later)
        assert scene.work().limit == wanted, "it writes nothing of what waits"
        scene.stocked(*(a_claim(number + n) for n in range(wanted)), lane=("slow",))
        number += wanted
    scene.stocked(a_claim(number), lane=("good",))
    assert scene.run().lane == ("good",)


def test_a_drain_does_not_claim_past_what_is_blocked_without_end() -> None:
    scene = Scene(draining=True, several=True)
    scene.answers["slow"] = PROBED
    scene.stocked(*map(a_claim, range(1000)), lane=("slow",))
    assert scene.take() == Later(1.0)
    assert scene.rests() == math.inf


def test_who_gave_up_on_a_failing_store_ends_at_once(scene: Scene) -> None:
    scene.stocked(a_claim()).run()
    scene.desk.note(delivered(scene.pull()), worker="w")
    scene.work()
    scene.desk.faltered(scene.now)
    scene.desk.give_up()
    assert scene.collect() is None


def test_when_the_grace_time_is_over_what_is_noted_is_written_and_nobody_waited_for(scene: Scene) -> None:
    scene.stocked(a_claim(1), a_claim(2)).run(size=2)
    first, _hanging = scene.pull(), scene.pull()
    scene.desk.note(delivered(first), worker="w")
    scene.desk.give_up()
    assert ids(scene.work()) == ["m1"]
    scene.desk.written()
    assert scene.collect() is None


# --- the clerk's pace


def at_work(scene: Scene, number: int) -> Sequence[Claim]:
    """One worker has so many in hand, and another one's run goes on; the clerk has just written something."""
    scene.stocked(*[a_claim(each) for each in range(1, 3 * number + 8)]).run("w", number)
    pulled = [scene.pull("w") for _ in range(number)]
    scene.run("v", 2)
    scene.desk.note(delivered(scene.pull("v")), worker="v")
    scene.written()
    return pulled


def test_while_others_are_at_work_a_verdict_waits_for_the_next_ones_for_a_moment(scene: Scene) -> None:
    first, second = at_work(scene, 2)
    scene.desk.note(delivered(first), worker="w")
    assert 0 < scene.rests() <= 0.01
    scene.desk.note(delivered(second), worker="w")
    scene.now += 0.01
    assert ids(scene.work()) == [first.message.id, second.message.id]


def test_where_nobody_is_at_work_a_verdict_is_written_at_once(scene: Scene) -> None:
    (only,) = at_work(scene, 1)
    scene.desk.note(delivered(only), worker="w")
    for worker in "wv":
        scene.desk.drop(worker, scene.now)
    assert isinstance(scene.collect(), Work)


def test_many_verdicts_wait_for_nobody(scene: Scene) -> None:
    for claim in at_work(scene, 64):
        scene.desk.note(delivered(claim), worker="w")
    assert isinstance(scene.collect(), Work)


def test_a_stock_is_filled_up_without_waiting(scene: Scene) -> None:
    scene.take("w", 4)
    scene.claims(*[a_claim(each) for each in range(1, 5)])
    scene.run("w", 4)
    for _ in range(3):
        scene.pull("w")
    answer = scene.collect()
    assert isinstance(answer, Work)
    assert answer.limit


def test_where_claims_brought_few_the_next_few_are_claimed_together(scene: Scene) -> None:
    scene.take("w", 4)
    scene.claims(a_claim(1))
    scene.run("w", 4)
    scene.pull("w")
    scene.take("v", 4)
    assert 0 < scene.rests() <= 0.01
    scene.now += 0.01
    assert scene.work().limit


def test_the_clerk_is_called_for_the_first_verdict_and_for_many_but_not_for_each_between(
    scene: Scene,
) -> None:
    pulled = at_work(scene, 64)
    # The stock is large enough for those who are at work.
    scene.stocked(*[a_claim(each) for each in range(200, 400)])
    scene.rests()
    called = []
    for claim in pulled:
        scene.desk.note(delivered(claim), worker="w")
        called.append(scene.desk.calls)
    assert called == [True, *[False] * 62, True]


def test_the_clerk_is_called_when_the_stock_runs_low(scene: Scene) -> None:
    scene.take("w", 8)
    scene.claims(*[a_claim(each) for each in range(1, 17)])
    scene.run("w", 16)
    scene.rests()
    called = []
    for _ in range(8):
        scene.pull("w")
        called.append(scene.desk.calls)
    assert called == [*[False] * 7, True]


def test_a_drain_whose_relay_is_well_again_before_its_end_asks_for_more() -> None:
    """A message that was under way had it go on: nothing had been asked for in vain."""
    scene = Scene(draining=True)
    scene.stocked(*map(a_claim, (1, 2, 3))).run("w", 3)
    pulled = [scene.pull("w") for _ in range(3)]
    scene.rests(DOWN)
    for claim in pulled:
        scene.desk.note(delivered(claim), worker="w")
    scene.written()
    scene.desk.drop("w", scene.now)
    assert scene.take("w") == Later()
    assert scene.work().limit
