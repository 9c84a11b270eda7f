"""What SQS does to a message, and what its wire does: lost answers, partial failures, strangers' letters, wrong credentials."""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import boto3
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    TokenRetrievalError,
)
from sqs_server import endpoint, prefix_of, session
from sqs_wire import (
    LEASE,
    SECOND,
    ZERO,
    Raw,
    Wire,
    dead,
    delivered,
    fates,
    ids,
    mail,
    opening,
    retry,
    settle,
    take,
)

from outbox.errors import (
    AmbiguousPut,
    ConfigurationError,
    ConflictError,
    StoreError,
    StoreUnavailable,
    UnsupportedError,
)
from outbox.lifecycle import (
    Claim,
    Dead,
    Fate,
    Held,
    Released,
    Settlement,
)
from outbox.stores.sqs import DirectoryBlobs, S3Blobs, SQSStore
from outbox.stores.sqs.naming import sqs_name
from outbox.testing.clock import ManualClock


@pytest.fixture
def open_store(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., SQSStore]]:
    yield from opening(clock, tmp_path)


@pytest.fixture
def store(open_store: Callable[..., SQSStore]) -> SQSStore:
    return open_store()


@pytest.fixture
def raw(tmp_path: Path, store: SQSStore) -> Raw:
    store.claim(limit=1, lease=LEASE, queues=["mail"])
    return Raw(prefix_of(tmp_path))


# -- a put that fails


@pytest.mark.parametrize(
    "error",
    [EndpointConnectionError(endpoint_url="http://sqs"), ConnectTimeoutError(endpoint_url="http://sqs")],
    ids=lambda error: type(error).__name__,
)
def test_a_put_that_did_not_reach_the_service_stored_nothing_and_says_so(
    store: SQSStore, error: Exception
) -> None:
    take(store)
    wire = Wire(store)
    wire.refuse("send_message_batch", error=error)

    with pytest.raises(StoreUnavailable):
        store.put([mail("a")])

    wire.heal()
    assert take(store) == []


def test_a_put_whose_answer_was_lost_is_ambiguous_and_repeated_is_there_twice(store: SQSStore) -> None:
    """Nobody can do better with a standard queue; that is why it lacks deduplication."""
    take(store)
    wire = Wire(store)
    wire.lose_answer("send_message_batch")
    with pytest.raises(AmbiguousPut, match="answer was lost"):
        store.put([mail("a")])
    wire.heal()

    store.put([mail("a")])

    assert ids(take(store)) == ["a", "a"]


def test_a_put_of_which_the_answer_says_nothing_is_ambiguous(store: SQSStore) -> None:
    take(store)
    wire = Wire(store)
    wire.acts["send_message_batch"] = lambda _, asked: {"Successful": [{"Id": asked["Entries"][0]["Id"]}]}

    with pytest.raises(AmbiguousPut, match="of 1 of a request the answer says nothing"):
        store.put([mail("a"), mail("b")])


def failing(wire: Wire, code: str, *, blamed: bool, stored: bool) -> None:
    """Each entry of a send fails so; it may be stored all the same."""

    def act(real: Callable[..., Any], asked: dict[str, Any]) -> Any:
        if stored:
            real(**asked)
        return {
            "Failed": [
                {"Id": entry["Id"], "Code": code, "SenderFault": blamed, "Message": "no"}
                for entry in asked["Entries"]
            ]
        }

    wire.acts["send_message_batch"] = act


@pytest.mark.parametrize("code", ["InternalError", "InternalFailure", "ServiceUnavailable"])
def test_what_the_service_failed_to_store_may_be_stored_and_its_content_is_kept(
    open_store: Callable[..., SQSStore], tmp_path: Path, code: str
) -> None:
    store = open_store(blobs=DirectoryBlobs(tmp_path / "large"))
    take(store)
    wire = Wire(store)
    failing(wire, code, blamed=False, stored=True)
    large = mail("a", content=bytes(400_000))
    with pytest.raises(AmbiguousPut, match=f"{code}: no: nobody can tell"):
        store.put([large])
    wire.heal()

    assert [claim.message for claim in take(store)] == [large]


@pytest.mark.parametrize(
    ("code", "blamed"),
    [
        ("InvalidMessageContents", True),
        ("InternalError", True),
        ("RequestThrottled", False),
        ("AWS.SimpleQueueService.ThrottlingException", False),
        ("KmsThrottled", False),
    ],
)
def test_what_the_service_refused_to_store_is_not_stored_and_its_content_is_removed(
    open_store: Callable[..., SQSStore], tmp_path: Path, code: str, blamed: bool
) -> None:
    store = open_store(blobs=DirectoryBlobs(tmp_path / "large"))
    take(store)
    failing(Wire(store), code, blamed=blamed, stored=False)
    with pytest.raises(StoreUnavailable, match="1 of a request failed"):
        store.put([mail("a", content=bytes(400_000))])

    assert list((tmp_path / "large").iterdir()) == []


def test_a_delete_of_which_the_answer_says_nothing_is_not_done(store: SQSStore) -> None:
    store.put([mail("a")])
    (claim,) = take(store)
    wire = Wire(store)
    wire.acts["delete_message_batch"] = lambda _, __: {}
    with pytest.raises(StoreUnavailable):
        settle(store, claim, delivered(claim))
    wire.heal()

    assert settle(store, claim, delivered(claim)) == []


def refusal(code: str, status: int = 400) -> ClientError:
    answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "SendMessageBatch")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refusal("ExpiredToken", 403), "renew them"),
        (refusal("InvalidClientTokenId", 403), "profile or the environment"),
        (refusal("AccessDenied", 403), "permission"),
        (refusal("KMS.AccessDeniedException"), "key that encrypts"),
        (refusal("KmsDisabled"), "key that encrypts"),
        (refusal("RequestThrottled"), "fewer requests"),
        (refusal("ThrottlingException"), "fewer requests"),
        (refusal("RequestExpired"), "clock"),
        (refusal("AWS.SimpleQueueService.QueueDeletedRecently"), "a minute"),
        (TokenRetrievalError(provider="sso", error_msg="expired"), "expired"),
        (CredentialRetrievalError(provider="role", error_msg="gone"), "gone"),
    ],
    ids=str,
)
def test_what_was_refused_before_it_was_done_is_not_ambiguous_and_says_what_to_do(
    store: SQSStore, error: Exception, words: str
) -> None:
    take(store)
    wire = Wire(store)
    wire.refuse("send_message_batch", error=error)

    with pytest.raises(StoreUnavailable, match=words):
        store.put([mail("a")])


@pytest.mark.parametrize(
    "act",
    [lambda store: store.put([mail("a", content=bytes(400_000))]), take],
    ids=["put", "claim"],
)
def test_who_has_no_credentials_is_told_what_to_do_and_not_to_wait(
    open_store: Callable[..., SQSStore], tmp_path: Path, act: Callable[[SQSStore], object]
) -> None:
    store = open_store(blobs=DirectoryBlobs(tmp_path / "large"))
    wire = Wire(store)
    for verb in ("get_queue_url", "create_queue"):
        wire.refuse(verb, error=NoCredentialsError())

    with pytest.raises(ConfigurationError, match=r"mail.*: no credentials .*AWS_ACCESS_KEY_ID.*~/\.aws"):
        act(store)
    assert list((tmp_path / "large").iterdir()) == []


def test_of_a_put_that_is_refused_for_one_message_no_content_of_another_is_left(
    open_store: Callable[..., SQSStore], tmp_path: Path
) -> None:
    store = open_store(blobs=DirectoryBlobs(tmp_path / "large"), max_message=20_000)
    many = tuple(f"{n}@example.org" for n in range(20_000))
    with pytest.raises(UnsupportedError, match="b has"):
        store.put([mail("a", content=bytes(400_000)), mail("b", recipients=many)])

    assert list((tmp_path / "large").iterdir()) == []


SIGNED = "POST\n/\n\nhost:sqs\nx-amz-security-token:{token}\nCredential={key}"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "SignatureDoesNotMatch",
            "It does not match. Consult the service.\n\nIt should have been\n" + SIGNED,
        ),
        ("InvalidSignatureException", "It does not match.\n" + SIGNED),
        ("IncompleteSignature", "It does not match: {key}. It needs a date: " + SIGNED),
        ("AccessDenied", "It does not match: {key} {secret} {token}"),
    ],
    ids=lambda text: text[:21],
)
def test_what_the_service_repeats_of_credentials_is_not_said(
    tmp_path: Path, clock: ManualClock, code: str, words: str
) -> None:
    secrets = {"key": "AKIACANARY", "secret": "SECRET-CANARY", "token": "TOKEN-CANARY"}
    credentials = {
        "aws_access_key_id": secrets["key"],
        "aws_secret_access_key": secrets["secret"],
        "aws_session_token": secrets["token"],
    }
    own = boto3.Session(region_name="eu-central-1", **credentials)
    store = SQSStore(session=own, endpoint=endpoint(), prefix=prefix_of(tmp_path), clock=clock)
    told = {"Error": {"Code": code, "Message": words.format(**secrets)}}
    Wire(store).refuse("get_queue_url", error=ClientError(told, "GetQueueUrl"))

    with pytest.raises(StoreUnavailable, match="It does not match") as caught:
        store.put([mail("a")])
    said = "".join(traceback.format_exception(caught.value))
    assert [secret for secret in secrets.values() if secret in said] == []
    assert "x-amz" not in said
    store.close()


def test_nothing_is_sent_a_second_time_unseen(store: SQSStore) -> None:
    take(store)
    wire = Wire(store)
    wire.lose_answer("send_message_batch")

    with pytest.raises(AmbiguousPut):
        store.put([mail("a")])

    assert wire.calls == ["send_message_batch"]
    assert wire.client.meta.config.retries["total_max_attempts"] == 1


def test_what_was_stored_of_a_put_that_failed_is_not_stored_again_when_it_is_repeated(
    store: SQSStore,
) -> None:
    take(store)
    messages = [mail(f"m{n:02}") for n in range(12)]
    wire = Wire(store)
    wire.refuse("send_message_batch", 1, 3)
    with pytest.raises(AmbiguousPut, match="8 of 12"):
        store.put(messages)
    wire.heal()

    results = store.put(messages)

    assert [result.status for result in results].count("known") == 8
    assert sorted(ids(take(store, limit=100))) == [f"m{n:02}" for n in range(12)]
    assert store.put(messages[:1])[0].status == "stored"


def test_of_a_put_that_was_half_stored_another_envelope_is_a_conflict(store: SQSStore) -> None:
    take(store)
    wire = Wire(store)
    wire.refuse("send_message_batch", 1)
    with pytest.raises(AmbiguousPut):
        store.put([mail("a"), mail("b")])
    wire.heal()

    with pytest.raises(ConflictError, match="a"):
        store.put([mail("a", recipients=("other@example.org",))])


def test_a_message_at_most_once_is_refused_and_nothing_of_its_put_is_stored(store: SQSStore) -> None:
    with pytest.raises(UnsupportedError, match=r"b .*at most once"):
        store.put([mail("a"), mail("b", at_most_once=True)])

    assert take(store) == []


# -- a verdict that fails


def test_a_retry_that_could_not_be_sent_leaves_the_claim_as_it_was(store: SQSStore) -> None:
    store.put([mail("a")])
    (claim,) = take(store)
    wire = Wire(store)
    wire.refuse("send_message_batch", 0)
    with pytest.raises(StoreUnavailable):
        settle(store, claim, retry(claim))
    wire.heal()

    assert settle(store, claim, retry(claim)) == []
    (again,) = take(store)
    assert (again.attempt, again.lost) == (2, 0)


def test_a_retry_whose_delete_failed_is_not_sent_again_when_it_is_repeated(
    store: SQSStore, clock: ManualClock
) -> None:
    store.put([mail("a")])
    (claim,) = take(store)
    wire = Wire(store)
    wire.refuse("delete_message_batch", 0)
    with pytest.raises(StoreUnavailable):
        settle(store, claim, retry(claim))
    wire.heal()

    assert settle(store, claim, retry(claim)) == []
    clock.advance(LEASE)
    assert ids(take(store)) == ["a"]


def test_one_verdict_that_cannot_be_written_stops_no_other(store: SQSStore, clock: ManualClock) -> None:
    store.put([mail(name) for name in "abc"])
    claims = take(store)
    wire = Wire(store)
    wire.refuse("delete_message_batch", 1)
    with pytest.raises(StoreUnavailable):
        store.settle([Settlement(claim, delivered(claim)) for claim in claims])
    wire.heal()

    clock.advance(LEASE)
    (left,) = take(store)
    assert left.lost == 1


def test_a_verdict_is_written_once_however_many_threads_bring_it(store: SQSStore) -> None:
    store.put([mail("a")])
    (claim,) = take(store)
    wire = Wire(store)
    inside, others = threading.Event(), threading.Event()

    def act(real: Callable[..., Any], asked: dict[str, Any]) -> Any:
        inside.set()
        assert others.wait(30)
        return real(**asked)

    wire.acts["send_message_batch"] = act
    stale: list[Claim] = []
    first = threading.Thread(target=lambda: stale.extend(settle(store, claim, retry(claim))))
    first.start()
    assert inside.wait(30)
    assert settle(store, claim, retry(claim)) == [claim]
    others.set()
    first.join(30)

    assert stale == []
    assert ids(take(store)) == ["a"]


def test_a_verdict_after_the_lease_changes_nothing_unless_everybody_has_the_message(
    store: SQSStore, clock: ManualClock
) -> None:
    store.put([mail("a"), mail("b")])
    a, b = take(store)
    clock.advance(LEASE)

    assert settle(store, a, retry(a)) == [a]
    assert settle(store, a, dead(a)) == [a]
    assert list(store.extend([a], lease=LEASE)) == [a]
    assert settle(store, b, delivered(b)) == []
    assert [(claim.message.id, claim.attempt) for claim in take(store)] == [("a", 2)]


def test_a_settled_claim_is_stale_to_the_object_that_gave_it_out(store: SQSStore) -> None:
    store.put([mail("a")])
    (claim,) = take(store)
    assert settle(store, claim, retry(claim)) == []

    assert settle(store, claim, retry(claim)) == [claim]
    assert settle(store, attrs.evolve(claim, token="forged"), delivered(claim)) == [
        attrs.evolve(claim, token="forged")
    ]
    assert ids(take(store)) == ["a"]


# -- what is aside


def test_the_dead_stand_in_a_queue_of_their_own_with_their_evidence(store: SQSStore, raw: Raw) -> None:
    store.put([mail("a")])
    (claim,) = take(store)
    settle(store, claim, dead(claim))

    (letter,) = raw.letters("mail-dead")
    body = json.loads(letter["Body"])
    assert (body["id"], body["state"], body["reason"]) == ("a", "dead", "550 no such user")
    assert [attempt[4] for attempt in body["history"]] == ["550 no such user"]
    assert letter["MessageAttributes"]["reason"]["StringValue"] == "550 no such user"
    assert raw.letters() == []


def test_what_is_sent_back_by_the_means_of_sqs_is_requeued(
    store: SQSStore, raw: Raw, clock: ManualClock
) -> None:
    recipients = ("x@example.org", "y@example.org")
    store.put([mail("a", recipients=recipients)])
    clock.advance(LEASE)
    (claim,) = take(store)
    known = dict(zip(recipients, (Fate.ACCEPTED, Fate.FAILED), strict=True))
    settle(store, claim, Dead(fates=known, reason="550"))
    raw.redrive("mail-dead", "mail")

    (again,) = take(store)
    assert again.recipients == ("y@example.org",)
    assert (again.attempt, again.lost, again.age) == (1, 0, ZERO)
    clock.advance(LEASE)
    (lost,) = take(store)
    assert (lost.attempt, lost.lost, lost.fates["y@example.org"]) == (2, 1, Fate.DOUBTFUL)


def test_what_somebody_may_have_stays_aside_when_it_is_sent_back(store: SQSStore, raw: Raw) -> None:
    store.put([mail("a")])
    (claim,) = take(store)
    settle(store, claim, Held(fates=fates(claim, Fate.UNCERTAIN), reason="no reply after the dot"))
    raw.redrive("mail-held", "mail")

    assert take(store) == []
    (letter,) = raw.letters("mail-held")
    assert "stays aside" in letter["MessageAttributes"]["reason"]["StringValue"]


@pytest.mark.parametrize(
    "text",
    ["", "{}", "null", "[]", "1", "hello", '{"outbox": 0}', '{"outbox": 1, "id": "a"}', "{" * 100_000],
    ids=lambda text: text[:20] or "nothing",
)
def test_a_stranger_s_letter_is_put_aside_as_it_came_and_stops_no_other(
    store: SQSStore, raw: Raw, text: str
) -> None:
    text = text or " "
    raw.send(text)
    store.put([mail("a")])

    assert ids(take(store)) == ["a"]
    assert [letter["Body"] for letter in raw.letters("mail-held")] == [text]


@pytest.mark.parametrize(
    "change",
    [
        {"fates": "wx"},
        {"fates": ""},
        {"due": "soon"},
        {"attempts": -1},
        {"state": "lost"},
        {"history": [[1, 2]]},
        {"message": "!"},
        {"message": "aGVsbG8="},
        {"id": "another"},
        {"blob": "../../etc/passwd"},
        {"blob": "missing"},
    ],
    ids=str,
)
def test_a_letter_that_was_tampered_with_is_put_aside_and_never_sent_altered(
    store: SQSStore, raw: Raw, change: dict[str, Any]
) -> None:
    store.put([mail("a", recipients=("x@example.org", "y@example.org"))])
    (letter,) = raw.client.receive_message(QueueUrl=raw.url())["Messages"]
    raw.client.delete_message(QueueUrl=raw.url(), ReceiptHandle=letter["ReceiptHandle"])
    raw.send(json.dumps(json.loads(letter["Body"]) | change))

    assert take(store) == []
    assert len(raw.letters("mail-held")) == 1
    assert raw.letters() == []


# -- delays, leases, and what was received and not claimed


def test_a_long_delay_is_walked_in_steps_of_a_quarter_of_an_hour(
    store: SQSStore, raw: Raw, clock: ManualClock
) -> None:
    due = clock.now() + dt.timedelta(hours=1, minutes=10)
    store.put([mail("a", not_before=due)])
    steps = 0
    while clock.now() < due - SECOND:
        assert raw.letters() == []
        clock.advance(min(dt.timedelta(minutes=15), due - SECOND - clock.now()))
        assert take(store) == []
        steps += 1

    clock.advance(SECOND)
    (claim,) = take(store)
    assert steps == 5
    assert (claim.attempt, claim.lost, claim.age) == (1, 0, ZERO)


def test_a_step_of_a_delay_that_nobody_finished_counts_for_nothing(
    store: SQSStore, raw: Raw, clock: ManualClock
) -> None:
    store.put([mail("a", not_before=clock.now() + dt.timedelta(hours=1))])
    clock.advance(dt.timedelta(minutes=15))
    for _ in range(3):
        assert len(raw.letters()) == 1  # received by somebody who died of it

    clock.advance(dt.timedelta(minutes=44))
    assert take(store) == []
    clock.advance(dt.timedelta(minutes=1))
    (claim,) = take(store)
    assert (claim.attempt, claim.lost) == (1, 0)


def test_a_lease_of_less_than_a_second_is_one_and_of_more_than_twelve_hours_twelve(
    store: SQSStore, clock: ManualClock
) -> None:
    store.put([mail("a"), mail("b")])
    assert len(take(store, limit=1, lease=SECOND / 10)) == 1
    assert len(take(store, limit=1, lease=dt.timedelta(days=3))) == 1
    clock.advance(SECOND)
    assert len(take(store)) == 1
    clock.advance(dt.timedelta(hours=12))
    seen = ids(take(store)) + ids(take(store))
    assert sorted(seen) == ["a", "b"]


def test_what_was_received_and_not_claimed_goes_back_when_the_store_is_closed_and_counts_for_nothing(
    store: SQSStore, open_store: Callable[..., SQSStore]
) -> None:
    store.put([mail(name, content=b"x" * 1000) for name in "abc"])
    assert len(store.claim(limit=3, lease=LEASE, queues=["mail"], max_bytes=1500)) == 1
    store.close()

    claims = take(open_store())
    assert [(claim.attempt, claim.lost) for claim in claims] == [(1, 0)] * 2


def test_what_was_received_and_not_claimed_stays_ours_while_we_go_on_claiming(
    store: SQSStore, clock: ManualClock
) -> None:
    store.put([mail(name, content=b"x" * 1000) for name in "abc"])
    claims: list[Claim] = []
    for _ in range(3):
        claims += store.claim(limit=3, lease=LEASE, queues=["mail"], max_bytes=1500)
        clock.advance(LEASE * 3 / 4)
        assert list(store.extend(claims, lease=LEASE)) == []

    assert sorted(ids(claims)) == ["a", "b", "c"]
    assert [(claim.attempt, claim.lost) for claim in claims] == [(1, 0)] * 3


def test_many_suspects_are_none_the_more_lost_for_waiting_their_turn(
    store: SQSStore, clock: ManualClock
) -> None:
    store.put([mail(f"m{n:02}") for n in range(12)])
    assert len(take(store, limit=20)) == 12
    clock.advance(LEASE)
    seen = []
    while claims := take(store, limit=20):
        seen += [(claim.message.id, claim.lost) for claim in claims]
        assert len(claims) == 1
        settle(store, claims[0], delivered(claims[0]))
        clock.advance(dt.timedelta(seconds=90))

    assert sorted(seen) == [(f"m{n:02}", 1) for n in range(12)]


# -- large content


@pytest.fixture(params=["directory", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "directory":
        return DirectoryBlobs(tmp_path / "large")
    bucket = prefix_of(tmp_path) + "bucket"
    session().client("s3", endpoint_url=endpoint()).create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    return S3Blobs(bucket, prefix="large/", session=session(), endpoint=endpoint())


class Counting:
    """Blobs that can be looked at, and that fail when they are told to."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.keys: set[str] = set()
        self.down = False

    def put(self, key: str, data: bytes, /) -> None:
        self.inner.put(key, data)
        self.keys.add(key)

    def get(self, key: str, /) -> bytes:
        if self.down:
            raise StoreUnavailable("the shelf is locked")
        data: bytes = self.inner.get(key)
        return data

    def delete(self, key: str, /) -> None:
        self.inner.delete(key)
        self.keys.discard(key)


def test_large_content_is_set_aside_goes_through_every_attempt_and_is_removed_when_it_was_delivered(
    open_store: Callable[..., SQSStore], blobs: Any
) -> None:
    shelf = Counting(blobs)
    store = open_store(blobs=shelf)
    large = mail("a", content=os.urandom(400_000))
    store.put([large, mail("b")])
    assert len(shelf.keys) == 1
    for verdict in (retry, lambda claim: Released(delay=ZERO, fates=claim.fates)):
        a, b = take(store)
        assert a.message == large
        store.settle([Settlement(a, verdict(a)), Settlement(b, verdict(b))])

    (key,) = shelf.keys
    for claim in take(store):
        settle(store, claim, delivered(claim))
    assert shelf.keys == set()
    with pytest.raises(StoreError, match="missing"):
        blobs.get(key)
    blobs.delete(key)


def test_content_that_cannot_be_read_for_now_waits_and_nothing_is_held_against_it(
    open_store: Callable[..., SQSStore], blobs: Any, clock: ManualClock
) -> None:
    shelf = Counting(blobs)
    store = open_store(blobs=shelf)
    store.put([mail("a", content=bytes(400_000)), mail("b")])
    shelf.down = True
    assert ids(take(store)) == ["b"]
    shelf.down = False

    clock.advance(dt.timedelta(minutes=1))
    (claim,) = take(store)
    assert (claim.message.id, claim.attempt, claim.lost) == ("a", 1, 0)


def test_large_content_with_nowhere_to_go_is_refused_and_nothing_of_its_put_is_stored(
    open_store: Callable[..., SQSStore],
) -> None:
    store = open_store(blobs=None)

    with pytest.raises(UnsupportedError, match=r"b has .* blobs="):
        store.put([mail("a"), mail("b", content=bytes(400_000))])

    assert take(store) == []


def test_large_content_is_not_set_aside_by_a_runner_that_was_opened_without_blobs(
    open_store: Callable[..., SQSStore], tmp_path: Path, clock: ManualClock
) -> None:
    blobs = DirectoryBlobs(tmp_path / "large")
    open_store(blobs=blobs).put([mail("a", content=bytes(400_000))])
    assert take(open_store(blobs=None)) == []

    clock.advance(dt.timedelta(hours=1))
    assert ids(take(open_store(blobs=blobs))) == ["a"]


def test_a_put_that_surely_failed_leaves_no_content_behind(
    open_store: Callable[..., SQSStore], tmp_path: Path
) -> None:
    shelf = Counting(DirectoryBlobs(tmp_path / "large"))
    store = open_store(blobs=shelf)
    take(store)
    Wire(store).refuse("send_message_batch", 0)

    with pytest.raises(StoreUnavailable):
        store.put([mail("a", content=bytes(400_000))])

    assert shelf.keys == set()


def test_a_message_that_is_tried_for_days_does_not_outgrow_a_letter(
    open_store: Callable[..., SQSStore], raw: Raw
) -> None:
    store = open_store(max_message=20_000)
    store.put([mail("a", content=bytes(5000))])
    for _ in range(12):
        (claim,) = take(store)
        settle(store, claim, attrs.evolve(retry(claim), outcome=None))
    (claim,) = take(store)
    long = Dead(fates=fates(claim, Fate.FAILED), reason="x" * 400)
    settle(store, claim, long)

    (letter,) = raw.letters("mail-dead")
    assert len(letter["Body"]) <= 20_000
    assert json.loads(letter["Body"])["attempts"] == 13


# -- names, settings, credentials


def test_no_two_queues_have_one_name() -> None:
    names = ["mail", "mail.bulk", "mail-bulk", "mail_bulk", "a.b.c"]

    assert len({sqs_name("o-", name, side) for name in names for side in ("", "-dead", "-held")}) == 15
    for unclear in ("mail__bulk", "a_.b", "a._b", "mail-dead", "mail-held"):
        with pytest.raises(ConfigurationError, match="another name"):
            sqs_name("o-", unclear)
    with pytest.raises(ConfigurationError, match="shorter"):
        sqs_name("o" * 20, "q" * 60)


def test_a_queue_that_is_not_there_is_not_made_unless_that_was_said(
    open_store: Callable[..., SQSStore],
) -> None:
    store = open_store(create=False)

    with pytest.raises(StoreUnavailable, match=r"mail is not there: `outbox migrate --queue mail` makes it"):
        store.put([mail("a")])
    assert [finding.level for finding in store.check()] == ["error"] * 3
    assert len(store.migrate()) == 3
    assert store.migrate() == []
    assert "error" not in [finding.level for finding in store.check()]
    store.put([mail("a")])
    assert ids(take(store)) == ["a"]


def test_check_warns_of_a_queue_that_forgets_sooner_or_moves_aside_sooner_than_it_should(
    store: SQSStore, raw: Raw
) -> None:
    policy = json.loads(
        raw.client.get_queue_attributes(QueueUrl=raw.url(), AttributeNames=["RedrivePolicy"])["Attributes"][
            "RedrivePolicy"
        ]
    )
    attributes = {
        "MessageRetentionPeriod": "3600",
        "MaximumMessageSize": "65536",
        "RedrivePolicy": json.dumps(policy | {"maxReceiveCount": 2}),
    }
    raw.client.set_queue_attributes(QueueUrl=raw.url(), Attributes=attributes)

    found = [finding for finding in store.check() if finding.level != "ok"]

    assert [finding.level for finding in found] == ["warning", "error", "warning"]
    assert "14 days" in found[0].advice
    assert "max_message=65536" in found[1].advice
    assert "maxReceiveCount" in found[2].advice


def test_from_each_queue_beside_one_sqs_moves_messages_back_and_check_says_where_it_does_not(
    store: SQSStore, raw: Raw
) -> None:
    """StartMessageMoveTask is for what some queue's redrive policy names."""
    for side, source in (("-held", "mail"), ("-dead", "mail-held")):
        sources = raw.client.list_dead_letter_source_queues(QueueUrl=raw.url(f"mail{side}"))["queueUrls"]
        assert sources == [raw.url(source)]
    assert [finding.text for finding in store.check() if finding.level != "ok"] == []

    raw.client.set_queue_attributes(QueueUrl=raw.url("mail-held"), Attributes={"RedrivePolicy": ""})
    (found,) = [finding for finding in store.check() if finding.level != "ok"]
    assert "mail-dead: SQS moves nothing back" in found.text
    assert "mail-held the RedrivePolicy" in found.advice


@pytest.mark.parametrize(
    "settings",
    [
        {"prefix": "a b"},
        {"max_message": 1},
        {"max_message": 2 << 20},
        {"poll": dt.timedelta(seconds=21)},
        {"queues": "mail"},
        {"endpoint": "nonsense"},
    ],
    ids=str,
)
def test_a_setting_that_makes_no_sense_is_refused(
    open_store: Callable[..., SQSStore], settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        open_store(**settings)


def test_a_server_that_is_not_there_is_unavailable_and_no_credential_is_said(tmp_path: Path) -> None:
    store = SQSStore(region="eu-central-1", endpoint="http://127.0.0.1:9", session=session())

    with pytest.raises(StoreUnavailable) as caught:
        store.put([mail("a")])

    assert "testing" not in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)
