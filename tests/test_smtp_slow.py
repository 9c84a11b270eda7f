"""A server that loses patience with us between two messages: whose fault that is, and whose it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pytest
from scripted_server import END, RESET, Peer, Room, Server, staged

from outbox.message import Message
from outbox.outcome import Outcome
from outbox.protocols import Delivery
from outbox.testing.clock import ManualClock
from outbox.transports.smtp import SMTPTransport

IDLE: Final = {
    "421 and closed": [b"421 4.4.2 you are too slow\r\n", END],
    "closed": [END],
    "reset": [RESET],
    "out of turn": [b"250 what?\r\n"],
    "late news": [b"550 5.7.1 the one before was spam\r\n"],
}


def delivery(name: str, *recipients: str) -> Delivery:
    sent = Message(
        recipients=recipients or (f"r{name}@example.org",), content=b"S: a\r\n", sender=f"{name}@example.org"
    )
    return Delivery(sent, sent.recipients)


def kinds(outcomes: Sequence[Outcome]) -> list[list[str]]:
    return [[type(result).__name__ for result in outcome.results.values()] for outcome in outcomes]


@pytest.fixture(params=[True, False], ids=["pipelined", "lock-step"])
def pipelining(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=IDLE)
def said(request: pytest.FixtureRequest) -> Sequence[bytes]:
    return IDLE[request.param]


@pytest.fixture
def room() -> Room:
    return Room(ManualClock())


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch, room: Room, pipelining: bool) -> SMTPTransport:
    return staged(monkeypatch, room, peers(room, pipelining))


def peers(room: Room, pipelining: bool) -> Iterator[Peer]:
    while True:
        yield Server(room, "none", None, pipelining=pipelining)


def senders(room: Room) -> list[str]:
    return [sender.partition("@")[0] for sender, _, _ in room.messages]


def waiting(deliveries: Sequence[Delivery], loses_patience: Callable[[], None]) -> Iterator[Delivery]:
    for each in deliveries:
        loses_patience()
        yield each


def test_while_the_next_delivery_is_waited_for_no_other_is_charged_with_it(
    room: Room, transport: SMTPTransport, said: Sequence[bytes]
) -> None:
    def loses_patience() -> None:
        if room.connections:
            room.connections[-1].say(said)

    each = [delivery(str(number)) for number in range(5)]
    outcomes = list(transport.deliver_many(waiting(each, loses_patience)))

    assert kinds(outcomes) == [["Accepted"]] * 5
    assert senders(room) == ["0", "1", "2", "3", "4"]


def test_while_an_outcome_is_thought_over_the_next_is_not_charged_with_it(
    room: Room, transport: SMTPTransport, said: Sequence[bytes]
) -> None:
    outcomes = []
    for outcome in transport.deliver_many(delivery(str(number)) for number in range(4)):
        outcomes.append(outcome)
        room.connections[-1].say(said)

    assert kinds(outcomes) == [["Accepted"]] * 4
    assert senders(room) == ["0", "1", "2", "3"]


def test_of_a_message_of_many_recipients_only_those_left_go_again(
    room: Room, transport: SMTPTransport, said: Sequence[bytes]
) -> None:
    def loses_patience() -> None:
        if room.messages:
            room.connections[-1].say(said)

    many = [f"r{number}@example.org" for number in range(230)]
    each = [delivery("0", *many), delivery("1")]
    outcomes = list(transport.deliver_many(waiting(each, loses_patience)))

    assert kinds(outcomes) == [["Accepted"] * 230, ["Accepted"]]
    named = [recipient for _, recipients, _ in room.messages for recipient in recipients]
    assert named == [*many, "r1@example.org"]


def test_the_first_of_all_waits_for_the_second_before_any_server_waits_for_it(
    room: Room, transport: SMTPTransport
) -> None:
    connected: list[int] = []
    each = [delivery(str(number)) for number in range(2)]
    batch = transport.deliver_many(waiting(each, lambda: connected.append(len(room.connections))))
    next(batch)
    batch.close()

    assert connected == [0] * len(connected)


class Impatient(Server):
    """Has no patience with one message, over whichever connection it comes."""

    def hear(self, data: bytes) -> None:
        super().hear(data)
        if self._in_content and self._sender == "1@example.org":
            self.say([b"421 4.4.2 not this one\r\n", END])


def test_it_is_begun_again_once_and_then_it_is_its_own_failure(
    monkeypatch: pytest.MonkeyPatch, room: Room, pipelining: bool
) -> None:
    servers = (Impatient(room, "none", None, pipelining=pipelining) for _ in range(9))
    transport = staged(monkeypatch, room, servers)
    outcomes = list(transport.deliver_many(delivery(str(number)) for number in range(3)))

    assert kinds(outcomes) == [["Accepted"], ["TempFailed"], ["Accepted"]]
    assert "421" in str(next(iter(outcomes[1].results.values())))
    assert len(room.connections) == 3


class Late(Server):
    """Says what it thinks of the message before when the recipient of the next was named, and then answers that."""

    def answer(self, step: str, usual: bytes) -> bool:
        if step == "rcpt r" and self.room.messages and len(self.room.connections) == 1:
            self.say([b"550 5.7.1 the one before was spam\r\n"])
            self.say([usual], pause=0.05)
            return True
        return super().answer(step, usual)


def test_news_in_the_place_of_the_answer_to_a_recipient_refuse_nobody(
    monkeypatch: pytest.MonkeyPatch, room: Room, pipelining: bool
) -> None:
    servers = (Late(room, "none", None, pipelining=pipelining) for _ in range(9))
    transport = staged(monkeypatch, room, servers)
    outcomes = list(transport.deliver_many(delivery(str(number)) for number in range(3)))

    assert kinds(outcomes) == [["Accepted"]] * 3
    assert senders(room) == ["0", "1", "2"]


def test_who_is_refused_over_a_used_connection_costs_no_other_one(
    room: Room, transport: SMTPTransport
) -> None:
    each = [delivery("0"), delivery("1", "no@example.org"), delivery("2", "no@example.org"), delivery("3")]

    assert kinds(list(transport.deliver_many(each))) == [
        ["Accepted"],
        ["PermFailed"],
        ["PermFailed"],
        ["Accepted"],
    ]
    assert len(room.connections) == 1
