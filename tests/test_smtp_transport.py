"""SMTPTransport against a server that fails on demand: what is reported, and that the next message goes through."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from certificates import Authority

from outbox.errors import ConfigurationError, RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.protocols import SupportsIdle, Transport
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_script import Step
from outbox.testing.smtp_sink import Heard, SMTPSink
from outbox.transports.smtp import SMTPTransport, Timeouts
from outbox.transports.smtp.connection import Connection

A, B, C = "a@example.org", "b@example.org", "c@example.org"
CONTENT = b"Subject: a\r\n\r\n.b\r\n"
MOMENT = dt.timedelta(milliseconds=100)


def message(*recipients: str, content: bytes = CONTENT, sender: str = "s@example.org") -> Message:
    return Message(recipients=recipients or (A,), content=content, sender=sender)


def deliver(transport: Transport, sent: Message | None = None) -> Outcome:
    sent = sent or message()
    return transport.deliver(sent, sent.recipients)


@pytest.fixture
def sink() -> Iterator[SMTPSink]:
    with SMTPSink() as server:
        yield server
        assert not server.violations


@pytest.fixture
def transport(sink: SMTPSink) -> Iterator[SMTPTransport]:
    smtp = SMTPTransport(sink.host, sink.port)
    yield smtp
    smtp.close()


def test_it_is_a_transport_that_keeps_connections() -> None:
    smtp: Transport = SMTPTransport()

    assert isinstance(smtp, SupportsIdle)


def test_a_message_arrives_as_it_was_submitted(sink: SMTPSink, transport: SMTPTransport) -> None:
    outcome = deliver(transport, message(A, B))

    assert outcome.results == dict.fromkeys([A, B], Accepted("250 2.0.0 taken"))
    assert outcome.relay == f"{sink.host}:{sink.port}"
    assert outcome.fault is None
    [received] = sink.messages
    assert (received.sender, received.recipients, received.content) == ("s@example.org", (A, B), CONTENT)
    assert received.greeting == "[127.0.0.1]"


def test_only_the_recipients_asked_for_are_named(sink: SMTPSink, transport: SMTPTransport) -> None:
    outcome = transport.deliver(message(A, B, C), [B])

    assert list(outcome.results) == [B]
    assert sink.messages[0].recipients == (B,)


@pytest.mark.parametrize(
    ("content", "arrived"),
    [
        (b"", b""),
        (b".", b".\r\n"),
        (b"a\r\n.\r\nb", b"a\r\n.\r\nb\r\n"),
        (b"..\r\n.", b"..\r\n.\r\n"),
        ("Subject: é\r\n\r\nü".encode(), "Subject: é\r\n\r\nü\r\n".encode()),
        (b"x" * 900 + b"\r\n" + b"\r\n".join([b"." * 70] * 30_000), None),
    ],
    ids=["empty", "dot", "dots", "more dots", "8-bit", "large"],
)
def test_every_content_survives_the_way(
    sink: SMTPSink, transport: SMTPTransport, content: bytes, arrived: bytes | None
) -> None:
    outcome = deliver(transport, message(content=content))

    assert isinstance(outcome.results[A], Accepted)
    assert sink.messages[0].content == (content + b"\r\n" if arrived is None else arrived)


# --- every step, and all that can happen there -------------------------------------------------

LOSSES: dict[str, dict[str, Any]] = {
    "closes": {"close": True},
    "cuts its reply": {"reply": b"250 o", "close": True},
    "says nonsense": {"reply": b"hello\r\n", "close": True},
    "mixes codes": {"reply": b"250-a\r\n550 b\r\n", "close": True},
    "is silent": {},
    "resets": {"close": "reset"},
    "half-closes": {"close": "half"},
    "half-closes within its reply": {"reply": "250 ok", "cut": -1, "close": "half"},
    "never ends its reply": {"reply": itertools.repeat(b"250-more\r\n")},
    "never ends its line": {"reply": itertools.repeat(b"250 more")},
    "drips": {"reply": "250 " + "o" * 100, "drip": dt.timedelta(milliseconds=20)},
}
REFUSALS: dict[str, dict[str, Any]] = {
    "says 421": {"reply": "421 4.3.2 going down", "close": True},
    "says 4xx": {"reply": "451 4.3.0 not now"},
    "says 5xx": {"reply": "554 5.7.1 never"},
    "says 5xx and closes": {"reply": "554 5.7.1 never", "close": True},
}


def expected(step: str, event: str) -> type[Result | RelayFault]:
    if step in ("connect", "ehlo"):
        refused = event.startswith("says 5xx") and not (step == "ehlo" and "closes" in event)
        return RelayMisconfigured if refused else RelayUnavailable
    if event.startswith("says 5xx"):
        return PermFailed
    if event in REFUSALS:
        return TempFailed
    return Uncertain if step in ("content", "dot") else TempFailed


PATIENCE = {"connect": "greeting", "data": "data", "content": "dot", "dot": "dot"}


@pytest.mark.parametrize("event", LOSSES | REFUSALS)
@pytest.mark.parametrize("step", ["connect", "ehlo", "mail", "rcpt", "data", "content", "dot"])
def test_whatever_happens_is_reported_as_what_it_is_and_harms_no_other_message(step: Any, event: str) -> None:
    with SMTPSink() as sink:
        # Who was refused by a server that then went is asked for once more.
        times = 2 if "5xx and" in event and step in ("rcpt", "data") else 1
        sink.on(step, **(LOSSES | REFUSALS)[event], times=times)
        if step == "ehlo":
            sink.on("helo", reply="550 who?", times=1)
        # Only where something is to run out of time there is little of it; what is for every command has to do for
        # those that are answered, too.
        little = {PATIENCE[step]: MOMENT * 3} if step in PATIENCE else {"command": MOMENT * 15}
        timeouts = Timeouts(**little if event in ("is silent", "drips") else {})
        transport = SMTPTransport(sink.host, sink.port, timeouts=timeouts)
        try:
            report: object = deliver(transport).results[A]
        except RelayFault as fault:
            report = fault
        assert type(report) is expected(step, event)

        transport._server = attrs.evolve(transport._server, timeouts=Timeouts())
        assert deliver(transport).results == {A: Accepted("250 2.0.0 taken")}
        transport.close()


@pytest.mark.parametrize("reply", ["250 what?", "354 go on"])
def test_a_reply_that_cannot_be_meant_is_never_taken_for_an_acceptance(
    sink: SMTPSink, transport: SMTPTransport, reply: str
) -> None:
    sink.on("data" if reply.startswith("250") else "dot", reply=reply, close=True)

    assert isinstance(deliver(transport).results[A], TempFailed if reply.startswith("250") else Uncertain)


LARGE = (b"x" * 70 + b"\r\n") * 400_000


def test_an_acceptance_in_the_middle_of_a_large_content_is_not_believed() -> None:
    with SMTPSink() as sink:
        sink.on("content", reply="250 2.0.0 taken already")
        transport = SMTPTransport(sink.host, sink.port)
        outcome = deliver(transport, message(content=LARGE))
        transport.close()

        assert isinstance(outcome.results[A], TempFailed)
        assert sink.messages == ()


def test_a_server_one_answer_behind_refuses_nobody_for_good(sink: SMTPSink, transport: SMTPTransport) -> None:
    """It had answered the last message twice, and says of each step what it thinks of the one before."""
    deliver(transport)
    sink.on("mail", reply="250 taken")
    sink.on("rcpt", A, reply="250 sender ok")
    sink.on("rcpt", B, reply="550 5.1.1 no such user as A")
    sink.on("data", reply="250 B is welcome", close=True)

    outcome = deliver(transport, message(A, B))
    assert {type(result) for result in outcome.results.values()} == {TempFailed}


def test_what_a_used_connection_refuses_for_good_at_mail_is_asked_again_over_a_new_one(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    """The refusal may be a late one of the message before."""
    deliver(transport)
    sink.on("mail", reply="552 5.3.4 too big", times=1)

    assert deliver(transport).results == {A: Accepted("250 2.0.0 taken")}
    assert sink.connections == 2
    sink.on("mail", reply="552 5.3.4 too big")
    assert deliver(transport).results == {A: PermFailed("552 5.3.4 too big")}
    assert sink.connections == 3


@pytest.mark.parametrize("said", ["550 5.1.8 sender refused", "451 4.3.0 too much of it"])
def test_what_mail_was_refused_by_is_no_fault_of_a_relay_that_cannot_be_asked_again(
    sink: SMTPSink, transport: SMTPTransport, said: str
) -> None:
    deliver(transport)
    sink.on("mail", reply=said, times=1)
    sink.on("connect", reply="421 4.7.0 one at a time", close=True, times=1)
    outcome = deliver(transport)

    assert outcome.results == {A: TempFailed(said)}
    assert isinstance(outcome.fault, RelayUnavailable)
    assert f"S: {said}" in outcome.dialogue
    assert "could not be asked again" in outcome.dialogue
    sink.on("mail", reply="550 5.1.8 sender refused")
    assert isinstance(deliver(transport).results[A], PermFailed)


def test_a_server_that_takes_so_many_over_a_connection_is_sent_the_others_over_new_ones(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    """OpenSMTPD answers every further MAIL so, and leaves it to us to go."""
    for number in (1, 2, 3):
        sink.on("mail", skip=2, connection=number, reply="452 4.5.3 too many messages")
    outcomes = [deliver(transport) for _ in range(5)]

    assert [outcome.results for outcome in outcomes] == [{A: Accepted("250 2.0.0 taken")}] * 5
    assert [received.connection for received in sink.messages] == [1, 1, 2, 2, 3]


def test_what_a_connection_cannot_carry_costs_no_other() -> None:
    with (
        SMTPSink(offers=["SIZE 100"]) as sink,
        contextlib.closing(SMTPTransport(sink.host, sink.port)) as transport,
    ):
        outcomes = [deliver(transport, message(content=b"x" * size)) for size in (9, 999, 9)]

    assert [type(outcome.results[A]) for outcome in outcomes] == [Accepted, PermFailed, Accepted]
    assert sink.connections == 1


def test_a_relay_that_puts_off_all_that_comes_is_not_connected_to_for_each(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    deliver(transport)
    sink.on("mail", reply="451 4.3.2 overloaded", times=5)

    # The first is asked twice, over the connection before and over a new one.
    assert [deliver(transport).results for _ in range(4)] == [{A: TempFailed("451 4.3.2 overloaded")}] * 4
    assert deliver(transport).results == {A: Accepted("250 2.0.0 taken")}
    assert sink.connections == 2


def test_a_refusal_in_the_middle_of_a_large_content_is_read() -> None:
    with SMTPSink() as sink:
        sink.on("content", reply="552 5.3.4 too big", close=True)
        transport = SMTPTransport(sink.host, sink.port)
        outcome = deliver(transport, message(content=LARGE))
        transport.close()

    # The server's reset may overtake its reply: then nobody knows why, but everybody that it was not taken.
    assert isinstance(outcome.results[A], PermFailed | TempFailed)


def test_what_was_not_handed_over_whole_is_not_uncertain() -> None:
    with SMTPSink() as sink:
        sink.on("content")
        transport = SMTPTransport(sink.host, sink.port, timeouts=Timeouts(block=MOMENT))
        outcome = deliver(transport, message(content=LARGE))
        transport.close()

    assert outcome.results == {A: TempFailed("connection lost at the content: the server took nothing more")}


def test_each_recipient_has_its_own_fate(sink: SMTPSink, transport: SMTPTransport) -> None:
    sink.on("rcpt", A, reply="550 5.1.1 no such user")
    sink.on("rcpt", B, reply="450 4.7.1 greylisted")

    assert deliver(transport, message(A, B, C)).results == {
        A: PermFailed("550 5.1.1 no such user"),
        B: TempFailed("450 4.7.1 greylisted"),
        C: Accepted("250 2.0.0 taken"),
    }
    assert sink.messages[0].recipients == (C,)


def test_what_cannot_be_named_is_refused_without_a_connection(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    outcome = deliver(transport, message("a>b@example.org", content=b"a\nb"))

    assert isinstance(outcome.results["a>b@example.org"], PermFailed)
    assert sink.connections == 0


# --- many recipients ---------------------------------------------------------------------------


def test_they_go_in_transactions_of_a_hundred_over_one_connection(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    everybody = [f"r{n}@example.org" for n in range(250)]
    outcome = deliver(transport, message(*everybody))

    assert set(outcome.results.values()) == {Accepted("250 2.0.0 taken")}
    assert [len(received.recipients) for received in sink.messages] == [100, 100, 50]
    assert sink.connections == 1


@pytest.mark.parametrize(("pipelining", "asked"), [(False, 26), (True, 40)])
def test_where_the_server_takes_fewer_the_rest_goes_at_once(pipelining: bool, asked: int) -> None:
    everybody = [f"r{n}@example.org" for n in range(25)]
    with SMTPSink(max_recipients=10) as sink:
        transport = SMTPTransport(sink.host, sink.port, pipelining=pipelining)
        outcome = deliver(transport, message(*everybody))
        transport.close()

    assert set(outcome.results.values()) == {Accepted("250 2.0.0 taken")}
    assert [len(received.recipients) for received in sink.messages] == [10, 10, 5]
    # Once it has said how many it takes, it is not asked for more again.
    assert sum(command.startswith("RCPT") for command in sink.commands) == asked


def test_a_relay_that_goes_away_between_two_transactions_leaves_the_rest_untried() -> None:
    everybody = [f"r{n}@example.org" for n in range(150)]
    with SMTPSink() as sink:
        sink.on("connect", reply="220 once", times=1)
        sink.on("connect", reply="421 4.3.2 not again", close=True)
        sink.on("dot", reply="250 taken", close=True, times=1)
        transport = SMTPTransport(sink.host, sink.port)
        outcome = deliver(transport, message(*everybody))
        transport.close()

    assert [type(outcome.results[r]) for r in everybody] == [Accepted] * 100 + [Untried] * 50
    assert isinstance(outcome.fault, RelayUnavailable)


def test_a_connection_lost_in_a_transaction_leaves_the_following_untried(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    everybody = [f"r{n}@example.org" for n in range(150)]
    sink.on("dot", close=True, times=1)
    outcome = deliver(transport, message(*everybody))

    assert [type(outcome.results[r]) for r in everybody] == [Uncertain] * 100 + [Untried] * 50
    assert outcome.fault is None


@pytest.mark.parametrize(("step", "cut"), [("rcpt", True), ("dot", True), ("quit", False)])
def test_an_outcome_says_whether_its_connection_was_lost_in_the_middle(
    sink: SMTPSink, transport: SMTPTransport, step: Step, cut: bool
) -> None:
    sink.on(step, close=True, times=1)

    assert deliver(transport).cut is cut
    assert not deliver(transport).cut, "the next message has a connection of its own"


# --- one connection for many messages ----------------------------------------------------------


def test_a_connection_is_used_again(sink: SMTPSink, transport: SMTPTransport) -> None:
    for _ in range(5):
        deliver(transport)

    assert sink.connections == 1
    assert len(sink.messages) == 5


@pytest.mark.parametrize(
    "rule",
    [{"close": True}, {"reply": "421 4.3.2 idle for too long", "close": True}, {"reply": "421 enough"}],
)
def test_a_connection_that_ended_meanwhile_costs_the_message_nothing(
    sink: SMTPSink, transport: SMTPTransport, rule: dict[str, Any]
) -> None:
    deliver(transport)
    sink.on("mail", **rule, times=1)

    assert deliver(transport).results == {A: Accepted("250 2.0.0 taken")}
    assert sink.connections == 2


@pytest.mark.parametrize("step", ["rcpt", "data", "dot"])
def test_a_server_that_said_it_closes_is_not_used_again(
    sink: SMTPSink, transport: SMTPTransport, step: Any
) -> None:
    """Even where it does not do it."""
    sink.on(step, reply="421 4.3.2 going down", times=1)
    deliver(transport)
    deliver(transport)

    assert sink.connections == 2
    assert [received.connection for received in sink.messages] == [2]


def test_there_is_one_free_try_and_no_second(sink: SMTPSink, transport: SMTPTransport) -> None:
    deliver(transport)
    sink.on("mail", close=True)

    assert isinstance(deliver(transport).results[A], TempFailed)
    assert sink.connections == 2


def test_a_server_that_closed_while_we_rested_is_noticed(sink: SMTPSink, transport: SMTPTransport) -> None:
    sink.on("dot", reply="250 taken, and goodbye", close=True, times=1)
    deliver(transport)

    assert deliver(transport).results == {A: Accepted("250 2.0.0 taken")}
    assert sink.connections == 2
    assert len(sink.messages) == 2


def test_a_reply_too_many_does_not_answer_the_next_message(sink: SMTPSink, transport: SMTPTransport) -> None:
    sink.on("dot", reply=b"250 taken\r\n250 taken twice\r\n", times=1)
    deliver(transport)
    sink.on("mail", reply="550 5.7.1 never", times=1)

    assert deliver(transport).results == {A: PermFailed("550 5.7.1 never")}
    assert sink.connections == 2


def test_a_fault_of_a_fresh_connection_is_the_relays(sink: SMTPSink, transport: SMTPTransport) -> None:
    deliver(transport)
    sink.on("mail", close=True, times=1)
    sink.on("connect", reply="421 4.3.2 going down", close=True)

    with pytest.raises(RelayUnavailable, match=r"421 4\.3\.2 going down"):
        deliver(transport)


class Farewells:
    """A hook that counts who leaves politely, which nobody else waits for."""

    def __init__(self) -> None:
        self._heard = threading.Semaphore(0)

    def __call__(self, heard: Heard) -> None:
        if heard.step == "quit":
            self._heard.release()

    def come(self, number: int) -> bool:
        return all(self._heard.acquire(timeout=60) for _ in range(number))


def test_a_connection_is_replaced_when_it_has_carried_enough() -> None:
    farewells = Farewells()
    with SMTPSink(hook=farewells) as sink:
        transport = SMTPTransport(sink.host, sink.port, max_messages=2)
        for _ in range(5):
            deliver(transport)
        transport.close()

        assert [received.connection for received in sink.messages] == [1, 1, 2, 2, 3]
        assert farewells.come(3)


@pytest.mark.parametrize("worn", ["max_messages", "max_age", "idle", "closed"])
def test_no_outcome_waits_for_a_farewell(worn: str) -> None:
    """Whoever is killed before it is written down sends a second copy."""
    returned, left = threading.Event(), threading.Event()
    prompt: list[bool] = []

    def hook(heard: Heard) -> None:
        if heard.step == "dot" and worn == "closed":
            smtp.close()
        if heard.step == "quit":
            prompt.append(returned.wait(30))
            left.set()

    limits: dict[str, Any] = {"max_messages": 1} if worn == "max_messages" else {worn: dt.timedelta(0)}
    with SMTPSink(hook=hook) as sink:
        timeouts = Timeouts(quit=dt.timedelta(minutes=1))
        smtp = SMTPTransport(sink.host, sink.port, timeouts=timeouts, **({} if worn == "closed" else limits))
        assert deliver(smtp).results == {A: Accepted("250 2.0.0 taken")}
        returned.set()
        smtp.close()
        assert left.wait(60)

    assert prompt == [True]


def test_no_delivery_waits_for_the_farewell_of_a_connection_that_has_idled() -> None:
    delivered, left = threading.Event(), threading.Event()
    prompt: list[bool] = []

    def hook(heard: Heard) -> None:
        if heard.step == "quit" and heard.connection == 1:
            prompt.append(delivered.wait(30))
            left.set()

    clock = ManualClock()
    with SMTPSink(hook=hook) as sink:
        transport = SMTPTransport(
            sink.host, sink.port, clock=clock, timeouts=Timeouts(quit=dt.timedelta(minutes=1))
        )
        deliver(transport)
        clock.advance(dt.timedelta(seconds=30))
        assert deliver(transport).results == {A: Accepted("250 2.0.0 taken")}
        delivered.set()
        assert left.wait(60)
        transport.close()

    assert prompt == [True]


def test_what_idles_is_left_when_the_keeper_comes(sink: SMTPSink) -> None:
    clock = ManualClock()
    transport = SMTPTransport(sink.host, sink.port, clock=clock)
    deliver(transport)
    transport.expire()
    assert "QUIT" not in sink.commands
    clock.advance(dt.timedelta(seconds=30))
    transport.expire()

    assert sink.commands.count("QUIT") == 1
    assert deliver(transport).results == {A: Accepted("250 2.0.0 taken")}
    transport.close()


def test_what_idles_does_not_pile_up_where_no_keeper_comes() -> None:
    clock, farewells = ManualClock(), Farewells()
    with SMTPSink(hook=farewells) as sink:
        transport = SMTPTransport(sink.host, sink.port, clock=clock)
        for number in range(3):
            deliver(transport)
            clock.advance(dt.timedelta(seconds=30))
            assert farewells.come(min(number, 1))
        transport.close()

        assert sink.connections == 3
        assert farewells.come(1)


def test_closing_leaves_politely_and_twice_is_harmless(sink: SMTPSink, transport: SMTPTransport) -> None:
    deliver(transport)
    transport.close()
    transport.close()

    assert sink.commands[-1] == "QUIT"


def test_what_is_known_does_not_wait_long_for_a_reset(sink: SMTPSink) -> None:
    sink.on("rcpt", reply="550 5.1.1 no such user", times=2)
    sink.on("rset", times=1)
    transport = SMTPTransport(
        sink.host, sink.port, timeouts=Timeouts(command=dt.timedelta(minutes=5), quit=MOMENT)
    )
    assert deliver(transport).results == {A: PermFailed("550 5.1.1 no such user")}
    assert deliver(transport).results == {A: Accepted("250 2.0.0 taken")}
    transport.close()

    assert sink.connections == 2


def test_a_server_that_does_not_answer_our_leaving_is_left_all_the_same(sink: SMTPSink) -> None:
    sink.on("quit")
    transport = SMTPTransport(sink.host, sink.port, timeouts=Timeouts(quit=MOMENT))
    assert deliver(transport).results == {A: Accepted("250 2.0.0 taken")}
    transport.close()

    assert sink.commands[-1] == "QUIT"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_whatever_is_raised_in_a_transaction_closes_its_connection(
    sink: SMTPSink, transport: SMTPTransport, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    deliver(transport)
    genuine = Connection._read

    def interrupted(self: Connection, step: Any) -> Any:
        reply = genuine(self, step)
        if step.name == "MAIL":
            raise error
        return reply

    monkeypatch.setattr(Connection, "_read", interrupted)
    with pytest.raises(error):
        deliver(transport)
    monkeypatch.undo()

    assert deliver(transport).results == {A: Accepted("250 2.0.0 taken")}
    assert sink.connections == 2
    assert "RSET" not in sink.commands
    assert len(sink.messages) == 2


def test_many_threads_deliver_at_once_each_over_its_own_connection() -> None:
    together = threading.Barrier(4)

    def meet(heard: Heard) -> None:
        if heard.step == "data" and heard.address == "first@example.org":
            together.wait(60)

    with SMTPSink(hook=meet) as sink:
        transport = SMTPTransport(sink.host, sink.port)
        outcomes: list[Outcome] = []

        def work() -> None:
            outcomes.append(deliver(transport, message(sender="first@example.org")))
            outcomes.extend(deliver(transport) for _ in range(25))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        transport.close()

        assert {outcome.results[A] for outcome in outcomes} == {Accepted("250 2.0.0 taken")}
        assert len(sink.messages) == 4 * 26
        assert sink.connections == 4


FORK = """
    import os, sys
    from outbox.message import Message
    from outbox.transports.smtp import SMTPTransport

    def deliver(sender):
        print(transport.deliver(Message(recipients=["a@example.org"], content=b"", sender=sender), ["a@example.org"]).results)

    transport = SMTPTransport(sys.argv[1], int(sys.argv[2]))
    deliver("before@example.org")
    child = os.fork()
    if child == 0:
        deliver("child@example.org")
        transport.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    deliver("parent@example.org")
    transport.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_leaves_its_parents_connection_alone(sink: SMTPSink) -> None:
    program = [sys.executable, "-W", "error", "-c", textwrap.dedent(FORK), sink.host, str(sink.port)]
    subprocess.run(program, check=True, timeout=60)

    assert {received.sender: received.connection for received in sink.messages} == {
        "before@example.org": 1,
        "child@example.org": 2,
        "parent@example.org": 1,
    }


# --- no connection -----------------------------------------------------------------------------


def test_a_port_where_nobody_listens_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(RelayUnavailable, match=f"^127.0.0.1:{port}: cannot connect: ."):
        deliver(SMTPTransport("127.0.0.1", port))


def test_a_name_that_is_unknown_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(RelayUnavailable) as caught:
        deliver(SMTPTransport("mial.example.org"))

    assert str(caught.value) == (
        "mial.example.org:25: cannot connect: "
        "its host name cannot be looked up (Name or service not known): is it spelled right?"
    )


def test_a_servers_words_cannot_steer_a_terminal(sink: SMTPSink, transport: SMTPTransport) -> None:
    sink.on("connect", reply=b"554 \x1b[2Jno\r\n", times=1)
    with pytest.raises(RelayMisconfigured) as caught:
        deliver(transport)

    assert "\x1b" not in str(caught.value)


# --- TLS and credentials -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def secured(security: str, context: ssl.SSLContext, **settings: Any) -> SMTPSink:
    settings[security] = context
    return SMTPSink(**settings)


@pytest.mark.parametrize("security", ["tls", "starttls", "opportunistic"])
def test_mail_goes_under_tls(authority: Authority, security: Any) -> None:
    with secured("tls" if security == "tls" else "starttls", authority.server()) as sink:
        transport = SMTPTransport(sink.host, sink.port, security=security, ssl_context=authority.client())
        deliver(transport)
        deliver(transport)
        transport.close()

        assert [bool(received.tls) for received in sink.messages] == [True, True]
        assert sink.connections == 1
        assert not sink.violations


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.parametrize(
    ("names", "stranger", "word"),
    [
        ((), True, "authority known here"),
        (("mx.example.org",), False, "not for 127.0.0.1"),
        ((), False, "expired"),
    ],
)
def test_a_certificate_that_does_not_hold_is_said_and_nothing_is_sent(
    authority: Authority, security: Any, names: tuple[str, ...], stranger: bool, word: str
) -> None:
    signer = Authority() if stranger else authority
    with secured(security, signer.server(*names, expired="expired" in word)) as sink:
        transport = SMTPTransport(sink.host, sink.port, security=security, ssl_context=authority.client())
        with pytest.raises(RelayMisconfigured, match=word) as caught:
            deliver(transport)

        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert not any(command.startswith("MAIL") for command in sink.commands)


def test_opportunism_asks_for_no_certificate() -> None:
    with SMTPSink(starttls=Authority().server("elsewhere.example.org")) as sink:
        transport = SMTPTransport(sink.host, sink.port, security="opportunistic")
        deliver(transport)
        transport.close()

        assert sink.messages[0].tls


def test_what_was_to_be_secured_is_never_sent_in_clear(sink: SMTPSink) -> None:
    transport = SMTPTransport(sink.host, sink.port, security="starttls")
    with pytest.raises(RelayMisconfigured, match="does not offer STARTTLS"):
        deliver(transport)

    assert sink.commands == ("EHLO [127.0.0.1]",)


def test_tls_to_a_port_that_speaks_in_clear_is_said() -> None:
    with SMTPSink() as sink, pytest.raises(RelayMisconfigured, match="does not speak TLS there"):
        deliver(SMTPTransport(sink.host, sink.port, security="tls"))


def test_bytes_behind_the_go_ahead_to_tls_are_not_taken_over(authority: Authority) -> None:
    with SMTPSink(starttls=authority.server()) as sink:
        sink.on("starttls", reply=b"220 go ahead\r\n250-injected\r\n250 AUTH PLAIN\r\n")
        transport = SMTPTransport(sink.host, sink.port, security="starttls", ssl_context=authority.client())
        with pytest.raises(RelayUnavailable, match="out of turn"):
            deliver(transport)

        assert sink.commands[-1] == "STARTTLS"


@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_credentials_are_sent_under_tls(authority: Authority, security: Any) -> None:
    with secured(security, authority.server(), users={"jürgen": "gehéim"}) as sink:
        transport = SMTPTransport(
            sink.host,
            sink.port,
            security=security,
            username="jürgen",
            password="gehéim",
            ssl_context=authority.client(),
        )
        deliver(transport)
        transport.close()

        assert [received.user for received in sink.messages] == ["jürgen"]
        assert "gehéim" not in repr(transport) + repr(vars(transport))


def test_a_wrong_password_is_the_relays_fault_and_is_not_shown(authority: Authority) -> None:
    with SMTPSink(users={"user": "right"}, tls=authority.server()) as sink:
        transport = SMTPTransport(
            sink.host,
            sink.port,
            security="tls",
            username="user",
            password="wr0ng-c4narypassword",
            ssl_context=authority.client(),
        )
        with pytest.raises(RelayMisconfigured, match="user 'user' was refused by PLAIN: 535") as caught:
            deliver(transport)

        assert caught.value.relay == f"{sink.host}:{sink.port}"
        assert "wr0ng" not in str(caught.value)
        assert sink.commands[-1] == "AUTH PLAIN"


def test_a_server_that_wants_a_login_kills_no_message() -> None:
    with SMTPSink(users={"user": "right"}) as sink:
        transport = SMTPTransport(sink.host, sink.port)
        with pytest.raises(RelayMisconfigured, match=r"530 5\.7\.0 authentication required"):
            deliver(transport)
        transport.close()


def secrets_of(error: BaseException | None) -> str:
    """All that a log which follows every chain could show."""
    shown = ""
    while error is not None:
        shown += repr(error) + str(error) + repr(vars(error)) + repr(getattr(error, "object", ""))
        error = error.__cause__ or error.__context__
    return shown


@pytest.mark.parametrize("password", ["s3cr3t-pä'\\ß", "s3cr3t pw", 's3cr3t"'])
@pytest.mark.parametrize("said", ["what is {}?\r\n", "535-{}\r\n235 x\r\n", "535 {}\r\n"])
def test_a_password_that_a_server_repeats_in_whichever_way_is_not_shown(
    authority: Authority, password: str, said: str
) -> None:
    with SMTPSink(users={"user": "right"}, tls=authority.server()) as sink:
        sink.on("auth", reply=said.format(password).encode(), close=True)
        transport = SMTPTransport(
            sink.host,
            sink.port,
            security="tls",
            username="user",
            password=password,
            ssl_context=authority.client(),
        )
        with pytest.raises(RelayFault) as caught:
            deliver(transport)
        transport.close()

    assert "s3cr3t" not in secrets_of(caught.value)


def test_credentials_that_no_server_can_be_told_are_refused_at_once_and_not_shown() -> None:
    """Bytes of the environment that are no UTF-8 arrive as such characters."""
    for username, password in [("u", "sw\udce9sh"), ("sw\udce9sh", "p")]:
        with pytest.raises(ConfigurationError, match="UTF-8") as caught:
            SMTPTransport(username=username, password=password)

        assert "\\udce9" not in secrets_of(caught.value)


def test_a_server_that_asks_for_a_certificate_of_ours_is_one_for_a_person(authority: Authority) -> None:
    demanding = authority.server()
    demanding.verify_mode = ssl.CERT_REQUIRED
    authority.ca.configure_trust(demanding)
    with SMTPSink(tls=demanding) as sink:
        transport = SMTPTransport(sink.host, sink.port, security="tls", ssl_context=authority.client())
        with pytest.raises(RelayMisconfigured, match="certificate"):
            deliver(transport)


def test_an_address_that_is_not_ours_to_connect_from_is_named(sink: SMTPSink) -> None:
    for source in ("192.0.2.1", "no.such.host.invalid"):
        with pytest.raises(RelayMisconfigured, match=f"source_address '{source}'"):
            deliver(SMTPTransport(sink.host, sink.port, source_address=source))


@pytest.mark.parametrize(
    ("settings", "port"),
    [
        ({}, 25),
        ({"security": "none"}, 25),
        ({"security": "opportunistic"}, 25),
        ({"security": "starttls"}, 587),
        ({"security": "tls"}, 465),
        ({"username": "u", "password": "p"}, 465),
        ({"username": "u", "password": "p", "security": "starttls"}, 587),
        ({"port": 2525, "security": "tls"}, 2525),
    ],
)
def test_the_port_follows_from_the_security(settings: dict[str, Any], port: int) -> None:
    assert f", {port}, " in repr(SMTPTransport("mx.example.org", **settings))


@pytest.mark.parametrize(
    ("port", "credentials", "peer", "channel"),
    [
        (465, False, "127.0.0.1", "tls"),
        (25, False, "127.0.0.1", "none"),
        (25, False, "::1", "none"),
        (25, False, "::ffff:127.0.0.1", "none"),
        (25, True, "127.0.0.1", "starttls"),
        (25, False, "192.0.2.1", "starttls"),
        (587, False, "2001:db8::1", "starttls"),
    ],
)
def test_auto_sends_in_clear_on_this_machine_only(
    port: int, credentials: bool, peer: str, channel: str
) -> None:
    class Connected:
        def getpeername(self) -> tuple[str, int]:
            return (peer, port)

        getsockname = getpeername

    login = {"username": "u", "password": "p"} if credentials else {}
    transport = SMTPTransport("mx.example.org", port, **login)  # type: ignore[arg-type]  # each by its own name
    plan = transport._server.plan(Connected())  # type: ignore[arg-type]  # all that is asked of a socket here

    assert plan.channel == channel


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", b"[192.0.2.1]"),
        ("2001:db8::1", b"[IPv6:2001:db8::1]"),
        ("fe80::1%eth0", b"[IPv6:fe80::1]"),
        ("::ffff:192.0.2.1", b"[192.0.2.1]"),
    ],
)
def test_we_are_called_by_our_address_unless_we_have_a_name(address: str, name: bytes) -> None:
    class Connected:
        def getsockname(self) -> tuple[str, int]:
            return (address, 1)

        getpeername = getsockname

    connected: Any = Connected()

    assert SMTPTransport()._server.plan(connected).name == name
    assert SMTPTransport(local_hostname="www.example.org")._server.plan(connected).name == b"www.example.org"


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"host": ""}, "host"),
        ({"host": "a b"}, "host"),
        ({"host": "a\r\nb"}, "host"),
        ({"host": "a..b"}, "host"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"security": "ssl"}, "security"),
        ({"username": "u"}, "password"),
        ({"password": "p"}, "username"),
        ({"username": "u\0", "password": "p"}, "NUL"),
        ({"username": "u", "password": "p", "security": "none"}, "in clear"),
        ({"username": "u", "password": "p", "security": "opportunistic"}, "in clear"),
        ({"local_hostname": "a b"}, "local_hostname"),
        ({"timeout": dt.timedelta(0)}, "timeout"),
        ({"max_messages": 0}, "max_messages"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(settings: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        SMTPTransport(**settings)


def test_one_timeout_bounds_them_all() -> None:
    bounded = Timeouts(connect=dt.timedelta(seconds=1)).bounded(dt.timedelta(seconds=20))

    assert bounded.connect == dt.timedelta(seconds=1)
    assert bounded.dot == dt.timedelta(seconds=20)
    assert bounded.quit == dt.timedelta(seconds=2)
