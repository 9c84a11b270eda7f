"""What stands between a store in SQS and its queues, and what whoever has AWS's own tools sees of them."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import ReadTimeoutError
from sqs_server import endpoint, open_sqs, session

from outbox.clock import Clock
from outbox.lifecycle import Claim, Dead, Delivered, Fate, Retry, Settlement, Verdict
from outbox.message import Message
from outbox.stores.sqs import SQSStore

LEASE = dt.timedelta(minutes=5)
SECOND = dt.timedelta(seconds=1)
ZERO = dt.timedelta(0)


def opening(clock: Clock, path: Path) -> Iterator[Callable[..., SQSStore]]:
    """Opens the store of *path*, again and again; all are closed in the end."""
    opened: list[SQSStore] = []

    def open(**settings: Any) -> SQSStore:
        opened.append(open_sqs(clock, path, **settings))
        return opened[-1]

    yield open
    for store in opened:
        store.close()


class Raw:
    """The queues as whoever has AWS's own tools sees them."""

    def __init__(self, prefix: str) -> None:
        self.client = session().client("sqs", endpoint_url=endpoint())
        self.prefix = prefix

    def url(self, queue: str = "mail") -> str:
        url: str = self.client.get_queue_url(QueueName=self.prefix + queue)["QueueUrl"]
        return url

    def send(self, text: str, queue: str = "mail") -> None:
        self.client.send_message(QueueUrl=self.url(queue), MessageBody=text)

    def letters(self, queue: str = "mail") -> list[dict[str, Any]]:
        """All that can be seen, and stays where it is."""
        answer = self.client.receive_message(
            QueueUrl=self.url(queue),
            MaxNumberOfMessages=10,
            VisibilityTimeout=0,
            MessageAttributeNames=["All"],
        )
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found

    def bodies(self, queue: str = "mail") -> list[dict[str, Any]]:
        return [json.loads(letter["Body"]) for letter in self.letters(queue)]

    def taken(self, queue: str) -> list[dict[str, Any]]:
        """Some, which nobody sees again for a while."""
        answer = self.client.receive_message(
            QueueUrl=self.url(queue), MaxNumberOfMessages=10, VisibilityTimeout=3600
        )
        return [json.loads(letter["Body"]) for letter in answer.get("Messages", [])]

    def redrive(self, source: str, target: str) -> None:
        """What "Start DLQ redrive" does."""
        for letter in self.client.receive_message(QueueUrl=self.url(source), MaxNumberOfMessages=10)[
            "Messages"
        ]:
            self.send(letter["Body"], target)
            self.client.delete_message(QueueUrl=self.url(source), ReceiptHandle=letter["ReceiptHandle"])


class Wire:
    """Stands between a store and its client, and does at a call what the test says."""

    def __init__(self, store: SQSStore) -> None:
        self.client: Any = store._client._client()
        self.calls: list[str] = []
        self.acts: dict[str, Callable[[Callable[..., Any], dict[str, Any]], Any]] = {}
        store._client._clients[os.getpid()] = self

    def __getattr__(self, verb: str) -> Any:
        real = getattr(self.client, verb)

        def call(**asked: Any) -> Any:
            self.calls.append(verb)
            act = self.acts.get(verb)
            return real(**asked) if act is None else act(real, asked)

        return call

    def lose_answer(self, verb: str) -> None:
        """It is done, and nobody hears of it."""

        def act(real: Callable[..., Any], asked: dict[str, Any]) -> Any:
            real(**asked)
            raise ReadTimeoutError(endpoint_url="http://sqs")

        self.acts[verb] = act

    def refuse(self, verb: str, *places: int, error: Exception | None = None) -> None:
        """It is not done: the whole request, or those entries of it."""

        def act(real: Callable[..., Any], asked: dict[str, Any]) -> Any:
            if error is not None:
                raise error
            left = [entry for n, entry in enumerate(asked["Entries"]) if n not in places]
            answer = real(**asked | {"Entries": left}) if left else {}
            failed = [
                {"Id": asked["Entries"][n]["Id"], "Code": "RequestThrottled", "SenderFault": False}
                for n in places
            ]
            return answer | {"Failed": failed}

        self.acts[verb] = act

    def heal(self) -> None:
        self.acts.clear()


def mail(id: str, **fields: Any) -> Message:
    fields.setdefault("content", b"Subject: x\r\n\r\nHello.\r\n")
    fields.setdefault("recipients", (f"{id}@example.org",))
    return Message(id=id, sender="s@example.org", **fields)


def take(store: SQSStore, *, lease: dt.timedelta = LEASE, limit: int = 10) -> list[Claim]:
    return sorted(store.claim(limit=limit, lease=lease, queues=["mail"]), key=lambda claim: claim.message.id)


def ids(claims: Sequence[Claim]) -> list[str]:
    return [claim.message.id for claim in claims]


def fates(claim: Claim, fate: Fate) -> dict[str, Fate]:
    return dict.fromkeys(claim.message.recipients, fate)


def delivered(claim: Claim) -> Delivered:
    return Delivered(fates=fates(claim, Fate.ACCEPTED))


def dead(claim: Claim) -> Dead:
    return Dead(fates=fates(claim, Fate.FAILED), reason="550 no such user")


def retry(claim: Claim, delay: dt.timedelta = ZERO) -> Retry:
    return Retry(delay=delay, fates=claim.fates, reason="451 later")


def settle(store: SQSStore, claim: Claim, verdict: Verdict) -> list[Claim]:
    return list(store.settle([Settlement(claim, verdict)]))
