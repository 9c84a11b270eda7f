"""ChainTransport: what one relay cannot deliver now, the next one may; and nobody gets it from two."""

import contextlib
import datetime as dt
import random
from collections.abc import Sequence

import attrs
import pytest
from relays import Relay, a_message

from outbox.errors import ConfigurationError, RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.lifecycle import Fate
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.protocols import Transport
from outbox.relay.admission import lasting
from outbox.retry import RetryPolicy
from outbox.stores.memory import MemoryStore
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.chain import ChainTransport
from outbox.transports.route import RouteTransport
from outbox.transports.smtp import SMTPTransport

ANN, BOB, EVE = "ann@a.example", "bob@b.example", "eve@e.example"
BUSY = TempFailed("451 busy")
NO_USER = PermFailed("550 no such user")
TOO_BIG = PermFailed("not sent: the server takes 1000 at most", by_us=True)
CUT = Uncertain("the connection was lost after the dot")
A_PAUSE = lasting(5 * random.Random(1).uniform(0.8, 1.2))
MINUTE = dt.timedelta(minutes=1)
CLOCK = ManualClock()


def down(name: str = "a:25") -> RelayUnavailable:
    return RelayUnavailable(name, "connection refused")


def chain(*transports: Transport, after_refusal: bool = False, clock: ManualClock = CLOCK) -> ChainTransport:
    return ChainTransport(*transports, after_refusal=after_refusal, clock=clock, rng=random.Random(1))


def deliver(transport: Transport, *recipients: str, id: str = "m1") -> Outcome:
    message = a_message(*recipients, id=id)
    return transport.deliver(message, message.recipients)


# --- who goes on to the next relay ---------------------------------------------------------------


def test_the_second_relay_sees_nothing_of_what_the_first_one_took() -> None:
    first, second = Relay("a:25"), Relay("b:25")
    outcome = deliver(chain(first, second), ANN, BOB)

    assert outcome == Outcome.same([ANN, BOB], Accepted("250 ok"), relay="a:25")
    assert second.seen == []


def test_a_relay_that_cannot_be_used_is_replaced_by_the_next() -> None:
    second = Relay("b:25")
    outcome = deliver(chain(Relay("a:25", down()), second), ANN, BOB)

    assert outcome == Outcome.same([ANN, BOB], Accepted("250 ok"), relay="b:25")
    assert second.seen == [(ANN, BOB)]


@pytest.mark.parametrize(
    ("first", "goes_on"),
    [(BUSY, True), (Untried(), True), (TOO_BIG, True), (Accepted(), False), (NO_USER, False), (CUT, False)],
    ids=["put off", "untried", "not to be carried", "accepted", "refused", "uncertain"],
)
def test_only_whom_another_relay_could_mend_goes_on(first: Result, goes_on: bool) -> None:
    second = Relay("b:25")
    outcome = deliver(chain(Relay("a:25", answers={ANN: first}), second), ANN, BOB)

    assert second.seen == ([(ANN,)] if goes_on else [])
    assert goes_on or outcome.results[ANN] == first
    assert not goes_on or isinstance(outcome.results[ANN], Accepted)


def test_whom_the_relay_s_fault_left_out_goes_on_and_the_others_do_not() -> None:
    first = Relay("a:25", answers={BOB: Untried(), EVE: CUT}, fault=down())
    second = Relay("b:25")
    outcome = deliver(chain(first, second), ANN, BOB, EVE)

    assert second.seen == [(BOB,)]
    assert [type(outcome.results[r]) for r in (ANN, BOB, EVE)] == [Accepted, Accepted, Uncertain]
    assert outcome.fault is None


def test_whom_a_relay_says_nothing_of_may_have_it_and_goes_no_further() -> None:
    class Silent(Relay):
        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            return Outcome(results={}, relay=self.name)

    second = Relay("b:25")
    outcome = deliver(chain(Silent("a:25"), second), ANN)

    assert isinstance(outcome.results[ANN], Uncertain)
    assert second.seen == []


def test_a_relay_that_answers_with_no_outcome_may_have_sent_and_is_the_last() -> None:
    class Odd(Relay):
        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            return None  # type: ignore[return-value]  # what a stranger's transport may do

    second = Relay("b:25")

    assert isinstance(deliver(chain(Odd("a:25"), second), ANN).results[ANN], Uncertain)
    assert second.seen == []


def test_an_exception_of_the_first_counts_as_it_does_everywhere_and_the_next_is_tried() -> None:
    outcome = deliver(chain(Relay("a:25", OSError("no file left")), Relay("b:25")), ANN)

    assert isinstance(outcome.results[ANN], Accepted)


def test_an_interrupt_ends_the_delivery_and_leaves_no_probe_behind() -> None:
    clock = ManualClock()
    first, second = Relay("a:25", down()), Relay("b:25")
    both = chain(first, second, clock=clock)
    deliver(both, ANN)
    clock.advance(MINUTE)
    first.answer = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        deliver(both, ANN, id="m2")
    first.answer = Accepted()

    deliver(both, ANN, id="m3")

    assert (len(first.seen), len(second.seen)) == (3, 1)


# --- what comes of those whom nobody took --------------------------------------------------------


def test_a_later_refusal_is_final() -> None:
    outcome = deliver(chain(Relay("a:25", BUSY), Relay("b:25", NO_USER)), ANN)

    assert isinstance(outcome.results[ANN], PermFailed)


def test_put_off_by_all_he_waits_as_long_as_the_most_patient_asked() -> None:
    relays = [Relay("a:25", TempFailed("451 a", 5 * MINUTE)), Relay("b:25", TempFailed("451 b", MINUTE))]
    result = deliver(chain(*relays), ANN).results[ANN]

    assert isinstance(result, TempFailed)
    assert result.retry_after == 5 * MINUTE


def test_a_fault_of_the_last_relay_does_not_hide_that_he_was_put_off() -> None:
    outcome = deliver(chain(Relay("a:25", BUSY), Relay("b:25", down("b:25"))), ANN)

    assert outcome == Outcome.same([ANN], BUSY, relay="a:25")


def test_where_no_relay_can_be_used_the_fault_names_them_all() -> None:
    with pytest.raises(RelayUnavailable, match=r"a:25: connection refused; b:25: bad password") as caught:
        deliver(chain(Relay("a", down("a:25")), Relay("b", RelayMisconfigured("b:25", "bad password"))), ANN)

    assert caught.value.relay == "a:25, b:25"


def test_only_a_person_can_mend_it_where_that_holds_for_every_relay() -> None:
    first, second = (Relay(n, RelayMisconfigured(n, "bad password")) for n in ("a:25", "b:25"))

    with pytest.raises(RelayMisconfigured):
        deliver(chain(first, second), ANN)


def test_what_is_known_of_somebody_is_reported_with_the_fault_that_kept_the_rest() -> None:
    first = Relay("a:25", answers={BOB: Untried()}, fault=down())
    outcome = deliver(chain(first, Relay("b:25", down("b:25"))), ANN, BOB)

    assert outcome.results == {ANN: Accepted("250 ok"), BOB: Untried()}
    assert outcome.fault is not None
    assert outcome.fault.relay == "a:25, b:25"


# --- who took it ---------------------------------------------------------------------------------


def test_each_reply_names_the_relay_that_gave_it_and_what_was_said_before() -> None:
    outcome = deliver(chain(Relay("a:25", answers={BOB: BUSY}), Relay("b:25")), ANN, BOB)

    assert outcome.relay == "a:25, b:25"
    assert outcome.results == {
        ANN: Accepted("a:25: 250 ok"),
        BOB: Accepted("b:25: 250 ok; before that a:25: 451 busy"),
    }


def test_the_record_tells_which_relay_took_each_recipient() -> None:
    store = MemoryStore(keep_delivered=MINUTE)
    outbox = Outbox(store, chain(Relay("a:25", answers={BOB: BUSY}), Relay("b:25")))
    outbox.submit(a_message(ANN, BOB))
    outbox.drain()
    record = store.get("m1")

    assert record is not None
    (attempt,) = record.history
    replies = [r.reply for r in attempt.results.values() if isinstance(r, Accepted)]
    assert attempt.relay == "a:25, b:25"
    assert replies == ["a:25: 250 ok", "b:25: 250 ok; before that a:25: 451 busy"]


# --- refusals, when asked ------------------------------------------------------------------------


def test_a_refusal_goes_on_where_that_was_asked_for() -> None:
    second = Relay("b:25")
    outcome = deliver(chain(Relay("a:25", NO_USER), second, after_refusal=True), ANN)

    assert isinstance(outcome.results[ANN], Accepted)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ((NO_USER, NO_USER), PermFailed),
        ((NO_USER, BUSY), TempFailed),
        ((BUSY, NO_USER), TempFailed),
        ((NO_USER, CUT), Uncertain),
    ],
)
def test_such_a_refusal_is_final_where_all_refuse(answers: tuple[Result, Result], kind: type[Result]) -> None:
    relays = [Relay(name, answer) for name, answer in zip(("a:25", "b:25"), answers, strict=True)]

    assert isinstance(deliver(chain(*relays, after_refusal=True), ANN).results[ANN], kind)


def test_whom_one_refused_while_another_is_down_is_not_given_up() -> None:
    first, second = Relay("a:25", answers={ANN: NO_USER}), Relay("b:25", down("b:25"))
    outcome = deliver(chain(first, second, after_refusal=True), ANN, BOB)

    assert outcome.results[ANN] == Untried(
        "b:25: connection refused; before that a:25: 550 no such user", A_PAUSE
    )
    assert outcome.fault is None


# --- what a relay cannot carry -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "kind", "by_us"),
    [
        ((TOO_BIG, TOO_BIG), PermFailed, True),
        ((TOO_BIG, NO_USER), PermFailed, False),
        ((NO_USER, TOO_BIG), PermFailed, False),
        ((BUSY, TOO_BIG), TempFailed, False),
        ((TOO_BIG, BUSY), TempFailed, False),
        ((TOO_BIG, CUT), Uncertain, False),
    ],
)
def test_what_a_relay_cannot_carry_is_final_where_none_can(
    answers: tuple[Result, Result], kind: type[Result], by_us: bool
) -> None:
    relays = [Relay(name, answer) for name, answer in zip(("a:25", "b:25"), answers, strict=True)]
    result = deliver(chain(*relays), ANN).results[ANN]

    assert isinstance(result, kind)
    assert getattr(result, "by_us", False) is by_us


def test_what_one_relay_cannot_carry_waits_for_another_that_is_down() -> None:
    first, second = Relay("a:25", answers={ANN: TOO_BIG}), Relay("b:25", down("b:25"))
    outcome = deliver(chain(first, second), ANN, BOB)

    assert isinstance(outcome.results[ANN], Untried)


@pytest.mark.parametrize("first_is_down", [False, True])
@pytest.mark.parametrize("refusal", [TOO_BIG, NO_USER], ids=["too big", "refused"])
def test_mail_that_only_a_relay_that_is_down_could_take_holds_up_no_other(
    refusal: PermFailed, first_is_down: bool
) -> None:
    well = Relay("a:25", answers={BOB: refusal})
    relays = [well, Relay("b:25", down("b:25"))]
    store = MemoryStore()
    both = chain(*(relays[::-1] if first_is_down else relays), after_refusal=True)
    outbox = Outbox(store, both, retry=RetryPolicy(attempts=1))
    outbox.submit_many([a_message(BOB, id=f"big{n}") for n in range(5)])
    outbox.submit_many([a_message(ANN, id=f"small{n}") for n in range(5)])
    tally = outbox.drain()
    waiting = store.get("big4")

    assert (tally.delivered, tally.released, dict(tally.faults)) == (5, 5, {})
    assert waiting is not None
    assert waiting.summary.attempts == 0
    assert "b:25: connection refused; before that a:25: " in waiting.summary.reason


def wait_of(outcome: Outcome) -> dt.timedelta:
    """How long the only recipient of *outcome*, who was not tried, is asked to wait."""
    (result,) = outcome.results.values()
    assert isinstance(result, Untried)
    assert result.retry_after is not None
    return result.retry_after


def test_such_mail_goes_when_the_relay_is_up_again() -> None:
    clock = ManualClock()
    second = Relay("b:25", down("b:25"))
    both = chain(Relay("a:25", TOO_BIG), second, clock=clock)
    clock.advance(wait_of(deliver(both, BOB)) + MINUTE)
    second.answer = Accepted("250 ok")
    # It met the fault, and lets others go first, once.
    clock.advance(wait_of(deliver(both, BOB)))

    assert isinstance(deliver(both, BOB).results[BOB], Accepted)


def test_a_chain_in_a_chain_says_for_how_long_it_is_without_a_relay_for_a_message() -> None:
    inner = chain(Relay("a:25", TOO_BIG), Relay("b:25", down("b:25")))
    outcome = deliver(chain(inner, Relay("c:25", TOO_BIG)), ANN)

    assert wait_of(outcome) == A_PAUSE
    assert outcome.fault is None


def test_a_chain_of_chains_goes_on_where_none_of_the_first_can_carry_it() -> None:
    small = chain(Relay("a:25", TOO_BIG), Relay("b:25", TOO_BIG))

    assert isinstance(deliver(chain(small, Relay("c:25")), ANN).results[ANN], Accepted)


@pytest.mark.parametrize(
    ("offers", "content", "carries"),
    [
        (("SIZE 100",), b"Subject: a\r\n\r\n" + b"b\r\n" * 100, ("SIZE 1000",)),
        ((), "DKIM-Signature: a\r\n\r\nü\r\n".encode(), ("8BITMIME",)),
    ],
    ids=["too big", "8-bit and signed"],
)
def test_a_mail_that_the_first_server_cannot_be_sent_goes_through_the_second(
    offers: tuple[str, ...], content: bytes, carries: tuple[str, ...]
) -> None:
    message = Message(recipients=[ANN], sender="s@example.org", content=content)
    with SMTPSink(offers=offers) as first, SMTPSink(manners="strict", offers=carries) as second:
        both = chain(*(SMTPTransport(sink.host, sink.port) for sink in (first, second)))
        with contextlib.closing(both):
            result = both.deliver(message, [ANN]).results[ANN]

    assert isinstance(result, Accepted)
    assert f"before that {first.host}:{first.port}: not sent: " in result.reply
    assert second.violations == () == first.messages


# --- a relay that is down ------------------------------------------------------------------------


def test_a_relay_that_failed_is_passed_over_and_tried_again_with_one_message() -> None:
    clock = ManualClock()
    first, second = Relay("a:25", down()), Relay("b:25")
    both = chain(first, second, clock=clock)
    for number in range(3):
        deliver(both, ANN, id=f"m{number}")
    assert (len(first.seen), len(second.seen)) == (1, 3)

    clock.advance(MINUTE)
    first.answer = Accepted()
    for number in range(3, 5):
        deliver(both, ANN, id=f"m{number}")

    assert (len(first.seen), len(second.seen)) == (3, 3)


def test_a_relay_that_cuts_off_three_messages_in_a_row_is_passed_over() -> None:
    class Cutting(Relay):
        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            return attrs.evolve(super().deliver(message, recipients), cut=True)

    first, second = Cutting("a:25", TempFailed("connection lost")), Relay("b:25")
    under_test = chain(first, second)
    for number in range(5):
        deliver(under_test, ANN, id=f"m{number}")

    assert (len(first.seen), len(second.seen)) == (3, 5)


def test_where_all_are_passed_over_all_are_tried() -> None:
    first, second = Relay("a:25", down()), Relay("b:25", down("b:25"))
    both = chain(first, second)
    with pytest.raises(RelayFault):
        deliver(both, ANN)
    second.answer = Accepted("250 ok")

    assert deliver(both, ANN, id="m2").relay == "b:25"
    assert [len(first.seen), len(second.seen)] == [2, 2]


def test_a_relay_that_is_passed_over_does_not_count_as_having_refused() -> None:
    clock = ManualClock()
    first, second = Relay("a:25", down()), Relay("b:25")
    both = chain(first, second, after_refusal=True, clock=clock)
    deliver(both, ANN)
    second.answers = {BOB: NO_USER}
    outcome = deliver(both, ANN, BOB, id="m2")

    assert outcome.results[BOB] == Untried(
        "a:25: connection refused; before that b:25: 550 no such user", A_PAUSE
    )
    assert outcome.fault is None


def test_one_relay_of_a_route_in_a_chain_is_passed_over_alone() -> None:
    bad, good, last = Relay("a:25", down()), Relay("b:25"), Relay("c:25")
    both = chain(RouteTransport(good, domains={"a.example": bad}), last)
    for number in range(2):
        deliver(both, ANN, BOB, id=f"m{number}")

    assert bad.seen == [(ANN,)]
    assert good.seen == [(BOB,), (BOB,)]
    assert last.seen == [(ANN,), (ANN,)]


# --- deadlines -----------------------------------------------------------------------------------


def test_nothing_is_handed_to_another_relay_after_the_message_has_expired() -> None:
    clock = ManualClock()

    class Slow(Relay):
        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            clock.advance(MINUTE)
            return super().deliver(message, recipients)

    second = Relay("b:25")
    message = attrs.evolve(a_message(), expires_at=clock.now() + MINUTE)
    outcome = chain(Slow("a:25", BUSY), second, clock=clock).deliver(message, message.recipients)

    assert outcome.results[message.recipients[0]] == BUSY
    assert second.seen == []


# --- the rest of a transport's life --------------------------------------------------------------


def test_over_a_runner_nobody_who_was_accepted_or_may_have_it_is_handed_over_twice_in_one_attempt() -> None:
    first = Relay("a:25", answers={ANN: BUSY, BOB: CUT})
    second = Relay("b:25", answers={ANN: BUSY})
    store = MemoryStore()
    outbox = Outbox(store, chain(first, second))
    outbox.submit(a_message(ANN, BOB, EVE))
    outbox.drain()
    record = store.get("m1")

    assert record is not None
    assert record.summary.fates == {ANN: Fate.WAITING, BOB: Fate.DOUBTFUL, EVE: Fate.ACCEPTED}
    assert (first.seen, second.seen) == ([(ANN, BOB, EVE)], [(ANN,)])


def test_each_transport_is_closed_even_where_another_fails_to() -> None:
    class Stuck(Relay):
        def close(self) -> None:
            raise OSError("stuck")

    last = Relay("b:25")
    with pytest.raises(OSError, match="stuck"):
        chain(Stuck("a:25"), last).close()

    assert last.closed == 1


def test_idle_connections_of_each_are_closed() -> None:
    relays = Relay("a:25"), Relay("b:25")
    chain(*relays).expire()

    assert [relay.expired for relay in relays] == [1, 1]


@pytest.mark.parametrize("number", [0, 1])
def test_one_transport_is_no_chain(number: int) -> None:
    with pytest.raises(ConfigurationError, match="at least two"):
        ChainTransport(*[Relay("a:25")] * number)


def test_one_transport_twice_is_no_chain() -> None:
    relay = Relay("a:25")
    with pytest.raises(ConfigurationError, match="each once"):
        ChainTransport(relay, relay, Relay("b:25"))


def test_what_is_no_transport_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"'smtp://a' is no transport"):
        ChainTransport(Relay("a:25"), "smtp://a")  # type: ignore[arg-type]  # what a program may do


def test_its_repr_shows_the_order() -> None:
    assert repr(chain(RouteTransport(Relay("a"), queues={"x": Relay("b")}), Relay("c"))).startswith(
        "ChainTransport(RouteTransport("
    )
