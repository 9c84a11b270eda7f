"""Several messages over one connection, pulled one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import attrs

from outbox.errors import RelayFault
from outbox.outcome import Accepted, Outcome
from outbox.protocols import Delivery, SupportsBatch
from outbox.testing.clauses.scene import clause

from .scene import Behaviour, Clauses, Lead, Rig, accepted, deliver, handed_over, kinds

__all__ = ["BatchClauses"]

_NUMBER: Final = 5


class _NoMore(Exception):
    """The deliveries end so."""


class _Pulled(Iterator[Delivery]):
    """Deliveries, with the number of those that were asked for; at their end *error* is raised, where there is one."""

    def __init__(self, deliveries: Sequence[Delivery], error: Exception | None = None) -> None:
        self._deliveries = deliveries
        self._error = error
        self.number = 0

    def __next__(self) -> Delivery:
        if self.number == len(self._deliveries):
            raise self._error or StopIteration
        self.number += 1
        return self._deliveries[self.number - 1]


class BatchClauses(Clauses):
    """What was pulled and handed over is told, in the order pulled; what was never pulled is the caller's."""

    @clause(SupportsBatch)
    def test_a_batch_tells_of_each_in_the_order_pulled(self, lead: Lead) -> None:
        rig, deliveries = lead(Behaviour.TAKES), self._deliveries()
        outcomes = list(rig.whole.deliver_many(deliveries))

        assert [accepted(outcome) for outcome in outcomes] == [set(each.recipients) for each in deliveries]
        assert handed_over(rig) == Counter(r for each in deliveries for r in each.recipients)

    @clause(SupportsBatch)
    def test_a_batch_hands_each_over_for_those_alone_that_its_delivery_names(self, lead: Lead) -> None:
        rig, deliveries = lead(Behaviour.TAKES), self._deliveries()
        some = attrs.evolve(deliveries[1], message=self.message("a", *(f"r{n}" for n in range(_NUMBER))))
        deliveries[1] = some
        outcomes = list(rig.whole.deliver_many(deliveries))

        assert [set(outcome.results) for outcome in outcomes] == [set(each.recipients) for each in deliveries]
        assert handed_over(rig) == Counter(r for each in deliveries for r in each.recipients)

    @clause(SupportsBatch)
    def test_a_batch_of_none_tells_nothing(self, lead: Lead) -> None:
        assert list(lead(Behaviour.TAKES).whole.deliver_many([])) == []

    @clause(SupportsBatch)
    def test_a_refusal_stops_no_other_of_its_batch(self, lead: Lead) -> None:
        deliveries = self._deliveries()
        (refused,) = deliveries[1].recipients
        outcomes = list(lead(Behaviour.REFUSES, refused).whole.deliver_many(deliveries))

        assert [bool(accepted(outcome)) for outcome in outcomes] == [True, False, True, True, True]

    @clause(SupportsBatch)
    def test_a_batch_hands_over_nothing_that_it_did_not_pull(self, lead: Lead) -> None:
        rig, deliveries = lead(Behaviour.TAKES), self._deliveries()
        pulled = _Pulled(deliveries)
        batch = rig.whole.deliver_many(pulled)
        next(batch)
        batch.close()

        assert set(handed_over(rig)) <= {r for each in deliveries[: pulled.number] for r in each.recipients}

    @clause(SupportsBatch)
    def test_a_batch_pulls_one_ahead_at_most(self, lead: Lead) -> None:
        pulled = _Pulled(self._deliveries())
        batch = lead(Behaviour.TAKES).whole.deliver_many(pulled)

        for told, _ in enumerate(batch, start=1):
            assert pulled.number <= told + 1, f"{pulled.number} were pulled when {told} had been told of"

    @clause(SupportsBatch)
    def test_an_abandoned_batch_has_handed_over_nothing_that_it_did_not_tell_of(self, lead: Lead) -> None:
        rig, deliveries = lead(Behaviour.TAKES), self._deliveries()
        batch = rig.whole.deliver_many(deliveries)
        for _ in range(2):
            next(batch)
        batch.close()

        assert handed_over(rig) == Counter(r for each in deliveries[:2] for r in each.recipients)

    @clause(SupportsBatch)
    def test_a_batch_whose_deliveries_raise_tells_of_all_it_handed_over_and_raises_that(
        self, lead: Lead
    ) -> None:
        rig, outcomes = lead(Behaviour.TAKES), list[Outcome]()
        error, raised = _NoMore(), None
        try:
            outcomes.extend(rig.whole.deliver_many(_Pulled(self._deliveries(), error)))
        except _NoMore as told:
            raised = told

        assert raised is error, "what the deliveries raised was not raised"
        assert handed_over(rig) == Counter(r for outcome in outcomes for r in accepted(outcome))

    @clause(SupportsBatch)
    def test_after_an_abandoned_batch_the_next_message_is_delivered(self, lead: Lead) -> None:
        rig = lead(Behaviour.TAKES)
        batch = rig.whole.deliver_many(self._deliveries())
        next(batch)
        batch.close()

        assert kinds(deliver(rig, self.message("next"))) == {Accepted}
        assert handed_over(rig)[self.recipient("next")] == 1

    @clause(SupportsBatch)
    def test_a_batch_tells_of_all_it_handed_over_before_it_raises(self, lead: Lead) -> None:
        rig, deliveries = lead(Behaviour.LOSES), self._deliveries()
        outcomes, _ = _until_it_raises(rig, deliveries)

        assert set(handed_over(rig)) <= {recipient for outcome in outcomes for recipient in outcome.results}
        assert not any(accepted(outcome) for outcome in outcomes)

    @clause(SupportsBatch)
    def test_a_batch_whose_relay_cannot_be_reached_raises_the_fault(self, lead: Lead) -> None:
        rig = lead(Behaviour.UNREACHABLE)
        outcomes: list[Any] = []
        try:
            outcomes.extend(rig.whole.deliver_many(self._deliveries()))
        except RelayFault as fault:
            outcomes.append(fault)

        assert isinstance(outcomes[-1], RelayFault)
        assert len(outcomes) == 1
        assert not rig.taken()

    @clause(SupportsBatch)
    def test_a_batch_tells_of_each_it_pulled_or_raises_what_came_between(self, lead: Lead) -> None:
        rig, pulled = lead(Behaviour.BREAKS), _Pulled(self._deliveries(self.many))
        outcomes, fault = _until_it_raises(rig, pulled)

        assert fault or len(outcomes) == pulled.number, f"of {pulled.number} it told of {len(outcomes)} only"
        assert handed_over(rig) == Counter(r for outcome in outcomes for r in accepted(outcome))

    def _deliveries(self, number: int = _NUMBER) -> list[Delivery]:
        messages = [self.message(f"r{n}") for n in range(number)]
        return [Delivery(message, message.recipients) for message in messages]


def _until_it_raises(rig: Rig, deliveries: Iterable[Delivery]) -> tuple[list[Outcome], RelayFault | None]:
    outcomes: list[Outcome] = []
    try:
        outcomes.extend(rig.whole.deliver_many(deliveries))
    except RelayFault as fault:
        return outcomes, fault
    return outcomes, None
