"""How workers take turns: suspects alone, one listener for news."""

import datetime as dt
import threading
from collections.abc import Callable

import pytest

from outbox.turns import Lounge, Turns, seconds

PATIENCE = 10.0


class InThread(threading.Thread):
    """A call in a thread of its own, whose result can be waited for."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.call = call
        self.begun = threading.Event()
        self.answer: object = None
        self.start()
        assert self.begun.wait(PATIENCE)

    def run(self) -> None:
        self.begun.set()
        self.answer = self.call()

    def result(self) -> object:
        self.join(PATIENCE)
        assert not self.is_alive(), "it still waits"
        return self.answer


@pytest.fixture
def turns() -> Turns:
    return Turns()


def test_many_work_at_once(turns: Turns) -> None:
    assert turns.enter()
    assert turns.enter()


def test_isolation_waits_for_those_at_work_and_keeps_others_out(turns: Turns) -> None:
    turns.enter()
    turns.enter()
    suspect = InThread(turns.isolate)
    while not turns._isolated:
        threading.Event().wait(0.001)
    newcomer = InThread(turns.enter)
    turns.leave(isolated=False)
    assert suspect.result() is None
    assert newcomer.is_alive()
    turns.leave(isolated=True)
    assert newcomer.result() is True


def test_only_one_is_isolated_at_a_time(turns: Turns) -> None:
    turns.enter()
    assert turns.isolate() is None
    assert turns.isolate() == dt.timedelta(0)


def test_closing_frees_everybody_and_lets_nobody_in(turns: Turns) -> None:
    turns.enter()
    assert turns.isolate() is None
    waiting = InThread(turns.enter)
    turns.close()
    assert waiting.result() is False
    assert not turns.enter()
    assert turns.isolate() == dt.timedelta(0)


def test_a_suspect_waits_for_its_turn_so_long_and_then_lets_the_others_go_on() -> None:
    turns = Turns(patience=dt.timedelta(milliseconds=1))
    turns.enter()
    turns.enter()
    waits = [turns.isolate() for _ in range(3)]
    assert waits == [dt.timedelta(milliseconds=4 * n) for n in (1, 2, 4)], "each time in vain it waits longer"
    assert InThread(turns.enter).result() is True
    for _ in range(2):
        turns.leave(isolated=False)
    assert turns.isolate() is None


def test_no_wait_is_longer_than_a_thread_can_wait() -> None:
    assert seconds(dt.timedelta.max) == threading.TIMEOUT_MAX
    assert seconds(-dt.timedelta.resolution) == 0


def test_one_listens_and_a_call_wakes_one_of_the_others() -> None:
    lounge, news, listening = Lounge(), threading.Event(), threading.Event()

    def listen() -> None:
        listening.set()
        news.wait(PATIENCE)

    listener = InThread(lambda: lounge.wait(listen))
    assert listening.wait(PATIENCE)
    others = [InThread(lambda: lounge.wait(listen)) for _ in range(2)]
    while sum(not other.is_alive() for other in others) < 1:
        lounge.call()
    assert listener.is_alive()
    lounge.close()
    news.set()
    for thread in [listener, *others]:
        thread.result()


def test_the_place_of_the_listener_is_taken_by_the_next_when_he_leaves() -> None:
    lounge = Lounge()
    turns_taken = threading.Semaphore(0)
    release = threading.Semaphore(0)

    def listen() -> None:
        turns_taken.release()
        assert release.acquire(timeout=PATIENCE)

    workers = [InThread(lambda: lounge.wait(listen)) for _ in range(3)]
    for _ in workers:
        assert turns_taken.acquire(timeout=PATIENCE)
        release.release()
    assert [worker.result() for worker in workers] == [True] * 3


def test_a_closed_lounge_lets_nobody_wait() -> None:
    lounge = Lounge()
    lounge.close()
    assert lounge.wait(lambda: pytest.fail("nobody listens in a closed lounge")) is False
