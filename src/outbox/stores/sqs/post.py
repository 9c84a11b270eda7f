"""Letters to and from the queues of SQS, by tens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from outbox.errors import StoreError, StoreUnavailable
from outbox.values import printable

from .boto3 import Client, Refused
from .naming import DEAD, HELD, sqs_name

__all__ = ["BATCH", "RETENTION", "Letter", "Post", "Received", "Sent"]

BATCH: Final = 10
"""As many as SQS takes and gives in one request."""
RETENTION: Final = 1_209_600
"""Seconds: what SQS keeps no longer, whatever is asked."""
RECEIVES: Final = 20
"""After so many claims that never settled SQS itself moves a message aside; the Runner does so long before."""

_GONE: Final = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"})
"""What is said of a receipt handle that leads to nothing any more."""
_NO_QUEUE: Final = frozenset({"NonExistentQueue", "QueueDoesNotExist"})


@attrs.frozen(kw_only=True)
class Letter:
    """One to be sent; *delay* is in seconds."""

    text: str = attrs.field(repr=False)
    delay: int = 0
    reason: str = ""


@attrs.frozen(kw_only=True)
class Received:
    """One that has come; *number* counts how often it has."""

    handle: str
    text: str = attrs.field(repr=False)
    number: int


@attrs.frozen
class Sent:
    """Which letters are surely in the queue, by their places; and why the others may not be."""

    stored: frozenset[int]
    error: StoreError | None = None


class Post:
    """The queues of one prefix.

    Args:
        create: Whether a queue that is not there is made.
        most: Bytes that one request may hold.
    """

    def __init__(self, client: Client, prefix: str, *, create: bool, most: int) -> None:
        self._client = client
        self._prefix = prefix
        self._create = create
        self._most = most
        self._lock = threading.Lock()
        self._urls: dict[tuple[str, str], str] = {}

    def send(self, queue: str, letters: Sequence[Letter], side: str = "") -> Sent:
        """Put them in the queue; stops at the first request that fails."""
        stored: set[int] = set()
        try:
            url = self.url(queue, side)
            for places in self._batches(letters):
                refused = self._send(url, queue, letters, places)
                stored.update(place for place in places if place not in refused)
                if refused:
                    return Sent(frozenset(stored), _refusal(f"queue {queue}", refused))
        except StoreError as error:
            return Sent(frozenset(stored), error)
        return Sent(frozenset(stored))

    def receive(self, queue: str, number: int, *, lease: int, wait: int) -> list[Received]:
        """Up to *number* letters, up to ten, hidden from others for *lease* seconds."""
        answer = self._call(
            "receive_message",
            queue,
            MaxNumberOfMessages=min(number, BATCH),
            VisibilityTimeout=lease,
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        return [
            Received(
                handle=each["ReceiptHandle"],
                text=each["Body"],
                number=int(each.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
            )
            for each in answer.get("Messages", ())
        ]

    def hide(self, queue: str, seconds: Mapping[str, int]) -> set[str]:
        """Let these be hidden for so many seconds from now, each; returns those that are lost."""
        entries = [
            {"ReceiptHandle": handle, "VisibilityTimeout": number} for handle, number in seconds.items()
        ]
        return self._each("change_message_visibility_batch", queue, entries)

    def delete(self, queue: str, handles: Sequence[str]) -> set[str]:
        """Take these out of the queue; returns those that are lost."""
        return self._each("delete_message_batch", queue, [{"ReceiptHandle": handle} for handle in handles])

    def attributes(self, queue: str, side: str = "") -> Mapping[str, str]:
        """All that SQS says of the queue."""
        return self._attributes(self.url(queue, side), queue)

    def url(self, queue: str, side: str = "") -> str:
        """Where it is.

        Raises:
            Refused: it is not there, and not to be made.
            ConfigurationError: SQS can have none of that name.
        """
        known = self._urls.get((queue, side))
        if known is not None:
            return known
        name = sqs_name(self._prefix, queue, side)
        url = self._made(queue, side) if self._create else self._found(name)
        with self._lock:
            self._urls[queue, side] = url
        return url

    def make(self, queue: str) -> list[str]:
        """Make what is missing of a queue and those beside it; returns the names of what was made."""
        made = []
        for side in (DEAD, HELD, ""):
            name = sqs_name(self._prefix, queue, side)
            try:
                self._found(name)
            except Refused as error:
                if error.code not in _NO_QUEUE:
                    raise
                self._made(queue, side)
                made.append(name)
        return made

    def _found(self, name: str) -> str:
        what = f"queue {name}"
        try:
            url: str = self._client.call("get_queue_url", what, QueueName=name)["QueueUrl"]
        except Refused as error:
            if error.code in _NO_QUEUE:
                raise Refused(f"{what} is not there: `outbox migrate` makes it", error.code) from error
            raise
        return url

    def _made(self, queue: str, side: str) -> str:
        attributes = {"MessageRetentionPeriod": str(RETENTION)}
        if not side:
            aside = self._attributes(
                self.url(queue, HELD) if self._create else self._made(queue, HELD), queue
            )
            redrive = {"deadLetterTargetArn": aside["QueueArn"], "maxReceiveCount": RECEIVES}
            attributes["RedrivePolicy"] = json.dumps(redrive)
        name = sqs_name(self._prefix, queue, side)
        try:
            answer = self._client.call("create_queue", f"queue {name}", QueueName=name, Attributes=attributes)
        except Refused as error:
            # It is there, and somebody has given it other attributes: `check` says which of them matter.
            if error.code in ("QueueAlreadyExists", "QueueNameExists"):
                return self._found(name)
            raise
        url: str = answer["QueueUrl"]
        return url

    def _attributes(self, url: str, queue: str) -> Mapping[str, str]:
        answer = self._client.call(
            "get_queue_attributes", f"queue {queue}", QueueUrl=url, AttributeNames=["All"]
        )
        attributes: Mapping[str, str] = answer.get("Attributes", {})
        return attributes

    def _batches(self, letters: Sequence[Letter]) -> Iterator[list[int]]:
        batch: list[int] = []
        room = self._most
        for place, letter in enumerate(letters):
            size = len(letter.text) + len(letter.reason.encode())
            if batch and (len(batch) == BATCH or size > room):
                yield batch
                batch, room = [], self._most
            batch.append(place)
            room -= size
        if batch:
            yield batch

    def _send(
        self, url: str, queue: str, letters: Sequence[Letter], places: Sequence[int]
    ) -> Mapping[int, Mapping[str, Any]]:
        """What was refused, by its place."""
        answer = self._client.call(
            "send_message_batch",
            f"queue {queue}",
            sending=True,
            QueueUrl=url,
            Entries=[_entry(place, letters[place]) for place in places],
        )
        return {int(each["Id"]): each for each in answer.get("Failed", ())}

    def _each(self, verb: str, queue: str, things: Sequence[Mapping[str, Any]]) -> set[str]:
        lost: set[str] = set()
        failed: dict[int, Mapping[str, Any]] = {}
        for start in range(0, len(things), BATCH):
            entries = [
                {"Id": str(place), **things[place]} for place in range(start, min(start + BATCH, len(things)))
            ]
            for each in self._tried(verb, queue, entries):
                if _code(each) in _GONE:
                    lost.add(things[int(each["Id"])]["ReceiptHandle"])
                else:
                    failed[int(each["Id"])] = each
        if failed:
            raise _refusal(f"queue {queue}", failed)
        return lost

    def _tried(
        self, verb: str, queue: str, entries: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        try:
            failed: Sequence[Mapping[str, Any]] = self._call(verb, queue, Entries=entries).get("Failed", ())
        except Refused as error:
            if error.code not in _GONE:
                raise
            # The whole request was refused for one of them.
            if len(entries) == 1:
                return [{"Id": entries[0]["Id"], "Code": error.code}]
            return [each for entry in entries for each in self._tried(verb, queue, [entry])]
        return failed

    def _call(self, verb: str, queue: str, **asked: Any) -> dict[str, Any]:
        return self._client.call(verb, f"queue {queue}", QueueUrl=self.url(queue), **asked)


def _entry(place: int, letter: Letter) -> dict[str, Any]:
    entry: dict[str, Any] = {"Id": str(place), "MessageBody": letter.text, "DelaySeconds": letter.delay}
    if letter.reason:
        entry["MessageAttributes"] = {"reason": {"DataType": "String", "StringValue": letter.reason}}
    return entry


def _code(failed: Mapping[str, Any]) -> str:
    return str(failed.get("Code", "")).rpartition(".")[2]


def _refusal(what: str, failed: Mapping[int, Mapping[str, Any]]) -> StoreUnavailable:
    first = next(iter(failed.values()))
    text = printable(f"{what}: {len(failed)} of a request failed: {_code(first)}: {first.get('Message', '')}")
    return StoreUnavailable(text)
