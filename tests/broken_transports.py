"""Transports, each broken in one way, noted with the clause of the suite that has to go red for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Final, TypeVar

import attrs
from faithful import RELAY, Faithful, FarSide

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
from outbox.protocols import Delivery
from outbox.testing import Behaviour

BROKEN: Final[dict[str, tuple[type[Faithful], tuple[str, ...]]]] = {}
"""By name: the transport, and the clauses that find it."""

T = TypeVar("T", bound=type[Faithful])


def caught_by(*clauses: str) -> Callable[[T], T]:
    def note(broken: T) -> T:
        BROKEN[broken.__name__] = broken, clauses
        return broken

    return note


# --- reports -----------------------------------------------------------------------------------


@caught_by("test_everybody_asked_for_has_a_result_and_nobody_else_has")
class Forgetful(Faithful):
    """Says nothing of the last."""

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        outcome = super().report(message, recipients)
        return attrs.evolve(outcome, results=dict(list(outcome.results.items())[:-1]))


@caught_by(
    "test_only_those_asked_for_are_handed_over", "test_a_later_delivery_of_a_message_tells_of_itself_alone"
)
class Generous(Faithful):
    """Hands it to everybody on the envelope."""

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        return super().report(message, message.recipients)


@caught_by(
    "test_who_is_accepted_was_taken_and_once",
    "test_many_recipients_have_each_a_result_and_are_each_taken_once",
)
class Twice(Faithful):
    """Sends what it sends again."""

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        super().report(message, recipients)
        return super().report(message, recipients)


@caught_by("test_sender_and_content_arrive_as_they_were_submitted")
class Tidy(Faithful):
    """Strips what it sends."""

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        return super().report(
            attrs.evolve(message, content=message.content.strip(b".\r\n") + b"\r\n"), recipients
        )


@caught_by("test_who_is_refused_for_good_failed_for_good_and_the_others_were_taken")
class AllForOne(Faithful):
    """Takes one refusal for everybody's."""

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        outcome = super().report(message, recipients)
        refused = [result for result in outcome.results.values() if isinstance(result, PermFailed)]
        return Outcome.same(recipients, refused[0], relay=RELAY) if refused else outcome


@caught_by(
    "test_who_is_refused_for_now_failed_for_now_and_the_others_were_taken",
    "test_where_everybody_is_refused_for_now_everybody_failed_for_now",
)
class Impatient(Faithful):
    """Takes not now for never."""

    def result(self, recipient: str) -> Result:
        result = super().result(recipient)
        return PermFailed(result.reply) if isinstance(result, TempFailed) else result


@caught_by("test_where_everybody_is_refused_for_good_everybody_failed_for_good")
class Hopeful(Faithful):
    """Takes never for not now."""

    def result(self, recipient: str) -> Result:
        result = super().result(recipient)
        return TempFailed(result.reply) if isinstance(result, PermFailed) else result


@caught_by("test_the_recipients_come_in_any_sequence_which_stays_as_it_is")
class Sorting(Faithful):
    """Puts its caller's list in order."""

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        outcome = super().report(message, recipients)
        if isinstance(recipients, list):
            recipients.sort()
        return outcome


@caught_by("test_the_relay_is_named_in_a_word_fit_for_a_log")
class Colourful(Faithful):
    """Names its relay in red."""

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        return attrs.evolve(super().report(message, recipients), relay="\x1b[31mfar")


# --- doubts ------------------------------------------------------------------------------------


@caught_by("test_what_was_handed_over_whole_and_not_answered_is_uncertain")
class Optimist(Faithful):
    """What was sent has arrived."""

    def doubt(self) -> Result:
        return Accepted("sent") if self.far.behaviour is Behaviour.LOSES else super().doubt()


@caught_by("test_what_is_never_answered_is_uncertain_in_time")
class Pessimist(Faithful):
    """What timed out has not arrived."""

    def doubt(self) -> Result:
        return (
            TempFailed("timed out") if self.far.behaviour is Behaviour.STALLS_AT_THE_END else super().doubt()
        )


@caught_by("test_an_answer_that_is_none_accepts_and_refuses_nobody")
class Offended(Faithful):
    """Nonsense is a no."""

    def doubt(self) -> Result:
        return PermFailed("what?") if self.far.behaviour is Behaviour.MUMBLES else super().doubt()


@caught_by("test_an_acceptance_that_was_cut_is_none")
class QuickEars(Faithful):
    """The first digit will do."""

    def doubt(self) -> Result:
        return Accepted("25") if self.far.behaviour is Behaviour.CUTS else super().doubt()


@caught_by("test_a_server_that_leaves_before_the_last_byte_took_nothing")
class Anxious(Faithful):
    """Doubts what cannot have been taken."""

    def result(self, recipient: str) -> Result:
        return Uncertain() if self.far.behaviour is Behaviour.LEAVES else super().result(recipient)


@caught_by(
    "test_a_server_that_says_nothing_before_the_last_byte_is_given_up_in_time",
    "test_a_server_whose_answer_has_no_end_is_given_up_in_time",
)
class Endless(Faithful):
    """Waits for ever."""

    def result(self, recipient: str) -> Result:
        if self.far.behaviour in (Behaviour.STALLS, Behaviour.DRIPS):
            threading.Event().wait()
        return super().result(recipient)


# --- faults ------------------------------------------------------------------------------------


@caught_by(
    "test_a_relay_that_cannot_be_reached_is_unavailable",
    "test_a_relay_that_will_not_have_us_is_a_matter_for_a_person",
)
class Blaming(Faithful):
    """The relay's fault is the message's."""

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        try:
            return super().deliver(message, recipients)
        except RelayFault as fault:
            return Outcome.same(recipients, TempFailed(str(fault)), relay=RELAY)


@caught_by("test_a_relay_that_turns_everybody_away_for_now_is_unavailable")
class Alarming(Faithful):
    """A pause is a matter for a person."""

    def fault(self) -> RelayFault | None:
        return RelayMisconfigured(RELAY, "not now") if super().fault() else None


@caught_by("test_a_relay_that_will_not_have_us_is_a_matter_for_a_person")
class Soothing(Faithful):
    """Whatever it is will pass."""

    def fault(self) -> RelayFault | None:
        return RelayUnavailable(RELAY, "later") if super().fault() else None


@caught_by("test_a_relay_that_cannot_be_reached_is_unavailable")
class Nameless(Faithful):
    """Some relay or other."""

    def fault(self) -> RelayFault | None:
        return RelayUnavailable("", "not now") if super().fault() else None


@caught_by("test_a_fault_in_the_middle_is_returned_with_what_is_known")
class Dramatic(Faithful):
    """Raises, and takes what it knew with it."""

    def broken_off(self, message: Message, recipients: Sequence[str]) -> Outcome:
        outcome = super().broken_off(message, recipients)
        assert outcome.fault
        raise outcome.fault


@caught_by("test_a_fault_in_the_middle_is_returned_with_what_is_known")
class Silencing(Faithful):
    """Charges those who were never tried."""

    def broken_off(self, message: Message, recipients: Sequence[str]) -> Outcome:
        outcome = super().broken_off(message, recipients)
        results = {r: TempFailed() if isinstance(x, Untried) else x for r, x in outcome.results.items()}
        return Outcome(results=results, relay=RELAY)


class Sulking(Faithful):
    """Is of no more use once something of this kind has happened."""

    after: Behaviour
    _sulks = False

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        if self._sulks:
            raise RelayUnavailable(RELAY, "not after what happened")
        self._sulks = self.far.behaviour is self.after
        return super().deliver(message, recipients)


for _behaviour, _clause in {
    Behaviour.UNREACHABLE: "test_after_a_relay_was_not_reached_the_next_message_is_delivered",
    Behaviour.TURNS_AWAY: "test_after_we_were_turned_away_the_next_message_is_delivered",
    Behaviour.FORBIDS: "test_after_a_person_mended_it_the_next_message_is_delivered",
    Behaviour.REFUSES: "test_after_a_refusal_the_next_message_is_delivered",
    Behaviour.LEAVES: "test_after_a_server_left_the_next_message_is_delivered",
    Behaviour.STALLS: "test_after_a_silence_the_next_message_is_delivered",
    Behaviour.LOSES: "test_after_a_message_of_which_nobody_knows_the_next_is_delivered",
    Behaviour.MUMBLES: "test_after_an_answer_that_was_none_the_next_message_is_delivered",
}.items():
    caught_by(_clause)(type(f"Sulking{_behaviour.name.title()}", (Sulking,), {"after": _behaviour}))


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

    _refused: Result | None = None

    def result(self, recipient: str) -> Result:
        result = super().result(recipient)
        if isinstance(result, PermFailed):
            self._refused = result
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
