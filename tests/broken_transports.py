"""Transports, each broken in one way, noted with the clause of the suite that has to go red for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import attrs
from faithful import RELAY, Faithful

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, Result, TempFailed, Uncertain, Untried
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


@caught_by("test_a_message_without_a_sender_arrives_without_one")
class Signing(Faithful):
    """Has a sender for what has none."""

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        signed = attrs.evolve(message, sender=message.sender or "postmaster@example.org")
        return super().report(signed, recipients)


@caught_by("test_letters_of_eight_bits_arrive_as_they_were_submitted")
class SevenBit(Faithful):
    """Has no use for the eighth."""

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        stripped = attrs.evolve(message, content=bytes(byte & 0x7F for byte in message.content))
        return super().report(stripped, recipients)


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


@caught_by(
    "test_what_was_handed_over_whole_and_not_answered_is_uncertain",
    "test_what_is_never_answered_is_uncertain_in_time",
    "test_an_answer_that_is_none_accepts_and_refuses_nobody",
    "test_an_acceptance_that_was_cut_is_none",
)
class Insistent(Faithful):
    """Sends again at once what is in doubt."""

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        outcome = super().report(message, recipients)
        doubtful = any(isinstance(result, Uncertain) for result in outcome.results.values())
        return super().report(message, recipients) if doubtful else outcome


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
        if outcome.fault:
            raise outcome.fault
        return outcome


@caught_by("test_a_fault_in_the_middle_is_returned_with_what_is_known")
class Repeating(Faithful):
    """Begins anew once it was interrupted, with those that have it already."""

    def broken_off(self, message: Message, recipients: Sequence[str]) -> Outcome:
        outcome = super().broken_off(message, recipients)
        self.far.take(message, [r for r, x in outcome.results.items() if isinstance(x, Accepted)])
        return outcome


@caught_by("test_a_relay_that_goes_after_good_use_fails_no_message")
class Resentful(Faithful):
    """Takes the end of what has served for a refusal."""

    _served = False

    def deliver(self, message: Message, recipients: Sequence[str], /) -> Outcome:
        try:
            outcome = super().deliver(message, recipients)
        except RelayFault as fault:
            if self._served:
                return Outcome.same(recipients, PermFailed(str(fault)), relay=RELAY)
            raise
        self._served = True
        return outcome


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
    Behaviour.DRIPS: "test_after_an_answer_without_end_the_next_message_is_delivered",
    Behaviour.STALLS_AT_THE_END: "test_after_a_silence_at_the_end_the_next_message_is_delivered",
    Behaviour.CUTS: "test_after_an_acceptance_that_was_cut_the_next_message_is_delivered",
}.items():
    caught_by(_clause)(type(f"Sulking{_behaviour.name.title()}", (Sulking,), {"after": _behaviour}))


@caught_by(
    "test_after_an_answer_without_end_the_next_message_is_delivered",
    "test_after_a_silence_at_the_end_the_next_message_is_delivered",
    "test_after_an_acceptance_that_was_cut_the_next_message_is_delivered",
)
class Belated(Faithful):
    """Takes a late answer for the next message's."""

    _late = False

    def report(self, message: Message, recipients: Sequence[str]) -> Outcome:
        if self._late:
            self._late = False
            return Outcome.same(recipients, Accepted("250 of the one before"), relay=RELAY)
        self._late = self.far.behaviour in {Behaviour.STALLS_AT_THE_END, Behaviour.CUTS, Behaviour.DRIPS}
        return super().report(message, recipients)
