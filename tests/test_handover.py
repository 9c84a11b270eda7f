"""A run on its way to a relay: whatever the transport does, each message it had has a report, and no other."""

import gc
import logging
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any

import pytest

from outbox.errors import ConfigurationError, RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.handover import Handover
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, Result, TempFailed, Uncertain
from outbox.protocols import Delivery

TO = "to@example.org"
DOWN = RelayUnavailable("mx:25", "refused")
OK = Outcome(results={TO: Accepted("250 ok")})
Behaviour = Callable[[Iterator[Delivery]], Generator[Any, None, None]]


class Batches:
    """A batch transport that does what it is told to."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.called = 0

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        self.called += 1
        return self.behaviour(iter(deliveries))

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        raise AssertionError("it has batches")

    def close(self) -> None:
        pass


class Singles:
    """A transport without batches, which answers in turn."""

    def __init__(self, *answers: Outcome | BaseException) -> None:
        self.answers = iter(answers)

    def deliver(self, _message: Message, _recipients: Sequence[str], /) -> Outcome:
        answer = next(self.answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        pass


class Run:
    """Three messages, and what was pulled of them."""

    def __init__(self, transport: Any, number: int = 3) -> None:
        self.pulled: list[str] = []
        self.handover = Handover(transport, self._deliveries(number))

    def _deliveries(self, number: int) -> Iterator[Delivery]:
        for n in range(number):
            self.pulled.append(f"m{n}")
            yield Delivery(Message(id=f"m{n}", recipients=[TO], content=b"x"), (TO,))

    def told(self) -> list[tuple[str, Result | RelayFault]]:
        found: list[tuple[str, Result | RelayFault]] = []
        while (told := self.handover.next()) is not None:
            message, report = told
            found.append((message.id, report.results[TO] if isinstance(report, Outcome) else report))
            assert len(found) < 10, "it has no end"
        assert self.handover.next() is None, "what is over stays over"
        self.handover.close()
        return found


def faithful(deliveries: Iterator[Delivery]) -> Generator[Any, None, None]:
    for _ in deliveries:
        yield OK


def pulling(number: int, *answers: Any) -> Behaviour:
    """Pulls so many, then answers in turn: an exception is raised."""

    def behave(deliveries: Iterator[Delivery]) -> Generator[Any, None, None]:
        for _ in range(number):
            next(deliveries, None)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            yield answer

    return behave


def test_each_message_of_a_batch_has_its_report_in_the_order_pulled() -> None:
    transport = Batches(faithful)
    assert Run(transport).told() == [(f"m{n}", Accepted("250 ok")) for n in range(3)]
    assert transport.called == 1


def test_without_batches_they_go_one_by_one_and_none_is_pulled_ahead() -> None:
    run = Run(Singles(OK, OK, OK))
    run.handover.next()
    assert run.pulled == ["m0"]
    assert len(run.told()) == 2


def test_of_several_the_next_is_pulled_when_the_transport_pulls_it() -> None:
    run = Run(Batches(faithful))
    run.handover.next()
    assert run.pulled == ["m0"]


def test_where_there_is_nothing_the_transport_is_not_called() -> None:
    transport = Batches(faithful)
    assert Run(transport, 0).told() == []
    assert transport.called == 0


def test_what_is_reported_beyond_what_was_pulled_is_left_out_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert Run(Batches(pulling(1, OK, OK, OK))).told() == [("m0", Accepted("250 ok"))]
    assert "Batches.deliver_many reported of a message that it did not pull" in caplog.text


def test_what_was_pulled_and_not_told_of_has_no_report() -> None:
    run = Run(Batches(pulling(3, OK)))
    assert run.told() == [("m0", Accepted("250 ok"))]
    assert run.pulled == ["m0", "m1", "m2"]


@pytest.mark.parametrize("pulled", [0, 1, 3])
def test_a_batch_that_reports_nothing_at_all_is_a_failure_of_its_first_message(pulled: int) -> None:
    """Were it none, the same run would be begun again at once, and again."""
    assert Run(Batches(pulling(pulled))).told() == [
        ("m0", TempFailed("RuntimeError: its deliver_many reported nothing"))
    ]


def test_a_batch_that_reports_before_it_pulls_is_a_failure_of_its_first_message() -> None:
    ((id, result),) = Run(Batches(pulling(0, OK))).told()
    assert (id, type(result)) == ("m0", TempFailed)


@pytest.mark.parametrize("pulled", [0, 1])
def test_a_relay_fault_concerns_the_first_message_also_before_it_was_pulled(pulled: int) -> None:
    assert Run(Batches(pulling(pulled, DOWN))).told() == [("m0", DOWN)]


def test_a_relay_fault_in_the_middle_concerns_the_one_whose_turn_it_is() -> None:
    assert Run(Batches(pulling(2, OK, DOWN))).told() == [("m0", Accepted("250 ok")), ("m1", DOWN)]


def test_a_relay_fault_after_all_that_was_pulled_was_told_concerns_nobody() -> None:
    assert Run(Batches(pulling(1, OK, DOWN))).told() == [("m0", Accepted("250 ok"))]


def a_driver_that_is_refused(kept: Message) -> None:
    raise ConnectionRefusedError(f"no route for {len(kept.content)} bytes")


class Raising(Singles):
    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        try:
            a_driver_that_is_refused(message)
        except OSError as error:
            raise RelayUnavailable("mx:25", "refused") from error
        return OK


class RaisingInBatches(Raising):
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        for delivery in deliveries:
            yield self.deliver(delivery.message, delivery.recipients)


class Returning(Raising):
    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        try:
            return super().deliver(message, recipients)
        except RelayUnavailable as fault:
            return Outcome(results={TO: TempFailed()}, fault=fault)


@pytest.mark.parametrize("kind", [Raising, RaisingInBatches, Returning])
def test_a_fault_that_is_kept_keeps_no_message(kind: type[Raising]) -> None:
    message = Message(id="m0", recipients=[TO], content=b"x")
    kept = weakref.ref(message)
    told = Handover(kind(), iter([Delivery(message, (TO,))])).next()
    assert told is not None
    report = told[1]
    fault = report.fault if isinstance(report, Outcome) else report
    assert isinstance(fault, RelayUnavailable)
    assert isinstance(fault.__cause__, OSError), "what it was for is told still"
    del message, told, report
    gc.collect()
    assert kept() is None


def test_a_wrong_setting_is_a_fault_of_the_relay() -> None:
    ((_, fault),) = Run(Batches(pulling(0, ConfigurationError("no host")))).told()
    assert isinstance(fault, RelayMisconfigured)


@pytest.mark.parametrize("pulled", [0, 1, 2])
@pytest.mark.parametrize(
    "error", [ValueError("oops"), SystemExit("oops"), KeyboardInterrupt("oops"), StopAsyncIteration("oops")]
)
def test_whatever_a_batch_raises_costs_its_first_message_an_attempt_and_no_other(
    pulled: int, error: BaseException
) -> None:
    assert Run(Batches(pulling(pulled, error))).told() == [
        ("m0", TempFailed(f"{type(error).__name__}: oops"))
    ]


@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit("oops"), GeneratorExit("oops")])
def test_whatever_a_transport_raises_costs_that_message_an_attempt(error: BaseException) -> None:
    ids = [id for id, _ in Run(Singles(OK, error, OK)).told()]
    assert ids[:2] == ["m0", "m1"]


def test_an_odd_answer_is_uncertain_and_the_batch_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    (_, odd), sound = Run(Batches(pulling(2, "250 ok", OK))).told()
    assert isinstance(odd, Uncertain)
    assert sound == ("m1", Accepted("250 ok"))
    assert "m0: Batches.deliver_many returned a value of type str" in caplog.text


def test_a_call_that_raises_a_relay_fault_raised_it_of_the_first_message() -> None:
    class Hasty(Batches):
        def deliver_many(self, deliveries: Iterable[Delivery], /) -> Any:
            raise DOWN

    assert Run(Hasty(faithful)).told() == [("m0", DOWN)]


def test_a_batch_that_is_left_is_closed_and_pulls_nothing_more() -> None:
    ended: list[object] = []

    def clinging(deliveries: Iterator[Delivery]) -> Generator[Any, None, None]:
        try:
            next(deliveries)
            yield OK
        finally:
            ended.append(next(deliveries, None))

    run = Run(Batches(clinging))
    run.handover.next()
    run.handover.close()
    assert ended == [None]
    assert run.pulled == ["m0"]


@pytest.mark.parametrize("error", [ValueError("oops"), SystemExit()])
def test_whatever_a_batch_raises_when_it_is_left_is_logged(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def clinging(deliveries: Iterator[Delivery]) -> Generator[Any, None, None]:
        try:
            yield from faithful(deliveries)
        finally:
            raise error

    run = Run(Batches(clinging))
    run.handover.next()
    run.handover.close()
    assert "failed to end a batch" in caplog.text
    assert caplog.records[-1].levelno == logging.ERROR


# -- a deliver_many that is no generator: what it pulled when it was called it may have sent


class Eager(Batches):
    """Hands over all that it can pull, and then answers."""

    def __init__(self, answer: Callable[[int], Any]) -> None:
        super().__init__(faithful)
        self.answer = answer
        self.sent: list[str] = []

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        self.sent += [delivery.message.id for delivery in deliveries]
        answer: Generator[Outcome, None, None] = self.answer(len(self.sent))
        return answer


def raising(error: BaseException) -> Callable[[int], Any]:
    def answer(_number: int) -> Any:
        raise error

    return answer


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_what_returns_a_list_of_its_outcomes_is_understood(kind: Callable[[list[Outcome]], Any]) -> None:
    transport = Eager(lambda number: kind([OK] * number))
    assert Run(transport).told() == [(f"m{n}", Accepted("250 ok")) for n in range(3)]
    assert transport.sent == ["m0", "m1", "m2"]


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (lambda _: None, 0),
        (lambda _: 7, 0),
        (lambda _: [], 0),
        (lambda _: [OK, OK], 2),
        (raising(KeyError("oops")), 0),
        (raising(KeyboardInterrupt()), 0),
        (raising(StopIteration()), 0),
    ],
)
def test_whatever_it_does_not_report_of_is_uncertain(answer: Callable[[int], Any], known: int) -> None:
    """They were sent again and again, one of them an attempt poorer each time: up to 14 copies."""
    told = Run(Eager(answer)).told()
    assert [id for id, _ in told] == ["m0", "m1", "m2"]
    assert [type(report) for _, report in told] == [Accepted] * known + [Uncertain] * (3 - known)


@pytest.mark.parametrize("error", [DOWN, ConfigurationError("no such relay")])
def test_a_fault_that_it_raises_is_the_relay_s_and_what_it_pulled_is_uncertain(error: Exception) -> None:
    run = Run(Eager(raising(error)))
    first = run.handover.next()
    assert first is not None
    assert isinstance(first[1], Outcome)
    assert isinstance(first[1].fault, RelayFault)
    assert isinstance(first[1].results[TO], Uncertain)
    assert [type(report) for _, report in run.told()] == [Uncertain] * 2


def test_what_looks_at_the_first_message_and_then_fails_to_connect_has_sent_nothing() -> None:
    class LooksAhead(Batches):
        def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
            next(iter(deliveries))
            raise DOWN

    assert Run(LooksAhead(faithful)).told() == [("m0", DOWN)]
