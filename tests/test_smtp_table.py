"""Whatever happens at whichever step, in one table: what is reported, alone and among others, in lock-step and pipelined.

Each row is a step, each column what the server does there instead of the
usual, and each cell what becomes of the message.  No socket and no second is
used: the server is :mod:`scripted_server`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pytest
from scripted_server import END, RESET, Event, Peer, Room, Server, ever, staged

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Uncertain
from outbox.protocols import Delivery
from outbox.testing.clock import ManualClock

EVENTS: Final[Mapping[str, Callable[[], Event]]] = {
    "2xx": lambda: Event([b"250 ok\r\n"], accepts=True),
    "2xx?": lambda: Event([b"259 what RFC knows this\r\n"], accepts=True),
    "4xx": lambda: Event([b"451 4.3.0 not now\r\n"]),
    "5xx": lambda: Event([b"554 5.7.1 never\r\n"]),
    "421": lambda: Event([b"421 4.3.2 going down\r\n", END]),
    "cut": lambda: Event([b"250 o", END]),
    "bad": lambda: Event([b"hello\r\n"]),
    "endless": lambda: Event(ever(b"250-more\r\n")),
    "drips": lambda: Event(ever(b"2"), pause=1),
    "long": lambda: Event([b"250 " + b"o" * 10_000]),
    "closed": lambda: Event([END], deaf=True),
    "reset": lambda: Event([RESET]),
    "half": lambda: Event([END]),
    "silent": lambda: Event([], deaf=True),
}
"""What happens.  ``2xx?`` is a code that no RFC knows, ``half`` a server that says no more and listens on."""

LOST: Final = ("421", "cut", "bad", "endless", "long", "closed", "reset", "half")
"""The server is gone, or out of step; it is not only silent."""

TABLE: Final = """
step      2xx 2xx? 4xx 5xx 421 cut bad endless drips long closed reset half silent
greeting   A   A    u   m   u   u   u   u       u     u    u      u     u    u
ehlo       A   A    u   A   u   u   u   u       u     u    u      u     u    u
mail       A   A    T   P   T   T   T   T       T     T    T      T     T    T
rcpt_a     A   A    TAA PAA A   A   A   A       T     A    A      A     A    T
rcpt_b     A   A    ATA APA A   A   A   A       T     A    A      A     A    T
data       T   T    T   P   T   T   T   T       T     T    T      T     T    T
content    T   T    T   P   T   T   T   T       ?     T    T      T     T    T
dot        A   A    T   P   T   ?   ?   ?       ?     ?    ?      ?     ?    ?
rset       P   P    P   P   P   P   T   T       P     T    P      P     P    P
quit       A   A    A   A   A   A   A   A       A     A    A      A     A    A
"""
"""A accepted, T not now, P never, ? uncertain, of all three recipients or of each; u and m are faults of the relay.

- Before the dot what is lost is for now, behind it uncertain (T3); before MAIL it is the relay's.
- 421 closes, and whoever has no answer then has failed for now.
- Where it is lost at a recipient, the others are named without that one over another connection, and that one last.
- A 2xx is no answer to DATA, and none to half a content.  A drip that begins when the dot is out is behind it.
- What is no reply takes back refusals for good: they may have been meant for another.
- EHLO refused for good is followed by HELO.
- The outcome is final at the 250: QUIT changes nothing (T4).
"""

BEHIND: Final[Mapping[tuple[str, str], str]] = {
    # On a connection that was used before, the first command has one free try over another;
    **{("mail", event): "A" for event in EVENTS},
    # and all that comes before the content has, where the server is gone or out of step: it may be news of the one before.
    **{("data", event): "A" for event in LOST},
    **{("rset", event): "P" for event in ("bad", "endless", "long")},
    ("data", "2xx"): "A",
    ("data", "2xx?"): "A",
}
"""What differs for a message behind another one over the same connection."""

LETTERS: Final = {"A": Accepted, "T": TempFailed, "P": PermFailed, "?": Uncertain}
FAULTS: Final = {"u": RelayUnavailable, "m": RelayMisconfigured}

ROWS: Final = [line.split() for line in TABLE.strip().splitlines()]
CELLS: Final = [
    (row[0].replace("_", " "), event, cell)
    for row in ROWS[1:]
    for event, cell in zip(ROWS[0][1:], row[1:], strict=True)
]
CONTENT: Final = b"Subject: a\r\n\r\n" + (b"x" * 70 + b"\r\n") * 2000
RECIPIENTS: Final = ("a@example.org", "b@example.org", "c@example.org")


def message(sender: str, step: str = "") -> Message:
    recipients = [f"no-{r}" for r in RECIPIENTS] if step == "rset" and sender == "event" else RECIPIENTS
    return Message(recipients=recipients, content=CONTENT, sender=f"{sender}@example.org")


def report(outcome: Outcome | RelayFault) -> str:
    """In the letters of the table."""
    if isinstance(outcome, RelayFault):
        return next(letter for letter, kind in FAULTS.items() if isinstance(outcome, kind))
    kinds = {kind: letter for letter, kind in LETTERS.items()}
    letters = "".join(kinds[type(result)] for result in outcome.results.values())
    return letters[0] if len(set(letters)) == 1 else letters


class Stage:
    """One event at one step, and servers at which nothing happens behind it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: str, event: Event, *, pipelining: bool) -> None:
        self.room = Room(ManualClock())
        self._script: tuple[str, Event | None] = (step, event)
        self._pipelining = pipelining
        self.transport = staged(monkeypatch, self.room, self._peers())

    def _peers(self) -> Iterator[Peer]:
        step, event = self._script
        while True:
            server = Server(self.room, step, event, pipelining=self._pipelining)
            yield server
            event = server.event

    def deliver(self, sent: Message) -> Outcome | RelayFault:
        try:
            return self.transport.deliver(sent, sent.recipients)
        except RelayFault as fault:
            return fault


@pytest.fixture(params=["lock-step", "pipelined"])
def pipelining(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "pipelined")


@pytest.mark.parametrize(("step", "event", "cell"), CELLS)
def test_a_message_by_itself_comes_to_what_the_table_says(
    monkeypatch: pytest.MonkeyPatch, pipelining: bool, step: str, event: str, cell: str
) -> None:
    stage = Stage(monkeypatch, step, EVENTS[event](), pipelining=pipelining)
    began = stage.room.clock.monotonic()

    assert report(stage.deliver(message("event", step))) == cell
    stage.transport.close()
    # Each wait has an end, and few of them add up; what has no end is not kept.
    assert stage.room.clock.monotonic() - began < 60
    assert max(peer.given for peer in stage.room.connections) < 100_000
    assert report(stage.deliver(message("next"))) == "A"
    told(stage, step, cell)


@pytest.mark.parametrize(("step", "event", "cell"), CELLS)
def test_a_message_among_others_comes_to_what_the_table_says_and_harms_none_of_them(
    monkeypatch: pytest.MonkeyPatch, pipelining: bool, step: str, event: str, cell: str
) -> None:
    if step in ("greeting", "ehlo"):
        pytest.skip("these come before any message")
    stage = Stage(monkeypatch, step, EVENTS[event](), pipelining=pipelining)
    cell = BEHIND.get((step, event), cell)
    sent = [message("first"), message("event", step), message("third"), message("last")]

    outcomes = list(stage.transport.deliver_many(Delivery(each, each.recipients) for each in sent))
    stage.transport.close()
    assert [report(outcome) for outcome in outcomes] == ["A", cell, "A", "A"]
    told(stage, step, cell)


def told(stage: Stage, step: str, cell: str) -> None:
    """Nobody was given what was not told of, and nobody was given it twice."""
    taken = [(sender, to) for sender, recipients, _ in stage.room.messages for to in recipients]
    assert len(taken) == len(set(taken))
    given = [sender for sender, _ in taken].count("event@example.org")
    if cell == "A" or step == "dot" or cell == "?":
        assert given == len(RECIPIENTS)
    elif step != "rset":
        assert given == cell.count("A")


def test_the_table_has_every_step_and_every_event() -> None:
    assert tuple(ROWS[0][1:]) == tuple(EVENTS)
    assert len({row[0] for row in ROWS[1:]}) == 10


def test_pipelining_is_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were both columns lock-step, the table would show half of what it says."""
    stages = [Stage(monkeypatch, "none", Event(), pipelining=way) for way in (False, True)]
    sends: dict[int, int] = {}
    for number, stage in enumerate(stages):
        genuine: Any = Server.hear

        def hear(self: Server, data: bytes, number: int = number, genuine: Any = genuine) -> None:
            sends[number] = sends.get(number, 0) + 1
            genuine(self, data)

        monkeypatch.setattr(Server, "hear", hear)
        small = [
            Message(recipients=RECIPIENTS, content=b"S: a\r\n", sender=f"{n}@example.org") for n in range(5)
        ]
        stage.transport = staged(monkeypatch, stage.room, stage._peers())
        list(stage.transport.deliver_many(Delivery(each, each.recipients) for each in small))
        monkeypatch.setattr(Server, "hear", genuine)

    assert sends == {0: 1 + 5 * 6, 1: 1 + 1 + 5}


def test_the_fake_clock_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, "dot", EVENTS["silent"](), pipelining=True)
    began = stage.room.clock.now()
    stage.deliver(message("event"))

    assert stage.room.clock.now() - began == dt.timedelta(seconds=10)
