"""Two threads that submit on one connection, and what the one that fails takes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import overload

import pytest

from outbox.errors import ConflictError
from outbox.message import Message
from outbox.protocols import Intake
from outbox.testing.clauses.scene import mail

__all__ = ["require_turns"]

TURN = 0.5
"""Seconds in which the other thread would be done if it did not have to wait."""


class Slow(Sequence[Message]):
    """Messages that are read only once somebody else is done, or seems to wait for them."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages
        self.reading = threading.Event()
        self.other = threading.Event()

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        return self._messages[index]

    def __iter__(self) -> Iterator[Message]:
        self.reading.set()
        self.other.wait(TURN)
        return iter(self._messages)


def require_turns(intake: Intake) -> None:
    """One thread's put fails while another puts the message "beside", which has to be there in the end."""
    intake.put([mail("known")])
    slow = Slow([mail("known", "somebody.else@example.com")])

    def put_beside() -> None:
        slow.reading.wait(60)
        intake.put([mail("beside")])
        slow.other.set()

    with ThreadPoolExecutor(1) as threads:
        beside = threads.submit(put_beside)
        with pytest.raises(ConflictError):
            intake.put(slow)
        beside.result(60)
