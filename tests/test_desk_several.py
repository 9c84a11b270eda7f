"""The desk of several relays: one that hangs keeps no worker from those that are well, nor what waits for it any mail."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Sequence

import attrs
import pytest
from claims import a_claim
from test_desk import DOWN, PROBED, SECOND, Scene, delivered

from outbox.events import Notice, Settled
from outbox.lifecycle import Claim, Released
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted, Outcome
from outbox.relay import Go, Wait
from outbox.slips import Later, Run
from outbox.stores.memory import MemoryStore
from outbox.transports.route import RouteTransport

GOOD, BAD, ODD = ("good",), ("bad",), ("odd",)
PATIENCE = 60.0


@pytest.fixture
def scene() -> Scene:
    """Four workers, and two relays that have just been seen to be well."""
    scene = Scene(workers=4, several=True)
    goes_well(scene, GOOD)
    goes_well(scene, BAD)
    return scene


def goes_well(scene: Scene, lane: tuple[str, ...], worker: str = "w", number: int = 500) -> None:
    scene.stocked(a_claim(number), lane=lane).run(worker)
    tells(scene, worker, scene.pull(worker))


def tells(scene: Scene, worker: str, claim: Claim) -> None:
    """He delivered it, and his run is over."""
    scene.desk.note(delivered(claim), worker=worker)
    scene.desk.drop(worker, scene.now)
    scene.written()


def stuck(scene: Scene, workers: str, lane: tuple[str, ...] = BAD) -> Sequence[Claim]:
    """They begin with a message of this lane, and nothing comes of it."""
    pulled = []
    for number, worker in enumerate(workers):
        scene.stocked(a_claim(100 + 10 * len(lane[0]) + number), lane=lane)
        assert scene.run(worker).lane == lane
        pulled.append(scene.pull(worker))
    return pulled


def given_back(scene: Scene) -> Sequence[float]:
    return [verdict.delay.total_seconds() for verdict in scene.written() if isinstance(verdict, Released)]


# -- who goes where


def test_no_more_than_half_of_the_workers_wait_where_nothing_moves(scene: Scene) -> None:
    scene.now += 2.0
    stuck(scene, "ab")
    scene.stocked(a_claim(1), lane=BAD)
    later = scene.take("c")
    assert isinstance(later, Later)
    assert 0.0 < later.seconds <= 1.0
    scene.stocked(a_claim(2), lane=GOOD)
    assert scene.run("c").lane == GOOD


def test_as_soon_as_something_moves_there_the_others_go_too(scene: Scene) -> None:
    scene.now += 2.0
    first, _ = stuck(scene, "ab")
    scene.stocked(a_claim(1), a_claim(2), lane=BAD)
    assert isinstance(scene.take("c"), Later)
    tells(scene, "a", first)
    assert scene.run("c").lane == BAD


def test_the_last_free_worker_is_kept_for_another_relay_however_quick_this_one_is(scene: Scene) -> None:
    stuck(scene, "abc")
    scene.stocked(a_claim(1), lane=BAD)
    assert isinstance(scene.take("d"), Later), "it may begin to hang at any moment, in all that is under way"
    assert isinstance(scene.collect(), Later), "those who are there go on with what is there"
    scene.stocked(a_claim(2), lane=GOOD)
    assert scene.run("d").lane == GOOD


def test_the_last_free_worker_joins_nobody_who_waits(scene: Scene) -> None:
    goes_well(scene, ODD)
    scene.now += 2.0
    stuck(scene, "ab")
    stuck(scene, "c", ODD)
    scene.stocked(a_claim(1), lane=ODD)
    assert isinstance(scene.take("d"), Later)
    scene.stocked(a_claim(2), lane=GOOD)
    assert scene.run("d").lane == GOOD


def test_the_last_free_worker_finds_out_of_no_relay_whether_it_hangs(scene: Scene) -> None:
    first, *_ = stuck(scene, "abc")
    scene.stocked(a_claim(1), lane=("new",))
    assert isinstance(scene.take("d"), Later)
    tells(scene, "a", first)
    assert scene.run("a").lane == ("new",), "somebody else is free"


def test_where_no_other_relay_is_known_to_be_well_nobody_is_kept(scene: Scene) -> None:
    scene.now += 61.0
    stuck(scene, "abcd")
    scene = Scene(workers=2, several=True)
    stuck(scene, "a")
    scene.stocked(a_claim(1), lane=GOOD)
    assert scene.run("b").lane == GOOD


def test_a_message_for_several_relays_waits_where_one_of_them_hangs(scene: Scene) -> None:
    scene.now += 2.0
    stuck(scene, "ab")
    scene.stocked(a_claim(1), lane=("bad", "odd"))
    assert isinstance(scene.take("c"), Later)


def test_a_lane_with_half_of_the_workers_comes_behind_the_others(scene: Scene) -> None:
    stuck(scene, "ab")
    scene.stocked(a_claim(1), a_claim(2), lane=BAD)
    scene.stocked(a_claim(3), a_claim(4), lane=GOOD)
    assert [scene.run("c").lane, scene.run("d").lane] == [GOOD, GOOD]


def test_where_there_is_one_relay_all_go_there() -> None:
    scene = Scene(workers=2)
    goes_well(scene, GOOD)
    scene.now += 2.0
    stuck(scene, "ab", GOOD)


def test_where_there_is_one_worker_he_goes_everywhere() -> None:
    scene = Scene(workers=1, several=True)
    goes_well(scene, GOOD)
    scene.now += 2.0
    goes_well(scene, BAD)


# -- what waits there


def test_what_waits_where_nothing_moves_makes_way_for_longer_and_longer(scene: Scene) -> None:
    scene.now += 2.0
    stuck(scene, "ab")
    delays: list[float] = []
    for number in range(3):
        scene.now += 2.0**number
        scene.stocked(a_claim(number), lane=BAD)
        scene.take("c")
        delays += given_back(scene)
    assert delays == pytest.approx([1.0, 3.0, 7.0], abs=0.1)


def test_past_what_waits_where_nothing_moves_more_is_claimed(scene: Scene) -> None:
    scene.now += 2.0
    stuck(scene, "ab")
    scene.now += 1.0
    scene.take("c", size=1)
    limits = []
    for _ in range(5):
        limit = scene.work().limit
        limits.append(limit)
        scene.desk.written()
        scene.stocked(*(a_claim(1000 * len(limits) + n) for n in range(limit)), lane=BAD)
        scene.take("c", size=1)
    assert limits == [1, 1, 2, 4, 8]


def test_a_drain_keeps_what_waits_where_nothing_moves() -> None:
    scene = Scene(workers=4, several=True, draining=True)
    scene.stocked(a_claim(500), lane=GOOD).run()
    scene.desk.note(delivered(scene.pull()), worker="w")
    scene.desk.drop("w", scene.now)
    scene.now += 2.0
    first, _ = stuck(scene, "ab")
    scene.now += 5.0
    scene.stocked(a_claim(1), lane=BAD)
    assert isinstance(scene.take("c"), Later)
    tells(scene, "a", first)
    assert scene.run("a").lane == BAD


# -- how much is claimed past what may not go


@pytest.mark.parametrize("closed", [DOWN, None])
def test_past_a_relay_that_is_down_is_claimed_in_steps_that_double_up_to_a_thousand(
    closed: Wait | None,
) -> None:
    scene = Scene(several=True)
    scene.answers["mx"] = DOWN
    limits: list[int] = []
    for number in range(13):
        scene.take()
        limit = scene.work().limit
        limits.append(limit)
        scene.desk.written()
        scene.stocked(*(a_claim(5000 * number + n) for n in range(limit)), closed=closed)
    assert limits == [1, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]
    scene.take()
    scene.written()
    goes_well(scene, GOOD, number=1)
    scene.take()
    assert scene.work().limit == 1, "there is mail for others: the steps begin anew"


def test_what_was_blocked_and_is_given_back_holds_up_nothing() -> None:
    """A lane that was empty counted as blocked, and what came to it later as what nobody can take."""
    scene = Scene(several=True)
    scene.answers["mx"] = PROBED
    scene.stocked(a_claim(1))
    scene.take()
    scene.now = 1.0
    assert len(scene.written()) == 1
    scene.stocked(*map(a_claim, range(2, 9)))
    assert scene.rests() == pytest.approx(1.0, abs=0.1), "they are there for whoever asks"


def test_what_waits_for_a_first_answer_is_not_put_off_for_another_relay_that_is_silent() -> None:
    """All that was held up was put off for up to a quarter of a minute, the mail of a relay that was being greeted too."""
    scene = Scene(several=True)
    scene.answers["bad"] = attrs.evolve(PROBED, under_way=0.3)
    scene.answers["good"] = attrs.evolve(PROBED, under_way=0.01)
    scene.stocked(*map(a_claim, range(999)), lane=BAD)
    scene.stocked(*(a_claim(1000 + number) for number in range(537)), lane=GOOD)
    scene.take()
    assert len(given_back(scene)) == 999

    scene.answers["good"] = Go()
    assert scene.run().lane == GOOD


def test_where_all_that_is_held_up_has_just_begun_to_wait_it_makes_room_in_a_moment() -> None:
    scene = Scene(several=True)
    scene.answers["good"] = attrs.evolve(PROBED, under_way=0.01)
    scene.stocked(*map(a_claim, range(1000)), lane=GOOD)
    scene.take()
    assert 0 < scene.rests() < 0.25
    scene.now += 0.25
    assert len(given_back(scene)) == 1000


def test_a_lane_that_became_empty_holds_up_nothing() -> None:
    scene = Scene(several=True)
    scene.stocked(a_claim(1), a_claim(2)).run("v", size=2)
    scene.answers["mx"] = Wait(SECOND, "its connections are taken", full=True)
    scene.take("w")
    scene.pull("v")
    scene.pull("v")
    scene.stocked(*map(a_claim, range(3, 10)))
    assert isinstance(scene.collect(), Later), "they are there for whoever asks"


def test_what_waits_where_nothing_moves_comes_back_one_behind_the_other(scene: Scene) -> None:
    places = iter([0.5, 1.0, 1.5, 2.0])
    scene = Scene(workers=4, several=True, put_off=lambda _: next(places) * SECOND)
    goes_well(scene, GOOD)
    scene.now += 2.0
    stuck(scene, "ab")
    scene.now += 1.0
    scene.stocked(*map(a_claim, range(4)), lane=BAD)
    scene.take("c")
    assert given_back(scene) == [1.0, 1.0, 1.5, 2.0], "and none before anything can have moved"


# -- a slow limit


LIMITED = Wait(2 * SECOND, "its limit is reached", limited=True)


def test_when_a_place_opens_at_a_slow_limit_one_message_is_claimed_for_it() -> None:
    scene = Scene(workers=4, put_off=lambda _: 600 * SECOND)
    for worker in "abcd":
        scene.take(worker, size=100)
    assert scene.work().limit == 400
    scene.desk.written()
    scene.stocked(*map(a_claim, range(400)))
    assert isinstance(scene.take("a", size=100), Run)
    scene.answers["mx"] = LIMITED
    scene.answers["m0"] = Go()
    scene.pull("a")
    scene.take("b", size=100)
    scene.desk.drop("a", scene.now)
    delays = [verdict.delay for verdict in scene.written(LIMITED) if isinstance(verdict, Released)]
    assert len(delays) >= 300
    assert set(delays) == {2 * SECOND}, "until then, and not behind each other"
    scene.take("a", size=100)
    assert scene.work().limit == 1


def test_what_a_slow_limit_has_saved_up_is_claimed_in_steps_that_double() -> None:
    scene = Scene(workers=4)
    limits = []
    for worker in "bcd":
        scene.take(worker, size=100)
    scene.rests(LIMITED)
    for number in range(4):
        scene.take("a", size=100)
        limits.append(scene.work().limit)
        scene.desk.written()
        scene.stocked(*(a_claim(100 * number + n) for n in range(limits[-1])))
        scene.run("a", size=100)
        for _ in range(limits[-1]):
            scene.desk.note(delivered(scene.pull("a")), worker="a")
        scene.desk.drop("a", scene.now)
    assert limits == [1, 2, 4, 8]


# -- the whole


class Hangs:
    """Well, until it is told to hang."""

    def __init__(self) -> None:
        self.hangs, self.let_go = threading.Event(), threading.Event()
        self.waiting = 0

    def deliver(self, _message: Message, recipients: Sequence[str], /) -> Outcome:
        if self.hangs.is_set():
            self.waiting += 1
            assert self.let_go.wait(PATIENCE)
        return Outcome.same(recipients, Accepted("250 ok"))

    def close(self) -> None:
        self.let_go.set()


class Well(Hangs):
    def deliver(self, _message: Message, recipients: Sequence[str], /) -> Outcome:
        return Outcome.same(recipients, Accepted("250 ok"))


class Counted:
    """Counts who arrived, by the first letter of the id."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrived: list[str] = []

    def __call__(self, notice: Notice) -> None:
        if isinstance(notice, Settled):
            with self._changed:
                self._arrived.append(notice.claim.message.id[0])
                self._changed.notify_all()

    def wait_for(self, letter: str, number: int) -> None:
        with self._changed:
            came = self._changed.wait_for(lambda: self._arrived.count(letter) >= number, PATIENCE)
            assert came, f"{self._arrived.count(letter)} of {number}"


def mail(letter: str, host: str, number: int, priority: int = 0) -> list[Message]:
    return [
        Message(id=f"{letter}{n:04}", recipients=[f"to@{host}.example"], content=b"x", priority=priority)
        for n in range(number)
    ]


def test_a_relay_that_was_well_and_hangs_keeps_no_mail_from_the_others() -> None:
    store, bad, heard = MemoryStore(), Hangs(), Counted()
    transport = RouteTransport(domains={"bad.example": bad, "good.example": Well()})
    store.put([*mail("v", "bad", 40), *mail("w", "good", 40)])
    with Outbox(store, transport, workers=4, listeners=[heard]) as outbox:
        runner = outbox.runner()
        runner.start()
        heard.wait_for("v", 40)
        heard.wait_for("w", 40)
        bad.hangs.set()
        store.put([*mail("a", "bad", 300, priority=1), *mail("b", "good", 100)])
        heard.wait_for("b", 100)
        assert 1 <= bad.waiting <= 3
        assert not bad.let_go.is_set()
        bad.let_go.set()
        runner.stop(dt.timedelta(seconds=PATIENCE))
