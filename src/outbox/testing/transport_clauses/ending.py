"""Closing, and what is closed meanwhile."""

from __future__ import annotations

from outbox.outcome import Accepted
from outbox.protocols import SupportsIdle
from outbox.testing.clauses.scene import clause

from .scene import Behaviour, Clauses, Lead, deliver, kinds, told

__all__ = ["EndClauses"]


class EndClauses(Clauses):
    """A transport may be closed at any time between deliveries, and as often as one likes."""

    def test_closing_what_never_delivered_is_harmless(self, lead: Lead) -> None:
        transport = lead(Behaviour.TAKES).transport
        transport.close()

    def test_closing_twice_is_harmless(self, lead: Lead) -> None:
        rig = lead(Behaviour.TAKES)
        deliver(rig, self.message("a"))
        rig.transport.close()
        rig.transport.close()

        assert len(rig.taken()) == 1

    def test_closing_after_a_fault_is_harmless(self, lead: Lead) -> None:
        rig = lead(Behaviour.UNREACHABLE)
        told(rig, self.message("a"))
        rig.transport.close()

    def test_closing_after_a_message_of_which_nobody_knows_is_harmless(self, lead: Lead) -> None:
        rig = lead(Behaviour.LOSES)
        told(rig, self.message("a"))
        rig.transport.close()

    @clause(SupportsIdle)
    def test_expiring_is_harmless_at_any_time(self, lead: Lead) -> None:
        rig = lead(Behaviour.TAKES)
        for _ in range(3):
            rig.whole.expire()
            assert kinds(deliver(rig, self.message("a"))) == {Accepted}
        rig.whole.expire()
        rig.transport.close()
        rig.whole.expire()
