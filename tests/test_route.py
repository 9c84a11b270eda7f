"""RouteTransport: each relay is handed its own recipients, and its faults concern nobody else."""

import datetime as dt
import random
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from relays import Relay, a_message
from running import Heard

from outbox.errors import ConfigurationError, RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.events import RelayPaused, RelayResumed
from outbox.lifecycle import Fate, State
from outbox.message import Message
from outbox.naming import fitted
from outbox.outbox import Outbox
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Untried
from outbox.protocols import SupportsRelays, Transport
from outbox.relay import RelayLimits
from outbox.retry import RetryPolicy
from outbox.runner import Runner
from outbox.stores.memory import MemoryStore
from outbox.testing.clock import ManualClock
from outbox.transports.route import RouteTransport

ANN, BOB, EVE = "ann@a.example", "bob@b.example", "eve@e.example"
MINUTE = dt.timedelta(minutes=1)
BUSY = TempFailed("451 busy")


def down(name: str = "a:25") -> RelayUnavailable:
    return RelayUnavailable(name, "connection refused")


def deliver(transport: Transport, *recipients: str, queue: str = "mail") -> Outcome:
    message = a_message(*recipients, queue=queue)
    return transport.deliver(message, message.recipients)


def fates(store: MemoryStore, id: str = "m1") -> dict[str, Fate]:
    record = store.get(id)
    assert record is not None
    return dict(record.summary.fates)


# --- who goes where ------------------------------------------------------------------------------


def test_each_domain_goes_to_its_own_relay_and_the_rest_to_the_other() -> None:
    a, b, rest = Relay("a:25"), Relay("b:25"), Relay("r:25")
    deliver(RouteTransport(rest, domains={"a.example": a, "b.example": b}), ANN, BOB, EVE, "jo@a.example")

    assert (a.seen, b.seen, rest.seen) == ([(ANN, "jo@a.example")], [(BOB,)], [(EVE,)])


def test_a_queue_goes_to_its_own_relay() -> None:
    bulk, rest = Relay("bulk:25"), Relay("r:25")
    route = RouteTransport(rest, queues={"mail.bulk": bulk})
    deliver(route, ANN, BOB, queue="mail.bulk")
    deliver(route, ANN)

    assert (bulk.seen, rest.seen) == ([(ANN, BOB)], [(ANN,)])


@pytest.mark.parametrize(
    ("recipient", "name"),
    [
        ("x@a.example", "a.example"),
        ("x@A.EXAMPLE", "a.example"),
        ("x@sub.a.example", ".a.example"),
        ("x@deep.sub.a.example", ".sub.a.example"),
        ("x@nota.example", "otherwise"),
        ("x@example", "otherwise"),
        ('"x@a.example"@e.example', "otherwise"),
        ("x@bücher.example", "xn--bcher-kva.example"),
        ("x@xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("x@[192.0.2.1]", "[192.0.2.1]"),
        ("no mailbox at all", "otherwise"),
        ("x@", "otherwise"),
        ("x@..é", "otherwise"),
    ],
)
def test_the_longest_name_that_fits_counts(recipient: str, name: str) -> None:
    names = ["A.example", ".a.example", ".sub.a.example", "bücher.example", "[192.0.2.1]"]
    route = RouteTransport(Relay("r:25"), domains={each: Relay(each) for each in names})

    assert route.relay(a_message(recipient), recipient) == name


def test_routes_in_one_another_say_which_comes_first() -> None:
    a, bulk, rest = Relay("a:25"), Relay("bulk:25"), Relay("r:25")
    route = RouteTransport(RouteTransport(rest, domains={"a.example": a}), queues={"mail.bulk": bulk})
    message = a_message(ANN)
    deliver(route, ANN, queue="mail.bulk")
    deliver(route, ANN, BOB)

    assert (a.seen, bulk.seen, rest.seen) == ([(ANN,)], [(ANN,)], [(BOB,)])
    assert [route.relay(message, r) for r in (ANN, BOB)] == ["otherwise/a.example", "otherwise/otherwise"]


def test_one_transport_under_two_names_is_one_relay() -> None:
    a = Relay("a:25")
    route = RouteTransport(Relay("r:25"), domains={"a.example": a, "b.example": a})
    deliver(route, ANN, BOB)
    route.close()

    assert a.seen == [(ANN, BOB)]
    assert a.closed == 1
    assert {route.relay(a_message(), r) for r in (ANN, BOB)} == {"a.example"}


# --- each share has its own fates ----------------------------------------------------------------


def test_each_reply_names_its_relay_where_more_than_one_answered() -> None:
    route = RouteTransport(Relay("r:25", PermFailed("550 no")), domains={"a.example": Relay("a:25")})

    assert deliver(route, ANN, BOB) == Outcome(
        results={ANN: Accepted("a:25: 250 ok"), BOB: PermFailed("r:25: 550 no")}, relay="a:25, r:25"
    )
    assert deliver(route, ANN) == Outcome.same([ANN], Accepted("250 ok"), relay="a:25")


def test_an_exception_of_one_relay_concerns_its_recipients_alone() -> None:
    outcome = deliver(
        RouteTransport(Relay("r:25"), domains={"a.example": Relay("a", OSError("gone"))}), ANN, BOB
    )

    assert [type(outcome.results[r]) for r in (ANN, BOB)] == [TempFailed, Accepted]


def test_a_fault_of_one_relay_leaves_its_recipients_untried() -> None:
    fault = down()
    outcome = deliver(RouteTransport(Relay("r:25"), domains={"a.example": Relay("a", fault)}), ANN, BOB)

    assert outcome == Outcome(results={ANN: Untried(), BOB: Accepted("250 ok")}, relay="r:25", fault=fault)


def test_where_every_relay_fails_nothing_is_known_and_it_raises() -> None:
    route = RouteTransport(Relay("r", down("r:25")), domains={"a.example": Relay("a", down())})

    with pytest.raises(RelayUnavailable, match=r"a:25: connection refused; r:25: connection refused"):
        deliver(route, ANN, BOB)


def test_nothing_is_handed_to_another_relay_after_the_message_has_expired() -> None:
    clock = ManualClock()

    class Slow(Relay):
        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            clock.advance(MINUTE)
            return super().deliver(message, recipients)

    rest = Relay("r:25")
    message = attrs.evolve(a_message(ANN, BOB), expires_at=clock.now() + MINUTE)
    route = RouteTransport(rest, domains={"a.example": Slow("a:25")}, clock=clock)

    assert isinstance(route.deliver(message, message.recipients).results[BOB], Untried)
    assert rest.seen == []


# --- under a Runner ------------------------------------------------------------------------------


def test_a_relay_that_is_down_keeps_no_other_s_mail() -> None:
    good, store = Relay("r:25"), MemoryStore()
    bad = Relay("a:25", down())
    outbox = Outbox(store, RouteTransport(good, domains={"a.example": bad}), workers=1)
    for number in range(6):
        outbox.submit(a_message(BOB if number % 2 else ANN, id=f"m{number}"))
    tally = outbox.drain()

    assert tally.delivered == 3
    assert len(good.seen) == 3
    assert set(tally.faults) == {"a:25"}
    # Its first fault, and the probe that follows: the rest of its mail is not handed over at all.
    assert len(bad.seen) == 2


def test_a_drain_ends_while_mail_for_a_relay_that_is_down_is_due() -> None:
    store = MemoryStore()
    outbox = Outbox(store, RouteTransport(domains={"a.example": Relay("a:25", down())}), workers=2)
    for number in range(20):
        outbox.submit(a_message(ANN, id=f"m{number}"))

    assert outbox.drain().delivered == 0
    assert {count.state for count in store.count()} == {State.QUEUED}
    assert outbox.drain().released == 20


def test_of_a_message_to_two_relays_the_one_that_is_well_takes_its_share_once() -> None:
    bad, good, store = Relay("a:25", down()), Relay("r:25"), MemoryStore()
    outbox = Outbox(store, RouteTransport(good, domains={"a.example": bad}))
    outbox.submit(a_message(ANN, BOB))
    outbox.drain()
    assert fates(store) == {ANN: Fate.WAITING, BOB: Fate.ACCEPTED}

    bad.answer = Accepted()
    store.requeue(["m1"])
    outbox.drain()

    assert good.seen == [(BOB,)]
    assert store.get("m1") is None


def test_a_relay_s_fault_uses_up_no_attempt_of_its_recipients() -> None:
    bad, store = Relay("a:25", down()), MemoryStore()
    route = RouteTransport(Relay("r:25", PermFailed("550 no")), domains={"a.example": bad})
    outbox = Outbox(store, route, retry=RetryPolicy(attempts=1))
    outbox.submit(a_message(ANN, BOB))
    outbox.drain()

    assert fates(store) == {ANN: Fate.WAITING, BOB: Fate.FAILED}


def test_while_a_relay_is_paused_its_recipients_are_not_handed_over_and_the_others_are() -> None:
    bad, good, store, heard = Relay("a:25", down()), Relay("r:25"), MemoryStore(), Heard()
    route = RouteTransport(good, domains={"a.example": bad})
    runner = Runner(store, route, workers=1, listeners=[heard])
    store.put([a_message(ANN, id="first")])
    runner.start()
    heard.wait_for(RelayPaused)
    store.put([a_message(ANN, BOB)])
    heard.wait_until(lambda _: store.get("m1") is not None and fates(store)[BOB] is Fate.ACCEPTED)
    runner.stop()

    assert bad.seen == [(ANN,)]
    assert fates(store) == {ANN: Fate.WAITING, BOB: Fate.ACCEPTED}
    summary = store.get("m1")
    assert summary is not None
    assert "connection refused" in summary.summary.reason


def test_put_off_by_a_relay_that_is_well_nobody_waits_for_one_that_is_not() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    fault = RelayMisconfigured("a:25", "bad password")
    route = RouteTransport(Relay("r:25", BUSY), domains={"a.example": Relay("a:25", fault)})
    policy = RetryPolicy(wait_initial=dt.timedelta(seconds=1), wait_jitter=0)
    heard = Heard()
    runner = Runner(
        store, route, retry=policy, workers=1, clock=clock, rng=random.Random(1), listeners=[heard]
    )
    store.put([a_message(ANN, BOB)])
    runner.start()
    heard.wait_until(
        lambda notices: bool(notices) and fates(store)[BOB] is Fate.WAITING and due(store) is not None
    )
    runner.stop()

    assert due(store) == clock.now() + dt.timedelta(seconds=1)


def due(store: MemoryStore) -> dt.datetime | None:
    record = store.get("m1")
    assert record is not None
    return record.summary.due_at if record.history else None


def test_a_relay_that_answers_again_is_told_by_its_route() -> None:
    bad, store, heard = Relay("a:25", down()), MemoryStore(), Heard()
    outbox = Outbox(store, RouteTransport(domains={"a.example": bad}), listeners=[heard], workers=1)
    outbox.submit(a_message(ANN, id="first"))
    outbox.submit(a_message(ANN, id="second"))

    def mended(notice: Any) -> None:
        if isinstance(notice, RelayPaused):
            bad.answer = Accepted()

    Outbox(store, outbox.transport, listeners=[mended, heard], workers=1).drain()

    assert [n.relay for n in heard.notices if isinstance(n, RelayResumed)] == ["a.example"]


def test_a_transport_that_cannot_say_its_relays_is_one_relay() -> None:
    class Odd(Relay):
        def relay(self, message: Message, recipient: str, /) -> str:
            if recipient == ANN:
                raise OSError("no map")
            return None  # type: ignore[return-value]  # what a stranger's transport may do

    relay = Odd("a:25")
    outbox = Outbox(MemoryStore(), relay)
    assert isinstance(relay, SupportsRelays)
    outbox.submit(a_message(ANN, BOB))

    assert outbox.drain().delivered == 1
    assert relay.seen == [(ANN, BOB)]


# --- what has no route ---------------------------------------------------------------------------


def test_a_message_without_a_route_waits_and_says_what_is_missing() -> None:
    store = MemoryStore()
    outbox = Outbox(
        store, RouteTransport(domains={"a.example": Relay("a:25")}), retry=RetryPolicy(attempts=1)
    )
    outbox.submit(a_message(ANN, EVE))
    tally = outbox.drain()
    record = store.get("m1")

    assert record is not None
    assert record.summary.fates == {ANN: Fate.ACCEPTED, EVE: Fate.WAITING}
    assert "no relay is said for 'e.example': add to domains={…}" in record.summary.reason
    assert isinstance(tally.faults["(no route)"], RelayMisconfigured)


def test_a_queue_without_a_route_is_named() -> None:
    with pytest.raises(RelayMisconfigured, match="no relay is said for queue 'mail'"):
        deliver(RouteTransport(queues={"tasks": Relay("a:25")}), ANN)


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "say one of them"),
        ({"domains": {"a.example": Relay("a")}, "queues": {"mail": Relay("a")}}, "say one of them"),
        ({"domains": {"a b": Relay("a")}}, "'a b', which is no domain"),
        ({"domains": {"": Relay("a")}}, "'', which is no domain"),
        ({"domains": {"x@a.example": Relay("a")}}, "which is no domain"),
        ({"domains": {"a.example": Relay("a"), "A.example": Relay("b")}}, "'a.example' twice"),
        ({"queues": {"Mail": Relay("a")}}, "no queue"),
        ({"domains": {"a.example": "smtp://a"}}, "'smtp://a' is no transport"),
    ],
)
def test_a_route_that_cannot_be_used_is_named(settings: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        RouteTransport(**settings)


def test_all_that_it_leads_to_is_tidied_and_closed() -> None:
    relays = a, rest = Relay("a:25"), Relay("r:25")
    route = RouteTransport(rest, domains={"a.example": a})
    route.expire()
    route.close()

    assert [(relay.expired, relay.closed) for relay in relays] == [(1, 1), (1, 1)]


def test_a_fault_that_all_share_is_said_once() -> None:
    fault: RelayFault = down()
    route = RouteTransport(Relay("r", fault), domains={"a.example": Relay("a", fault)})
    with pytest.raises(RelayUnavailable) as caught:
        deliver(route, ANN, BOB)

    assert caught.value is fault


# --- limits --------------------------------------------------------------------------------------


class Nameless(Relay):
    """A stranger's, which leads to several and cannot say to which."""

    def relay(self, message: Message, recipient: str, /) -> str:
        return recipient.partition("@")[2]


ONE, OTHER = RelayLimits(connections=1), RelayLimits(connections=2)


def test_a_limit_finds_its_route_in_any_case_and_by_each_of_its_names() -> None:
    relay = Relay("a:25")
    route = RouteTransport(Relay("r:25"), domains={"Corp.Example": relay, ".bücher.example": relay})
    for name in ("Corp.Example", "corp.example", "CORP.EXAMPLE", ".xn--bcher-kva.example", ".BÜCHER.example"):
        assert fitted({name: ONE}, route) == ({"*": RelayLimits(), "corp.example": ONE}, [])
    assert fitted({"otherwise": ONE}, route)[0]["otherwise"] == ONE
    assert fitted(
        {"corp.example": ONE, ".bücher.example": OTHER, "x": ONE}, RouteTransport(domains={"x": relay})
    )[1] == [
        "corp.example",
        ".bücher.example",
    ]
    with pytest.raises(ConfigurationError, match=r"names the relay 'corp.example' twice"):
        fitted({"corp.example": ONE, "Corp.Example": OTHER}, route)


def test_what_is_found_is_what_the_route_says_of_its_mail() -> None:
    inner = RouteTransport(Relay("r:25"), domains={"a.example": Relay("a:25")})
    route = RouteTransport(Nameless("n:25"), queues={"mail": inner})
    key = route.relay(a_message(ANN), ANN)
    assert fitted({"mail/A.example": ONE}, route)[0][key] == ONE
    assert fitted({"otherwise/b.example": ONE}, route)[0][route.relay(a_message(ANN, queue="x"), BOB)] == ONE


@pytest.mark.parametrize(
    "name", ["mail", "mail/", "mail/x.example", "tasks", "otherwise", "(no route)", "", "a/b/c"]
)
def test_a_limit_of_no_route_is_told(name: str, caplog: pytest.LogCaptureFixture) -> None:
    route = RouteTransport(queues={"mail": RouteTransport(domains={"a.example": Relay("a:25")})})
    assert fitted({name: ONE}, route)[1] == [name]
    Outbox(MemoryStore(), route, limits={name: ONE, "*": OTHER}).close()
    assert f"limits names the relay '{name}'" in caplog.text


def test_where_there_is_one_relay_none_can_be_named() -> None:
    with pytest.raises(ConfigurationError, match=r"limits names 'a.example', and Relay leads to one relay"):
        Outbox(MemoryStore(), Relay("a:25"), limits={"a.example": ONE})
    assert fitted({"": ONE}, Relay("a:25"))[0][""] == ONE


def test_the_relays_of_a_stranger_s_transport_are_named_as_he_names_them() -> None:
    assert fitted({"B.example": ONE}, Nameless("n:25")) == ({"*": RelayLimits(), "B.example": ONE}, [])
