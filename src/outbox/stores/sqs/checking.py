"""What there is to say of queues that somebody else keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from outbox.errors import ConfigurationError, StoreError
from outbox.protocols import Finding

from .boto3 import Refused
from .naming import DEAD, HELD
from .packing import Packing
from .post import NO_QUEUE, REDRIVEN, RETENTION, Post

__all__ = ["findings"]

_DAY: Final = 86_400
_FEWEST: Final = 5
"""A Runner holds a message itself once its claims never settled four times in a row."""


def findings(post: Post, queues: Sequence[str], packing: Packing) -> Iterator[Finding]:
    """One or more for each queue and what stands beside it."""
    for queue in queues:
        found: dict[str, Mapping[str, str]] = {}
        for side in ("", DEAD, HELD):
            try:
                found[side] = post.attributes(queue, side)
            except (StoreError, ConfigurationError) as error:
                missing = isinstance(error, Refused) and error.code in NO_QUEUE
                yield Finding(
                    "error", str(error), "outbox migrate   makes what is missing" if missing else ""
                )
                continue
            yield from _of(f"queue {queue}{side}", found[side], side, packing)
        if DEAD in found:
            yield from _way_back(f"queue {queue}{DEAD}", found)
    try:
        packing.require_shelf()
    except (StoreError, ConfigurationError) as error:
        yield Finding("error", f"where large content is set aside: {error}")


def _of(name: str, attributes: Mapping[str, str], side: str, packing: Packing) -> Iterator[Finding]:
    kept = int(attributes.get("MessageRetentionPeriod", RETENTION))
    waiting = attributes.get("ApproximateNumberOfMessages", "?")
    hidden = attributes.get("ApproximateNumberOfMessagesNotVisible", "?")
    delayed = attributes.get("ApproximateNumberOfMessagesDelayed", "?")
    yield Finding(
        "ok",
        f"{name}: about {waiting} messages wait, {delayed} are delayed, {hidden} are with a worker; "
        f"SQS deletes what is there for {kept / _DAY:g} days",
    )
    if kept < RETENTION:
        yield Finding(
            "warning",
            f"{name} keeps a message for {kept / _DAY:g} days, and then deletes it without a word",
            f"set its MessageRetentionPeriod to {RETENTION}, 14 days, which is the most",
        )
    if side and waiting not in ("0", "?"):
        yield Finding("ok", f"{name}: these wait for a person: docs/sqs.md says how they are sent on")
    most = int(attributes.get("MaximumMessageSize", packing.most))
    if most < packing.most:
        yield Finding(
            "error",
            f"{name} takes messages up to {most} bytes, and {packing.most} are sent to it",
            f"open the store with max_message={most}, or raise its MaximumMessageSize",
        )
    if not side:
        yield from _redrive(name, attributes.get("RedrivePolicy"))


def _way_back(name: str, found: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    dead = found[DEAD].get("QueueArn", "")
    if not dead or not any(dead in each.get("RedrivePolicy", "") for each in found.values()):
        yield Finding(
            "warning",
            f"{name}: SQS moves nothing back from it, for no redrive policy names it",
            f"""give {name.removesuffix(DEAD)}{HELD} the RedrivePolicy {{"deadLetterTargetArn": "{dead}", """
            f'"maxReceiveCount": {REDRIVEN[HELD][1]}}}',
        )


def _redrive(name: str, policy: str | None) -> Iterator[Finding]:
    if not policy:
        yield Finding("ok", f"{name} has no redrive policy: nothing is moved aside but what a Runner holds")
        return
    try:
        receives = int(json.loads(policy)["maxReceiveCount"])
    except (KeyError, TypeError, ValueError):
        return
    if receives < _FEWEST:
        yield Finding(
            "warning",
            f"{name} is left by what was received {receives} times, before a Runner would hold it and say why",
            f"raise maxReceiveCount of its redrive policy to {_FEWEST} or more",
        )
