"""Transports that are broken in what they share, close, hide, or pull one by one; see ``broken_transports``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import attrs
from broken_transports import BROKEN, caught_by
from faithful import RELAY, Faithful, FarSide

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Outcome, PermFailed, Result, Uncertain
from outbox.protocols import Delivery
from outbox.testing import Behaviour

__all__ = ["BROKEN"]

# --- threads and ends --------------------------------------------------------------------------


@caught_by("test_many_threads_deliver_at_once_and_each_is_told_of_its_own")
class Crossed(Faithful):
    """Keeps what it is at in one place for all threads."""

    def __init__(self, far: FarSide) -> None:
        super().__init__(far)
        self._meet = threading.Barrier(2)

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        self._recipients = recipients
        try:
            self._meet.wait(0.2)
        except threading.BrokenBarrierError:
            self._meet.reset()
        return super().report(message, self._recipients)


@caught_by("test_what_one_thread_is_refused_no_other_is")
class Contagious(Faithful):
    """Who was refused once, everybody is."""

    def __init__(self, far: FarSide) -> None:
        super().__init__(far)
        self._refused: Result | None = None
        self._came = threading.Event()

    def result(self, recipient: str) -> Result:
        result = super().result(recipient)
        if isinstance(result, PermFailed):
            self._refused = result
            self._came.set()
        # Those who are taken do not all come first.
        self._came.wait(2)
        return self._refused or result


@caught_by(
    "test_closing_twice_is_harmless",
    "test_closing_what_never_delivered_is_harmless",
    "test_closing_after_a_fault_is_harmless",
    "test_closing_after_a_message_of_which_nobody_knows_is_harmless",
)
class Touchy(Faithful):
    """Is closed once, and after a delivery."""

    _connection: object = None

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        outcome = super().report(message, recipients)
        self._connection = None if self.far.behaviour is Behaviour.LOSES else object()
        return outcome

    def close(self) -> None:
        if self._connection is None:
            raise RuntimeError("there is nothing to close")
        self._connection = None


@caught_by("test_expiring_is_harmless_at_any_time")
class Expired(Faithful):
    """Closes for good what has idled."""

    _gone = False

    def expire(self) -> None:
        self._gone = True

    def connect(self) -> None:
        if self._gone:
            raise RelayUnavailable(RELAY, "closed")
        super().connect()


# --- secrets -----------------------------------------------------------------------------------


@caught_by("test_no_secret_is_told_though_the_server_repeats_it")
class Parrot(Faithful):
    """Passes on what the server said."""

    def fault(self) -> RelayFault | None:
        said = self.far.behaviour is Behaviour.ECHOES
        return RelayMisconfigured(RELAY, f"535 {self.secret} is wrong") if said else super().fault()


@caught_by("test_no_secret_is_told_though_a_server_that_let_us_in_repeats_it")
class Quoting(Faithful):
    """Passes on what the server said of a recipient."""

    def result(self, recipient: str) -> Result:
        said = self.far.behaviour is Behaviour.ECHOES_LATER
        return PermFailed(f"550 {self.secret} may not") if said else super().result(recipient)


@caught_by("test_no_secret_is_told_of_a_delivery")
class Transcribing(Faithful):
    """Has it in its dialogue."""

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        dialogue = f"C: AUTH PLAIN {self.secret}"
        return attrs.evolve(super().report(message, recipients), dialogue=dialogue)


@caught_by("test_no_secret_is_told_of_a_delivery", "test_no_secret_is_told_of_a_fault")
class Chatty(Faithful):
    """Logs it."""

    def connect(self) -> None:
        logging.getLogger("chatty").debug("login with %s", self.secret)
        super().connect()


@caught_by("test_no_secret_is_told_of_a_delivery")
class Boastful(Faithful):
    """Has it in its repr."""

    def __repr__(self) -> str:
        return f"Boastful({self.secret!r})"


@caught_by("test_no_secret_is_told_of_a_fault")
class Careless(Faithful):
    """Has it in what its fault was raised from."""

    def connect(self) -> None:
        fault = self.fault()
        if fault:
            raise fault from ValueError(self.secret)


# --- batches and relays ------------------------------------------------------------------------


class Batching(Faithful):
    """Breaks ``deliver_many``."""

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        yield from (self.deliver(each.message, each.recipients) for each in deliveries)


@caught_by("test_a_batch_tells_of_each_in_the_order_pulled")
class Backwards(Batching):
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        yield from reversed([*super().deliver_many(deliveries)])


@caught_by("test_a_batch_hands_each_over_for_those_alone_that_its_delivery_names")
class Sweeping(Batching):
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        yield from (self.deliver(each.message, each.message.recipients) for each in deliveries)


@caught_by("test_a_batch_tells_of_each_it_pulled_or_raises_what_came_between")
class Hushed(Batching):
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        for number, each in enumerate(deliveries):
            try:
                yield self.deliver(each.message, each.recipients)
            except RelayFault:
                if number:
                    return
                raise


@caught_by("test_a_batch_of_none_tells_nothing")
class Polite(Batching):
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        yield from [*super().deliver_many(deliveries)] or [Outcome(results={})]


@caught_by("test_a_refusal_stops_no_other_of_its_batch")
class Discouraged(Batching):
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        for outcome in super().deliver_many(deliveries):
            yield outcome
            if any(isinstance(result, PermFailed) for result in outcome.results.values()):
                return


class Cheating(Batching):
    """Knows the list that it is to pull from."""

    def _known(self, deliveries: Any) -> Sequence[Delivery]:
        return deliveries._deliveries if hasattr(deliveries, "_deliveries") else [*deliveries]


@caught_by("test_a_batch_hands_over_nothing_that_it_did_not_pull")
class Grabbing(Cheating):
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        outcomes = [self.deliver(each.message, each.recipients) for each in self._known(deliveries)]
        yield from (outcome for outcome, _ in zip(outcomes, deliveries, strict=False))


@caught_by("test_a_batch_pulls_one_ahead_at_most")
class Hoarding(Batching):
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        yield from super().deliver_many([*deliveries])


@caught_by(
    "test_an_abandoned_batch_has_handed_over_nothing_that_it_did_not_tell_of",
    "test_a_batch_whose_deliveries_raise_tells_of_all_it_handed_over_and_raises_that",
)
class Hasty(Batching):
    """Hands the next over before it has told of the one before."""

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        told = super().deliver_many(deliveries)
        outcome = next(told, None)
        while outcome is not None:
            following = next(told, None)
            yield outcome
            outcome = following


@caught_by("test_after_an_abandoned_batch_the_next_message_is_delivered")
class Abandoned(Batching):
    _gone = False

    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        try:
            yield from super().deliver_many(deliveries)
        except GeneratorExit:
            self._gone = True
            raise

    def connect(self) -> None:
        if self._gone:
            raise RelayUnavailable(RELAY, "closed")
        super().connect()


@caught_by("test_a_batch_tells_of_all_it_handed_over_before_it_raises")
class Abrupt(Batching):
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        for outcome in super().deliver_many(deliveries):
            if any(isinstance(result, Uncertain) for result in outcome.results.values()):
                raise RelayUnavailable(RELAY, "gone")
            yield outcome


@caught_by("test_a_batch_whose_relay_cannot_be_reached_raises_the_fault")
class Stoic(Batching):
    def deliver_many(self, deliveries: Iterable[Delivery], /) -> Generator[Outcome, None, None]:
        if not self.fault():
            yield from super().deliver_many(deliveries)


@caught_by("test_a_relay_has_one_name_whenever_it_is_asked_for")
class Renaming(Faithful):
    _asked = 0

    def relay(self, message: Message, recipient: str, /) -> str:
        self._asked += 1
        return f"{super().relay(message, recipient)}-{self._asked}"


@caught_by("test_asking_for_a_relay_needs_none")
class Dialling(Faithful):
    def relay(self, message: Message, recipient: str, /) -> str:
        self.connect()
        return super().relay(message, recipient)
