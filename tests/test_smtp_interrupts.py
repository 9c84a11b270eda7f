"""Ctrl-C, and Ctrl-C again while the first is being dealt with: what was handed over is told of before it is raised."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from scripted_server import Room, Server, staged

from outbox.message import Message
from outbox.outcome import Accepted, Outcome, Uncertain
from outbox.protocols import Delivery
from outbox.testing.clock import ManualClock
from outbox.transports import smtp
from outbox.transports.smtp.connection import Connection
from outbox.transports.smtp.steps import Step

# An interrupt may come in a dialogue that is thrown away, and there nobody is told of it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
OURS = str(Path(smtp.__file__).parent)


def delivery(name: str) -> Delivery:
    sent = Message(recipients=(f"r{name}@example.org",), content=b"S: a\r\n", sender=f"{name}@example.org")
    return Delivery(sent, sent.recipients)


class Second:
    """Interrupts where so many calls were made or have returned, as the handler of a signal may."""

    def __init__(self, number: int) -> None:
        self.armed = self.came = False
        self._left = number

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(OURS):
            self._left -= 1
            if self._left == 0:
                sys.setprofile(None)
                self.came = True
                raise KeyboardInterrupt("second")


@pytest.fixture(autouse=True)
def profile() -> Iterator[None]:
    """The profiler is given back, and no collection closes an earlier run's dialogue inside a later run.

    An interrupt that comes in there is counted against the later run, and raised to nobody.
    """
    before = sys.getprofile()
    gc.disable()
    yield
    sys.setprofile(before)
    gc.enable()


def run(
    monkeypatch: pytest.MonkeyPatch, second: Second, reading: Callable[[Any, Step, Second], Any]
) -> tuple[Room, list[Outcome]]:
    """A batch of two; *reading* the reply to the dot of the first is interrupted, and then by *second*."""
    room = Room(ManualClock())
    with monkeypatch.context() as patched:
        peers = (Server(room, "none", None, pipelining=True) for _ in range(9))
        transport = staged(patched, room, peers)
        genuine = Connection._read

        def read(self: Connection, step: Step) -> Any:
            return reading(lambda: genuine(self, step), step, second)

        patched.setattr(Connection, "_read", read)
        outcomes: list[Outcome] = []
        with pytest.raises(KeyboardInterrupt):
            outcomes.extend(transport.deliver_many([delivery("0"), delivery("1")]))
        sys.setprofile(None)
    return room, outcomes


def before_the_reply(read: Callable[[], Any], step: Step, second: Second) -> Any:
    if step is Step.DOT:
        sys.setprofile(second)
        raise KeyboardInterrupt("first")
    return read()


def test_two_interrupts_lose_no_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    number, second = 0, Second(1)
    while number == 0 or second.came:
        number += 1
        assert number < 200
        second = Second(number)
        room, outcomes = run(monkeypatch, second, before_the_reply)

        assert len(room.messages) == 1
        assert [[type(result) for result in each.results.values()] for each in outcomes] == [[Uncertain]]
    assert number > 10


def behind_the_reply(read: Callable[[], Any], step: Step, second: Second) -> Any:
    reply = read()
    if step is Step.DOT and not second.armed:
        second.armed = True
        sys.setprofile(second)
    return reply


def test_an_interrupt_between_the_reply_and_the_outcome_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 60):
        room, outcomes = run(monkeypatch, Second(number), behind_the_reply)

        told = [type(result) for each in outcomes for result in each.results.values()]
        assert len(told) == len(room.messages)
        assert told[0] in (Accepted, Uncertain)
