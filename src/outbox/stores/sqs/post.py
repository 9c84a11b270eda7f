"""Letters to and from the queues of SQS, by tens."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from outbox.errors import AmbiguousPut, StoreError, StoreUnavailable
from outbox.stores.forking import whole_after_fork
from outbox.values import printable

from .boto3 import Client, Refused
from .naming import DEAD, HELD, sqs_name

__all__ = ["BATCH", "NO_QUEUE", "REDRIVEN", "RETENTION", "Letter", "Post", "Received", "Sent"]

BATCH: Final = 10
"""As many as SQS takes and gives in one request."""
RETENTION: Final = 1_209_600
"""Seconds: what SQS keeps no longer, whatever is asked."""
REDRIVEN: Final = {"": (HELD, 20), HELD: (DEAD, 1000)}
"""Whereto SQS itself moves a message of a queue, after how many claims that never settled.

A Runner holds it long before.  What is held nobody claims: that policy is there because SQS moves messages back
from no queue which none names.
"""

_GONE: Final = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"})
"""What is said of a receipt handle that leads to nothing any more."""
_THROTTLED: Final = frozenset(
    {
        "KmsThrottled",
        "OverLimit",
        "RequestLimitExceeded",
        "RequestThrottled",
        "Throttling",
        "ThrottlingException",
    }
)
"""What a service says that did nothing, though it blames nobody."""
_REASON: Final = "reason"
_RECEIVES: Final = "receives"
"""How often it had been received in vain before it was sent on as it was."""
_LABELS: Final = 10
"""As many attributes as SQS takes with a message."""
_DIGITS: Final = 6
"""A larger count nobody has written but a stranger."""
NO_QUEUE: Final = frozenset({"NonExistentQueue", "QueueDoesNotExist"})
"""What is said where a queue is not there."""


@attrs.frozen(kw_only=True)
class Letter:
    """One to be sent; *delay* is in seconds, *labels* as SQS has attributes."""

    text: str = attrs.field(repr=False)
    delay: int = 0
    reason: str = ""
    labels: Mapping[str, Any] = attrs.Factory(dict)

    @property
    def size(self) -> int:
        """Bytes, as SQS counts them."""
        return len(self.text.encode()) + sum(
            len(name.encode())
            + len(value["DataType"].encode())
            + len(value.get("StringValue", "").encode())
            + len(value.get("BinaryValue", b""))
            for name, value in self.attributes.items()
        )

    @property
    def attributes(self) -> Mapping[str, Any]:
        return {**self.labels, _REASON: _string(self.reason)} if self.reason else self.labels

    def fitting(self, most: int) -> Letter:
        """The same, its reason cut to what is free of *most* bytes; what it was labelled with goes before that does."""
        if self.labels and self.reason and (self.size > most or len(self.attributes) > _LABELS):
            return attrs.evolve(self, labels={}).fitting(most)
        over = self.size - most
        if over <= 0 or not self.reason:
            return self
        words = self.reason.encode()
        return attrs.evolve(self, reason=words[: max(0, len(words) - over)].decode(errors="ignore"))


@attrs.frozen(kw_only=True)
class Received:
    """One that has come; *number* counts how often it has."""

    handle: str
    text: str = attrs.field(repr=False)
    number: int
    labels: Mapping[str, Any] = attrs.Factory(dict)

    def again(self, delay: int) -> Letter:
        """As it came, with what SQS has counted, which it begins anew."""
        counted = {_RECEIVES: _string(str(self.number - 1))} if self.number > 1 else {}
        return Letter(text=self.text, delay=delay, labels={**self.labels, **counted})

    def aside(self, reason: str) -> Letter:
        """As it came, with the reason why it is put aside, and with what else stood on it where there is room."""
        return Letter(text=self.text, reason=reason, labels=self.labels)


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
        whole_after_fork(self._lock)

    def require_names(self, queues: Iterable[str]) -> None:
        """Raise ConfigurationError where SQS can have no queue of one of these names."""
        for queue in queues:
            sqs_name(self._prefix, queue)

    def send(self, queue: str, letters: Sequence[Letter], side: str = "") -> Sent:
        """Put them in the queue; stops at the first request that fails."""
        stored: set[int] = set()
        letters = [letter.fitting(self._most) for letter in letters]
        try:
            for places in self._batches(letters):
                answer = self._call(
                    "send_message_batch",
                    queue,
                    side,
                    sending=True,
                    Entries=[_entry(place, letters[place]) for place in places],
                )
                stored.update(int(each["Id"]) for each in answer.get("Successful", ()))
                if not stored.issuperset(places):
                    return Sent(frozenset(stored), _not_sent(f"queue {queue}{side}", places, answer))
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
            MessageAttributeNames=["All"],
        )
        return [_received(each) for each in answer.get("Messages", ())]

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
        return self._attributes(self.url(queue, side), queue + side)

    def url(self, queue: str, side: str = "") -> str:
        """Where it is.

        Raises:
            Refused: it is not there, and not to be made.
            ConfigurationError: SQS can have none of that name.
        """
        known = self._urls.get((queue, side))
        if known is not None:
            return known
        url = self._made(queue, side) if self._create else self._found(queue, side)
        with self._lock:
            self._urls[queue, side] = url
        return url

    def make(self, queue: str) -> list[str]:
        """Make what is missing of a queue and those beside it; returns the names of what was made."""
        made = []
        for side in (DEAD, HELD, ""):
            try:
                self._found(queue, side)
            except Refused as error:
                if error.code not in NO_QUEUE:
                    raise
                self._made(queue, side)
                made.append(sqs_name(self._prefix, queue, side))
        return made

    def _found(self, queue: str, side: str) -> str:
        name = sqs_name(self._prefix, queue, side)
        try:
            url: str = self._client.call("get_queue_url", f"queue {name}", QueueName=name)["QueueUrl"]
        except Refused as error:
            if error.code in NO_QUEUE:
                raise self._missing(queue, name, error) from error
            raise
        return url

    def _made(self, queue: str, side: str) -> str:
        attributes = {"MessageRetentionPeriod": str(RETENTION)}
        if side in REDRIVEN:
            target, receives = REDRIVEN[side]
            aside = self._attributes(
                self.url(queue, target) if self._create else self._made(queue, target), queue
            )
            redrive = {"deadLetterTargetArn": aside["QueueArn"], "maxReceiveCount": receives}
            attributes["RedrivePolicy"] = json.dumps(redrive)
        name = sqs_name(self._prefix, queue, side)
        try:
            answer = self._client.call("create_queue", f"queue {name}", QueueName=name, Attributes=attributes)
        except Refused as error:
            # It is there, and somebody has given it other attributes: `check` says which of them matter.
            if error.code in ("QueueAlreadyExists", "QueueNameExists"):
                return self._found(queue, side)
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
            size = letter.size
            if batch and (len(batch) == BATCH or size > room):
                yield batch
                batch, room = [], self._most
            batch.append(place)
            room -= size
        if batch:
            yield batch

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
            answer = self._call(verb, queue, Entries=entries)
        except Refused as error:
            if error.code not in _GONE:
                raise
            # The whole request was refused for one of them.
            if len(entries) == 1:
                return [{"Id": entries[0]["Id"], "Code": error.code}]
            return [each for entry in entries for each in self._tried(verb, queue, [entry])]
        done = {each["Id"] for each in answer.get("Successful", ())}
        failed = {each["Id"]: each for each in answer.get("Failed", ())}
        return [failed.get(entry["Id"], entry) for entry in entries if entry["Id"] not in done]

    def _call(
        self, verb: str, queue: str, side: str = "", *, sending: bool = False, **asked: Any
    ) -> dict[str, Any]:
        url = self.url(queue, side)
        try:
            return self._client.call(verb, f"queue {queue}{side}", sending=sending, QueueUrl=url, **asked)
        except Refused as error:
            if error.code not in NO_QUEUE:
                raise
            # Somebody has deleted it; it may be made anew.
            self._urls.pop((queue, side), None)
            raise self._missing(queue, sqs_name(self._prefix, queue, side), error) from error

    def _missing(self, queue: str, name: str, error: Refused) -> Refused:
        where = (
            f"the region {self._client.region} is meant" if self._client.region else "it is the right server"
        )
        return Refused(
            f"queue {name} is not there: `outbox migrate --queue {queue}` makes it, and plain `outbox migrate` those that "
            f"the settings name (queues, and ?queues= of the URL); or see that {where}",
            error.code,
        )


def _received(each: Mapping[str, Any]) -> Received:
    labels = dict(each.get("MessageAttributes", {}))
    number = int(each.get("Attributes", {}).get("ApproximateReceiveCount", 1))
    return Received(
        handle=each["ReceiptHandle"],
        text=each["Body"],
        number=number + _before(labels.pop(_RECEIVES, {})),
        labels=labels,
    )


def _before(label: Mapping[str, Any]) -> int:
    """What was counted before it was sent on as it was; nothing where a stranger has written it."""
    text = label.get("StringValue", "")
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else 0


def _string(text: str) -> Mapping[str, str]:
    return {"DataType": "String", "StringValue": text}


def _entry(place: int, letter: Letter) -> dict[str, Any]:
    entry: dict[str, Any] = {"Id": str(place), "MessageBody": letter.text, "DelaySeconds": letter.delay}
    return entry | ({"MessageAttributes": letter.attributes} if letter.attributes else {})


def _code(failed: Mapping[str, Any]) -> str:
    return str(failed.get("Code", "")).rpartition(".")[2]


def _not_sent(what: str, places: Sequence[int], answer: Mapping[str, Any]) -> StoreError:
    """Why some of these are not surely in the queue."""
    failed = {int(each["Id"]): each for each in answer.get("Failed", ())}
    done = {int(each["Id"]) for each in answer.get("Successful", ())}
    unknown = [place for place in places if place not in failed and place not in done]
    if unknown:
        return AmbiguousPut(
            f"{what}: of {len(unknown)} of a request the answer says nothing: nobody can tell"
        )
    broken = {place: each for place, each in failed.items() if not _surely_not_done(each)}
    if broken:
        return AmbiguousPut(f"{_failing(what, broken)}: nobody can tell whether it was stored")
    return _refusal(what, failed)


def _surely_not_done(failed: Mapping[str, Any]) -> bool:
    """Whether it was refused; where the service itself failed it may have done so after it had stored it."""
    return bool(failed.get("SenderFault")) or _code(failed) in _THROTTLED


def _refusal(what: str, failed: Mapping[int, Mapping[str, Any]]) -> StoreUnavailable:
    return StoreUnavailable(_failing(what, failed))


def _failing(what: str, failed: Mapping[int, Mapping[str, Any]]) -> str:
    first = next(iter(failed.values()))
    text = printable(f"{what}: {len(failed)} of a request failed: {_code(first)}: {first.get('Message', '')}")
    return text.rstrip(": ")
