"""Several messages over one connection: what is pulled and when, who is told what, and what ends it early."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from outbox.errors import RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.protocols import Delivery, SupportsBatch
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.smtp import SMTPTransport, Timeouts
from outbox.transports.smtp.batch import Courier
from outbox.transports.smtp.connection import Connection
from outbox.transports.smtp.parcel import Parcel
from outbox.transports.smtp.steps import Pour, Step

MOMENT = dt.timedelta(seconds=1)


def message(name: str, *recipients: str, content: bytes = b"Subject: a\r\n\r\nc4narybody\r\n") -> Message:
    return Message(
        recipients=recipients or (f"r{name}@example.org",), content=content, sender=f"{name}@example.org"
    )


def deliveries(number: int) -> list[Delivery]:
    return [Delivery(m, m.recipients) for m in (message(str(n)) for n in range(number))]


def kinds(outcomes: Sequence[Outcome]) -> list[set[type[Result]]]:
    return [{type(result) for result in outcome.results.values()} for outcome in outcomes]


def senders(sink: SMTPSink) -> list[str]:
    return [received.sender.partition("@")[0] for received in sink.messages]


class Pulled(Iterator[Delivery]):
    """Counts what is asked for, and raises where it is told to."""

    def __init__(self, each: Sequence[Delivery], error: BaseException | None = None) -> None:
        self._each = iter(each)
        self._error = error
        self.number = 0

    def __next__(self) -> Delivery:
        found = next(self._each, None)
        if found is None:
            raise self._error or StopIteration
        self.number += 1
        return found


@pytest.fixture
def sink() -> Iterator[SMTPSink]:
    with SMTPSink(manners="strict") as server:
        yield server
        assert not server.violations


@pytest.fixture(params=[True, False], ids=["pipelined", "lock-step"])
def transport(request: pytest.FixtureRequest, sink: SMTPSink) -> Iterator[SMTPTransport]:
    smtp = SMTPTransport(sink.host, sink.port, pipelining=request.param)
    yield smtp
    smtp.close()


@pytest.fixture
def pipelined(sink: SMTPSink) -> Iterator[SMTPTransport]:
    smtp = SMTPTransport(sink.host, sink.port)
    yield smtp
    smtp.close()


def test_it_sends_batches() -> None:
    assert isinstance(SMTPTransport(), SupportsBatch)


def test_a_batch_goes_over_one_connection_that_is_kept(sink: SMTPSink, transport: SMTPTransport) -> None:
    outcomes = list(transport.deliver_many(deliveries(20)))
    outcomes += transport.deliver_many(deliveries(2))

    assert kinds(outcomes) == [{Accepted}] * 22
    assert len(sink.messages) == 22
    assert sink.connections == 1


def test_at_most_one_is_pulled_ahead(transport: SMTPTransport) -> None:
    pulled = Pulled(deliveries(5))
    ahead = [pulled.number - told for told, _ in enumerate(transport.deliver_many(pulled), 1)]

    assert ahead == ([1, 1, 1, 1, 0] if transport._terms.pipelining else [0] * 5)


def test_nothing_is_pulled_before_it_is_asked_for(transport: SMTPTransport) -> None:
    pulled = Pulled(deliveries(2))
    batch = transport.deliver_many(pulled)
    batch.close()

    assert pulled.number == 0


def test_the_next_is_handed_over_when_it_is_asked_for_and_not_before(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    batch = transport.deliver_many(deliveries(3))
    for number in range(1, 4):
        next(batch)
        assert len(sink.messages) == number
    batch.close()


def test_abandoned_it_closes_the_connection_and_what_was_not_told_of_was_not_sent(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    batch = transport.deliver_many(deliveries(5))
    next(batch)
    next(batch)
    batch.close()
    list(transport.deliver_many(deliveries(1)))

    assert senders(sink) == ["0", "1", "0"]
    assert sink.connections == 2
    # The third has been named to a server that had offered PIPELINING, and no more.
    assert sum(command.startswith("MAIL") for command in sink.commands) == 3 + transport._terms.pipelining


def test_what_is_thrown_into_it_leaves_no_connection_in_the_middle_of_a_message(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    batch = transport.deliver_many(deliveries(3))
    next(batch)
    with pytest.raises(RelayUnavailable):
        batch.throw(RelayUnavailable("elsewhere:25", "thrown in"))
    outcomes = list(transport.deliver_many(deliveries(1)))

    assert kinds(outcomes) == [{Accepted}]
    assert senders(sink) == ["0", "0"]
    assert sink.connections == 1 + transport._terms.pipelining


def test_deliveries_that_raise_end_it_when_all_that_was_handed_over_has_been_told_of(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    outcomes: list[Outcome] = []
    with pytest.raises(LookupError, match="no more"):
        outcomes.extend(transport.deliver_many(Pulled(deliveries(3), LookupError("no more"))))

    assert len(outcomes) == len(sink.messages) == (2 if transport._terms.pipelining else 3)
    list(transport.deliver_many(deliveries(1)))
    assert kinds(outcomes) == [{Accepted}] * len(outcomes)


def test_deliveries_that_raise_hide_no_part_of_a_message_that_was_handed_over(
    sink: SMTPSink, pipelined: SMTPTransport
) -> None:
    large = message("0", *(f"r{n}@example.org" for n in range(150)))
    batch = pipelined.deliver_many(Pulled([Delivery(large, large.recipients)], LookupError("no more")))
    outcome = next(batch)
    with pytest.raises(LookupError, match="no more"):
        next(batch)

    assert [type(result) for result in outcome.results.values()] == [Accepted] * 100 + [Untried] * 50
    assert len(sink.messages) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("then", ["next", "close"])
def test_an_interrupt_behind_the_dot_is_raised_when_the_doubt_has_been_told(
    sink: SMTPSink,
    transport: SMTPTransport,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    then: str,
) -> None:
    genuine = Connection._perform
    poured = itertools.count(1)

    def interrupted(self: Connection, action: Any) -> Any:
        answer = genuine(self, action)
        if isinstance(action, Pour) and next(poured) == 2:
            raise error
        return answer

    monkeypatch.setattr(Connection, "_perform", interrupted)
    batch = transport.deliver_many(deliveries(4))
    outcomes = [next(batch), next(batch)]
    with pytest.raises(error):
        batch.close() if then == "close" else next(batch)

    assert kinds(outcomes) == [{Accepted}, {Uncertain}]
    assert list(batch) == []
    sink.wait_for(2)
    assert senders(sink) == ["0", "1"]


@pytest.mark.parametrize("then", ["next", "close"])
def test_an_interrupt_behind_the_reply_to_the_dot_is_raised_when_the_outcome_has_been_told(
    sink: SMTPSink, transport: SMTPTransport, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    genuine = Courier.carry

    def interrupted(self: Courier, parcel: Parcel) -> None:
        genuine(self, parcel)
        raise KeyboardInterrupt

    monkeypatch.setattr(Courier, "carry", interrupted)
    batch = transport.deliver_many(deliveries(2))
    outcomes = [next(batch)]
    with pytest.raises(KeyboardInterrupt):
        batch.close() if then == "close" else next(batch)

    assert kinds(outcomes) == [{Accepted}]
    assert senders(sink) == ["0"]


def test_an_interrupt_before_the_results_were_noted_forgets_none(
    sink: SMTPSink, transport: SMTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = Parcel.note
    interrupts = iter([KeyboardInterrupt])

    def interrupted(self: Parcel) -> None:
        for interrupt in interrupts:
            raise interrupt
        genuine(self)

    monkeypatch.setattr(Parcel, "note", interrupted)
    batch = transport.deliver_many(deliveries(2))
    outcomes = [next(batch)]
    with pytest.raises(KeyboardInterrupt):
        next(batch)

    assert kinds(outcomes) == [{Accepted}]


def test_an_exception_makes_no_failure_of_what_was_accepted_before(
    sink: SMTPSink, transport: SMTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = Courier._open
    opened = itertools.count(1)

    def failing(self: Courier, parcel: Parcel) -> Any:
        if next(opened) == 2:
            raise MemoryError
        return genuine(self, parcel)

    monkeypatch.setattr(Courier, "_open", failing)
    large = message("0", *(f"r{n}@example.org" for n in range(150)))
    results = list(transport.deliver(large, large.recipients).results.values())

    assert [type(result) for result in results] == [Accepted] * 100 + [TempFailed] * 50
    assert "MemoryError" in str(results[-1])


def test_an_exception_behind_the_dot_leaves_a_doubt_and_no_failure(
    sink: SMTPSink, transport: SMTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = Connection._read

    def failing(self: Connection, step: Step) -> Any:
        if step is Step.DOT:
            raise OverflowError
        return genuine(self, step)

    monkeypatch.setattr(Connection, "_read", failing)
    sent = message("0")

    assert kinds([transport.deliver(sent, sent.recipients)]) == [{Uncertain}]


def test_an_interrupt_of_one_delivery_is_raised_whatever_is_known(
    transport: SMTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Connection, step: Step) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "_read", interrupted)
    sent = message("0")
    with pytest.raises(KeyboardInterrupt):
        transport.deliver(sent, sent.recipients)


def test_a_relay_fault_of_the_deliveries_themselves_leaves_no_connection_in_the_middle_of_a_message(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    pulled = Pulled(deliveries(1), RelayUnavailable("elsewhere:25", "mine"))
    with pytest.raises(RelayUnavailable, match="mine"):
        list(transport.deliver_many(pulled))
    sent = message("1")
    outcome = transport.deliver(sent, sent.recipients)

    assert kinds([outcome]) == [{Accepted}]
    # In lock-step nothing is pulled ahead, and the first was delivered.
    assert senders(sink) == (["1"] if transport._terms.pipelining else ["0", "1"])
    assert sink.connections == 1


def test_where_the_dot_is_not_answered_the_others_are_delivered_and_once(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    sink.on("dot", "1@example.org", close=True, times=1)
    outcomes = list(transport.deliver_many(deliveries(4)))

    assert kinds(outcomes) == [{Accepted}, {Uncertain}, {Accepted}, {Accepted}]
    assert senders(sink) == ["0", "1", "2", "3"]
    assert sink.connections == 2


def test_a_relay_that_cannot_be_reached_any_more_ends_it(sink: SMTPSink, transport: SMTPTransport) -> None:
    sink.on("connect", reply="220 once", times=1)
    sink.on("connect", reply="421 4.3.2 not again", close=True)
    sink.on("dot", "1@example.org", close=True, times=1)
    outcomes: list[Outcome] = []
    with pytest.raises(RelayUnavailable, match="421"):
        outcomes.extend(transport.deliver_many(deliveries(4)))

    assert kinds(outcomes) == [{Accepted}, {Uncertain}]
    assert senders(sink) == ["0", "1"]


def test_a_server_that_wants_a_login_for_one_of_them_ends_it(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    sink.on("mail", "1@example.org", reply="530 5.7.0 authentication required")
    outcomes: list[Outcome] = []
    with pytest.raises(RelayMisconfigured, match="530"):
        outcomes.extend(transport.deliver_many(deliveries(3)))

    assert kinds(outcomes) == [{Accepted}]
    assert senders(sink) == ["0"]
    list(transport.deliver_many(deliveries(1)))
    # Asked again over another connection, which is kept.
    assert sink.connections == 2


def test_what_cannot_be_sent_at_all_is_told_of_in_its_place(sink: SMTPSink, transport: SMTPTransport) -> None:
    each = deliveries(4)
    for place, bad in [(0, message("0", "a>b@example.org")), (2, message("2", content=b"a\nb"))]:
        each[place] = Delivery(bad, bad.recipients)
    outcomes = list(transport.deliver_many(each))

    assert kinds(outcomes) == [{PermFailed}, {Accepted}, {PermFailed}, {Accepted}]
    assert senders(sink) == ["1", "3"]


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize(("reply", "result"), [("451 not now", TempFailed), ("554 never", PermFailed)])
def test_a_refusal_is_its_own_messages(
    sink: SMTPSink, transport: SMTPTransport, step: Any, reply: str, result: type[Result]
) -> None:
    sink.on(step, lambda address: address in ("1@example.org", "r1@example.org"), reply=reply)
    outcomes = list(transport.deliver_many(deliveries(4)))

    assert kinds(outcomes) == [{Accepted}, {result}, {Accepted}, {Accepted}]
    assert senders(sink) == ["0", "2", "3"]


def test_the_connection_is_changed_in_the_middle_when_it_has_carried_enough(sink: SMTPSink) -> None:
    transport = SMTPTransport(sink.host, sink.port, max_messages=2)
    outcomes = list(transport.deliver_many(deliveries(5)))
    transport.close()

    assert kinds(outcomes) == [{Accepted}] * 5
    assert [received.connection for received in sink.messages] == [1, 1, 2, 2, 3]


def test_a_server_is_sent_no_more_over_a_connection_than_it_said() -> None:
    with SMTPSink(offers=("PIPELINING", "LIMITS MAILMAX=2 RCPTMAX=3"), max_recipients=3) as sink:
        transport = SMTPTransport(sink.host, sink.port)
        list(transport.deliver_many(deliveries(3)))
        for _ in range(2):
            transport.deliver(deliveries(1)[0].message, deliveries(1)[0].recipients)
        large = message("large", *(f"r{n}@example.org" for n in range(8)))
        transport.deliver(large, large.recipients)
        transport.close()

        assert [received.connection for received in sink.messages] == [1, 1, 2, 2, 3, 3, 4, 4]
        assert [len(received.recipients) for received in sink.messages] == [1, 1, 1, 1, 1, 3, 3, 2]
        assert sum(command.startswith("RCPT") for command in sink.commands) == 13


def test_a_server_that_takes_so_many_over_a_connection_is_sent_the_rest_of_a_batch_over_new_ones(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    for number in (1, 2, 3):
        sink.on("mail", skip=2, connection=number, reply="452 4.5.3 too many messages")
    outcomes = list(transport.deliver_many(deliveries(5)))

    assert kinds(outcomes) == [{Accepted}] * 5
    assert [received.connection for received in sink.messages] == [1, 1, 2, 2, 3]


def test_nobody_is_refused_by_a_reply_too_many_before_a_421(sink: SMTPSink, pipelined: SMTPTransport) -> None:
    sent = message("0", *(f"{name}@example.org" for name in "abcd"))
    sink.on("rcpt", "a@example.org", reply=b"250 ok\r\n550 and more\r\n", times=1)
    sink.on("rcpt", "d@example.org", reply="421 leaving", close=True, times=1)
    outcome = pipelined.deliver(sent, sent.recipients)

    # Whom the reply hit was asked for again, one command at a time.
    assert [type(result) for result in outcome.results.values()] == [
        TempFailed,
        Accepted,
        TempFailed,
        TempFailed,
    ]
    assert not outcome.cut


def test_a_server_that_leaves_when_it_has_refused_so_many_ends_no_mailing(sink: SMTPSink) -> None:
    """Postfix leaves at the twentieth error: were they only doubted, nobody behind them would be asked for."""
    sent = message("0", *(f"no{n}@example.org" for n in range(5)), "yes@example.org")
    for connection in (1, 2, 3):
        sink.on("rcpt", lambda to: "no" in to, connection=connection, reply="550 who?", times=3)
        sink.on("rcpt", lambda to: "no" in to, connection=connection, reply="421 too many errors", close=True)
    with contextlib.closing(SMTPTransport(sink.host, sink.port)) as transport:
        results = transport.deliver(sent, sent.recipients).results

    assert [type(result) for result in results.values()] == [PermFailed] * 5 + [Accepted]


def test_many_recipients_and_many_messages_go_in_few_writes(
    sink: SMTPSink, pipelined: SMTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content of one chunk and the names of the next go together, within a message and from one to the next."""
    actions: list[Any] = []
    genuine = Connection._perform

    def noted(self: Connection, action: Any) -> Any:
        actions.append(action)
        return genuine(self, action)

    monkeypatch.setattr(Connection, "_perform", noted)
    large = [message(str(n), *(f"r{m}@example.org" for m in range(250))) for n in range(2)]
    outcomes = list(pipelined.deliver_many(Delivery(m, m.recipients) for m in large))

    assert kinds(outcomes) == [{Accepted}] * 2
    assert [len(received.recipients) for received in sink.messages] == [100, 100, 50] * 2
    writes = [
        type(action).__name__ for action in actions if getattr(action, "step", None) in (None, Step.MAIL)
    ]
    assert [name for name in writes if name in ("Write", "Pour")] == ["Write"] + ["Pour"] * 6


def test_a_server_that_reads_on_when_its_answers_are_read_is_not_waited_for(
    sink: SMTPSink, transport: SMTPTransport
) -> None:
    """Its answers are larger than what the kernel keeps of them: nobody must wait to write while it does."""
    sink.on("rcpt", reply="\n".join(["250-" + "o" * 500] * 60 + ["250 ok"]))
    outcomes = list(
        transport.deliver_many(
            Delivery(m, m.recipients)
            for m in [message(str(n), *(f"r{m}@example.org" for m in range(90))) for n in range(2)]
        )
    )

    assert kinds(outcomes) == [{Accepted}] * 2


def test_a_silent_server_costs_one_message_its_time_and_no_other(sink: SMTPSink) -> None:
    sink.on("data", "1@example.org", times=1)
    transport = SMTPTransport(sink.host, sink.port, timeouts=Timeouts(data=MOMENT))
    outcomes = list(transport.deliver_many(deliveries(3)))
    transport.close()

    assert kinds(outcomes) == [{Accepted}, {TempFailed}, {Accepted}]


def test_over_lmtp_no_answer_to_the_next_envelope_is_taken_for_one_that_is_missing() -> None:
    """The server answers for one of two; what it would say to a MAIL behind the content would be the other's."""
    with SMTPSink(protocol="lmtp") as server:
        server.on("dot", "b@example.org", reply=b"", times=1)
        transport = SMTPTransport(
            server.host, server.port, protocol="lmtp", security="none", timeouts=Timeouts(dot=MOMENT)
        )
        sent = [message("0", "a@example.org", "b@example.org"), message("1")]
        outcomes = list(transport.deliver_many(Delivery(m, m.recipients) for m in sent))
        transport.close()

    assert [type(result) for result in outcomes[0].results.values()] == [Accepted, Uncertain]
    assert kinds(outcomes[1:]) == [{Accepted}]
