"""Whatever a server says and however it says it: the transport reports what is so, ends, and does not grow."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import closing

import pytest
from hypothesis import example, given, settings, strategies as st
from smtp_fuzz_target import NEXT, SEEDS, WORDS, Broken, play

from outbox.errors import RelayFault
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed
from outbox.testing.smtp_script import Step
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp import SMTPTransport

PATIENCE = 60.0
SOON = dt.timedelta(milliseconds=300)
MOST = 1 << 20

OK, GO = b"250 2.0.0 ok\r\n", b"354 go on\r\n"
REPLIES = st.sampled_from(
    [
        *[OK] * 4,
        GO,
        b"250-mx\r\n250-PIPELINING\r\n250 SIZE\r\n",
        b"250-mx\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN\r\n",
        b"421 4.3.2 leaving\r\n",
        b"450 4.2.1 later\r\n",
        b"452 4.5.3 too many\r\n",
        b"550 5.1.1 no\r\n",
        b"552 too much\r\n",
        b"530 5.7.0 who are you\r\n",
        b"334 more\r\n",
        b"250-a\r\n550 b\r\n",
        b"99 no\r\n",
        b"2",
        b"",
    ]
)
PIECES = st.lists(
    st.one_of(
        REPLIES, st.lists(REPLIES, max_size=5).map(b"".join), st.sampled_from(WORDS), st.binary(max_size=30)
    ),
    max_size=16,
)


@example(first=0, second=0, pieces=[b"220 mx\r\n", OK, OK, OK, GO, OK])
@settings(deadline=None, max_examples=150)
@given(first=st.integers(0, 127), second=st.integers(0, 31), pieces=PIECES)
def test_what_is_reported_was_said(first: int, second: int, pieces: list[bytes]) -> None:
    play(bytes([first, second]) + NEXT.join([b"220 mx\r\n", *pieces]))


@pytest.mark.parametrize("number", range(len(SEEDS)))
def test_what_the_search_begins_with_holds(number: int) -> None:
    assert play(SEEDS[number])


def test_together_they_reach_every_kind_of_result() -> None:
    reached = set[str]().union(*map(play, SEEDS))

    assert reached >= {"Accepted", "TempFailed", "PermFailed", "Uncertain", "RelayUnavailable"}


def lying(result: object) -> Callable[..., Outcome]:
    def deliver(_: SMTPTransport, message: Message, recipients: Iterable[str]) -> Outcome:
        return Outcome(results=dict.fromkeys(recipients, result))  # type: ignore[arg-type]  # of any kind

    return deliver


@pytest.mark.parametrize("result", [Accepted("250 ok"), PermFailed("550 no")])
def test_a_transport_that_says_what_is_not_so_is_found_out(
    result: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SMTPTransport, "deliver", lying(result))

    with pytest.raises(Broken, match="was told"):
        play(SEEDS[0])


def delivered(sink: SMTPSink, timeout: dt.timedelta = SOON) -> Outcome | RelayFault:
    """What comes of one message, in a thread that is not waited for longer than patience lasts."""
    message = Message(
        sender="s@example.org", recipients=["r@example.org"], content=b"Subject: x\r\n\r\n" * 2000
    )
    came: list[Outcome | RelayFault] = []

    def deliver() -> None:
        with closing(SMTPTransport(sink.host, sink.port, timeout=timeout)) as transport:
            try:
                came.append(transport.deliver(message, message.recipients))
            except RelayFault as fault:
                came.append(fault)

    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert came, "it hangs, or raised what it may not raise"
    return came[0]


STEPS: list[Step] = ["connect", "ehlo", "mail", "rcpt", "data", "content", "dot"]
FLOODS = {
    "a line": b"2" * 65536,
    "a reply": b"250-and more\r\n" * 4000,
    "replies": OK * 4000,
    "refusals": b"550 5.1.1 no\r\n" * 4000,
    "line ends": b"\r\n" * 30000,
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("flood", FLOODS)
def test_a_server_that_never_stops_speaking_is_left_before_much_was_kept(flood: str, step: Step) -> None:
    with SMTPSink() as sink:
        sink.on(step, reply=itertools.repeat(FLOODS[flood]))
        tracemalloc.start()
        try:
            # Time enough to take much more, where nothing else ends it.
            came = delivered(sink, SOON * 10)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert most < MOST
    accepted = isinstance(came, Outcome) and any(isinstance(r, Accepted) for r in came.results.values())
    # What it says before it has the dot may come when the dot is on its way, and says that it has it.
    assert not accepted or (flood == "replies" and step in ("content", "dot"))


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("drop", [b"2", b"250-a\r\n"], ids=["digits", "lines"])
def test_a_server_that_drips_for_ever_is_left_at_the_deadline_of_the_reply(drop: bytes, step: Step) -> None:
    with SMTPSink() as sink:
        sink.on(step, reply=itertools.repeat(drop), drip=dt.timedelta(milliseconds=20))

        came = delivered(sink)

    assert isinstance(came, RelayFault) or not any(isinstance(r, Accepted) for r in came.results.values())
