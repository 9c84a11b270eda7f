"""A relay that is not known yet is tried with one message: what is wrong with the settings is met once."""

import datetime as dt
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from certificates import Authority
from relays import Relay, a_message
from running import PATIENCE, Heard

from outbox.breakers import Breakers
from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.events import RelayPaused, Settled
from outbox.lifecycle import Claim, Released
from outbox.message import Message
from outbox.outbox import Outbox
from outbox.outcome import Accepted, Outcome
from outbox.relay import Wait
from outbox.runner import Sent
from outbox.stores.memory import MemoryStore
from outbox.testing.clock import ManualClock
from outbox.testing.smtp_sink import SMTPSink
from outbox.transports.chain import ChainTransport
from outbox.transports.function import FunctionTransport
from outbox.transports.route import RouteTransport
from outbox.transports.smtp import SMTPTransport

ANN, BOB = "ann@a.example", "bob@b.example"
AUTHORITY = Authority()
DOWN = RelayUnavailable("a:25", "connection refused")
WRONG = RelayMisconfigured("a:25", "535 wrong password")


class Gate(Relay):
    """A relay whose deliveries wait for *opened* before they answer."""

    def __init__(self, name: str = "a:25", answer: RelayFault | None = None) -> None:
        super().__init__(name, answer)
        self.entered, self.opened = threading.Event(), threading.Event()

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        self.entered.set()
        assert self.opened.wait(PATIENCE)
        return super().deliver(message, recipients)


class Counting(MemoryStore):
    """Tells when so many were stored under their sender's lease."""

    def __init__(self, expected: int) -> None:
        super().__init__()
        self._left = threading.Semaphore(0)
        self._expected = expected

    def put_claimed(
        self, messages: Sequence[Message], /, *, lease: dt.timedelta, attempted: bool = False
    ) -> Sequence[Claim]:
        claims = super().put_claimed(messages, lease=lease, attempted=attempted)
        self._left.release()
        return claims

    def all_are_stored(self) -> None:
        for _ in range(self._expected):
            assert self._left.acquire(timeout=PATIENCE)


def sent_at_once(answer: RelayFault | None) -> tuple[Gate, list[Sent]]:
    store, relay, sent = Counting(10), Gate(answer=answer), list[Sent]()
    with Outbox(store, relay) as outbox:
        threads = [
            threading.Thread(target=lambda n=n: sent.append(outbox.send(a_message(ANN, id=f"m{n}"))))
            for n in range(10)
        ]
        for thread in threads:
            thread.start()
        store.all_are_stored()
        relay.opened.set()
        for thread in threads:
            thread.join(PATIENCE)
    return relay, sent


def test_a_wrong_password_is_met_by_one_of_ten_that_send_at_once() -> None:
    relay, sent = sent_at_once(WRONG)

    assert len(relay.seen) == 1
    assert [type(each.verdict) for each in sent] == [Released] * 10


def test_ten_that_send_at_once_at_the_start_are_all_delivered() -> None:
    _, sent = sent_at_once(None)

    assert [each.delivered for each in sent] == [True] * 10


def test_a_wrong_password_is_met_once_by_all_workers_and_told_once() -> None:
    store, relay, heard = MemoryStore(), Gate(answer=WRONG), Heard()
    for number in range(20):
        store.put([a_message(ANN, id=f"m{number}")])
    with Outbox(store, relay, workers=8, listeners=[heard]) as outbox, outbox.running():
        assert relay.entered.wait(PATIENCE)
        relay.opened.set()
        heard.wait_for(Settled)

    assert len(relay.seen) == 1
    assert sum(isinstance(notice, RelayPaused) for notice in heard.notices) == 1


def test_a_wrong_password_is_met_once_by_each_drain() -> None:
    store, relay = MemoryStore(), Relay("a:25", WRONG)
    outbox = Outbox(store, relay)
    for number in range(20):
        outbox.submit(a_message(ANN, id=f"m{number}"))
    for drains in (1, 2):
        assert outbox.drain().faults == {"a:25": WRONG}
        assert len(relay.seen) == drains


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"close": True},
        {"reply": "421 4.7.0 go away", "close": True},
        {"reply": "454 4.7.0 not now"},
        {"reply": "what?"},
    ],
    ids=["refused", "hung up", "421", "454", "no reply"],
)
def test_one_wrong_password_costs_one_auth_and_the_next_no_sooner_than_in_a_minute(
    answer: dict[str, Any],
) -> None:
    heard = Heard()
    with SMTPSink(tls=AUTHORITY.server(), users={"app": "right"}) as sink:
        if answer:
            reply = answer.get("reply", "")
            sink.on("auth", **answer | ({"reply": f"{reply}\r\n".encode()} if reply else {}))
        transport = SMTPTransport(
            sink.host,
            sink.port,
            security="tls",
            username="app",
            password="c4narypassword",
            ssl_context=AUTHORITY.client(),
        )
        with Outbox(MemoryStore(), transport, listeners=[heard]) as outbox:
            for number in range(20):
                outbox.submit(a_message(ANN, id=f"m{number}"))
            outbox.drain()
        assert sum(command.startswith("AUTH") for command in sink.commands) == 1
    (paused,) = (notice for notice in heard.notices if isinstance(notice, RelayPaused))
    assert paused.wait >= dt.timedelta(seconds=47)


FIRST = 8
"""So many messages show that a relay is well: with each round that it takes the connections double."""


def made_known(store: MemoryStore, heard: Heard) -> None:
    """The relay has taken the first messages, one after the other."""
    for number in range(FIRST):
        store.put([a_message(ANN, id=f"first{number}")])
        heard.wait_for(Settled, number + 1)


def test_once_the_first_messages_were_answered_all_workers_go() -> None:
    together, met = threading.Barrier(4), threading.Event()

    def deliver(message: Message, _: str) -> None:
        if not message.id.startswith("first") and not met.is_set():
            together.wait(PATIENCE)
            met.set()

    store, heard = MemoryStore(), Heard()
    outbox = Outbox(store, FunctionTransport(deliver), workers=4, listeners=[heard])
    with outbox, outbox.running():
        made_known(store, heard)
        store.put([a_message(ANN, id=f"m{number}") for number in range(1, 20)])
        assert met.wait(PATIENCE)


def test_what_all_workers_meet_at_once_is_told_once() -> None:
    together = threading.Barrier(4)

    class Changed(Relay):
        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            if not message.id.startswith("first"):
                together.wait(PATIENCE)
                self.answer = WRONG
            return super().deliver(message, recipients)

    store, heard, relay = MemoryStore(), Heard(), Changed("a:25")
    with Outbox(store, relay, workers=4, listeners=[heard]) as outbox, outbox.running():
        made_known(store, heard)
        store.put([a_message(ANN, id=f"m{number}") for number in range(1, 20)])
        heard.wait_for(Settled, FIRST + 4)

    assert len(relay.seen) == FIRST + 4, "those under way, and none of the others"
    assert sum(isinstance(notice, RelayPaused) for notice in heard.notices) == 1


def test_who_sends_and_who_delivers_in_the_background_share_what_is_known_of_a_relay() -> None:
    store, relay, heard = MemoryStore(), Relay("a:25", WRONG), Heard()
    store.put([a_message(ANN, id="m0")])
    with Outbox(store, relay, listeners=[heard]) as outbox, outbox.running():
        heard.wait_for(RelayPaused)
        sent = outbox.send(a_message(ANN))

    assert isinstance(sent.verdict, Released)
    assert len(relay.seen) == 1


def test_while_one_relay_s_first_message_is_under_way_another_s_mail_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("outbox.errands._AMONG_SEVERAL", 0.0)
    store, slow, heard = MemoryStore(), Gate(), Heard()
    for number in range(8):
        store.put([a_message(ANN if number < 4 else BOB, id=f"m{number}")])
    route = RouteTransport(Relay("b:25"), domains={"a.example": slow})

    def delivered(recipient: str) -> int:
        settled = [n for n in heard.notices if isinstance(n, Settled)]
        return sum(n.claim.recipients == (recipient,) and n.verdict.outcome is not None for n in settled)

    with Outbox(store, route, workers=2, listeners=[heard]) as outbox:
        draining = threading.Thread(target=outbox.drain)
        draining.start()
        heard.wait_until(lambda _: delivered(BOB) == 4)
        assert delivered(ANN) == 0
        slow.opened.set()
        draining.join(PATIENCE)

    assert delivered(ANN) == 4
    assert len(slow.seen) == 4


def test_a_stop_ends_the_wait_for_another_s_first_message() -> None:
    store, relay = MemoryStore(), Gate()
    for number in range(8):
        store.put([a_message(ANN, id=f"m{number}")])
    outbox = Outbox(store, relay, workers=4)
    runner = outbox.runner()
    runner.start()
    assert relay.entered.wait(PATIENCE)
    assert not runner.stop(dt.timedelta(0)), "the first hangs"
    sending = threading.Thread(target=outbox.send, args=[a_message(ANN, id="next")])
    relay.opened.set()
    sending.start()
    sending.join(PATIENCE)
    assert not sending.is_alive()
    outbox.close()


def test_who_is_left_behind_with_the_first_message_keeps_nobody_back() -> None:
    class HangsAtFirst(Gate):
        def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
            return (
                super().deliver(message, recipients)
                if message.id == "m0"
                else Outcome.same(recipients, Accepted())
            )

    store, relay = MemoryStore(), HangsAtFirst()
    store.put([a_message(ANN, id="m0")])
    outbox = Outbox(store, relay)
    runner = outbox.runner()
    runner.start()
    assert relay.entered.wait(PATIENCE)
    assert not runner.stop(dt.timedelta(0))

    assert outbox.send(a_message(ANN)).delivered
    relay.opened.set()
    outbox.close()


def test_a_delivery_that_sends_does_not_wait_for_itself() -> None:
    sent: list[Sent] = []

    def deliver(message: Message, _: str) -> None:
        if message.id == "m0":
            sent.append(outbox.send(a_message(ANN)))

    with Outbox(MemoryStore(), FunctionTransport(deliver)) as outbox:
        assert outbox.send(a_message(ANN, id="m0")).delivered
    assert [each.delivered for each in sent] == [True]


def test_an_interrupted_first_message_leaves_its_place_to_the_next() -> None:
    relay = Relay("a:25", KeyboardInterrupt())
    with Outbox(MemoryStore(), relay) as outbox:
        with pytest.raises(KeyboardInterrupt):
            outbox.send(a_message(ANN))
        relay.answer = Accepted()
        assert outbox.send(a_message(ANN, id="m2")).delivered


# --- what is shared ------------------------------------------------------------------------------


@pytest.fixture
def breakers() -> Breakers:
    return Breakers(ManualClock(), random.Random(1))


def in_another_thread(act: Callable[[], object]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join(PATIENCE)


def test_nothing_is_taken_where_one_of_the_relays_is_worth_waiting_for(breakers: Breakers) -> None:
    in_another_thread(lambda: breakers.admit(["a"], "m1", patience=1))

    assert isinstance(breakers.admit(["b", "a"], "m2", patience=1), Wait)
    assert breakers.closed_for("b") is None
    impatient = breakers.admit(["b", "a"], "m2", patience=0)
    assert not isinstance(impatient, Wait)
    assert isinstance(impatient["a"], Wait)


def test_a_forked_child_waits_for_no_probe_of_its_parent(
    breakers: Breakers, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_another_thread(lambda: breakers.admit(["a"], "m1", patience=1))
    monkeypatch.setattr("outbox.breakers.os.getpid", lambda: -1)

    assert not isinstance(breakers.admit(["a"], "m2", patience=1), Wait)


# --- chains --------------------------------------------------------------------------------------


def test_that_another_tries_it_is_no_reason_to_pass_a_relay_over() -> None:
    first, second = Gate(), Relay("b:25")
    chain = ChainTransport(first, second)
    threads = [
        threading.Thread(target=lambda n=n: chain.deliver(a_message(ANN, id=f"m{n}"), [ANN]))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    assert first.entered.wait(PATIENCE)
    first.opened.set()
    for thread in threads:
        thread.join(PATIENCE)

    assert (len(first.seen), len(second.seen)) == (4, 0)


def test_of_a_chain_of_which_no_relay_can_be_used_only_those_are_asked_again_that_time_may_mend() -> None:
    wrong, down = Relay("a:25", WRONG), Relay("b:25", DOWN)
    chain = ChainTransport(wrong, down, clock=ManualClock(), rng=random.Random(1))
    for number in range(5):
        with pytest.raises(RelayUnavailable, match=r"535 wrong password; .*refused"):
            chain.deliver(a_message(ANN, id=f"m{number}"), [ANN])

    assert (len(wrong.seen), len(down.seen)) == (1, 5)


def test_a_chain_all_of_whose_relays_are_costly_to_ask_is_so_itself() -> None:
    hung_up = RelayUnavailable("b:25", "connection lost at AUTH")
    hung_up.costly = True
    both = [Relay("a:25", WRONG), Relay("b:25", hung_up)]
    with pytest.raises(RelayUnavailable) as caught:
        ChainTransport(*both, clock=ManualClock()).deliver(a_message(ANN), [ANN])

    assert caught.value.costly
    assert not DOWN.costly
