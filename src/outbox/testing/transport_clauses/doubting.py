"""The last byte is the line between what was surely not taken and what may have been."""

from __future__ import annotations

from outbox.errors import RelayFault
from outbox.outcome import TempFailed, Uncertain

from .scene import Behaviour, Clauses, Lead, deliver, handed_over, kinds, told, within

__all__ = ["DoubtClauses"]


class DoubtClauses(Clauses):
    """Who may have it is uncertain: neither accepted nor safe to send to again unseen.  Who cannot have it is not."""

    def test_what_was_handed_over_whole_and_not_answered_is_uncertain(self, lead: Lead) -> None:
        self._doubts(lead, Behaviour.LOSES)

    def test_what_is_never_answered_is_uncertain_in_time(self, lead: Lead) -> None:
        self._doubts(lead, Behaviour.STALLS_AT_THE_END)

    def test_an_answer_that_is_none_accepts_and_refuses_nobody(self, lead: Lead) -> None:
        self._doubts(lead, Behaviour.MUMBLES)

    def test_an_acceptance_that_was_cut_is_none(self, lead: Lead) -> None:
        self._doubts(lead, Behaviour.CUTS)

    def test_a_server_that_leaves_before_the_last_byte_took_nothing(self, lead: Lead) -> None:
        self._fails_for_now(lead, Behaviour.LEAVES)

    def test_a_server_that_says_nothing_before_the_last_byte_is_given_up_in_time(self, lead: Lead) -> None:
        self._fails_for_now(lead, Behaviour.STALLS)

    def test_a_server_whose_answer_has_no_end_is_given_up_in_time(self, lead: Lead) -> None:
        self._fails_for_now(lead, Behaviour.DRIPS)

    def _doubts(self, lead: Lead, behaviour: Behaviour) -> None:
        rig, message = lead(behaviour), self.message("a", "b")
        outcome = within(self.patience, lambda: deliver(rig, message))

        assert set(outcome.results) == set(message.recipients)
        assert kinds(outcome) == {Uncertain}
        assert set(handed_over(rig).values()) <= {1}, "what was in doubt was handed over again"

    def _fails_for_now(self, lead: Lead, behaviour: Behaviour) -> None:
        rig, message = lead(behaviour), self.message("a", "b")
        report = within(self.patience, lambda: told(rig, message))

        # A fault of the relay costs the message no attempt, and says as surely that nobody has it.
        assert isinstance(report, RelayFault) or kinds(report) == {TempFailed}
        assert not rig.taken()
