"""A fault of the relay is no message's: raised while nothing is known, returned with what is, and gone with its cause."""

from __future__ import annotations

from collections import Counter

from outbox.errors import RelayFault, RelayMisconfigured, RelayUnavailable
from outbox.outcome import Accepted, Outcome, TempFailed, Untried

from .scene import Behaviour, Clauses, Lead, Rig, accepted, deliver, handed_over, kinds, told, untried, within

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
        assert handed_over(rig) == Counter(accepted(outcome))

    def test_a_relay_that_goes_after_good_use_fails_no_message(self, lead: Lead) -> None:
        rig = lead(Behaviour.BREAKS)
        report = self._until_it_breaks(rig)
        if report is None:
            self.cannot(Behaviour.BREAKS)

        assert isinstance(report, RelayFault) or kinds(report) <= {TempFailed, Untried}
        assert set(handed_over(rig).values()) <= {1}

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

    def test_after_an_answer_without_end_the_next_message_is_delivered(self, lead: Lead) -> None:
        self._recovers(lead, Behaviour.DRIPS)

    def test_after_a_silence_at_the_end_the_next_message_is_delivered(self, lead: Lead) -> None:
        self._recovers(lead, Behaviour.STALLS_AT_THE_END)

    def test_after_an_acceptance_that_was_cut_the_next_message_is_delivered(self, lead: Lead) -> None:
        self._recovers(lead, Behaviour.CUTS)

    def _raises(self, lead: Lead, behaviour: Behaviour, fault: type[RelayFault]) -> None:
        rig = lead(behaviour)
        report = told(rig, self.message("a", "b"))

        assert isinstance(report, fault), f"{report!r} where {fault.__name__} was to be raised"
        assert report.relay, "the fault does not say of which relay it is"
        assert not rig.taken()

    def _until_it_breaks(self, rig: Rig) -> Outcome | RelayFault | None:
        """What is told of the first of many messages that is not taken."""
        reports = (told(rig, self.message(f"r{number}")) for number in range(self.many))
        return next(
            (each for each in reports if isinstance(each, RelayFault) or kinds(each) != {Accepted}), None
        )

    def _recovers(self, lead: Lead, behaviour: Behaviour) -> None:
        rig = lead(behaviour)
        within(self.patience, lambda: told(rig, self.message("a")))
        before = len(rig.taken())
        rig.recover()
        outcome = within(self.patience, lambda: deliver(rig, self.message("next")))

        assert kinds(outcome) == {Accepted}
        assert [list(each.recipients) for each in rig.taken()[before:]] == [[self.recipient("next")]]
