"""Who is not to be written to, now or ever: the rules, without a Runner."""

import datetime as dt
import random
from collections.abc import Mapping

import pytest

from outbox.lifecycle import Claim, Fate
from outbox.message import Message
from outbox.outcome import Accepted, Outcome, PermFailed, TempFailed, Untried
from outbox.protocols import Suspension
from outbox.screening import Suspended, given_back, screened, suppressed, unsure

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
MINUTE, HOUR = dt.timedelta(minutes=1), dt.timedelta(hours=1)
ANN, BOB = "ann@a.example", "bob@B.example"
OF_A = Suspension(kind="domain", value="a.example", reason="they asked for it")
RNG = random.Random(1)


def claim(
    *,
    age: dt.timedelta = dt.timedelta(0),
    expires_in: dt.timedelta | None = None,
    attributes: Mapping[str, str] | None = None,
) -> Claim:
    message = Message(recipients=(ANN, BOB), content=b"x", attributes=attributes or {})
    fates = dict.fromkeys(message.recipients, Fate.WAITING)
    return Claim(message=message, fates=fates, attempt=1, lost=0, age=age, expires_in=expires_in, token="t")


def withheld(
    *suspensions: Suspension, relays: dict[str, str] | None = None, **attributes: str
) -> dict[str, str]:
    found = Suspended(suspensions).withheld(claim(attributes=attributes), relays or {}, NOW)
    return {recipient: each.kind for recipient, each in found.items()}


def test_a_suspended_domain_keeps_back_those_of_it_alone_however_it_is_written() -> None:
    assert withheld(OF_A) == {ANN: "domain"}
    assert withheld(Suspension(kind="domain", value="b.EXAMPLE")) == {BOB: "domain"}
    assert withheld(Suspension(kind="domain", value="example")) == {}


def test_a_suspended_attribute_keeps_back_all_of_a_message_that_has_it_so() -> None:
    suspension = Suspension(kind="attribute", value="campaign=spring")
    assert withheld(suspension, campaign="spring") == {ANN: "attribute", BOB: "attribute"}
    assert withheld(suspension, campaign="summer") == {}


def test_a_suspended_relay_keeps_back_those_who_go_to_it() -> None:
    assert withheld(Suspension(kind="relay", value="a"), relays={ANN: "a", BOB: "b"}) == {ANN: "relay"}


def test_what_is_over_by_now_keeps_nobody_back_and_a_queue_is_the_store_s() -> None:
    assert withheld(Suspension(kind="domain", value="a.example", until=NOW)) == {}
    assert withheld(Suspension(kind="queue", value="mail")) == {}
    assert not Suspended([Suspension(kind="queue", value="mail")])


def test_of_several_suspensions_the_one_that_lasts_longest_is_told() -> None:
    ends = Suspension(kind="relay", value="a", until=NOW + MINUTE)
    assert withheld(ends, OF_A, relays={ANN: "a"}) == {ANN: "domain"}


def test_a_claim_is_given_back_until_the_first_of_its_suspensions_ends() -> None:
    soon = Suspension(kind="domain", value="b.example", until=NOW + MINUTE / 2, reason="a move")
    verdict = given_back(claim(), [OF_A, soon], NOW, RNG)
    assert verdict.delay == MINUTE / 2
    assert verdict.reason == "suspended: domain b.example until 2026-05-01T12:00:30Z: a move"


@pytest.mark.parametrize(
    ("age", "least", "most"), [(0, 0.75, 1.25), (100, 7.5, 12.5), (10_000, 11.25, 18.75)]
)
def test_what_is_suspended_for_long_is_looked_at_again_after_a_while_and_not_all_at_once(
    age: int, least: float, most: float
) -> None:
    later = OF_A, Suspension(kind="domain", value="b.example", until=NOW + 1000 * HOUR)
    delays = {given_back(claim(age=age * MINUTE), later, NOW, RNG).delay for _ in range(50)}
    assert len(delays) == 50
    assert least * MINUTE <= min(delays) < max(delays) <= most * MINUTE


def test_a_claim_is_given_back_for_no_longer_than_it_lives_and_never_for_nothing() -> None:
    assert given_back(claim(expires_in=MINUTE / 4), [OF_A], NOW, RNG).delay == MINUTE / 4
    over = Suspension(kind="domain", value="a.example", until=NOW)
    assert given_back(claim(), [over], NOW, RNG).delay == dt.timedelta(seconds=1)


def test_where_nobody_is_kept_back_there_is_nothing_to_tell() -> None:
    assert screened((ANN, BOB), {}, {}) is None


def test_who_is_kept_back_is_not_charged_and_who_is_suppressed_is_refused_by_us() -> None:
    found = screened((ANN, BOB), {ANN: OF_A}, suppressed({BOB}, (BOB,)))
    assert found is not None
    assert found.recipients == ()
    kept, refused = found.results[ANN], found.results[BOB]
    assert kept == Untried("suspended: domain a.example: they asked for it", dt.timedelta(0))
    assert isinstance(refused, PermFailed)
    assert refused.by_us
    assert refused.reply.startswith("not sent: suppressed")


def test_what_the_relay_said_is_joined_with_what_it_was_not_asked() -> None:
    found = screened((ANN, BOB), {ANN: OF_A}, {})
    assert found is not None
    report = found.joined(Outcome(results={BOB: Accepted("250")}, relay="b:25", cut=True, dialogue="said"))
    assert isinstance(report, Outcome)
    assert set(report.results) == {ANN, BOB}
    assert (report.relay, report.cut, report.dialogue) == ("b:25", True, "said")


@pytest.mark.parametrize("answer", [None, "ann@a.example", 7, [None], {ANN: 1}.items()])
def test_what_is_no_collection_of_recipients_tells_nothing(answer: object) -> None:
    with pytest.raises(TypeError, match="suppress returned"):
        suppressed(answer, (ANN,))


def test_whoever_is_named_beside_the_recipients_is_nobody_s_concern() -> None:
    assert suppressed(["eve@e.example"], (ANN,)) == {}


def test_where_it_cannot_be_told_all_are_put_off() -> None:
    results = unsure(OSError("secret"), (ANN, BOB))
    assert all(isinstance(each, TempFailed) and "secret" not in each.reply for each in results.values())
    assert set(results) == {ANN, BOB}
