"""A kept dialogue holds what was written, and what was said to it: nothing besides, and nothing of another message."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from scripted_server import END, RESET, Room, Server, staged

from outbox.message import Message
from outbox.protocols import Delivery
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp import SMTPTransport


@pytest.fixture
def sink() -> Iterator[SMTPSink]:
    with SMTPSink() as server:
        yield server


def delivery(*names: str) -> Delivery:
    recipients = tuple(f"{name}@example.org" for name in names)
    sent = Message(recipients=recipients, content=b"S: a\r\n", sender=f"from-{names[0]}@example.org")
    return Delivery(sent, recipients)


def dialogues(sink: SMTPSink, *deliveries: Delivery, pipelining: bool) -> list[str]:
    with contextlib.closing(SMTPTransport(sink.host, sink.port, pipelining=pipelining)) as transport:
        return [outcome.dialogue for outcome in transport.deliver_many(deliveries)]


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_late_answer_to_one_message_stands_not_in_the_dialogue_of_the_next(
    sink: SMTPSink, pipelining: bool
) -> None:
    sink.on("dot", "from-one@example.org", reply=b"250 taken\r\n250 this of one's, too\r\n")
    sink.on("rcpt", "two@example.org", reply="550 5.1.1 who?")
    one, two = dialogues(sink, delivery("one"), delivery("two"), pipelining=pipelining)

    assert one == ""
    assert "C: MAIL FROM:<from-two" in two
    assert "550 5.1.1 who?" in two
    assert "this of one's" not in two


def test_a_command_that_was_not_written_is_not_in_it(sink: SMTPSink) -> None:
    sink.on("rcpt", "one@example.org", reply=b"250 ok\r\n421 leaving\r\n")
    (dialogue,) = dialogues(sink, delivery("one", "two"), pipelining=False)

    assert "421 leaving" in dialogue
    assert "C: RCPT TO:<one" in dialogue
    assert "C: RCPT TO:<two" not in dialogue


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_content_of_which_nothing_was_written_is_not_in_it(sink: SMTPSink, pipelining: bool) -> None:
    sink.on("data", reply=b"354 go on\r\n421 leaving\r\n")
    (dialogue,) = dialogues(sink, delivery("one"), pipelining=pipelining)

    assert "421 leaving" in dialogue
    assert "(content" not in dialogue


def test_a_content_of_which_some_was_written_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closing(Server):
        def send(self, data: bytes | memoryview) -> int:
            if self._in_content:
                self.say([RESET])
                return 1
            return super().send(data)

    room = Room(ManualClock())
    transport = staged(monkeypatch, room, (Closing(room, "none", None, pipelining=True) for _ in range(2)))
    sent = delivery("one")

    assert "C: (content" in transport.deliver(sent.message, sent.recipients).dialogue


def test_an_envelope_that_did_not_go_with_the_content_before_is_not_said_to_have_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Short(Server):
        """Takes a content, and nothing behind it."""

        def send(self, data: bytes | memoryview) -> int:
            content, dot, _ = bytes(data).partition(b"\r\n.\r\n")
            if not dot:
                return super().send(data)
            taken = super().send(content + dot)
            self.say([END])
            self.deaf = True
            return taken

    room = Room(ManualClock())
    servers = iter([Short(room, "none", None, pipelining=True), Server(room, "none", None, pipelining=True)])
    transport = staged(monkeypatch, room, servers)
    sent = delivery(*(f"r{number}" for number in range(100)), "no-such")
    dialogue = transport.deliver(sent.message, sent.recipients).dialogue

    assert [len(recipients) for _, recipients, _ in room.messages] == [100]
    assert "550 5.1.1 no such user" in dialogue
    assert "with the content" not in dialogue
    assert dialogue.count("RCPT TO:<no-such") == 1
