"""A server that hangs up while recipients are named: who is to blame for that, and who is named all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest
from scripted_server import END, Room, Server, staged

from outbox.message import Message
from outbox.outcome import Accepted, Outcome, Result, TempFailed, Uncertain, Untried
from outbox.protocols import Delivery
from outbox.testing.clock import ManualClock
from outbox.transports.smtp import SMTPTransport

LAST_WORDS = {"closes": [END], "421": [b"421 4.3.0 filter failed\r\n", END]}
Leaves = Callable[[str, int], bool]
EVERYBODY = tuple(f"r{number}@example.org" for number in range(250))


class Touchy(Server):
    """Hangs up where *leaves* says so of a recipient, by how many were named before; may say the same to all it takes."""

    leaves: Leaves
    words: Sequence[bytes]
    terse = False

    def __init__(self, room: Room, *, pipelining: bool) -> None:
        super().__init__(room, "none", None, pipelining=pipelining)
        self.named = 0

    def answer(self, step: str, usual: bytes) -> bool:
        same = type(self).terse and step in ("mail", "dot")
        return super().answer(step, b"250 ok\r\n" if same else usual)

    def _rcpt(self, said: str) -> None:
        self.room.heard.append(f"named {said}")
        if type(self).leaves(said, self.named):
            self.say(self.words)
            self.deaf = True
            return
        self.named += 1
        super()._rcpt(said)


@pytest.fixture(params=[True, False], ids=["pipelined", "lock-step"])
def pipelining(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=LAST_WORDS)
def words(request: pytest.FixtureRequest) -> Sequence[bytes]:
    return LAST_WORDS[request.param]


@pytest.fixture
def room() -> Room:
    return Room(ManualClock())


Relay = Callable[..., SMTPTransport]


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch, room: Room, pipelining: bool, words: Sequence[bytes]) -> Relay:
    def made(leaves: Leaves, *, terse: bool = False) -> SMTPTransport:
        script = {"leaves": staticmethod(leaves), "words": words, "terse": terse}
        kind = type("Scripted", (Touchy,), script)

        def peers() -> Iterator[Server]:
            while True:
                yield kind(room, pipelining=pipelining)

        return staged(monkeypatch, room, peers())

    return made


def deliver(transport: SMTPTransport, recipients: Sequence[str] = EVERYBODY) -> Outcome:
    outcome = transport.deliver(
        Message(recipients=recipients, content=b"S: a\r\n", sender="s@example.org"), recipients
    )
    transport.close()
    return outcome


def number_of(outcome: Outcome) -> Counter[type[Result]]:
    return Counter(type(result) for result in outcome.results.values())


def copies(room: Room) -> set[int]:
    return set(Counter(to for _, recipients, _ in room.messages for to in recipients).values())


@pytest.mark.parametrize("bad", [{5}, {0}, {5, 6, 7}, {0, 1}, {249}, {99, 100}])
def test_one_at_whom_a_server_hangs_up_keeps_no_other_from_being_served(
    room: Room, relay: Relay, bad: set[int]
) -> None:
    outcome = deliver(relay(lambda to, _: int(to[1:].partition("@")[0]) in bad))

    assert number_of(outcome) == {Accepted: 250 - len(bad), TempFailed: len(bad)}
    assert all(isinstance(outcome.results[EVERYBODY[number]], TempFailed) for number in bad)
    assert copies(room) == {1}


@pytest.mark.parametrize("most", [1, 50, 99])
def test_a_server_that_hangs_up_when_so_many_were_named_is_sent_so_many_at_a_time(
    room: Room, relay: Relay, most: int
) -> None:
    outcome = deliver(relay(lambda _, named: named == most), EVERYBODY[:120])

    assert number_of(outcome) == {Accepted: 120}
    assert copies(room) == {1}


def test_a_server_that_hangs_up_on_everybody_is_left_alone_soon(room: Room, relay: Relay) -> None:
    outcome = deliver(relay(lambda *_: True))

    assert number_of(outcome) == {TempFailed: 103, Untried: 147}
    assert len(room.connections) == 4


def test_who_is_alone_is_not_asked_for_again(room: Room, relay: Relay) -> None:
    outcome = deliver(relay(lambda *_: True), EVERYBODY[:1])

    assert number_of(outcome) == {TempFailed: 1}
    assert len(room.connections) == 1


def test_nobody_s_answer_is_put_at_risk_by_one_at_whom_a_server_hung_up(room: Room, relay: Relay) -> None:
    """Behind the content for the others comes no name that might end the connection before its answer is known as its own."""
    transport = relay(lambda to, _: to == EVERYBODY[3], terse=True)
    each = [
        Message(recipients=EVERYBODY[:9], content=b"S: a\r\n", sender="one@example.org"),
        Message(recipients=EVERYBODY[10:12], content=b"S: a\r\n", sender="two@example.org"),
    ]
    outcomes = list(transport.deliver_many(Delivery(sent, sent.recipients) for sent in each))
    transport.close()

    assert [number_of(outcome) for outcome in outcomes] == [{Accepted: 8, TempFailed: 1}, {Accepted: 2}]
    assert Uncertain not in number_of(outcomes[0])
