"""Runners (ten, in the long form), each a process of ``outbox run``, that keep the limit of one relay together; and what the relay saw of it."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import attrs
from started import PATIENCE, Started

from outbox.message import Message
from outbox.protocols import Store, SupportsPresence
from outbox.testing.smtp_sink import SMTPSink

__all__ = ["LONG", "PER_SECOND", "RUNNERS", "Seen", "seen_by_the_relay"]

LONG: Final = os.environ.get("OUTBOX_LIMITS") == "long"
PER_SECOND: Final = 200
RUNNERS: Final = 10 if LONG else 3
_TOGETHER: Final = 500
_LOOKS: Final = 0.05

_CONFIG: Final = """
workers = 2
queues = ["mail"]
[limits]
per_second = {per_second}
shared = true
"""


class Shared(Store, SupportsPresence, Protocol):
    """A store in which runners say that they are here."""


@attrs.frozen
class Seen:
    """When the messages came, in seconds since before the first runner began; and how many each runner sent."""

    at: Sequence[float]
    shares: Sequence[int]

    def passed(self) -> float:
        """By how many the relay had, at any moment, more than may have gone since the beginning; below 0: never.

        That holds however slow a machine is: what was let go comes later, and never sooner.
        """
        return max(number - PER_SECOND * (1 + at) for number, at in enumerate(self.at, 1))

    def rates(self, seconds: float, *, first: float) -> Sequence[float]:
        """Messages a second in each stretch of so many seconds, from *first* seconds behind the first message on."""
        begin, found = self.at[0] + first, []
        while begin + seconds <= self.at[-1]:
            found.append(sum(begin <= at < begin + seconds for at in self.at) / seconds)
            begin += seconds
        return found


def seen_by_the_relay(store: Shared, url: str, folder: Path, messages: int) -> Seen:
    """Start the runners, put so many, and wait for the last."""
    config = folder / "limits.toml"
    config.write_text(_CONFIG.format(per_second=PER_SECOND))
    with SMTPSink() as sink, _at_work(store, config, url, sink.url) as runners:
        begun = time.time()
        _fill(store, messages)
        try:
            received = sink.wait_for(messages, timeout=dt.timedelta(seconds=PATIENCE + messages / PER_SECOND))
        except TimeoutError as error:
            error.add_note(runners[0].err)
            raise
    at = sorted(each.at.timestamp() - begun for each in received)
    who = [each.greeting for each in received]
    return Seen(at, sorted(who.count(name) for name in set(who)))


def _fill(store: Store, messages: int) -> None:
    for first in range(0, messages, _TOGETHER):
        store.put(
            [
                Message(
                    id=f"m{number}",
                    sender="shop@example.org",
                    recipients=["ann@example.org"],
                    content=b"Subject: hello\r\n\r\nhello\r\n",
                )
                for number in range(first, min(first + _TOGETHER, messages))
            ]
        )


@contextlib.contextmanager
def _at_work(store: Shared, config: Path, url: str, relay: str) -> Iterator[Sequence[Started]]:
    """The runners, once all of them have said in the store that they are here."""
    env = {"OUTBOX_STORE": url}
    with contextlib.ExitStack() as stack:
        # Each calls itself something else, so that the relay knows them apart.
        yield [
            stack.enter_context(
                Started(
                    "--config",
                    str(config),
                    "--transport",
                    f"{relay}?local_hostname=r{number}.example",
                    env=env,
                )
            )
            for number in range(RUNNERS)
        ]
