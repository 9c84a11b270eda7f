"""The key that limits and breakers go by."""

from __future__ import annotations

from outbox.protocols import SupportsRelays
from outbox.testing.clauses.scene import clause

from .scene import Behaviour, Clauses, Lead, told

__all__ = ["RouteClauses"]


class RouteClauses(Clauses):
    """Whoever leads to several relays names each by one word, without asking it."""

    @clause(SupportsRelays)
    def test_a_relay_has_one_name_whenever_it_is_asked_for(self, lead: Lead) -> None:
        rig, message = lead(Behaviour.TAKES), self.message("a", "b")
        before = [rig.whole.relay(message, each) for each in message.recipients]
        told(rig, message)

        assert [rig.whole.relay(message, each) for each in message.recipients] == before
        assert all(name and name.isprintable() for name in before)

    @clause(SupportsRelays)
    def test_asking_for_a_relay_needs_none(self, lead: Lead) -> None:
        rig, message = lead(Behaviour.UNREACHABLE), self.message("a")

        assert rig.whole.relay(message, message.recipients[0])
        assert not rig.taken()
