"""A server that says nothing at a dot: what answers the next envelope is not taken for its yes or its no."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from scripted_server import END, Room, Server, staged

from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Uncertain
from outbox.protocols import Delivery
from outbox.testing.clock import ManualClock

Said = bytes | None


class Terse(Server):
    """Says to some steps what it is told to, for as long as the script says so; None is the usual."""

    script: Callable[[str, str], Said] = staticmethod(lambda _step, _sender: None)

    def answer(self, step: str, usual: bytes) -> bool:
        said = type(self).script(step, (self._sender or "").partition("@")[0])
        if said is None:
            return super().answer(step, usual)
        self.say([each for each in said.partition(END) if each])
        return said.startswith((b"2", b"3")) or step == "dot"


class Played:
    """A batch through servers that go by one script."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: Callable[[str, str], Said]) -> None:
        self.room = Room(ManualClock())
        self.waited: list[float] = []
        server = type("Scripted", (Terse,), {"script": staticmethod(script)})

        def peers() -> Iterator[Server]:
            while True:
                yield server(self.room, "none", None, pipelining=True)

        self.transport = staged(monkeypatch, self.room, peers())

    def __call__(self, *messages: Message) -> list[Outcome]:
        outcomes = []
        for outcome in self.transport.deliver_many(Delivery(m, m.recipients) for m in messages):
            self.waited.append(self.room.clock.monotonic())
            outcomes.append(outcome)
        self.transport.close()
        return outcomes


def message(sender: str, *recipients: str) -> Message:
    return Message(
        recipients=recipients or (f"to-{sender}@example.org",),
        content=b"S: a\r\n",
        sender=f"{sender}@example.org",
    )


def kinds(outcomes: Sequence[Outcome]) -> list[set[type]]:
    return [{type(result) for result in outcome.results.values()} for outcome in outcomes]


BATCH = [message("zero"), message("one"), message("two")]


def test_a_yes_to_the_next_sender_is_none_to_the_content_before(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch, lambda step, sender: b"" if (step, sender) == ("dot", "one") else None)

    assert kinds(played(*BATCH)) == [{Accepted}, {Uncertain}, {Accepted}]


def test_nor_is_one_to_the_next_part_of_the_same_message(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = iter([b""])
    played = Played(monkeypatch, lambda step, _: next(silent, None) if step == "dot" else None)
    everybody = [f"r{n}@example.org" for n in range(150)]
    (outcome,) = played(message("one", *everybody))

    assert [type(result) for result in outcome.results.values()] == [Uncertain] * 100 + [Accepted] * 50


def test_a_no_to_the_next_sender_is_none_to_the_content_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(step: str, sender: str) -> Said:
        refused = b"550 5.1.8 sender refused\r\n" if (step, sender) == ("mail", "two") else None
        return b"" if (step, sender) == ("dot", "one") else refused

    played = Played(monkeypatch, script)
    outcomes = played(*BATCH)

    assert kinds(outcomes) == [{Accepted}, {Uncertain}, {PermFailed}]
    assert "may be that to the next MAIL" in str(*outcomes[1].results.values())


def test_a_server_that_ends_the_connection_behind_its_yes_has_said_yes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As those do that count what they take over one: a copy of each last one would be the price of a doubt."""
    ends = iter([b"421 4.7.0 enough for today\r\n" + END])
    played = Played(
        monkeypatch, lambda step, sender: next(ends, None) if (step, sender) == ("mail", "two") else None
    )

    assert kinds(played(*BATCH)) == [{Accepted}] * 3
    assert [sender for sender, _, _ in played.room.messages] == [each.sender for each in BATCH]


def test_but_not_where_it_says_the_same_to_each_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nobody can tell what the one reply was about that came before the end."""
    ends = iter([b"421 4.7.0 enough for today\r\n" + END])

    def script(step: str, sender: str) -> Said:
        if (step, sender) == ("rcpt t", "two"):
            return next(ends, None)
        return {"mail": b"250 ok\r\n", "dot": b"" if sender == "one" else b"250 ok\r\n"}.get(step)

    played = Played(monkeypatch, script)

    assert kinds(played(*BATCH)) == [{Accepted}, {Uncertain}, {Accepted}]


def slow(step: str, sender: str) -> Said:
    """Its yes to a content is no yes to a MAIL, and it thinks long about the third recipient."""
    if (step, sender) == ("rcpt t", "two"):
        return b""
    return {"mail": b"250 2.1.0 sender ok\r\n", "dot": b"250 2.0.0 queued\r\n"}.get(step)


def test_a_code_that_shows_whose_it_is_is_told_without_a_wait_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played = Played(monkeypatch, slow)
    outcomes = played(*BATCH)

    assert kinds(outcomes)[:2] == [{Accepted}] * 2
    assert played.waited[0] == played.waited[1] < played.waited[2]
