"""What the tests of the Runner share: messages, a listener that can be waited for, a store that fails."""

import datetime as dt
import threading
from collections.abc import Callable, Sequence

from outbox.errors import StoreUnavailable
from outbox.events import Notice
from outbox.lifecycle import Claim, Settlement, State
from outbox.message import Message
from outbox.protocols import Exchanged
from outbox.stores.memory import MemoryStore

PATIENCE = 60.0
SECOND = dt.timedelta(seconds=1)


def a_message(
    number: int = 1, *, queue: str = "mail", recipients: Sequence[str] = ("to@example.org",)
) -> Message:
    return Message(
        id=f"m{number}", recipients=recipients, content=b"Subject: x\r\n\r\nc4narybody", queue=queue
    )


def the_state(store: MemoryStore, id: str) -> State | None:
    record = store.get(id)
    return record.summary.state if record else None


class Heard:
    """A listener that keeps what it was told, and can be waited for."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self._changed = threading.Condition()

    def __call__(self, notice: Notice) -> None:
        with self._changed:
            self.notices.append(notice)
            self._changed.notify_all()

    def wait_for(self, kind: type[Notice], number: int = 1) -> None:
        self.wait_until(lambda notices: sum(isinstance(n, kind) for n in notices) >= number)

    def wait_until(self, enough: Callable[[Sequence[Notice]], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self.notices), PATIENCE), self.notices


class FailingStore(MemoryStore):
    """A MemoryStore whose verbs fail as often as they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[str, int] = {}

    def _maybe_fail(self, verb: str) -> None:
        if self.failures.get(verb, 0):
            self.failures[verb] -= 1
            raise StoreUnavailable(f"{verb} failed: disk full")

    def claim(self, **settings: object) -> Sequence[Claim]:
        self._maybe_fail("claim")
        return super().claim(**settings)  # type: ignore[arg-type]  # passed on as they came

    def settle(self, settlements: Sequence[Settlement], /) -> Sequence[Claim]:
        self._maybe_fail("settle")
        return super().settle(settlements)

    def exchange(self, settlements: Sequence[Settlement], /, **settings: object) -> Exchanged:
        self._maybe_fail("settle")
        self._maybe_fail("claim")
        return super().exchange(settlements, **settings)  # type: ignore[arg-type]  # passed on as they came
