"""A fault of the relay is no message's: raised while nothing is known, returned with what is, and gone with its cause."""

from __future__ import annotations

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.outcome import Accepted

from .scene import Behaviour, Clauses, Lead, accepted, deliver, handed_over, kinds, told, untried, within

__all__ = ["FaultClauses"]


class FaultClauses(Clauses):
    """Raised or returned, a fault says that the relay cannot be used, and of no recipient that it failed."""

    def test_a_relay_that_cannot_be_reached_is_unavailable(self, lead: Lead) -> None:
        self._raises(lead, Behaviour.UNREACHABLE, RelayUnavailable)

    def test_a_relay_that_turns_everybody_away_for_now_is_unavailable(self, lead: Lead) -> None:
        self._raises(lead, Behaviour.TURNS_AWAY, RelayUnavailable)

    def test_a_relay_that_will_not_have_us_is_a_matter_for_a_person(self, lead: Lead) -> None:
        self._raises(lead, Behaviour.FORBIDS, RelayMisconfigured)

    def test_a_fault_in_the_middle_is_returned_with_what_is_known(self, lead: Lead) -> None:
        rig, message = lead(Behaviour.BREAKS), self.message(*(f"r{n}" for n in range(self.many)))
        outcome = deliver(rig, message)

        assert isinstance(outcome.fault, RelayFault)
        assert accepted(outcome)
        assert untried(outcome) == set(message.recipients) - accepted(outcome) != set()
        assert set(handed_over(rig)) == accepted(outcome)

    def test_after_a_relay_was_not_reached_the_next_message_is_delivered(self, lead: Lead) -> None:
        self._recovers(lead, Behaviour.UNREACHABLE)

    def test_after_we_were_turned_away_the_next_message_is_delivered(self, lead: Lead) -> None:
        self._recovers(lead, Behaviour.TURNS_AWAY)

    def test_after_a_person_mended_it_the_next_message_is_delivered(self, lead: Lead) -> None:
        self._recovers(lead, Behaviour.FORBIDS)

    def test_after_a_refusal_the_next_message_is_delivered(self, lead: Lead) -> None:
        self._recovers(lead, Behaviour.REFUSES)

    def test_after_a_server_left_the_next_message_is_delivered(self, lead: Lead) -> None:
        self._recovers(lead, Behaviour.LEAVES)

    def test_after_a_silence_the_next_message_is_delivered(self, lead: Lead) -> None:
        self._recovers(lead, Behaviour.STALLS)

    def test_after_a_message_of_which_nobody_knows_the_next_is_delivered(self, lead: Lead) -> None:
        self._recovers(lead, Behaviour.LOSES)

    def test_after_an_answer_that_was_none_the_next_message_is_delivered(self, lead: Lead) -> None:
        self._recovers(lead, Behaviour.MUMBLES)

    def _raises(self, lead: Lead, behaviour: Behaviour, fault: type[RelayFault]) -> None:
        rig = lead(behaviour)
        report = told(rig, self.message("a", "b"))

        assert isinstance(report, fault), f"{report!r} where {fault.__name__} was to be raised"
        assert report.relay, "the fault does not say of which relay it is"
        assert not rig.taken()

    def _recovers(self, lead: Lead, behaviour: Behaviour) -> None:
        rig = lead(behaviour)
        within(self.patience, lambda: told(rig, self.message("a")))
        before = len(rig.taken())
        rig.recover()
        outcome = within(self.patience, lambda: deliver(rig, self.message("next")))

        assert kinds(outcome) == {Accepted}
        assert [list(each.recipients) for each in rig.taken()[before:]] == [[self.recipient("next")]]
