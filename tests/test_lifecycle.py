"""The one table of transitions, and the values that carry what is known."""

from __future__ import annotations

import datetime as dt
from typing import Any

import attrs
import pytest

from outbox.lifecycle import (
    TRANSITIONS,
    Attempt,
    Claim,
    Dead,
    Delivered,
    Event,
    Expired,
    Fate,
    Held,
    Record,
    Released,
    Retry,
    State,
    Summary,
    Verdict,
)
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, TempFailed

ZERO = dt.timedelta(0)
FATES = {"a@x": Fate.WAITING, "b@x": Fate.ACCEPTED, "c@x": Fate.DOUBTFUL}
MESSAGE = Message(recipients=list(FATES), content=b"hello", id="m")
VERDICTS: list[Verdict] = [
    Delivered(fates=FATES),
    Dead(fates=FATES, reason="no"),
    Held(fates=FATES, reason="look"),
    Expired(fates=FATES),
    Retry(fates=FATES, delay=ZERO),
    Released(fates=FATES, delay=ZERO),
]


def ways_out(state: State) -> set[tuple[Event, State]]:
    return {(event, to) for (of, event), to in TRANSITIONS.items() if of is state}


@pytest.mark.parametrize(
    ("state", "ways"),
    [
        (
            State.QUEUED,
            {
                (Event.CLAIM, State.CLAIMED),
                (Event.REQUEUE, State.QUEUED),
                (Event.CANCEL, State.CANCELLED),
                (Event.HOLD, State.HELD),
            },
        ),
        (
            State.CLAIMED,
            {
                (Event.CLAIM, State.CLAIMED),
                (Event.DELIVERED, State.DELIVERED),
                (Event.DEAD, State.DEAD),
                (Event.HELD, State.HELD),
                (Event.EXPIRED, State.EXPIRED),
                (Event.RETRY, State.QUEUED),
                (Event.RELEASED, State.QUEUED),
                (Event.REQUEUE, State.QUEUED),
                (Event.CANCEL, State.CANCELLED),
                (Event.HOLD, State.HELD),
            },
        ),
        (State.DEAD, {(Event.REQUEUE, State.QUEUED)}),
        (
            State.HELD,
            {
                (Event.REQUEUE, State.QUEUED),
                (Event.CANCEL, State.CANCELLED),
                (Event.RELEASE, State.QUEUED),
            },
        ),
        (State.CANCELLED, {(Event.REQUEUE, State.QUEUED)}),
        (State.DELIVERED, set()),
        (State.EXPIRED, set()),
    ],
)
def test_the_ways_out_of_each_state(state: State, ways: set[tuple[Event, State]]) -> None:
    assert ways_out(state) == ways


def test_every_state_can_be_reached() -> None:
    assert {State.QUEUED, *TRANSITIONS.values()} == set(State)


def test_every_event_is_in_the_table() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_only_a_claim_leads_to_a_lease() -> None:
    assert {event for (_, event), to in TRANSITIONS.items() if to is State.CLAIMED} == {Event.CLAIM}


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[State.DEAD, Event.CANCEL] = State.CANCELLED  # type: ignore[index]  # that it is read-only is the point


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: verdict.event)
def test_every_verdict_leads_out_of_a_lease(verdict: Any) -> None:
    to = TRANSITIONS[State.CLAIMED, verdict.event]

    assert to is (State.QUEUED if isinstance(verdict, Retry | Released) else State(verdict.event))


def test_the_verdicts_and_their_words_are_one_to_one() -> None:
    assert len({verdict.event for verdict in VERDICTS}) == len(VERDICTS)


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: verdict.event)
def test_a_verdict_and_its_fates_never_change(verdict: Any) -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        verdict.fates = {}
    with pytest.raises(TypeError):
        verdict.fates["a@x"] = Fate.ACCEPTED


def test_a_verdict_keeps_its_own_copy_of_the_fates() -> None:
    fates = dict(FATES)
    verdict = Delivered(fates=fates)
    fates["a@x"] = Fate.FAILED

    assert verdict.fates["a@x"] is Fate.WAITING


@pytest.mark.parametrize("kind", [Dead, Held, Retry, Released])
def test_a_stranger_s_words_are_escaped_and_capped(kind: Any) -> None:
    delay = {"delay": ZERO} if kind in (Retry, Released) else {}
    reason = kind(fates=FATES, reason="550 \x1b[2J\r\nno" + "!" * 5000, **delay).reason

    assert reason.startswith("550 \\x1b[2J\\r\\nno!")
    assert len(reason) == 1024


def claim(**fields: Any) -> Claim:
    return Claim(message=MESSAGE, fates=FATES, attempt=1, lost=0, age=ZERO, token="t", **fields)


def test_a_claim_is_for_those_whose_fate_is_open_in_the_message_s_order() -> None:
    assert claim().recipients == ("a@x", "c@x")


def test_each_fate_is_open_or_stays_what_it_is() -> None:
    assert {fate for fate in Fate if fate.open} == {Fate.WAITING, Fate.DOUBTFUL}
    for fate in Fate:
        assert not fate.given_up.open
        assert fate.open or fate is fate.given_up is fate.doubted
    assert Fate.WAITING.given_up is Fate.FAILED
    assert Fate.WAITING.doubted is Fate.DOUBTFUL
    assert Fate.DOUBTFUL.given_up is Fate.UNCERTAIN, "what may have been received never counts as failed"


def test_values_can_be_compared_and_hashed() -> None:
    assert claim() == claim()
    assert hash(claim()) == hash(claim())
    assert claim(expires_in=ZERO) != claim()
    for verdict in VERDICTS:
        assert hash(verdict) == hash(attrs.evolve(verdict))
    outcome = Outcome.same(["a@x"], Accepted("250 ok"))
    assert hash(Delivered(fates=FATES, outcome=outcome)) == hash(Delivered(fates=FATES, outcome=outcome))


def test_a_record_s_history_is_its_own() -> None:
    moment = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    results = {"a@x": TempFailed("451 later")}
    history = [Attempt(number=1, at=moment, event=Event.RETRY, results=results)]
    summary = Summary(
        id="m",
        queue="mail",
        priority=0,
        sender="",
        recipients=MESSAGE.recipients,
        size=5,
        state=State.QUEUED,
        fates=FATES,
        submitted_at=moment,
    )
    record = Record(summary=summary, message=MESSAGE, history=history)
    history.clear()

    assert len(record.history) == 1
    with pytest.raises(TypeError):
        record.history[0].results["a@x"] = Accepted()  # type: ignore[index]  # that it is read-only is the point
