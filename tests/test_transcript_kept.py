"""What was said at a failed attempt: how the spool keeps it, and how `outbox show` shows it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from command_line import CommandLine

from outbox import Message, Outbox, Outcome, PermFailed, SMTPTransport, TempFailed
from outbox.report import merged, understood
from outbox.stores.filesystem import FilesystemStore, notes
from outbox.stores.sqlite import SQLiteStore
from outbox.testing import SMTPSink
from outbox.testing.clauses.scene import dead, put, settle, take
from outbox.transports.chain import ChainTransport

POSIX = pytest.mark.skipif(os.name != "posix", reason="the filesystem store is for POSIX systems")
OLD_NOTE = b"""\
{
 "reason": "451 later",
 "fates": [
  "waiting"
 ],
 "since": "20260101T000000.000000",
 "history": [
  {
   "number": 1,
   "at": "20260101T000000.000000",
   "event": "retry",
   "relay": "mx.example.org:25",
   "reason": "451 later",
   "results": {
    "a@example.org": [
     "temp",
     "451 later",
     1.0
    ]
   }
  }
 ]
}
0baa455e840bba9512a58a77377e6a9b2f32889729bd86ac9562d96f121deebd
"""
"""As the spool was written before there were dialogues."""


@pytest.fixture
def store(outbox: CommandLine) -> Iterator[SQLiteStore]:
    store = SQLiteStore(outbox.path)
    yield store
    store.close()


def message(*recipients: str) -> Message:
    return Message(
        id="order-1042",
        recipients=recipients or ("ann@example.org",),
        sender="shop@example.org",
        content=b"Subject: Hello\r\n\r\nHello.\r\n",
    )


@POSIX
def test_a_person_can_read_what_was_said_with_cat(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "spool")
    put(store, "a")
    (claim,) = take(store)
    outcome = Outcome(results={r: PermFailed("no") for r in claim.recipients}, dialogue="1 S: 220\n2 C: QUIT")
    settle(store, claim, attrs.evolve(dead(claim), outcome=outcome))
    store.close()

    (note,) = (tmp_path / "spool" / "notes").rglob("a,*")
    assert '"1 S: 220",\n' in note.read_text()


@POSIX
def test_a_note_from_before_there_were_dialogues_is_read_and_written_as_it_was() -> None:
    note = notes.Note.decode(OLD_NOTE)

    assert [(attempt.number, attempt.dialogue) for attempt in note.history] == [(1, "")]
    assert note.encode() == OLD_NOTE


def test_show_tells_what_was_said_under_its_attempt(outbox: CommandLine, store: SQLiteStore) -> None:
    store.put([message("ann@example.org", "gone@example.org")])
    with SMTPSink() as sink:
        sink.on("rcpt", "gone@example.org", reply="550-5.1.1 no\n550 5.1.1 such user")
        with Outbox(store, SMTPTransport(sink.host, sink.port)) as sending:
            sending.drain()
    shown = outbox("show", "order-1042").out
    lines = [line.split(maxsplit=1)[-1] for line in shown.splitlines() if line[:8].strip().isdigit()]

    assert shown.index("  what was said") > shown.index("try 1")
    assert lines[1:3] == ["-- connected to 127.0.0.1", "S: 220 the sink is ready"]
    assert {"C: RCPT TO:<gone@example.org>", "S: 550-5.1.1 no", "S: 550 5.1.1 such user"} < set(lines)
    assert lines[-2:] == ["C: (content, 26 bytes)", "S: 250 2.0.0 taken"]
    (attempt,) = outbox("show", "--json", "order-1042").data["history"]
    assert [line.strip() in shown for line in attempt["dialogue"]] == [True] * len(attempt["dialogue"])
    assert len(attempt["dialogue"]) > 10


def test_show_escapes_what_another_store_or_transport_put_there(
    outbox: CommandLine, store: SQLiteStore
) -> None:
    class Talking:
        def deliver(self, message: Message, recipients: object, /) -> Outcome:
            said = "S: \x1b[2J\r250 ok\u202e\n" + "x" * 100_000 + "\n" * 100_000
            return Outcome(results={r: TempFailed("no") for r in message.recipients}, dialogue=said)

        def close(self) -> None:
            pass

    store.put([message()])
    with Outbox(store, Talking()) as sending:
        sending.drain()
    shown = outbox("show", "order-1042").out

    assert "S: \\x1b[2J\\r250 ok\\u202e\n" in shown
    assert len(shown) < 60_000
    assert "lines left out" in shown


def test_what_is_no_text_is_no_dialogue() -> None:
    odd = Outcome(results={"a": TempFailed("no")})
    object.__setattr__(odd, "dialogue", ["a"])

    assert understood(odd, ["a"], "It")[0].dialogue == ""


def test_that_a_connection_was_cut_is_passed_on_and_anything_else_is_not_that() -> None:
    cut = Outcome(results={"a": TempFailed("no")}, relay="a", cut=True)
    odd = Outcome(results={"b": TempFailed("no")}, relay="b")
    object.__setattr__(odd, "cut", "yes")
    both = merged([(["a"], cut), (["b"], understood(odd, ["b"], "It")[0])])

    assert understood(cut, ["a"], "It")[0].cut
    assert not understood(odd, ["b"], "It")[0].cut
    assert isinstance(both, Outcome)
    assert both.cut


def test_the_dialogues_of_several_relays_stand_one_behind_the_other() -> None:
    one, two = (Outcome(results={r: TempFailed("no")}, relay=r, dialogue=f"S: {r}") for r in "ab")
    both = merged([(["a"], one), (["b"], two)])

    assert isinstance(both, Outcome)
    assert both.dialogue == "S: a\nS: b"


def test_a_chain_tells_what_each_of_its_relays_said() -> None:
    with SMTPSink() as first, SMTPSink() as second:
        first.on("rcpt", reply="450 4.7.1 not now")
        second.on("rcpt", reply="451 4.3.0 me neither")
        chain = ChainTransport(SMTPTransport(first.host, first.port), SMTPTransport(second.host, second.port))
        outcome = chain.deliver(message(), ["ann@example.org"])
        chain.close()

    assert outcome.dialogue.index("450 4.7.1 not now") < outcome.dialogue.index("451 4.3.0 me neither")
